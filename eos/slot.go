package eos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// slot is an instance's place in the group, from one life to the next. Kafka takes a member for alive until its session times
// out, whatever became of its process. Who starts again in the same state directory knows better: each life holds a lock there, which
// goes with its process, and notes which member it is. The next life has the group drop that member, and waits for no timeout.
//
// Nothing relies on the member being dead: were it alive, its generation would be over, as after any rebalance.
type slot struct {
	dir  string
	here string          // where a note is true; "" is found out with the lock
	lock storage.Storage // nil until it is held
	last slotNote        // of the life before, or of the last session of this one
	dead string          // the life before, where it was a member still when this one began
}

// slotNote is what a member leaves behind.
type slotNote struct {
	Member, Digest string
	Here           string // no other lock shows whether this member lives
	Kept           bool   // it ended by itself, and is a member still
}

func newSlot(dir, instance string) *slot {
	return &slot{dir: filepath.Join(dir, "instance-"+instance)}
}

// take takes the lock and reads the note of the life before. Where another process holds the lock it answers ErrLocked.
func (s *slot) take() error {
	if s.lock != nil {
		return nil
	}
	if err := os.MkdirAll(s.dir, 0o750); err != nil {
		return err
	}
	lock, err := openFiles(s.dir)
	if err != nil {
		return err
	}
	if s.here == "" {
		if s.here, err = lockedIn(filepath.Join(s.dir, "LOCK")); err != nil {
			return errors.Join(err, lock.Close())
		}
	}
	s.lock = lock
	text, err := os.ReadFile(s.noteFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var n slotNote
	if err == nil {
		err = json.Unmarshal(text, &n)
	}
	if err == nil && (n.Kept || n.Here == s.here) {
		s.last = n
	}
	return err
}

// lockedIn tells a lock from all others: from those in copies of its directory by its file, from those on other machines, and from
// the time before a restart of this one, by the kernel that keeps it.
func lockedIn(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil { // not Linux
		host, err := os.Hostname()
		if err != nil {
			return "", err
		}
		kernel = []byte(host)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("%s: a file without an inode", file)
	}
	return fmt.Sprintf("%s %d:%d", bytes.TrimSpace(kernel), stat.Dev, stat.Ino), nil
}

// note writes down who this life is, if it is the slot's holder. Until now an earlier life may have been, which had yet to end.
func (s *slot) note(member, digest string) error {
	if err := s.take(); err != nil {
		return err
	}
	return s.write(slotNote{Member: member, Digest: digest, Here: s.here})
}

// keep notes that this life has ended, and that its place is free to whoever finds the note.
func (s *slot) keep() error {
	n := s.last
	n.Kept = true
	return s.write(n)
}

func (s *slot) write(n slotNote) error {
	if n == s.last {
		return nil
	}
	text, err := json.Marshal(n)
	if err == nil {
		err = os.WriteFile(s.noteFile(), text, 0o600)
	}
	if err == nil {
		s.last = n
	}
	return err
}

func (s *slot) noteFile() string { return filepath.Join(s.dir, "member.json") }

func (s *slot) close() error {
	if s.lock == nil {
		return nil
	}
	lock := s.lock
	s.lock = nil
	return lock.Close()
}

// waitForSlot refuses an instance name that a live member of the group has. An earlier life of this very instance leaves the group
// after the session timeout at the latest, so it is waited for; but one that is known to be dead, and still a member, is answered for
// retire to deal with.
func (u *Unit) waitForSlot(ctx context.Context) (dead string, err error) {
	deadline, said := time.Now().Add(2*u.cfg.SessionTimeout), ""
	for ctx.Err() == nil {
		if err := u.slot.take(); err != nil {
			u.log.Debug("the instance's lock", "cause", err)
		}
		last := u.slot.last
		ids, err := u.admin.members(ctx, u.cfg.Names.Group(), u.cfg.Instance)
		others := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == last.Member })
		switch {
		case err != nil:
			if said != err.Error() {
				said = err.Error()
				u.log.Warn("asking for the group's members", "cause", err)
			}
			deadline = time.Now().Add(2 * u.cfg.SessionTimeout)
		case len(ids) == 0:
			return "", nil
		case len(others) == 0 && last.Digest == u.cfg.Digest:
			return last.Member, nil
		case len(others) == 0: // it would keep a member with other rules out of the group
			u.expel(ctx, last.Member)
		case time.Now().After(deadline):
			return "", u.taken()
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
	return "", nil
}

func (u *Unit) taken() error {
	return fmt.Errorf("%w: a live member of group %s is called %q; stop it, or give this one another --instance", ErrInstanceTaken, u.cfg.Names.Group(), u.cfg.Instance)
}

// retire has the group drop a dead member as soon as its successor waits to join: not before, for Kafka makes the first member of
// an empty group wait for others (group.initial.rebalance.delay.ms). It returns when the member is gone, or ctx ends.
func (u *Unit) retire(ctx context.Context, dead string) {
	const every = 25 * time.Millisecond
	said := ""
	for ; ctx.Err() == nil; pause(ctx, every) {
		ids, err := u.admin.members(ctx, u.cfg.Names.Group(), u.cfg.Instance)
		switch {
		case err != nil:
			if said != err.Error() {
				said = err.Error()
				u.log.Info("asking for the group's members", "cause", err)
			}
		case !slices.Contains(ids, dead):
			return
		case len(ids) > 1:
			u.expel(ctx, dead)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// expel takes a dead member out of the group. Where that fails, the session timeout does it.
func (u *Unit) expel(ctx context.Context, dead string) {
	if err := u.admin.expel(ctx, u.cfg.Names.Group(), dead, "its process is gone"); err != nil {
		u.log.Info("taking this instance's earlier life out of the group", "member", dead, "cause", err)
		return
	}
	u.log.Info("this instance's earlier life was still in the group", "member", dead)
}

// expel takes a member out of the group; why is for the broker's log (KIP-800).
func (a *admin) expel(ctx context.Context, group, member, why string) error {
	req := kmsg.NewPtrLeaveGroupRequest()
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID, m.Reason = member, kmsg.StringPtr(why)
	req.Group, req.MemberID, req.Members = group, member, append(req.Members, m)
	resp, err := req.RequestWith(ctx, a.cl)
	if err != nil {
		return err
	}
	err = kerr.ErrorForCode(resp.ErrorCode)
	for _, m := range resp.Members {
		err = errors.Join(err, kerr.ErrorForCode(m.ErrorCode))
	}
	if errors.Is(err, kerr.UnknownMemberID) {
		return nil // gone already
	}
	return err
}

// keepsPlace tells whether a clean stop leaves the member in the group. The last one does where coming back to an empty group takes
// long: its next life takes the place over at once, and anybody else waits for the session timeout instead of the group's delay.
func (u *Unit) keepsPlace() bool {
	if u.cfg.Finite || u.slot.last.Member == "" || u.Err() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	g, err := u.admin.describeGroup(ctx, u.cfg.Names.Group())
	if err != nil || len(g.Members) != 1 || g.Members[0].MemberID != u.slot.last.Member {
		return false
	}
	delay, err := u.admin.initialDelay(ctx, g.Coordinator.NodeID)
	if err != nil {
		u.log.Info("asking for the delay of empty groups; leaving the group", "cause", err)
	}
	if err != nil || delay == 0 {
		return false
	}
	if err := u.slot.keep(); err != nil {
		u.log.Info("noting that this instance's place is kept; leaving the group", "cause", err)
		return false
	}
	return true
}

// initialDelay is how long the first member of an empty group waits for others. Brokers that do not say do not have it.
func (a *admin) initialDelay(ctx context.Context, broker int32) (time.Duration, error) {
	const key = "group.initial.rebalance.delay.ms"
	configs, err := a.adm.DescribeBrokerConfigs(ctx, broker)
	for _, of := range configs {
		err = errors.Join(err, of.Err)
	}
	switch {
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return 3 * time.Second, nil // Kafka's default
	case err != nil:
		return 0, err
	}
	for _, of := range configs {
		i := slices.IndexFunc(of.Configs, func(c kadm.Config) bool { return c.Key == key })
		if i >= 0 {
			return time.ParseDuration(of.Configs[i].MaybeValue() + "ms")
		}
	}
	return 0, nil
}

// twin says that another member of the group has this instance's name, and the lesser id. Two that started at once saw no other, and
// neither did one that was frozen until another took its name.
type twin struct{ own, other string }

func (t *twin) Error() string {
	return fmt.Sprintf("another member of the group has this instance's name: %s (this one: %s)", t.other, t.own)
}

// onlyOne answers a twin, if there is one. It is asked before the session fences what may be the twin's: the two would go on fencing
// each other for ever. The member with the lesser id goes on.
func (u *Unit) onlyOne(ctx context.Context, own string) error {
	ids, err := u.admin.members(ctx, u.cfg.Names.Group(), u.cfg.Instance)
	if err != nil {
		return err
	}
	if !slices.Contains(ids, own) { // expired meanwhile: its successor has seen no twin
		return fmt.Errorf("%s is no member of group %s any more", own, u.cfg.Names.Group())
	}
	for _, id := range ids {
		if id < own && id != u.slot.dead { // where that one died in a join, it may be in this very generation
			return &twin{own: own, other: id}
		}
	}
	return nil
}

// stepBack leaves the group to a twin. The way back leads through waitForSlot, as for one that starts: a twin that lives is not
// disturbed, and one that does not, an earlier life that died in its join, is waited for.
func (u *Unit) stepBack(ctx context.Context, t *twin) {
	u.log.Warn("leaving the group to it until it is gone", "cause", t)
	u.slot.last = slotNote{} // whatever becomes of this member, it is no earlier life
	if err := u.admin.expel(ctx, u.cfg.Names.Group(), t.own, "another member has its name"); err != nil {
		u.log.Info("leaving the group", "cause", err)
	}
}
