//go:build simruntime

package eos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/lovoo/goka"
	"github.com/tidemark/tidemark/internal/sim"
)

// noLocks is a directory without LevelDB's lock files, which belong to the process that holds them.
type noLocks struct{ fs.FS }

func (n noLocks) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(n.FS, name)
	var kept []fs.DirEntry
	for _, e := range list {
		if e.Name() != "LOCK" {
			kept = append(kept, e)
		}
	}
	return kept, err
}

// simSlot is an instance of the job: one life after the other, over the same local state.
type simSlot struct {
	w    *simWorld
	name string
	dir  string
	stop chan struct{} // closed when the last life is to end well
}

// simLife is one process of an instance.
type simLife struct {
	slot    *simSlot
	process *sim.Process
	unit    *Unit
	cancel  context.CancelFunc
	ended   chan struct{} // closed when Goka's Run has returned and everything is closed

	mu      sync.Mutex // guards the fields below
	steps   int        // until its end
	last    string     // step
	freeze  bool       // it is frozen there, not killed
	killed  chan struct{}
	dead    bool
	nextDir string
}

// live runs lives until the history is over, then ends the last one well.
func (s *simSlot) live(ghosts *sync.WaitGroup) {
	for {
		l, err := s.begin()
		if err != nil {
			s.w.find("%s does not start: %v", s.name, err)
			return
		}
		death := time.After(l.lifetime())
		select {
		case <-s.stop:
			l.endWell()
			return
		case <-death:
			switch {
			case s.w.isDraining():
				<-s.stop
				l.endWell()
				return
			case s.w.chance(0.2):
				l.endWell()
				s.w.count(func() { s.w.stops++ })
			default:
				l.crash("")
			}
		case <-l.killed:
		case <-l.ended:
			err := l.unit.Err()
			s.w.trace(fmt.Sprintf("%d %s ended by itself: %v", time.Now().UnixMicro(), s.name, err))
			var stopped *FailStop
			if errors.As(err, &stopped) || err == nil {
				s.w.find("%s stopped for good: %v", s.name, err)
				<-s.stop
				return
			}
		}
		s.dir = l.nextDir
		ghosts.Go(func() {
			<-l.ended
			_ = os.RemoveAll(l.unit.cfg.Dir)
		})
		time.Sleep(s.w.exponential(2 * time.Second))
	}
}

// begin starts a process.
func (s *simSlot) begin() (*simLife, error) {
	w := s.w
	l := &simLife{slot: s, process: w.c.NewProcess(s.name), killed: make(chan struct{}), ended: make(chan struct{}), nextDir: s.dir, last: "start"}
	l.steps = -1
	if w.chance(0.85) {
		l.steps, l.freeze = w.uniform(w.plan.steps), w.chance(w.plan.freezes)
	}
	w.trace(fmt.Sprintf("%d %s begins", time.Now().UnixMicro(), s.name))
	cfg := Config{
		Kafka: &Kafka{Brokers: w.c.Addrs(), Dial: l.process.Dial}, Names: w.names, Input: w.input, Instance: s.name, Digest: "d", Dir: s.dir,
		Codec: simCodec{}, NewHandler: w.handler, SessionTimeout: w.plan.session, TransactionTimeout: w.plan.transaction,
		Trace: l.step, diskBufferBytes: 64 << 10, weak: w.weak, noteHere: simJob,
	}
	if os.Getenv("EOS_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("unit", s.name)
	}
	u, err := New(cfg)
	if err != nil {
		return nil, err
	}
	l.unit = u
	graph := goka.DefineGroup(goka.Group(w.names.Group()),
		goka.Input(goka.Stream(w.input), u.BatchCodec(), u.Callback),
		goka.Loop(u.BatchCodec(), u.Callback), goka.Persist(u.TableCodec()))
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go func() {
		defer close(l.ended)
		for ctx.Err() == nil && u.Err() == nil {
			proc, err := goka.NewProcessor(w.c.Addrs(), graph, u.Options()...)
			if err == nil {
				err = proc.Run(ctx)
			}
			if ctx.Err() == nil && u.Err() == nil {
				w.trace(fmt.Sprintf("%d %s: %v", time.Now().UnixMicro(), s.name, err))
				time.Sleep(time.Second)
			}
		}
		_ = u.Close()
	}()
	return l, nil
}

// lifetime is after how long the process dies wherever it may be, if it has not at a step.
func (l *simLife) lifetime() time.Duration {
	w := l.slot.w
	if w.chance(0.15) {
		return w.exponential(w.plan.session)
	}
	return w.exponential(w.plan.life)
}

// step is the unit's Trace: here a process dies or freezes.
func (l *simLife) step(name string) {
	l.mu.Lock()
	if l.dead {
		l.mu.Unlock()
		return
	}
	l.slot.w.trace(fmt.Sprintf("%d %s: %s", time.Now().UnixMicro(), l.slot.name, name))
	l.last = name
	now := l.steps == 0 && !l.slot.w.isDraining()
	l.steps--
	l.mu.Unlock()
	if name == "flushed" && l.slot.w.chance(0.2) {
		l.unit.writeOut()
	}
	switch {
	case now && l.freeze:
		l.frozen(name)
	case now:
		l.crash(name)
	}
}

func (l *simLife) frozen(step string) {
	w := l.slot.w
	d := time.Duration(float64(w.plan.session) * (0.2 + 4*float64(w.uniform(100))/100))
	w.trace(fmt.Sprintf("%d %s freezes for %v: %s", time.Now().UnixMicro(), l.slot.name, d, step))
	w.count(func() { w.freezes++ })
	l.process.Freeze()
	time.Sleep(d)
	l.process.Thaw()
}

// writeOut has LevelDB write what it holds in memory, as it does by itself when that grows.
func (u *Unit) writeOut() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(u.disks)) {
		d := u.disks[id].disk
		d.mu.Lock()
		_ = d.flush()
		d.mu.Unlock()
	}
}

// crash kills the process, at a step or (with none) between two: the network is cut, and what its local state holds at this moment is what the next life gets.
func (l *simLife) crash(step string) {
	w := l.slot.w
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return
	}
	l.dead = true
	if step == "" {
		step = "between " + l.last + " and the next step"
	}
	w.trace(fmt.Sprintf("%d %s crashes: %s", time.Now().UnixMicro(), l.slot.name, step))
	w.count(func() { w.crashes[step]++; w.crashed++ })
	l.process.Kill(func() bool { return w.chance(0.5) })
	from := l.unit.cfg.Dir
	if w.chance(0.1) {
		from = "" // with its disk
	}
	l.nextDir = w.newDir(from)
	l.cancel()
	close(l.killed)
}

// endWell stops the process as a person does.
func (l *simLife) endWell() {
	l.cancel()
	<-l.ended
	l.mu.Lock()
	l.dead = true
	l.mu.Unlock()
	l.nextDir = l.slot.w.newDir(l.unit.cfg.Dir)
}
