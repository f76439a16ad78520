package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/broker"
	"github.com/tidemark/tidemark/ops"
	"github.com/tidemark/tidemark/rules"
)

// The exit codes.
const (
	exitDone        = 0
	exitUser        = 1
	exitEnvironment = 2
	exitFailStop    = 3
)

// usage is a command line, a job file or an argument that the user can mend.
type usage struct{ error }

func (u *usage) Unwrap() error { return u.error }

func usagef(format string, args ...any) error { return &usage{fmt.Errorf(format, args...)} }

// said is an exit code whose reason was printed already.
type said int

func (s said) Error() string { return fmt.Sprintf("exit code %d", int(s)) }

// exitCode maps every error to the code that product documentation gives.
func exitCode(err error) int {
	var (
		stop    *eos.FailStop
		user    *usage
		problem *ops.Problem
		faults  *rules.Faults
		quiet   said
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &quiet):
		return int(quiet)
	case errors.As(err, &stop):
		return exitFailStop
	case errors.As(err, &user), errors.As(err, &problem), errors.As(err, &faults):
		return exitUser
	case errors.Is(err, eos.ErrInstanceTaken), errors.Is(err, eos.ErrLocked), errors.Is(err, eos.ErrUnknownTopic), isDenied(err):
		return exitUser
	}
	return exitEnvironment
}

func isDenied(err error) bool {
	for _, code := range []error{
		kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.TransactionalIDAuthorizationFailed, kerr.SaslAuthenticationFailed,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// mend is what to do about errors that do not say it themselves.
func mend(err error) string {
	var fault *broker.Fault
	switch {
	case errors.As(err, &fault) && (errors.Is(fault, syscall.ENOSPC) || errors.Is(fault, syscall.EDQUOT)):
		return "make room, and start it again: it goes on from what was acknowledged"
	case errors.As(err, &fault):
		return "see to the disk, and start it again: it goes on from what was acknowledged"
	case errors.Is(err, eos.ErrInstanceTaken):
		return "end the other one, or give this one another --instance and --state"
	case isDenied(err):
		return "`tidemark topics` prints the ACLs that the job needs"
	case errors.Is(err, context.Canceled):
		return "it was interrupted"
	case errors.Is(err, os.ErrPermission):
		return "check the owner and the mode of the directory"
	}
	return ""
}

// report prints an error in one line with what mends it, a job file's faults in one line each, and returns the exit code.
func report(w io.Writer, err error) int {
	var fault *broker.Fault
	if errors.As(err, &fault) {
		err = fault // what else went wrong did so because of it
	}
	code := exitCode(err)
	var quiet said
	if code == exitDone || errors.As(err, &quiet) {
		return code
	}
	var file *jobFaults
	if errors.As(err, &file) {
		for _, f := range *file.faults {
			fmt.Fprintln(w, visible(fmt.Sprintf("%s:%s", file.name, f)))
		}
		return code
	}
	line := err.Error()
	if m := mend(err); m != "" {
		line += ": " + m
	}
	if code == exitFailStop {
		line = "stopped, nothing was changed: " + line
	}
	fmt.Fprintf(w, "tidemark: %s\n", visible(strings.ReplaceAll(line, "\n", "; ")))
	return code
}

// jobFaults are the faults of a job file, and its name.
type jobFaults struct {
	name   string
	faults *rules.Faults
}

func (j *jobFaults) Error() string { return j.name + ": " + j.faults.Error() }
func (j *jobFaults) Unwrap() error { return j.faults }
