package main

import (
	"fmt"
	"io"
	"strings"
)

// checkCmd checks a job file and says what it means.
type checkCmd struct {
	File string `arg:"" optional:"" help:"The job file, instead of --job."`
}

func (*checkCmd) Help() string {
	return `Reads the job file alone, and asks no broker. Every fault is named at once as FILE:LINE:COLUMN, and the exit code is
then 1. Without faults it prints in words what is read, what each total and each flag means, the digest under which the
rules are recorded, and what one ID costs in entries and bytes.`
}

// Run prints the meaning, or fails with every fault.
func (c *checkCmd) Run(a *app) error {
	if c.File != "" {
		if a.Job != "" && a.Job != c.File {
			return usagef("two job files: %s and --job %s: name one", c.File, a.Job)
		}
		a.Job = c.File
	}
	rs, err := a.rules()
	if err != nil {
		return err
	}
	var meaning strings.Builder
	if err := rs.Describe(&meaning); err != nil {
		return err
	}
	lines := strings.Split(meaning.String(), "\n")
	for i := range lines {
		lines[i] = visible(lines[i])
	}
	if _, err := io.WriteString(a.out, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
