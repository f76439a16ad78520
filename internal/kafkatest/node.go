package kafkatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/tidemark/tidemark/internal/child"
)

// Node is one broker of a Cluster. Its methods may be called from any goroutine.
type Node struct {
	ID int32 // Kafka's node.id, from 1

	dir   string // properties, data and log
	jars  string
	jvm   []string
	ports map[Listener]*port

	mu      sync.Mutex // guards the fields below
	process *process   // nil: down
}

// process is one life of a broker.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed after Wait
	err   error         // of Wait; to be read after ended
}

// Addr is where clients reach the broker without TLS and SASL.
func (n *Node) Addr() string { return n.ports[Plaintext].addr() }

// Log is the file with the broker's log; it grows over restarts.
func (n *Node) Log() string { return filepath.Join(n.dir, "server.log") }

// PID is the process ID of the broker's JVM, 0 while it is down.
func (n *Node) PID() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil || n.process.hasEnded() {
		return 0
	}
	return n.process.cmd.Process.Pid
}

// Ended is closed when the broker that is up now has ended, however it did. It is closed already while none is up.
func (n *Node) Ended() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		ended := make(chan struct{})
		close(ended)
		return ended
	}
	return n.process.ended
}

// Start starts the broker and does not wait for it; Cluster.WaitReady does. It fails if the broker is up.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil && !n.process.hasEnded() {
		return fmt.Errorf("start broker %d: it is up", n.ID)
	}
	log, err := os.OpenFile(n.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	cmd := java(n.jars, n.jvm, "kafka.Kafka", n.properties())
	cmd.Dir, cmd.Stdout, cmd.Stderr = n.dir, log, log
	if err := child.Start(cmd); err != nil {
		return fmt.Errorf("start broker %d: %w", n.ID, err)
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	n.process = p
	go func() {
		defer close(p.ended)
		p.err = cmd.Wait()
	}()
	return nil
}

// Kill ends the broker by SIGKILL and returns when it is gone. A broker that is down stays so.
func (n *Node) Kill() error { return n.end(context.Background(), syscall.SIGKILL) }

// Stop ends the broker in the clean way, leadership handed over first, and returns when it is gone; when the context ends
// before that, the broker is killed. A broker that is down stays so.
func (n *Node) Stop(ctx context.Context) error { return n.end(ctx, syscall.SIGTERM) }

func (n *Node) end(ctx context.Context, sig syscall.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.process
	if p == nil {
		return nil
	}
	if err := p.signal(sig); err != nil {
		return fmt.Errorf("%v to broker %d: %w", sig, n.ID, err)
	}
	var late error
	select {
	case <-p.ended:
	case <-ctx.Done():
		late = fmt.Errorf("broker %d did not stop and was killed: %w", n.ID, ctx.Err())
		if err := p.signal(syscall.SIGKILL); err != nil {
			return err
		}
		<-p.ended
	}
	n.process = nil
	return late
}

// Freeze stops the broker's clock: the process is suspended, its connections stay open.
func (n *Node) Freeze() error { return n.poke(syscall.SIGSTOP) }

// Thaw lets a frozen broker go on.
func (n *Node) Thaw() error { return n.poke(syscall.SIGCONT) }

func (n *Node) poke(sig syscall.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil || n.process.hasEnded() {
		return fmt.Errorf("%v to broker %d: it is down", sig, n.ID)
	}
	return n.process.signal(sig)
}

// signal tells the process, and takes one that has ended on its own for told.
func (p *process) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// died reports a broker that ended although nobody asked it to, with the end of its log.
func (n *Node) died() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil || !n.process.hasEnded() {
		return nil
	}
	return fmt.Errorf("broker %d ended: %v\n%s", n.ID, n.process.err, n.tail())
}

// tail is what the broker's log says of its end: its errors, or the last lines if it names none.
func (n *Node) tail() []byte {
	log, err := os.ReadFile(n.Log())
	if err != nil {
		return nil
	}
	if at := bytes.Index(log, []byte(" ERROR ")); at >= 0 {
		start := bytes.LastIndexByte(log[:at], '\n') + 1
		return head(log[start:], 25)
	}
	return tail(log, 25)
}

func head(text []byte, lines int) []byte {
	all := bytes.SplitAfterN(text, []byte("\n"), lines+1)
	return bytes.Join(all[:min(lines, len(all))], nil)
}

func (n *Node) properties() string { return filepath.Join(n.dir, "server.properties") }

// format gives an empty data directory its cluster ID and first metadata, as the broker asks for it.
func (n *Node) format(ctx context.Context, clusterID string, extra []string) error {
	args := append([]string{"kafka.tools.StorageTool", "format", "-t", clusterID, "-c", n.properties()}, extra...)
	cmd := java(n.jars, n.jvm, args...)
	cmd.Dir = n.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := child.Start(cmd); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("format the data directory of broker %d: %w\n%s", n.ID, err, tail(out.Bytes(), 20))
	}
	return nil
}

func java(jars string, jvm []string, args ...string) *exec.Cmd {
	return exec.Command("java", slices.Concat(jvm, []string{"-Djava.awt.headless=true", "-Dlog4j2.configurationFile=log4j2.properties", "-cp", filepath.Join(jars, "*")}, args)...)
}

func tail(text []byte, lines int) []byte {
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return []byte(strings.Join(all[max(0, len(all)-lines):], "\n"))
}
