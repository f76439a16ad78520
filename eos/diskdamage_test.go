package eos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
)

// damageFile changes one file of a state directory and says how.
func damageFile(t testing.TB, rng *rand.Rand, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, e := range entries {
		if e.Name() != "LOCK" && e.Name() != "LOG" {
			files = append(files, e.Name())
		}
	}
	// The manifest and CURRENT are few among many tables: half of the damage goes to them.
	name := files[rng.IntN(len(files))]
	if rng.IntN(2) == 0 {
		matches, _ := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
		name = filepath.Base(append(matches, "CURRENT")[rng.IntN(len(matches)+1)])
	}
	file := filepath.Join(dir, name)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	how := ""
	switch kind := rng.IntN(10); {
	case kind == 0:
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		return "removed " + name
	case kind < 4 || len(b) == 0:
		n := rng.IntN(len(b) + 1)
		b, how = b[:n], fmt.Sprintf("cut %s at %d of %d", name, n, len(b))
	case kind < 5:
		at := rng.IntN(len(b))
		clear(b[at:min(at+512, len(b))])
		how = fmt.Sprintf("zeroed 512 bytes of %s at %d of %d", name, at, len(b))
	default:
		for range 1 + rng.IntN(3) {
			at := rng.IntN(len(b))
			b[at] ^= 1 << rng.IntN(8)
			how += fmt.Sprintf("flipped a bit of %s at %d of %d ", name, at, len(b))
		}
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return how
}

// mustFilled writes a state of several tables and levels, and answers its directory. With a clean stop everything is in
// tables; without one the directory is as a kill leaves it.
func mustFilled(t testing.TB, h history, clean bool, options ...DiskOption) string {
	dir := t.TempDir()
	d := mustDisk(t, dir, append(options, DiskWriteBuffer(48<<10))...)
	h.write(t, d, 0, h.batches)
	if clean {
		mustClose(t, d)
		return dir
	}
	defer mustClose(t, d)
	for { // a copy that a compaction was changing holds damage of its own
		copied := copyDir(t, dir)
		d := mustDisk(t, copyDir(t, copied), options...)
		whole := d.Rebuilt() == ""
		mustClose(t, d)
		if whole {
			return copied
		}
	}
}

func TestDisk_DamageIsNeverServed(t *testing.T) {
	h := history{batches: 1500, keys: 600}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	rebuilt, refused, whole, older := 0, 0, 0, 0
	for _, clean := range []bool{true, false} {
		dir := mustFilled(t, h, clean)
		for range 60 {
			copied := copyDir(t, dir)
			how := damageFile(t, rng, copied)
			d := mustDisk(t, copied)
			silent, damaged, err := h.compare(d)
			if err != nil || len(silent) > 0 {
				t.Errorf("%s: rebuilt %q, next %d: got %v, %v", how, d.Rebuilt(), d.Next(), err, silent[:min(3, len(silent))])
			}
			switch next := d.Next(); {
			case d.Rebuilt() != "":
				rebuilt++
			case damaged > 0:
				refused++
				if !d.Damaged() {
					t.Errorf("%s: damage was found, and Damaged says no", how)
				}
			case next < int64(h.batches)*historyStep:
				older++
			default:
				whole++
			}
			if err := d.Close(); err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: close: %v", how, err)
			}
			if d.Damaged() {
				testBegunAnew(t, h, copied, how)
			}
		}
	}
	t.Logf("120 damaged states: %d begun anew on opening, %d refused on reading, %d older ones, %d whole", rebuilt, refused, older, whole)
	if rebuilt == 0 || refused == 0 {
		t.Errorf("begun anew %d, refused %d: the test did no real damage", rebuilt, refused)
	}
}

func testBegunAnew(t *testing.T, h history, dir, how string) {
	t.Helper()
	d := mustDisk(t, dir)
	if d.Rebuilt() == "" || d.Next() != 0 {
		t.Errorf("%s: after damage was found: rebuilt %q, next %d, want a reason and 0", how, d.Rebuilt(), d.Next())
	}
	h.write(t, d, 0, 50)
	if silent, damaged, err := h.compare(d); len(silent) > 0 || damaged > 0 || err != nil {
		t.Errorf("%s: written again: got %v, %d, %v", how, silent, damaged, err)
	}
	mustClose(t, d)
}

// TestDisk_StockOptionsServeDamage is the control: the same damage under LevelDB's defaults.
func TestDisk_StockOptionsServeDamage(t *testing.T) {
	h := history{batches: 1500, keys: 600}
	rng := rand.New(rand.NewPCG(1, 2))
	stock := func(s *diskTuning) { s.stock = true }
	var dir string
	silently, damaged := 0, 0
	for ; damaged < 60 || silently == 0 && damaged < 1000; damaged++ {
		if damaged%60 == 0 { // which files there are is LevelDB's affair, and differs: one with next to no journal has little to find
			dir = mustFilled(t, h, false, stock)
		}
		copied := copyDir(t, dir)
		how := damageFile(t, rng, copied)
		d, err := OpenDisk(copied, testDiskID, time.Hour, time.Now(), stock)
		if err != nil {
			continue // refused is not served
		}
		if silent, _, _ := h.compare(d); len(silent) > 0 {
			if silently++; silently < 4 {
				t.Logf("%s: %s", how, silent[0])
			}
		}
		_ = d.Close()
	}
	t.Logf("%d of %d damaged states were served", silently, damaged)
	if silently == 0 {
		t.Error("no damage was served: the test of damage could not find any either")
	}
}

func TestDisk_MissingIdentityIsDamage(t *testing.T) {
	dir := t.TempDir()
	db, err := leveldb.OpenFile(dir, nil) // someone else's database
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Put([]byte("__offset"), []byte("12"), nil); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDisk(dir, testDiskID, time.Hour, time.Now())
	if err != nil || d.Rebuilt() == "" || d.Next() != 0 {
		t.Fatalf("got %+v, %v, want a new state", d, err)
	}
	mustClose(t, d)
}
