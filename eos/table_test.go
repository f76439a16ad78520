package eos

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// textCodec keeps a text of some length for each key.
type textCodec struct{}

func (textCodec) Decode(_ string, base []byte, _ func([]byte) ([]byte, error)) (any, error) {
	return string(base), nil
}

func (textCodec) Encode(key string, v any, write func(key, value []byte)) error {
	write([]byte(key), []byte(v.(string)))
	return nil
}

func (textCodec) MemoryBytes(v any) int64 { return int64(len(v.(string))) }

// TestTable_ReadsWhatWasWrittenWithinItsBudget compares a cache that is much too small with a map, over commits that reach
// LevelDB some time after they were cut.
func TestTable_ReadsWhatWasWrittenWithinItsBudget(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	disk := mustDisk(t, t.TempDir())
	defer mustClose(t, disk)
	const budget = 40_000
	tab := newTable(textCodec{}, disk, budget)
	model := map[string]string{}
	var cuts []*DiskBatch // not flushed yet
	flush := func() {
		if err := disk.Apply(cuts[0], disk.Next()+1, nil); err != nil {
			t.Fatal(err)
		}
		cuts = cuts[1:]
		tab.flushed(tab.flushedSeq + 1)
	}
	dropped := 0
	for step := range 20_000 {
		key := fmt.Sprintf("k%03d", min(rnd.IntN(600), rnd.IntN(600)))
		got, err := tab.get(key)
		if err != nil {
			t.Fatal(err)
		}
		if want, ok := model[key]; ok != (got != nil) || ok && got.(string) != want {
			t.Fatalf("step %d, %s: got %v, want %q", step, key, got, want)
		}
		if rnd.IntN(3) == 0 {
			value := fmt.Sprint(step, " ", string(bytes.Repeat([]byte("x"), rnd.IntN(300))))
			tab.put(key, value)
			model[key] = value
		}
		if rnd.IntN(100) == 0 {
			b := &DiskBatch{}
			last := ""
			if err := tab.cut(func(key, value []byte) {
				if string(key) <= last {
					t.Fatalf("cut wrote %s after %s, want the order of keys", key, last)
				}
				last = string(key)
				b.Put(key, value)
			}); err != nil {
				t.Fatal(err)
			}
			if cuts = append(cuts, b); rnd.IntN(2) == 0 {
				flush()
			}
			for len(cuts) > 2 {
				flush()
			}
		}
		held, kept := int64(0), int64(0) // kept: what may not be dropped
		for _, e := range tab.entries() {
			held += e.bytes
			if e.dirty || e.cut > tab.flushedSeq {
				kept += e.bytes
			}
		}
		if held != tab.bytes || held > budget+kept+budget/16 {
			t.Fatalf("step %d: holds %d bytes, says %d, of which %d may not be dropped; the budget is %d", step, held, tab.bytes, kept, budget)
		}
		if len(tab.entries()) < len(model) {
			dropped++
		}
	}
	if dropped == 0 {
		t.Error("nothing was ever dropped: the test shows nothing")
	}
}

func (t *table) entries() []*entry {
	all := make([]*entry, 0, len(t.young)+len(t.old))
	for _, generation := range []map[string]*entry{t.young, t.old} {
		for _, e := range generation {
			all = append(all, e)
		}
	}
	return all
}

// A job whose IDs are all in the cache adds no entry any more, but its states still grow.
func TestTable_ValuesThatGrowStayWithinTheBudget(t *testing.T) {
	disk := mustDisk(t, t.TempDir())
	defer mustClose(t, disk)
	const budget, keys = 100_000, 100
	tab := newTable(textCodec{}, disk, budget)
	for round := 1; round <= 40; round++ {
		value := string(bytes.Repeat([]byte("x"), round*100))
		for i := range keys {
			key := fmt.Sprintf("k%03d", i)
			if _, err := tab.get(key); err != nil {
				t.Fatal(err)
			}
			tab.put(key, value)
			if i%10 != 9 {
				continue
			}
			b := &DiskBatch{}
			if err := tab.cut(b.Put); err != nil {
				t.Fatal(err)
			}
			if err := disk.Apply(b, disk.Next()+1, nil); err != nil {
				t.Fatal(err)
			}
			tab.flushed(tab.cutSeq)
			if tab.bytes > budget {
				t.Fatalf("round %d: holds %d bytes with everything flushed, the budget is %d", round, tab.bytes, budget)
			}
		}
	}
}
