package view

import "time"

// Status says how the view stands.
type Status struct {
	Ready      bool
	Why        string // it is not ready, or what it is retrying
	Rekeyed    bool   // the job has, or had, events that were re-keyed
	Partitions []PartitionStatus
}

// PartitionStatus says how one partition stands.
type PartitionStatus struct {
	AsOf                   // its zero value, ages not known, while it is not complete
	Complete               bool
	LagRecords             int64 // input records that it does not cover, as last seen
	InputEnd               int64 // as last seen
	TableNext, TableTarget int64 // how far the table was read, and how far it was when loading began; -1 not known
	Rebuilt                string
}

// loaded is the share of the table partition that is loaded.
func (s *PartitionStatus) loaded() float64 {
	switch {
	case s.Complete:
		return 1
	case s.TableTarget <= 0:
		return 0
	}
	return min(1, float64(s.TableNext)/float64(s.TableTarget))
}

func (p *partition) status(now time.Time) PartitionStatus {
	st := PartitionStatus{AsOf: AsOf{Partition: p.number, Age: NotKnown, TableAge: NotKnown}}
	if s, err := p.hold(); err == nil {
		st.AsOf, st.Complete = p.asOf(s, now), true
		s.release()
	}
	if g := p.progress.Load(); g != nil {
		st.TableNext, st.TableTarget, st.Rebuilt = g.next, g.target, g.rebuilt
	}
	p.levelMu.Lock()
	st.LagRecords, st.InputEnd = p.level.lag, p.level.head
	p.levelMu.Unlock()
	return st
}

// Status gives the view's state. It always answers.
func (v *View) Status() Status {
	st := Status{Ready: true, Rekeyed: v.rekeyed.Load()}
	if err := v.Ready(); err != nil {
		st.Ready, st.Why = false, err.Error()
	} else if why := v.trouble.Load(); why != nil {
		st.Why = *why
	} else if why := v.probeFails.Load(); why != nil {
		st.Why = *why
	}
	now := time.Now()
	for _, p := range v.all() {
		st.Partitions = append(st.Partitions, p.status(now))
	}
	return st
}
