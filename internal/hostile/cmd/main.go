// Command cmd is hostile to a view for some minutes, and reports what a well-behaved client noticed of it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/internal/hostile"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx)
	stop()
	os.Exit(code)
}

func run(ctx context.Context) int {
	cfg := hostile.Config{Log: os.Stdout}
	flag.StringVar(&cfg.Binary, "tidemark", "bin/tidemark", "the program")
	flag.DurationVar(&cfg.For, "for", 10*time.Minute, "how long it is hostile")
	flag.DurationVar(&cfg.Calm, "calm", 20*time.Second, "how long it is calm, before and afterwards")
	flag.DurationVar(&cfg.P99Max, "p99-max", 500*time.Millisecond, "the most that the well-behaved client's p99 may be under attack")
	flag.Parse()
	report, err := hostile.Run(ctx, cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		return 2
	}
	report.Print(os.Stdout)
	if len(report.Faults()) > 0 {
		return 1
	}
	return 0
}
