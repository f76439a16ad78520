package main

import (
	"bufio"
	"errors"
	"fmt"

	"github.com/tidemark/tidemark/ops"
)

// filtering chooses IDs.
type filtering struct {
	Prefix string `placeholder:"TEXT" help:"Only IDs that begin so."`
	Flag   string `placeholder:"NAME" help:"Only IDs that bear this flag."`
}

// listCmd prints IDs.
type listCmd struct {
	filtering
	asking
}

func (*listCmd) Help() string {
	return `Prints one ID a line in byte order, and on standard error as of which input positions. IDs with line ends and the
like are printed as JSON strings; ` + "`tidemark get --stdin`" + ` reads them back.`
}

// Run prints the IDs.
func (c *listCmd) Run(a *app) (err error) {
	r, err := c.open(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	out := bufio.NewWriterSize(a.out, 1<<16)
	report, err := r.list(a.ctx, ops.Filter(c.filtering), func(id string) error {
		out.WriteString(showID(id))
		return out.WriteByte('\n')
	})
	return a.scanned(r, out, report, err)
}

// scanned ends a list or a dump: what is buffered, and as of when it is.
func (a *app) scanned(r reader, out *bufio.Writer, report *ops.ScanReport, err error) error {
	if err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	fmt.Fprintf(a.err, "%s, ", counted(report.IDs, "ID"))
	a.asOf(r.input(), report.Places)
	return nil
}
