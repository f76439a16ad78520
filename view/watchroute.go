package view

import (
	"fmt"
	"time"
)

// tell gives a commit to the settled watchers of what it changed.
func (h *hub) tell(partition int32, from place, routed map[*subject][]*Change) {
	for s, changes := range routed {
		d := deliver(changes, from, true)
		if s.key.kind == withID {
			d.from = place{partition, from.spots[partition : partition+1]}
		}
		for w := range s.watchers {
			if w.seats != nil {
				continue
			}
			for !w.offer(d, h.cfg.QueueBytesMax) {
				if h.cfg.weak.patient == nil || !h.cfg.weak.patient() {
					h.slow(w)
					break
				}
				time.Sleep(time.Millisecond)
			}
		}
	}
}

func deliver(changes []*Change, from place, shared bool) delivery {
	d := delivery{changes: changes, from: from, shared: shared || len(from.spots) == 1}
	for _, c := range changes {
		d.bytes += c.bytes()
	}
	return d
}

// advance brings a live seat over a commit.
func (h *hub) advance(w *Watcher, s *seat, c *commit, changes []*Change) {
	switch told, full := h.pass(w, s, c, changes); {
	case !told:
	case full:
		h.slow(w)
	default:
		h.seatAll(w)
	}
}

// pass tells a watcher what a commit has for it from its seat on, and moves the seat. told is false where the watcher has
// nothing to do with the commit or is reset; full, that its queue took nothing.
func (h *hub) pass(w *Watcher, s *seat, c *commit, changes []*Change) (told, full bool) {
	if !c.follows(s.spot) && !h.cfg.weak.uncounted {
		why := goneHistory
		if s.next < c.end.next {
			why = fmt.Sprintf("records after the place were compacted or deleted from partition %d", c.asOf.Partition)
		}
		h.gone(w, why)
		return false, false
	}
	if s.next >= c.end.next {
		return s.next == c.end.next, false
	}
	for len(changes) > 0 && changes[0].after.next <= s.next && !h.cfg.weak.seatless {
		changes = changes[1:]
	}
	most := h.cfg.QueueBytesMax
	if !s.live {
		most /= 2 // so that there is room when it becomes live
	}
	if len(changes) > 0 && !w.offer(deliver(changes, w.place(), false), most) {
		return true, true
	}
	s.spot = c.end
	return true, false
}

// route finds what a commit changed of what is watched, in the order of the table. behind leaves out what nobody watches
// who is being caught up. The result is valid until the next call.
func (h *hub) route(c *commit, behind bool) (map[*subject][]*Change, error) {
	clear(h.touched)
	for i := range c.told {
		t := &c.told[i]
		if err := h.routeOne(c, t, behind); err != nil {
			return nil, fmt.Errorf("the state of %q at %s/%d@%d: %w", t.id, h.view.cfg.Names.Table(), c.asOf.Partition, t.offset, err)
		}
	}
	return h.touched, nil
}

func (h *hub) routeOne(c *commit, t *told, behind bool) error {
	subjects, err := h.subjectsOf(c, t)
	if err != nil {
		return err
	}
	var change *Change
	for _, s := range subjects {
		if behind && s.catching == 0 {
			continue
		}
		if change == nil {
			if change, err = c.change(t, h.view.cfg.Schema); err != nil {
				return err
			}
		}
		h.touched[s] = append(h.touched[s], change)
	}
	return nil
}

// subjectsOf gives the subjects that an ID of a commit belongs to; valid until the next call.
func (h *hub) subjectsOf(c *commit, t *told) ([]*subject, error) {
	h.found = h.found[:0]
	add := func(key subjectKey) {
		if s := h.subjects[key]; s != nil {
			h.found = append(h.found, s)
		}
	}
	add(subjectKey{kind: everything})
	add(subjectKey{withID, t.id})
	for n := range h.lengths {
		if n <= len(t.id) {
			add(subjectKey{withPrefix, t.id[:n]})
		}
	}
	if !h.flagged() {
		return h.found, nil
	}
	was, is, err := c.flagsOf(t)
	for i, flag := range h.view.cfg.Schema.Flags {
		if i < len(was) && was[i] || i < len(is) && is[i] {
			add(subjectKey{withFlag, flag})
		}
	}
	return h.found, err
}

// flagged tells whether any flag is watched.
func (h *hub) flagged() bool {
	for _, flag := range h.view.cfg.Schema.Flags {
		if h.subjects[subjectKey{withFlag, flag}] != nil {
			return true
		}
	}
	return false
}
