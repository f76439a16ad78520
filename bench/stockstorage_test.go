package main

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/lovoo/goka/storage"
)

// TestGathered_KeepsWhatItWasGiven compares the storage with a map, over random writes and several lives.
func TestGathered_KeepsWhatItWasGiven(t *testing.T) {
	dir, want := t.TempDir(), map[string]string{}
	rnd := rand.New(rand.NewPCG(1, 2))
	offset := int64(0)
	for life := range 3 {
		st := mustStorage(t, dir)
		if got, err := st.GetOffset(-1); err != nil || life > 0 && got != offset {
			t.Fatalf("life %d: offset %d, %v, want %d", life, got, err, offset)
		}
		for range 3 * gatherMax / 2 {
			key, value := idText(rnd.IntN(5000)), fmt.Sprint(rnd.Uint64())
			if rnd.IntN(10) == 0 {
				value = ""
				delete(want, key)
				mustDo(t, st.Delete(key))
			} else {
				want[key] = value
				mustDo(t, st.Set(key, []byte(value)))
			}
			offset++
			mustDo(t, st.SetOffset(offset))
			if got, err := st.Get(key); err != nil || string(got) != value {
				t.Fatalf("%s: got %q, %v, want %q", key, got, err, value)
			}
		}
		mustDo(t, st.Close())
	}
	st := mustStorage(t, dir)
	for id := range 5000 {
		key := idText(id)
		if got, err := st.Get(key); err != nil || string(got) != want[key] {
			t.Errorf("%s: got %q, %v, want %q", key, got, err, want[key])
		}
	}
	mustDo(t, st.Close())
}

func mustStorage(t *testing.T, dir string) storage.Storage {
	t.Helper()
	st, err := gatheredBuilder(dir)("table", 0)
	if err != nil {
		t.Fatal(err)
	}
	mustDo(t, st.Open())
	return st
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
