package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// faultsMax bounds what one check reports.
const faultsMax = 20

// Read is what one read of one ID saw.
type Read struct {
	// View is one life of a view: versions must not go back for those who ask it.
	View string
	// Began and Ended are the reader's clock around the read.
	Began, Ended time.Time
	ID           string
	// Partition and Commit are what the answer says it shows.
	Partition int32
	Commit    uint64
	Found     bool
	Version   uint64
	Content   string
}

// CheckReads compares reads with the truth: each shows its ID as the commit that it claims left it, and no read shows an
// older commit than one of the same view that had ended before it began.
func (t *Truth) CheckReads(reads []Read) (faults []string) {
	for i := range reads {
		if why := t.checkRead(&reads[i]); why != "" && len(faults) < faultsMax {
			faults = append(faults, fmt.Sprintf("%s, commit %d of partition %d, read of %q: %s", reads[i].View, reads[i].Commit, reads[i].Partition, reads[i].ID, why))
		}
	}
	return append(faults, wentBack(reads)...)
}

func (t *Truth) checkRead(r *Read) string {
	p := t.partitions[r.Partition]
	if p == nil || r.Commit > t.Last(r.Partition) {
		return "no such commit"
	}
	if home, ok := t.home[r.ID]; ok && home != r.Partition {
		return fmt.Sprintf("it lives on partition %d", home)
	}
	is := p.at(r.ID, r.Commit)
	switch {
	case is == nil && !r.Found:
		return ""
	case is != nil && !r.Found:
		return fmt.Sprintf("not found, want version %d", is.Version)
	case is != nil && is.Version == r.Version:
		if r.Content != "" && is.Content != "" && r.Content != is.Content {
			return fmt.Sprintf("version %d reads %s, want %s", r.Version, r.Content, is.Content)
		}
		return ""
	}
	want := "none"
	if is != nil {
		want = fmt.Sprint("version ", is.Version)
	}
	if !slices.ContainsFunc(p.ids[r.ID], func(s step) bool { return !s.Deleted && s.Version == r.Version }) {
		return fmt.Sprintf("version %d was never committed, want %s", r.Version, want)
	}
	return fmt.Sprintf("version %d, want %s", r.Version, want)
}

// wentBack looks, for each view and partition, for reads that show less than one that had ended before.
func wentBack(reads []Read) (faults []string) {
	type shelf struct {
		view      string
		partition int32
	}
	shelves := map[shelf][]*Read{}
	for i := range reads {
		s := shelf{reads[i].View, reads[i].Partition}
		shelves[s] = append(shelves[s], &reads[i])
	}
	for _, of := range shelves {
		byEnd := slices.SortedFunc(slices.Values(of), func(a, b *Read) int { return a.Ended.Compare(b.Ended) })
		slices.SortFunc(of, func(a, b *Read) int { return a.Began.Compare(b.Began) })
		var newest *Read // of those that have ended
		for _, r := range of {
			for len(byEnd) > 0 && byEnd[0].Ended.Before(r.Began) {
				if newest == nil || byEnd[0].Commit > newest.Commit {
					newest = byEnd[0]
				}
				byEnd = byEnd[1:]
			}
			if newest != nil && r.Commit < newest.Commit && len(faults) < faultsMax {
				faults = append(faults, fmt.Sprintf("%s, partition %d: commit %d was shown after commit %d", r.View, r.Partition, r.Commit, newest.Commit))
			}
		}
	}
	return faults
}

// Watch is what one watch was told, through all resumes that went on where it was.
type Watch struct {
	Name string
	// At most one is set; none is everything.
	ID, Prefix, Flag string
	Events           []Delivery
	// Begin bounds, for each partition, the commit that it began behind: no earlier one than Begin[0], no later one than
	// Begin[1]. A partition that is left out may have begun anywhere.
	Begin map[int32][2]uint64
	// Through is, for each partition, a commit up to which everything must have been told.
	Through map[int32]uint64
}

// Delivery is one change as it was told.
type Delivery struct {
	Partition int32
	Commit    uint64
	ID        string
	Version   uint64
	Deleted   bool
	Content   string
}

// CheckWatch compares a watch with the truth: from where it began it was told every change that belongs to it, once, in
// the order of its partition, and nothing else.
func (t *Truth) CheckWatch(w *Watch) (faults []string) {
	told := map[int32][]Delivery{}
	for _, d := range w.Events {
		told[d.Partition] = append(told[d.Partition], d)
	}
	for _, n := range t.numbers() {
		if why := t.checkStream(w, n, told[n]); why != "" && len(faults) < faultsMax {
			faults = append(faults, fmt.Sprintf("%s, partition %d: %s", w.Name, n, why))
		}
		delete(told, n)
	}
	for n := range told {
		faults = append(faults, fmt.Sprintf("%s: told of partition %d, which has no commits", w.Name, n))
	}
	return faults
}

// LastOwed gives the last commit of each partition of which a watch has to be told something.
func (t *Truth) LastOwed(w *Watch) map[int32]uint64 {
	last := map[int32]uint64{}
	for n, p := range t.partitions {
		if all := p.matching(w); len(all) > 0 {
			last[n] = all[len(all)-1].number
		}
	}
	return last
}

// owed is a change that a watch has to be told.
type owed struct {
	number uint64
	Change
}

func (t *Truth) checkStream(w *Watch, n int32, told []Delivery) string {
	all := t.partitions[n].matching(w)
	begin, bounded := w.Begin[n]
	if !bounded {
		begin = [2]uint64{0, t.Last(n)}
	}
	// Where it began: at the first change that it was told, or behind the bound.
	first := slices.IndexFunc(all, func(o owed) bool { return o.number > begin[1] })
	if first < 0 {
		first = len(all)
	}
	if len(told) > 0 {
		i := slices.IndexFunc(all, func(o owed) bool { return o.number > begin[0] && told[0].is(&o) })
		switch {
		case i < 0:
			return fmt.Sprintf("was told %s first, which is none of what it watches from commit %d on", &told[0], begin[0]+1)
		case i > first:
			return fmt.Sprintf("was told %s first, and missed %s, which came after commit %d", &told[0], &all[first], begin[1])
		}
		first = i
	}
	for i := range told {
		if first+i == len(all) {
			return fmt.Sprintf("was told %s, behind everything", &told[i])
		}
		if want := &all[first+i]; !told[i].is(want) {
			return fmt.Sprintf("was told %s, want %s (%d before it were right)%s", &told[i], want, i, again(told[:i], &told[i]))
		}
	}
	if next := first + len(told); next < len(all) && all[next].number <= w.Through[n] {
		return fmt.Sprintf("was never told %s, and %d others up to commit %d", &all[next], owedUpTo(all[next:], w.Through[n])-1, w.Through[n])
	}
	return ""
}

func again(before []Delivery, d *Delivery) string {
	if slices.Contains(before, *d) {
		return ": it was told before"
	}
	return ""
}

func owedUpTo(all []owed, seq uint64) int {
	i, _ := slices.BinarySearchFunc(all, seq+1, func(o owed, seq uint64) int { return cmp.Compare(o.number, seq) })
	return i
}

func (d *Delivery) String() string {
	return fmt.Sprintf("version %d of %q in commit %d", d.Version, d.ID, d.Commit)
}

func (o *owed) String() string {
	return fmt.Sprintf("version %d of %q in commit %d", o.Version, o.ID, o.number)
}

func (d *Delivery) is(o *owed) bool {
	return d.Commit == o.number && d.ID == o.ID && d.Version == o.Version && d.Deleted == o.Deleted &&
		(d.Content == "" || o.Content == "" || d.Content == o.Content)
}

// matching gives all changes that belong to a watch, in order. With a flag they are those after which the ID bears it, and
// those that cleared it.
func (p *partition) matching(w *Watch) (all []owed) {
	bears := map[string]bool{}
	for _, c := range p.commits {
		for _, change := range c.changes {
			is := slices.Contains(change.Flags, w.Flag)
			was := bears[change.ID]
			bears[change.ID] = is
			switch {
			case w.ID != "" && w.ID != change.ID, !strings.HasPrefix(change.ID, w.Prefix), w.Flag != "" && !is && !was:
			default:
				all = append(all, owed{c.number, change})
			}
		}
	}
	return all
}
