package watchers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/child"
	"github.com/tidemark/tidemark/processor"
	"github.com/tidemark/tidemark/view"
)

// taskEnv carries a child's task. A program that calls Run or Stall must call ServeChild first thing in main.
const taskEnv = "TIDEMARK_WATCHERS_TASK"

// task is what a child is to be: the processor, or a view.
type task struct {
	Brokers []string
	Job     string
	Dir     string
	View    bool
}

// ServeChild makes this process a child, and does not return, if it was started as one.
func ServeChild() {
	text, ok := os.LookupEnv(taskEnv)
	if !ok {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	var t task
	err := json.Unmarshal([]byte(text), &t)
	if err == nil {
		err = t.run(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "ended:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (t *task) run(ctx context.Context) error {
	rs, err := loadJob(t.Job)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	k := &eos.Kafka{Brokers: t.Brokers, ClientID: filepath.Base(t.Dir)}
	if !t.View {
		p, err := processor.New(processor.Config{Rules: rs, Kafka: k, StateDir: t.Dir, Instance: filepath.Base(t.Dir), Logger: log})
		if err != nil {
			return err
		}
		fmt.Println("started")
		return p.Run(ctx)
	}
	registry := prometheus.NewRegistry()
	v, err := view.New(view.Config{
		Kafka: k, Names: eos.Names{Job: t.Job}, Input: rs.Job().Input.Topic, Schema: rs.Schema(), Dir: t.Dir, Logger: log, Metrics: registry,
		Watch: view.WatchConfig{PerClientMax: 20_000}, // all watchers come from one address here
	})
	if err != nil {
		return err
	}
	return serve(ctx, v, registry)
}

// inFlightBytes is what lies between a view and one who takes nothing.
const inFlightBytes = 64 << 10

// serve says on standard output where the view answers.
func serve(ctx context.Context, v *view.View, registry *prometheus.Registry) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("/", v.Handler())
	server := &http.Server{Handler: mux, Protocols: &http.Protocols{}, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		// The kernel would take megabytes for who takes nothing; here it is the view that has to bear it.
		_ = c.(*net.TCPConn).SetWriteBuffer(inFlightBytes)
		return ctx
	}}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	fmt.Println("http://" + l.Addr().String())
	err = v.Run(ctx)
	err = errors.Join(err, server.Close())
	<-served
	return err
}

// process is one child.
type process struct {
	cmd  *exec.Cmd
	said string // its first line
}

// start starts a child and waits for its first line.
func start(t task) (*process, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(t.Dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(self)
	cmd.Env, cmd.Stderr = append(os.Environ(), taskEnv+"="+string(text)), log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := child.Start(cmd); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("start %s: it said nothing (%w); see %s.log", t.Dir, cmd.Wait(), t.Dir)
	}
	return &process{cmd, strings.TrimSpace(line)}, nil
}

// end ends the child by a signal and waits for it. After SIGTERM it must have ended well.
func (p *process) end(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return err
	}
	if err := p.cmd.Wait(); err != nil && sig != syscall.SIGKILL {
		return fmt.Errorf("%v: %w", p.cmd.Process.Pid, err)
	}
	return nil
}
