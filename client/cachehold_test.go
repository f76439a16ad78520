package client

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// past is a random history of one table: what each commit made of which IDs. An ID's states have rising counts; their
// versions begin anew where it was deleted.
type past struct {
	partitions int
	commits    [][][]Event // by partition and number, which begins at 1
	ids        []string
}

func somePast(rnd *rand.Rand) *past {
	p := &past{partitions: 1 + rnd.IntN(3)}
	for n := range 30 {
		p.ids = append(p.ids, fmt.Sprintf("id-%02d", n))
	}
	versions, serial := map[string]uint64{}, uint64(0)
	for part := range p.partitions {
		all := [][]Event{nil}
		for seq := uint64(1); seq <= 40; seq++ {
			var events []Event
			for _, id := range p.ids {
				if int(Partition(id, int32(p.partitions))) != part || rnd.IntN(4) > 0 {
					continue
				}
				serial++
				versions[id]++
				e := Event{Kind: Changed, ID: id, AsOf: Freshness{Partition: int32(part), Commit: seq}, State: &State{Id: id, Version: versions[id], Count: serial}}
				if rnd.IntN(4) == 0 {
					e.State, versions[id] = nil, 0
				}
				events = append(events, e)
			}
			all = append(all, events)
		}
		p.commits = append(p.commits, all)
	}
	return p
}

// at gives the states of a prefix of all IDs as of a commit in each partition, in order.
func (p *past) at(commits []int) map[string]*State {
	states := map[string]*State{}
	for part, upTo := range commits {
		for _, events := range p.commits[part][:upTo+1] {
			for _, e := range events {
				states[e.ID] = e.State
			}
		}
	}
	return states
}

// load makes pages of it, each as of later commits than the one before.
func (p *past) load(rnd *rand.Rand, from []int) (pages []*Page) {
	at, after := slices.Clone(from), ""
	for more := true; more; {
		page := &Page{asked: time.Now()}
		for part := range at {
			at[part] = min(at[part]+rnd.IntN(4), 40)
			page.AsOf = append(page.AsOf, Freshness{Partition: int32(part), Commit: uint64(at[part]), Age: NotKnown, TableAge: NotKnown})
		}
		states, size := p.at(at), 1+rnd.IntN(4)
		more = false
		for _, id := range p.ids {
			if s := states[id]; s == nil || id <= after {
				continue
			} else if more = len(page.States) == size; more {
				break
			} else {
				page.States = append(page.States, s)
			}
		}
		if more {
			after = page.States[len(page.States)-1].Id
			page.Next = after
		}
		pages = append(pages, page)
	}
	return pages
}

// replay loads a history, and tells the rest of it from where the watch began. It counts how often what is held of an ID
// went back, and tells what else is wrong.
func (p *past) replay(rnd *rand.Rand, weak weakCache) (wentBack int, faults []string) {
	begin := make([]int, p.partitions)
	for i := range begin {
		begin[i] = rnd.IntN(35)
	}
	pages := p.load(rnd, begin)
	h := newContents(&cacheConfig{entriesMax: 1000, bytesMax: 1 << 30, weak: weak}, pages[0])
	for _, page := range pages {
		h.add(page)
	}
	seen := map[string]uint64{} // the number of the last change that was shown, deletions too
	whole, truth := make([]int, p.partitions), map[string]*State(nil)
	look := func() {
		for part := range whole {
			if now := int(h.whole[part].Load().Commit); truth == nil || now != whole[part] {
				whole[part] = now
				truth = p.at(whole)
			}
		}
		for _, id := range p.ids {
			part := Partition(id, int32(p.partitions))
			var count, least uint64
			if e := h.find(id); e != nil {
				count = e.state.Count
			}
			if s := truth[id]; s != nil {
				least = s.Count
			}
			if count != 0 && count < least || count == 0 && least != 0 && !p.deletedAfter(id, part, whole[part]) {
				faults = append(faults, fmt.Sprintf("%s: change %d is shown as of commit %d, which has %d", id, count, whole[part], least))
			}
			if count != 0 && count < seen[id] {
				wentBack++
			}
			seen[id] = max(seen[id], count)
		}
	}
	look()
	for part := range p.commits {
		for _, events := range p.commits[part][begin[part]+1:] {
			for i := range events {
				h.change(&events[i], "")
				look()
			}
		}
	}
	for id, want := range p.at(slices.Repeat([]int{40}, p.partitions)) {
		e := h.find(id)
		if (e == nil) != (want == nil) || e != nil && e.state.Count != want.Count {
			faults = append(faults, fmt.Sprintf("%s: got %v in the end, want %v", id, e, want))
		}
	}
	return wentBack, faults
}

// deletedAfter tells whether an ID was deleted behind a commit: then not to hold it is nothing older.
func (p *past) deletedAfter(id string, part int32, commit int) bool {
	for _, events := range p.commits[part][commit+1:] {
		for _, e := range events {
			if e.ID == id && e.State == nil {
				return true
			}
		}
	}
	return false
}

// TestContents_NeverGoBackBehindTheLoad: pages are read while versions are committed, and the watch tells those again. In the
// control whatever it tells is taken, and states that were read go back.
func TestContents_NeverGoBackBehindTheLoad(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	weakly := 0
	for n := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, n))
		history := somePast(rnd)
		wentBack, faults := history.replay(rnd, weakCache{})
		if wentBack > 0 || faults != nil {
			t.Fatalf("history %d: states went back %d times; %.300q", n, wentBack, faults)
		}
		back, _ := history.replay(rnd, weakCache{floorless: true})
		weakly += back
	}
	if weakly == 0 {
		t.Error("the control never went back: the test sees nothing")
	}
}

// typical is a state with three totals and a flag.
func typical(n int) *State {
	at := timestamppb.New(time.UnixMilli(1_700_000_000_000 + int64(n)))
	return &State{
		Id: fmt.Sprintf("user-%08d", n), Version: uint64(n), Count: uint64(n), FirstTime: at, LastTime: at,
		Totals: map[string]*structpb.Value{"points": structpb.NewStringValue(fmt.Sprint(n)), "failures": structpb.NewStringValue("12"), "last": structpb.NewStringValue("password")},
		Flags:  map[string]*Why{"watched": {Time: at, Topic: "logins-events", Partition: 2, Offset: int64(n), Rules: "00112233445566778899aabbccddeeff"}},
	}
}

// TestContents_KnowAboutWhatTheyTake: MaxBytes is about memory, not about encodings.
func TestContents_KnowAboutWhatTheyTake(t *testing.T) {
	for what, flagged := range map[string]bool{"with a flag": true, "without": false} {
		const n = 20_000
		var before, after runtime.MemStats
		states := make([][]byte, n)
		for i := range states {
			s := typical(i)
			if !flagged {
				s.Flags = nil
			}
			states[i] = mustMarshal(t, s)
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		h := newContents(&cacheConfig{entriesMax: n, bytesMax: 1 << 30}, &Page{AsOf: make([]Freshness, 4)})
		for _, b := range states {
			s := mustUnmarshal(t, b)
			h.put(s, h.home(s.Id), 1)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		got, said := int64(after.HeapAlloc-before.HeapAlloc)/n, h.bytes.Load()/n
		t.Logf("%s: %d bytes an ID, accounted as %d", what, got, said)
		if said < got*7/10 || said > got*14/10 {
			t.Errorf("%s: an ID takes %d bytes and is accounted as %d, want that within 40 %%", what, got, said)
		}
		runtime.KeepAlive(h)
		runtime.KeepAlive(states)
	}
}
