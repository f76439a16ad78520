package eos

import (
	"strings"
	"testing"
	"time"
)

// Local state that stays open while its partition is elsewhere ages like state of a stopped process.
func TestUnit_OpenLocalStateThatGrewTooOldIsBegunAnew(t *testing.T) {
	for maxAge, fresh := range map[time.Duration]bool{time.Hour: true, 20 * time.Millisecond: false} {
		u, err := New(Config{
			Kafka: &Kafka{Brokers: []string{"127.0.0.1:1"}}, Names: Names{Job: "j"}, Input: "in", Instance: "a", Dir: t.TempDir(),
			Codec: sumCodec{}, NewHandler: sumHandler(Names{Job: "j"}), LocalStateMaxAge: maxAge,
		})
		if err != nil {
			t.Fatalf("new: %v", err)
		}
		first, err := u.disk(0, [16]byte{1})
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		eventually(t, time.Minute, "the state ages", func() bool { return time.Since(first.disk.AsOf()) > 40*time.Millisecond })
		second, err := u.disk(0, [16]byte{1})
		if err != nil {
			t.Fatalf("open again: %v", err)
		}
		if got := first == second; got != fresh {
			t.Errorf("maximal age %s: the open state was used again: %t, want %t", maxAge, got, fresh)
		}
		u.closeOthers([]int32{1})
		if len(u.disks) != 0 {
			t.Errorf("the state of a partition that is owned no more is still open")
		}
		if err := u.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// So does state that was dated while the clock ran ahead, but for what clocks differ by.
func TestUnit_OpenLocalStateFromTheFutureIsBegunAnewOnce(t *testing.T) {
	for ahead, kept := range map[time.Duration]bool{10 * time.Minute: true, 2 * time.Hour: false} {
		u, err := New(Config{
			Kafka: &Kafka{Brokers: []string{"127.0.0.1:1"}}, Names: Names{Job: "j"}, Input: "in", Instance: "a", Dir: t.TempDir(),
			Codec: sumCodec{}, NewHandler: sumHandler(Names{Job: "j"}), LocalStateMaxAge: time.Hour,
		})
		if err != nil {
			t.Fatalf("new: %v", err)
		}
		var opened []*ownedDisk
		for range 3 {
			d, err := u.disk(0, [16]byte{1})
			if err != nil {
				t.Fatalf("open: %v", err)
			}
			if opened = append(opened, d); len(opened) == 1 {
				if err := d.disk.Touch(time.Now().Add(ahead)); err != nil {
					t.Fatalf("touch: %v", err)
				}
			}
		}
		if got := opened[0] == opened[1]; got != kept {
			t.Errorf("%s ahead: the open state was used again: %t, want %t", ahead, got, kept)
		}
		if opened[1] != opened[2] {
			t.Errorf("%s ahead: the state was begun anew twice", ahead)
		}
		if err := u.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// A table without traffic keeps its local state young, and does so by commits, which prove ownership.
func TestUnit_AnIdleTableKeepsItsLocalStateYoung(t *testing.T) {
	w := newWorld(t, startFake(t), 2)
	w.produce(10, 10)
	cfg := w.config("a", t.TempDir())
	cfg.LocalStateMaxAge = 2 * time.Second
	u, stop := w.run(cfg)
	w.caughtUp(u)
	values := func() (n int) {
		for _, r := range w.readAll(w.names.Table()) {
			if !IsPositionKey(r.Key) {
				n++
			}
		}
		return n
	}
	before := values()
	level := time.Now()
	for p := range w.partitions {
		eventually(t, time.Minute, "local state covers a moment after the last record", func() bool {
			u.mu.Lock()
			defer u.mu.Unlock()
			return u.disks[p].disk.AsOf().After(level.Add(time.Second))
		})
	}
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	if after := values(); after != before {
		t.Errorf("an idle table went from %d values to %d, want position records alone", before, after)
	}
	w.check()
}

func TestConfig_TimesThatMakeNoSenseAreRefused(t *testing.T) {
	good := Config{
		Kafka: &Kafka{Brokers: []string{"127.0.0.1:1"}}, Names: Names{Job: "j"}, Input: "in", Instance: "a", Dir: t.TempDir(),
		Codec: sumCodec{}, NewHandler: sumHandler(Names{Job: "j"}),
	}
	for name, change := range map[string]func(*Config){
		"":                    func(*Config) {},
		"linger":              func(c *Config) { c.Linger = -1 },
		"age of local state":  func(c *Config) { c.LocalStateMaxAge = -time.Hour },
		"session timeout":     func(c *Config) { c.SessionTimeout = time.Nanosecond },
		"transaction timeout": func(c *Config) { c.TransactionTimeout = -time.Second },
		"Heartbeat.Interval": func(c *Config) {
			c.Kafka = &Kafka{Brokers: c.Kafka.Brokers, SessionTimeout: time.Second, HeartbeatInterval: time.Second}
		},
	} {
		cfg := good
		change(&cfg)
		u, err := New(cfg)
		if (err != nil) != (name != "") || err != nil && !strings.Contains(err.Error(), name) {
			t.Errorf("%q: error = %v", name, err)
		}
		if u != nil {
			_ = u.Close()
		}
	}
	k := &Kafka{Brokers: good.Kafka.Brokers, SessionTimeout: time.Second}
	if _, err := k.Sarama(); err != nil {
		t.Errorf("a session timeout below the default heartbeat: %v", err)
	}
}
