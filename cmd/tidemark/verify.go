package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/tidemark/tidemark/ops"
)

// verifyCmd proves the state.
type verifyCmd struct {
	TempDir string `placeholder:"DIR" help:"Where the folded table lies meanwhile; it needs twice the table's size. Default: the system's."`
}

func (*verifyCmd) Help() string {
	return `Reads the committed state, folds the input again from where the job began up to the committed positions, and compares
every ID in every byte. The job may go on meanwhile. IDs with events that came over the loop are compared in what does not
depend on the order of events. Exit code 0: nothing differs; 3: something does, and the first ID is named; others: it could
not tell.`
}

// Run prints what was compared, or what differs.
func (c *verifyCmd) Run(a *app) (err error) {
	conn, err := a.connect(mayStart)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.close()) }()
	conn.job.TempDir = c.TempDir
	show := a.progress(false)
	phases := map[string]string{"table": "reading " + conn.job.Names.Table(), "input": "folding " + conn.job.Input}
	start := time.Now()
	report, err := conn.job.Verify(a.ctx, conn.rules, func(phase string, done, total int64) { show.tell(phases[phase], done, total) })
	show.end()
	if err != nil {
		return err
	}
	took := time.Since(start)
	fmt.Fprintf(a.out, "folded %s events again in %s (%s a second): %s refused, %s over the loop\n", grouped(report.Events),
		took.Round(time.Millisecond), grouped(int64(float64(report.Events)/took.Seconds())), grouped(report.Refused), grouped(report.Rekeyed))
	printCompared(a, report)
	a.asOf(conn.job.Input, report.Places)
	if report.Differ > 0 {
		return said(exitFailStop)
	}
	return nil
}

func printCompared(a *app, report *ops.VerifyReport) {
	if report.Differ == 0 {
		fmt.Fprintf(a.out, "%s of %s IDs are as the input says, in every byte\n", grouped(report.Whole), grouped(report.IDs))
	} else {
		fmt.Fprintf(a.out, "DIFFERENT: %s of %s IDs are not what the input says; the first is %s\n", grouped(report.Differ), grouped(report.IDs), visible(report.First.String()))
	}
	if report.OrderFree > 0 {
		fmt.Fprintf(a.out, "%s IDs had events over the loop: compared in what does not depend on order\n", grouped(report.OrderFree))
	}
	if report.NotCompared > 0 {
		fmt.Fprintf(a.out, "%s IDs could not be compared: a rule refused events of theirs that came over the loop\n", grouped(report.NotCompared))
	}
}
