package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/ops"
)

// topicsCmd shows, creates and checks the topics of a job.
type topicsCmd struct {
	Create      bool          `help:"Create the topics that do not exist. Nothing that exists is changed."`
	Partitions  int32         `placeholder:"N" help:"Partitions of an input topic that does not exist yet; table and loop follow it."`
	Replication int16         `placeholder:"N" help:"Replicas of what is created, and least number asked of the rest. Default: 3, or the number of brokers if there are fewer."`
	Retention   time.Duration `placeholder:"DURATION" help:"Retention of an input topic that is created, such as 720h. Default: without end, so that verify can begin at the beginning."`
	Why         bool          `help:"Say what each setting is for."`
	ACLs        bool          `name:"acls" help:"Print the options of kafka-acls for everything that the job needs."`
}

func (*topicsCmd) Help() string {
	return `Looks at the five topics of the job (input, table, loop, flags, dead letters), prints their settings as they are,
and every setting that weakens or breaks a guarantee, with the command that mends it. Exit code 0: they are in order, or
differ where no guarantee hangs on it; 1: some do not exist; 3: with one of them a guarantee would be broken.`
}

// Run prints the report.
func (c *topicsCmd) Run(a *app) error {
	if c.Partitions < 0 || c.Replication < 0 || c.Retention < 0 {
		return usagef("--partitions, --replication and --retention cannot be negative")
	}
	conn, err := a.connect(mayStart)
	if err != nil {
		return err
	}
	defer conn.close()
	plan := conn.plan(c.Partitions, c.Replication)
	plan.InputRetention = c.Retention
	report, err := ops.Topics(a.ctx, conn.kafka, plan, c.Create)
	if err != nil {
		return err
	}
	for _, name := range report.Created {
		fmt.Fprintf(a.out, "created %s\n", name)
	}
	printTopics(a.out, report, c.Why)
	if c.ACLs {
		printACLs(a.out, report.ACLs)
	}
	return printFaults(a.out, report.Faults)
}

func printTopics(w io.Writer, report *ops.TopicsReport, why bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TOPIC\tIS\tPARTITIONS\tREPLICAS")
	for _, s := range report.Topics {
		if s.Exists {
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\n", s.Name, s.Role, s.Partitions, s.Replication)
		} else {
			fmt.Fprintf(t, "%s\t%s\tdoes not exist\t\n", s.Name, s.Role)
		}
	}
	t.Flush()
	for _, s := range report.Topics {
		fmt.Fprintf(w, "\n%s\n", s.Name)
		for _, want := range s.Settings {
			line := want.Key + "="
			have, known := s.Config[want.Key]
			switch {
			case !s.Exists:
				line += want.Value + "  (to be created with)"
			case !known:
				line += "?  (the broker does not tell)"
			case have == want.Value:
				line += have
			default:
				line += fmt.Sprintf("%s  (created with %s)", have, want.Value)
			}
			fmt.Fprintf(w, "  %s\n", line)
			if why {
				fmt.Fprintf(w, "      %s\n", want.Why)
			}
		}
	}
}

func printACLs(w io.Writer, acls []eos.ACL) {
	fmt.Fprintf(w, "\nPermissions, each as options of `kafka-acls --add --allow-principal User:NAME`\n")
	verb := ""
	for _, acl := range acls {
		if acl.For != verb {
			verb = acl.For
			fmt.Fprintf(w, "  %s\n", verb)
		}
		fmt.Fprintf(w, "    %s\n", acl)
	}
}

// printFaults prints every fault with its mend; its error carries the exit code alone.
func printFaults(w io.Writer, faults []eos.TopicFault) error {
	if len(faults) == 0 {
		fmt.Fprintln(w, "\nEverything is as it should be.")
		return nil
	}
	code := exitDone
	fmt.Fprintln(w)
	for _, f := range faults {
		kind := "weaker"
		switch {
		case f.Missing:
			kind, code = "missing", max(code, exitUser)
		case f.Breaks:
			kind, code = "BROKEN", exitFailStop
		}
		fmt.Fprintf(w, "%s: %s\n%s%s\n", kind, f.Fault, strings.Repeat(" ", len(kind)+2), f.Mend)
	}
	if code == exitDone {
		return nil
	}
	return said(code)
}
