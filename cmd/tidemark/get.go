package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/tidemark/tidemark/rules"
)

// getCmd prints the states of some IDs.
type getCmd struct {
	IDs   []string `arg:"" optional:"" name:"id" help:"The IDs, byte for byte."`
	Stdin bool     `help:"Read IDs from standard input too, one a line. A line that begins with a quotation mark is a JSON string, for IDs with odd bytes; list prints them so."`
	asking
}

func (*getCmd) Help() string {
	return `Prints one state a line as JSON, in the order asked, and on standard error as of which input positions they are.
From Kafka it reads the partitions of these IDs alone. An ID of which no event was counted is named on standard error, and
the exit code is then 1.`
}

// Run prints the states.
func (c *getCmd) Run(a *app) (err error) {
	if c.Stdin {
		if c.IDs, err = readIDs(a.in, c.IDs); err != nil {
			return err
		}
	}
	if len(c.IDs) == 0 {
		return usagef("no ID: name some, or say --stdin and give one a line")
	}
	for _, id := range c.IDs {
		if id == "" || len(id) > rules.IDBytesMax {
			return usagef("an ID has 1 to %d bytes; %.20q… has %d", rules.IDBytesMax, id, len(id))
		}
	}
	r, err := c.open(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	report, err := r.get(a.ctx, c.IDs)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(a.out)
	missing := false
	for i, state := range report.States {
		if state == nil {
			missing = true
			fmt.Fprintf(a.err, "tidemark: no event of ID %s was counted\n", showID(c.IDs[i]))
			continue
		}
		out.WriteString(visible(string(state)) + "\n")
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	a.asOf(r.input(), report.Places)
	if missing {
		return said(exitUser)
	}
	return nil
}

// readIDs adds the IDs of the lines.
func readIDs(r io.Reader, ids []string) ([]string, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		id := lines.Text()
		if strings.HasPrefix(id, `"`) {
			if err := json.Unmarshal(lines.Bytes(), &id); err != nil {
				return nil, usagef("standard input, line %d begins as a JSON string and is none: %w", n, err)
			}
		}
		if id != "" {
			ids = append(ids, id)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, usagef("standard input: %w", err)
	}
	return ids, nil
}

// showID writes an ID as a line: as it is where that is unmistakable, as a JSON string otherwise.
func showID(id string) string {
	if !strings.HasPrefix(id, `"`) && visible(id) == id {
		return id
	}
	quoted, err := json.Marshal(id)
	if err != nil {
		panic(err) // a string always can be
	}
	return visible(string(quoted))
}
