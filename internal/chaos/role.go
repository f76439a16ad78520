package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/processor"
)

// The subjects of a run.
const (
	Tidemark = "tidemark"
	Stock    = "stock"
)

// taskEnv carries a child's task. A program that calls Run must call ServeChild first thing in main.
const taskEnv = "TIDEMARK_CHAOS_TASK"

// task is what a child is to be.
type task struct {
	Subject   string
	Brokers   []string
	Job       string
	Instance  string
	Dir       string
	Orders    string // a file: see orders
	SessionMs int64
}

// ServeChild makes this process a processor, and does not return, if Run started it as one.
func ServeChild() {
	text, ok := os.LookupEnv(taskEnv)
	if !ok {
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var t task
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		log.Error("read the task", "cause", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := t.run(ctx, log)
	stop()
	if err != nil {
		log.Error("ended", "cause", err)
		os.Exit(1)
	}
	log.Info("ended")
	os.Exit(0)
}

func (t *task) run(ctx context.Context, log *slog.Logger) error {
	log.Info("started", "pid", os.Getpid(), "subject", t.Subject, "instance", t.Instance)
	switch t.Subject {
	case Tidemark:
		return t.runTidemark(ctx, log)
	case Stock:
		return t.runStock(ctx, log)
	default:
		return fmt.Errorf("no subject %q", t.Subject)
	}
}

func (t *task) runTidemark(ctx context.Context, log *slog.Logger) error {
	rs, err := loadJob(t.Job)
	if err != nil {
		return err
	}
	o := &orders{path: t.Orders, log: log}
	o.listen()
	session := time.Duration(t.SessionMs) * time.Millisecond
	p, err := processor.New(processor.Config{
		Rules:    rs,
		Kafka:    &eos.Kafka{Brokers: t.Brokers, ClientID: t.Instance, SessionTimeout: session},
		StateDir: t.Dir,
		Instance: t.Instance,
		Logger:   log,
		Unit:     eos.Config{SessionTimeout: session, Trace: o.at},
	})
	if err != nil {
		return err
	}
	return p.Run(ctx)
}
