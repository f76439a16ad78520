package main

import (
	"bufio"
	"errors"

	"github.com/tidemark/tidemark/ops"
)

// dumpCmd prints all states.
type dumpCmd struct {
	filtering
	asking
}

func (*dumpCmd) Help() string {
	return `Prints one state a line as JSON, in byte order of the IDs, and on standard error as of which input positions. From
Kafka each partition is as of one commit; from a view each page is.`
}

// Run prints the states.
func (c *dumpCmd) Run(a *app) (err error) {
	r, err := c.open(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	out := bufio.NewWriterSize(a.out, 1<<16)
	report, err := r.dump(a.ctx, ops.Filter(c.filtering), func(line []byte) error {
		out.WriteString(visible(string(line)))
		return out.WriteByte('\n')
	})
	return a.scanned(r, out, report, err)
}
