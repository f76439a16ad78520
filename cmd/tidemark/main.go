// Command tidemark keeps flags and running totals for every ID in an event stream. Each verb is a file here; this is the
// only package that reads flags, files and the environment, and that prints.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

func main() {
	ctx, stop := signals()
	code := run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// signals ends the context at the first SIGINT or SIGTERM, and the process at the second.
func signals() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	heard := make(chan os.Signal, 2)
	signal.Notify(heard, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-heard
		signal.Stop(heard) // the second one kills
		cancel()
	}()
	return ctx, cancel
}

// stdio is what a run reads and prints to.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// cli is the grammar of the command line.
type cli struct {
	globals

	Demo    demoCmd    `cmd:"" help:"See it work: real events, flags and why they were raised, in one process."`
	Check   checkCmd   `cmd:"" help:"Check a job file and say in words what it means."`
	Run     runCmd     `cmd:"" help:"Run the processor of a job."`
	View    viewCmd    `cmd:"" help:"Serve the states of a job over HTTP."`
	Produce produceCmd `cmd:"" help:"Write events into the job's input topic."`
	Get     getCmd     `cmd:"" help:"Print the states of some IDs as JSON."`
	List    listCmd    `cmd:"" help:"Print the IDs."`
	Dump    dumpCmd    `cmd:"" help:"Print all states as NDJSON, in ID order."`
	Verify  verifyCmd  `cmd:"" help:"Fold the input again and compare every ID with the committed state."`
	Token   tokenCmd   `cmd:"" help:"Make a token for those who ask a view."`
	Topics  topicsCmd  `cmd:"" help:"Show, create and check the topics of a job."`

	Version kong.VersionFlag `help:"Print the version."`
}

const description = `Flags and running totals for every ID in a Kafka event stream, exactly once.

  tidemark demo                                     see it work, with nothing set up
  tidemark check --job job.yaml                     what a job file means
  tidemark run   --job job.yaml --brokers k1:9092   run it
  tidemark get   --job job.yaml --brokers k1:9092 85.245.107.41

Exit codes: 0 done; 1 something that you can mend, said in one line; 2 the environment (broker away, disk full);
3 a guarantee would be broken, nothing was changed.`

// app is one run of the program.
type app struct {
	*globals
	stdio
	ctx context.Context
}

// ended carries kong's wish to exit (after --help and --version) up to run.
type ended int

// run is the program: it returns the exit code.
func run(ctx context.Context, args []string, io stdio) (code int) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case ended:
			code = int(p)
		default:
			panic(p)
		}
	}()
	var grammar cli
	parser, err := kong.New(
		&grammar,
		kong.Name("tidemark"), kong.Description(description),
		kong.Writers(io.out, io.err), kong.Exit(func(code int) { panic(ended(code)) }),
		kong.Vars{"version": "tidemark " + version(), "listen": listenDefault},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
	)
	if err != nil {
		panic(err)
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return report(io.err, usageOf(err))
	}
	a := &app{globals: &grammar.globals, stdio: io, ctx: ctx}
	return report(io.err, parsed.Run(a))
}

// usageOf names the help that tells what is missing.
func usageOf(err error) error {
	help := "tidemark --help"
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil && parse.Context.Selected() != nil {
		help = "tidemark " + parse.Context.Selected().Name + " --help"
	}
	return &usage{fmt.Errorf("%w: see `%s`", err, help)}
}

// version is that of the module, and the commit where the build knows it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	v := info.Main.Version
	if v == "" {
		v = "(devel)"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			v += " " + s.Value[:12]
		}
	}
	return v
}
