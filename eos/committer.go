package eos

import (
	"context"
	"fmt"
	"time"
)

// commitLoop commits as soon as there is work and the commit before has ended (group commit), until
// ctx ends. It is the only goroutine that commits while the session runs.
func (s *session) commitLoop(ctx context.Context) {
	idle := time.NewTicker(s.unit.cfg.LocalStateMaxAge / 8)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case at := <-idle.C:
			s.refresh(at)
		case <-s.work:
		}
		if !s.linger(ctx) || s.commit(s.commits) != nil {
			return
		}
	}
}

// refresh has partitions commit a position record alone that committed nothing for a quarter of the age at
// which local state is thrown away. The commit proves that they are still owned, which no clock could: so
// the local state of a quiet table stays young, and the transactional.ids do not expire.
func (s *session) refresh(at time.Time) {
	for _, p := range s.ordered {
		p.mu.Lock()
		if at.Sub(time.UnixMilli(p.committed.CommittedMs)) >= s.unit.cfg.LocalStateMaxAge/4 {
			p.opening = true
		}
		p.mu.Unlock()
	}
}

// linger lets work gather: Config.Linger when level with the input; CatchUpLinger when far behind,
// where larger commits coalesce more versions of a key and nobody waits for the newest. It tells
// whether to commit (false: ctx ended).
func (s *session) linger(ctx context.Context) bool {
	for {
		since, bytes, lagging := s.gathered()
		wait := s.unit.cfg.Linger
		if lagging {
			wait = s.unit.cfg.CatchUpLinger
		}
		left := wait - time.Since(since)
		if left <= 0 || bytes >= s.unit.cfg.PendingBytesMax/2 {
			return true
		}
		timer := time.NewTimer(left)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-s.work:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// gathered looks over what is uncommitted: since when, how much, and whether the input is far ahead.
func (s *session) gathered() (since time.Time, bytes int64, lagging bool) {
	first := time.Now().UnixNano()
	for _, p := range s.ordered {
		if ns := p.gathered.sinceNs.Load(); ns != 0 && ns < first {
			first = ns
		}
		bytes += p.gathered.bytes.Load()
		lagging = lagging || p.gathered.lagging.Load()
	}
	return time.Unix(0, first), bytes, lagging
}

// commit takes each partition's lock in turn and cuts it, writes all cuts in one transaction, and
// then, only then, LevelDB. After an error nothing in memory can be trusted: the session is broken, no
// other commit of it follows, and the next session rebuilds from what Kafka committed.
func (s *session) commit(ctx context.Context) (err error) {
	defer func() {
		if err != nil && !s.unit.cfg.weak.goOn {
			s.fail(err)
		}
	}()
	start := time.Now()
	cuts, err := s.cutAll(start)
	if err != nil || len(cuts) == 0 {
		return err
	}
	st := CommitStats{Partitions: len(cuts), Cut: time.Since(start)}
	s.room.broadcast()
	s.unit.cfg.Trace("cut")
	// Bounded: a commit that outlives the transaction timeout has been aborted by the broker.
	ctx, cancel := context.WithTimeout(ctx, s.unit.cfg.TransactionTimeout)
	defer cancel()
	if err := s.writeTransaction(ctx, cuts, &st); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	flushStart := time.Now()
	for _, c := range cuts {
		if err := s.flush(c); err != nil {
			return err
		}
		st.Records += len(c.table)
		st.Outputs += len(c.outputs)
		st.Bytes += c.bytes
		st.Events += c.events
		st.Notes = append(st.Notes, c.notes...)
	}
	s.events.Add(st.Events)
	st.Flush = time.Since(flushStart)
	s.unit.cfg.Trace("flushed")
	s.unit.cfg.OnCommit(st)
	return nil
}

func (s *session) writeTransaction(ctx context.Context, cuts []*cut, st *CommitStats) error {
	start := time.Now()
	if err := s.producer.send(ctx, s.member, cuts); err != nil {
		return err
	}
	st.Send = time.Since(start)
	if s.unit.cfg.weak.flushFirst {
		for _, c := range cuts {
			if err := s.flush(c); err != nil {
				return err
			}
		}
	}
	err := s.producer.end(ctx)
	st.End = time.Since(start) - st.Send
	return err
}

func (s *session) cutAll(now time.Time) ([]*cut, error) {
	var cuts []*cut
	for _, p := range s.ordered {
		p.mu.Lock()
		c, err := (*cut)(nil), s.failure() // asked under the lock: see process
		if err == nil {
			c, err = p.take(s, now)
		}
		p.mu.Unlock()
		if err != nil {
			return nil, &ownFault{err}
		}
		if c != nil {
			cuts = append(cuts, c)
		}
	}
	return cuts, nil
}

// flush writes a committed cut to LevelDB in one batch with its offset and position.
func (s *session) flush(c *cut) error {
	var b DiskBatch
	for _, r := range c.table[:len(c.table)-1] {
		if r.Value == nil {
			b.Delete(r.Key)
		} else {
			b.Put(r.Key, r.Value)
		}
	}
	place := c.table[len(c.table)-1].Offset
	// What is not applied here would be missing from every later read.
	ok, err := c.p.disk.apply(s, &b, place+1, &c.position)
	if err == nil && (!ok || place < 0) {
		err = fmt.Errorf("table offset %d does not follow %d, or the state has another owner", place, c.p.disk.disk.Next())
	}
	if err != nil {
		return &ownFault{fmt.Errorf("flush partition %d: %w", c.p.id, err)}
	}
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.committed = c.position
	c.p.table.flushed(c.seq)
	return nil
}
