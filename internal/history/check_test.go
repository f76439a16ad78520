package history

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// example is two partitions' worth of commits, with a flag that comes and goes and a deletion.
func example() *Truth {
	t := &Truth{}
	t.Commit(0, 1)
	t.Commit(0, 2, Change{ID: "a1", Version: 1, Content: "x"}, Change{ID: "b1", Version: 3, Flags: []string{"big"}})
	t.Commit(0, 3, Change{ID: "a1", Version: 4, Flags: []string{"big"}})
	t.Commit(0, 5, Change{ID: "b1", Version: 5}, Change{ID: "a1", Version: 6, Flags: []string{"big"}})
	t.Commit(0, 6, Change{ID: "a1", Deleted: true})
	t.Commit(0, 7, Change{ID: "a1", Version: 1})
	t.Commit(1, 1, Change{ID: "a2", Version: 1})
	t.Commit(1, 2, Change{ID: "a2", Version: 2})
	return t
}

func read(commit uint64, id string, version uint64) Read {
	at := time.Unix(int64(commit), 0)
	return Read{View: "v", Began: at, Ended: at.Add(time.Millisecond), ID: id, Commit: commit, Found: version > 0, Version: version}
}

func TestCheckReads_AcceptsWhatWasCommitted(t *testing.T) {
	right := []Read{read(1, "a1", 0), read(2, "a1", 1), read(3, "a1", 4), read(4, "b1", 3), read(5, "b1", 5), read(6, "a1", 0), read(7, "a1", 1), read(7, "never", 0)}
	right[1].Content = "x"
	overlapping := read(6, "a1", 0)
	overlapping.Ended = time.Unix(7, 1e8)
	if got := example().CheckReads(append(right, overlapping)); len(got) != 0 {
		t.Errorf("got %q, want no fault", got)
	}
}

func TestCheckReads_FindsPlantedFaults(t *testing.T) {
	for name, plant := range map[string]struct {
		reads []Read
		want  string
	}{
		"an ID that is missing":          {[]Read{read(3, "a1", 0)}, "not found, want version 4"},
		"a deleted ID":                   {[]Read{read(6, "a1", 6)}, "version 6, want none"},
		"an old version":                 {[]Read{read(3, "a1", 1)}, "version 1, want version 4"},
		"a version ahead of its commit":  {[]Read{read(3, "b1", 5)}, "version 5, want version 3"},
		"a version of an aborted commit": {[]Read{read(3, "a1", 5)}, "never committed"},
		"an ID that never was":           {[]Read{read(3, "ghost", 1)}, "never committed, want none"},
		"a commit that never was":        {[]Read{read(9, "a1", 1)}, "no such commit"},
		"another content":                {[]Read{func() Read { r := read(2, "a1", 1); r.Content = "y"; return r }()}, `reads y, want x`},
		"another partition":              {[]Read{func() Read { r := read(2, "a1", 1); r.Partition = 1; return r }()}, "lives on partition 0"},
		"going back": {[]Read{read(3, "a1", 4), func() Read {
			r := read(2, "a1", 1)
			r.Began, r.Ended = time.Unix(100, 0), time.Unix(101, 0)
			return r
		}()}, "commit 2 was shown after commit 3"},
	} {
		if got := example().CheckReads(plant.reads); len(got) == 0 || !strings.Contains(strings.Join(got, "\n"), plant.want) {
			t.Errorf("%s: got %q, want %q", name, got, plant.want)
		}
	}
}

// everythingOf is what a watch is told that misses nothing.
func everythingOf(truth *Truth, w Watch) Watch {
	for _, n := range truth.numbers() {
		for _, o := range truth.partitions[n].matching(&w) {
			w.Events = append(w.Events, Delivery{n, o.number, o.ID, o.Version, o.Deleted, o.Content})
		}
	}
	w.Begin = map[int32][2]uint64{0: {0, 0}, 1: {0, 0}}
	w.Through = map[int32]uint64{0: truth.Last(0), 1: truth.Last(1)}
	return w
}

func TestCheckWatch_AcceptsTheWholeStream(t *testing.T) {
	truth := example()
	for _, test := range []struct {
		watch Watch
		want  int
	}{{Watch{}, 9}, {Watch{ID: "a1"}, 5}, {Watch{Prefix: "a"}, 7}, {Watch{Prefix: "b"}, 2}, {Watch{Flag: "big"}, 5}} {
		w := everythingOf(truth, test.watch)
		if len(w.Events) != test.want {
			t.Errorf("%+v: got %d events, want %d", test.watch, len(w.Events), test.want)
		}
		if got := truth.CheckWatch(&w); len(got) != 0 {
			t.Errorf("%+v: got %q, want no fault", test.watch, got)
		}
	}
}

// TestCheckWatch_BeginsAnywhereWithinItsBounds: it is not known exactly where a watch began, only what had been committed
// before and what had not.
func TestCheckWatch_BeginsAnywhereWithinItsBounds(t *testing.T) {
	truth := example()
	whole := everythingOf(truth, Watch{ID: "a1"}) // commits 2, 3, 5, 6, 7
	for skip, right := range []bool{false, true, true, true, false, false} {
		w := Watch{ID: "a1", Events: whole.Events[skip:], Begin: map[int32][2]uint64{0: {2, 5}}, Through: map[int32]uint64{0: 7}}
		if got := truth.CheckWatch(&w); (len(got) == 0) != right {
			t.Errorf("without the first %d: got %q, want it accepted: %t", skip, got, right)
		}
	}
}

func TestCheckWatch_FindsPlantedFaults(t *testing.T) {
	truth := example()
	for name, plant := range map[string]struct {
		watch Watch
		fault func(e []Delivery) []Delivery
		want  string
	}{
		"a gap":                   {Watch{}, func(e []Delivery) []Delivery { return slices.Delete(e, 2, 3) }, `want version 4 of "a1"`},
		"a gap at the beginning":  {Watch{}, func(e []Delivery) []Delivery { return e[1:] }, `missed version 1 of "a1"`},
		"a gap at the end":        {Watch{}, func(e []Delivery) []Delivery { return e[:8] }, `never told version 2 of "a2"`},
		"a repeat":                {Watch{}, func(e []Delivery) []Delivery { return slices.Insert(e, 3, e[2]) }, "told before"},
		"a repeat at the end":     {Watch{}, func(e []Delivery) []Delivery { return append(e, e[8]) }, "behind everything"},
		"two in the wrong order":  {Watch{}, func(e []Delivery) []Delivery { e[0], e[1] = e[1], e[0]; return e }, `missed version 1 of "a1"`},
		"what was never there":    {Watch{}, func(e []Delivery) []Delivery { e[1].Version = 9; return e }, "want version 3"},
		"another commit":          {Watch{}, func(e []Delivery) []Delivery { e[1].Commit = 3; return e }, "want version 3"},
		"another content":         {Watch{}, func(e []Delivery) []Delivery { e[0].Content = "y"; return e }, "none of what it watches"},
		"no deletion":             {Watch{}, func(e []Delivery) []Delivery { e[5].Deleted = false; return e }, "want version 0"},
		"a partition of no table": {Watch{}, func(e []Delivery) []Delivery { return append(e, Delivery{Partition: 7}) }, "no commits"},
		"one outside the filter": {Watch{Prefix: "a"}, func(e []Delivery) []Delivery {
			return slices.Insert(e, 1, Delivery{0, 2, "b1", 3, false, ""})
		}, "want version 4"},
		"no clearing of a flag": {Watch{Flag: "big"}, func(e []Delivery) []Delivery {
			return slices.DeleteFunc(e, func(d Delivery) bool { return d.ID == "b1" && d.Version == 5 })
		}, `want version 5 of "b1"`},
		"one that never bore the flag": {Watch{Flag: "big"}, func(e []Delivery) []Delivery {
			return slices.Insert(e, 0, Delivery{0, 2, "a1", 1, false, ""})
		}, "none of what it watches"},
		"one from before it began": {Watch{ID: "a1"}, nil, "none of what it watches from commit 3 on"},
	} {
		w := everythingOf(truth, plant.watch)
		if plant.fault == nil {
			w.Begin[0] = [2]uint64{2, 2}
		} else {
			w.Events = plant.fault(w.Events)
		}
		if got := truth.CheckWatch(&w); len(got) == 0 || !strings.Contains(strings.Join(got, "\n"), plant.want) {
			t.Errorf("%s: got %q, want %q", name, got, plant.want)
		}
	}
}

// TestCheckWatch_FindsAnyDamageOfARandomStream: a stream from which one is taken, or in which one is told again or changes
// places with another, is never accepted.
func TestCheckWatch_FindsAnyDamageOfARandomStream(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		truth, versions := &Truth{}, map[string]uint64{}
		for seq := range uint64(1 + rnd.IntN(20)) {
			var changes []Change
			for _, i := range rnd.Perm(4)[:1+rnd.IntN(3)] {
				id := string(rune('a' + i))
				versions[id]++
				c := Change{ID: id, Version: versions[id]}
				if rnd.IntN(2) == 0 {
					c.Flags = []string{"f"}
				}
				changes = append(changes, c)
			}
			truth.Commit(0, seq+1, changes...)
		}
		w := everythingOf(truth, []Watch{{}, {ID: "a"}, {Flag: "f"}}[rnd.IntN(3)])
		if got := truth.CheckWatch(&w); len(got) != 0 {
			t.Fatalf("whole: got %q, want no fault", got)
		}
		if len(w.Events) < 2 {
			continue
		}
		whole := slices.Clone(w.Events)
		i, j := rnd.IntN(len(whole)), rnd.IntN(len(whole)-1)
		for _, damaged := range [][]Delivery{
			slices.Delete(slices.Clone(whole), i, i+1),
			slices.Insert(slices.Clone(whole), j+1, whole[i]),
			append(append(slices.Clone(whole[:j]), whole[j+1], whole[j]), whole[j+2:]...),
		} {
			w.Events = damaged
			if got := truth.CheckWatch(&w); len(got) == 0 {
				t.Fatalf("%v instead of %v was accepted", damaged, whole)
			}
		}
	}
}
