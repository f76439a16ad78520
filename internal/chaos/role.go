package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/processor"
	"github.com/tidemark/tidemark/view"
)

// The subjects of a run.
const (
	Tidemark = "tidemark"
	Stock    = "stock"

	viewer = "view" // of a task alone
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
	Orders    string            // a file: see orders
	Addr      string            // a file in which a view says where it listens
	Via       map[string]string // where each broker is reached; empty: at its own address
	SessionMs int64
	Seed      uint64

	LoseReplies float64
	Careless    bool
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
	case viewer:
		return t.runView(ctx, log)
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
	k := t.kafka(log)
	p, err := processor.New(processor.Config{
		Rules:    rs,
		Kafka:    k,
		StateDir: t.Dir,
		Instance: t.Instance,
		Logger:   log,
		Unit: eos.Config{
			SessionTimeout: k.SessionTimeout, Trace: o.at,
			Storage: func(s storage.Storage) storage.Storage { return disk{s, o} },
		},
	})
	if err != nil {
		return err
	}
	return p.Run(ctx)
}

// kafka is how the child reaches the brokers.
func (t *task) kafka(log *slog.Logger) *eos.Kafka {
	k := &eos.Kafka{Brokers: t.Brokers, ClientID: t.Instance, SessionTimeout: time.Duration(t.SessionMs) * time.Millisecond}
	if len(t.Via) > 0 {
		k.Dial = t.dial
	}
	if t.LoseReplies > 0 {
		k.Dial = (&replies{dial: t.dial, share: t.LoseReplies, log: log, seed: t.Seed}).Dial
	}
	return k
}

func (t *task) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	if via, ok := t.Via[address]; ok {
		address = via
	}
	return d.DialContext(ctx, network, address)
}

// runView serves a view at a port of its own, and writes down where.
func (t *task) runView(ctx context.Context, log *slog.Logger) error {
	rs, err := loadJob(t.Job)
	if err != nil {
		return err
	}
	v, err := view.New(view.Config{
		Kafka: t.kafka(log), Names: eos.Names{Job: t.Job}, Input: rs.Job().Input.Topic, Schema: rs.Schema(), Dir: t.Dir, Logger: log,
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: v.Handler(), Protocols: &http.Protocols{}}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true) // gRPC
	if t.Careless {
		server.Handler = careless(server.Handler)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	if err := os.WriteFile(t.Addr+".new", []byte(l.Addr().String()), 0o644); err != nil {
		return err
	}
	if err := os.Rename(t.Addr+".new", t.Addr); err != nil {
		return err
	}
	err = v.Run(ctx)
	err = errors.Join(err, server.Close())
	<-served
	return err
}
