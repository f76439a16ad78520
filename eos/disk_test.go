package eos

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var testDiskID = DiskID{TableID: [16]byte{7}, Topic: "job-table", Partition: 3, Generation: 1, Digest: "abc", Layout: "processor"}

func mustDisk(t testing.TB, dir string, options ...DiskOption) *Disk {
	t.Helper()
	d, err := OpenDisk(dir, testDiskID, time.Hour, time.Now(), options...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustClose(t testing.TB, d *Disk) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// history is a run of batches whose outcome after any number of them can be computed.
type history struct{ batches, keys int }

const historyStep = 3 // offsets a batch

func (h history) batch(i int, b *DiskBatch) {
	rng := rand.New(rand.NewPCG(uint64(i), 1))
	for range 5 {
		key := fmt.Sprintf("id-%05d", rng.IntN(h.keys))
		if rng.IntN(5) == 0 {
			b.Delete([]byte(key))
			b.DeleteIndex([]byte("index-" + key))
			continue
		}
		b.Put([]byte(key), h.value(key, i))
		b.PutIndex([]byte("index-" + key))
	}
}

func (h history) value(key string, i int) []byte {
	rng := rand.New(rand.NewPCG(uint64(i), 2))
	value := fmt.Appendf(nil, "%s as of %d ", key, i)
	for range 25 { // does not compress, so that there are many blocks
		value = binary.BigEndian.AppendUint64(value, rng.Uint64())
	}
	return value
}

// at gives the state after the batches whose offsets lie below next.
func (h history) at(next int64) map[string]string {
	state := map[string]string{}
	for i := range int(next / historyStep) {
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		for range 5 {
			key := fmt.Sprintf("id-%05d", rng.IntN(h.keys))
			if rng.IntN(5) == 0 {
				delete(state, key)
				continue
			}
			state[key] = string(h.value(key, i))
		}
	}
	return state
}

func (h history) write(t testing.TB, d *Disk, from, to int) {
	t.Helper()
	var b DiskBatch
	for i := from; i < to; i++ {
		b.Reset()
		h.batch(i, &b)
		pos := &Position{Seq: uint64(i + 1), CommittedMs: time.Now().UnixMilli()}
		if err := d.Apply(&b, int64(i+1)*historyStep, pos); err != nil {
			t.Fatal(err)
		}
	}
}

// compare reads everything there is. silent counts wrong and missing values, damaged the reads that were refused.
func (h history) compare(d *Disk) (silent []string, damaged int, err error) {
	want := h.at(d.Next())
	if pos, ok := d.Position(); ok != (d.Next() > 0) || ok && pos.Seq != uint64(d.Next()/historyStep) {
		silent = append(silent, fmt.Sprintf("position %+v at %d", pos, d.Next()))
	}
	for i := range h.keys {
		key := fmt.Sprintf("id-%05d", i)
		got, err := d.Get([]byte(key))
		value, ok := want[key]
		switch {
		case errors.Is(err, ErrDamaged):
			damaged++
			return silent, damaged, nil // every later read says the same
		case errors.Is(err, ErrNotFound) && ok:
			silent = append(silent, "lost "+key)
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return silent, damaged, err
		case !ok || string(got) != value:
			silent = append(silent, fmt.Sprintf("%s is %.30q, want %.30q", key, got, value))
		}
	}
	snap, err := d.Snapshot()
	if err != nil {
		return silent, damaged, err
	}
	defer snap.Release()
	for prefix, it := range map[string]*DiskIterator{"": snap.Records(nil, nil), "index-": snap.Index(nil, nil)} {
		var got []string
		for it.Next() {
			got = append(got, strings.TrimPrefix(string(it.Key()), prefix))
		}
		err := it.Err()
		it.Release()
		if errors.Is(err, ErrDamaged) {
			damaged++
		} else if err != nil {
			return silent, damaged, err
		} else if !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
			silent = append(silent, fmt.Sprintf("%q lists %d keys, want %d", prefix, len(got), len(want)))
		}
	}
	return silent, damaged, nil
}

func TestDisk_ContinuesAfterACleanStop(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "partition-3")
	h := history{batches: 200, keys: 50}
	d := mustDisk(t, dir)
	if d.Rebuilt() == "" || d.Next() != 0 {
		t.Errorf("new: rebuilt %q, next %d, want a reason and 0", d.Rebuilt(), d.Next())
	}
	h.write(t, d, 0, 100)
	mustClose(t, d)
	d = mustDisk(t, dir)
	if d.Rebuilt() != "" || d.Next() != 300 {
		t.Fatalf("again: rebuilt %q, next %d, want continued at 300", d.Rebuilt(), d.Next())
	}
	h.write(t, d, 100, 200)
	if silent, damaged, err := h.compare(d); len(silent) > 0 || damaged > 0 || err != nil {
		t.Errorf("got %v, %d, %v", silent, damaged, err)
	}
	mustClose(t, d)
}

func TestDisk_AKilledProcessFindsAnOlderWholeState(t *testing.T) {
	h := history{batches: 4000, keys: 300}
	dir := t.TempDir()
	d := mustDisk(t, dir, DiskWriteBuffer(64<<10))
	defer mustClose(t, d)
	seen := map[int64]bool{}
	for i := 0; i < h.batches; i += 250 {
		h.write(t, d, i, i+250)
		// What lies in the directory now is what a kill would leave. The copy is taken again if a compaction was under way.
		d2 := mustDisk(t, copyDir(t, dir))
		if silent, damaged, err := h.compare(d2); len(silent) > 0 || damaged > 0 || err != nil {
			t.Fatalf("after %d batches: got %v, %d, %v", i+250, silent, damaged, err)
		}
		seen[d2.Next()] = true
		mustClose(t, d2)
	}
	if len(seen) < 4 {
		t.Errorf("states found: %v, want several: the test wrote too little", seen)
	}
}

// copyDir copies a directory that may be changing: MANIFEST first names what must exist, so it is read last but one.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "LOCK" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func TestDisk_RefusesADirectoryThatIsInUse(t *testing.T) {
	dir := t.TempDir()
	d := mustDisk(t, dir)
	h := history{batches: 10, keys: 5}
	h.write(t, d, 0, 10)
	_, err := OpenDisk(dir, testDiskID, time.Hour, time.Now())
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want ErrLocked that names %s", err, dir)
	}
	mustClose(t, d)
	d = mustDisk(t, dir)
	if d.Rebuilt() != "" || d.Next() != 30 {
		t.Errorf("after the first closed: rebuilt %q, next %d, want continued at 30", d.Rebuilt(), d.Next())
	}
	mustClose(t, d)
}

func TestDisk_BeginsAnewWhereStateIsNotItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*DiskID)
		after  time.Duration
		why    string
	}{
		"topic made again": {change: func(id *DiskID) { id.TableID[0]++ }, why: "another table"},
		"partition":        {change: func(id *DiskID) { id.Partition++ }, why: "another table"},
		"generation":       {change: func(id *DiskID) { id.Generation++ }, why: "another table"},
		"rules":            {change: func(id *DiskID) { id.Digest = "def" }, why: "another table"},
		"layout":           {change: func(id *DiskID) { id.Layout = "view" }, why: "another table"},
		"too old":          {after: 2 * time.Hour, why: "older than 1h0m0s"},
		"a clock ahead":    {after: -20 * time.Minute, why: "more than 15m0s ahead"},
		"a little ahead":   {after: -10 * time.Minute},
		"its own":          {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			stranger := filepath.Join(dir, "notes.txt")
			if err := os.WriteFile(stranger, []byte("not ours"), 0o600); err != nil {
				t.Fatal(err)
			}
			d := mustDisk(t, dir)
			h := history{batches: 10, keys: 5}
			h.write(t, d, 0, 10)
			mustClose(t, d)
			id := testDiskID
			if c.change != nil {
				c.change(&id)
			}
			d, err := OpenDisk(dir, id, time.Hour, time.Now().Add(c.after))
			if err != nil {
				t.Fatal(err)
			}
			defer mustClose(t, d)
			if !strings.Contains(d.Rebuilt(), c.why) || (c.why == "") != (d.Rebuilt() == "") || (c.why == "") != (d.Next() == 30) {
				t.Errorf("rebuilt %q, next %d, want reason %q", d.Rebuilt(), d.Next(), c.why)
			}
			if silent, damaged, err := h.compare(d); len(silent) > 0 || damaged > 0 || err != nil {
				t.Errorf("got %v, %d, %v", silent, damaged, err)
			}
			if _, err := os.Stat(stranger); err != nil {
				t.Errorf("a file that is not ours: %v", err)
			}
		})
	}
}

func TestDisk_AgesFromWhatItCoversNotFromWhenItWasWritten(t *testing.T) {
	dir := t.TempDir()
	start := time.Now().Add(-10 * time.Hour)
	reopen := func() *Disk {
		d, err := OpenDisk(dir, testDiskID, 5*time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d, err := OpenDisk(dir, testDiskID, 5*time.Hour, start)
	if err != nil {
		t.Fatal(err)
	}
	apply := func(next int64, committed time.Time) {
		t.Helper()
		if err := d.Apply(&DiskBatch{}, next, &Position{CommittedMs: committed.UnixMilli()}); err != nil {
			t.Fatal(err)
		}
	}
	apply(5, start.Add(time.Hour)) // an old commit, read just now
	mustClose(t, d)
	if d = reopen(); !strings.Contains(d.Rebuilt(), "older") {
		t.Fatalf("rebuilt %q, want too old: deletions after the old commit may be forgotten", d.Rebuilt())
	}
	apply(5, start.Add(time.Hour)) // begun just now: whatever it reads is younger
	mustClose(t, d)
	if d = reopen(); d.Rebuilt() != "" {
		t.Errorf("rebuilt %q, want continued", d.Rebuilt())
	}
	mustClose(t, d)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	d, err = OpenDisk(dir, testDiskID, 5*time.Hour, start)
	if err != nil {
		t.Fatal(err)
	}
	apply(5, start.Add(time.Hour))
	if err := d.Touch(time.Now()); err != nil { // level just now
		t.Fatal(err)
	}
	mustClose(t, d)
	if d = reopen(); d.Rebuilt() != "" || d.Next() != 5 {
		t.Errorf("rebuilt %q, next %d, want continued at 5: it was level", d.Rebuilt(), d.Next())
	}
	apply(6, time.Now().Add(1000*time.Hour)) // a clock that runs ahead
	mustClose(t, d)
	d, err = OpenDisk(dir, testDiskID, 5*time.Hour, time.Now().Add(6*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(d.Rebuilt(), "older") {
		t.Errorf("rebuilt %q, want too old whatever the commit's clock said", d.Rebuilt())
	}
	mustClose(t, d)
}

// The clock runs ten hours ahead, is put right, and state from then is begun anew: once, for what is written since is of now,
// whatever the clocks of those say whose commits it reads.
func TestDisk_StateOfAClockThatRanAheadIsBegunAnewOnce(t *testing.T) {
	dir := t.TempDir()
	ahead := time.Now().Add(10 * time.Hour)
	d, err := OpenDisk(dir, testDiskID, time.Hour, ahead)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ahead of this machine's clock", "", ""} {
		if err := d.Apply(&DiskBatch{}, 7, &Position{CommittedMs: ahead.Add(time.Hour).UnixMilli()}); err != nil {
			t.Fatal(err)
		}
		mustClose(t, d)
		d = mustDisk(t, dir)
		if !strings.Contains(d.Rebuilt(), want) || (want == "") != (d.Rebuilt() == "") || (want == "") != (d.Next() == 7) {
			t.Errorf("rebuilt %q, next %d, want reason %q", d.Rebuilt(), d.Next(), want)
		}
		if age := time.Since(d.AsOf()); age < 0 || age > time.Minute {
			t.Errorf("the state is %s old, want as of now", age)
		}
	}
	mustClose(t, d)
}

func TestDisk_NoKeyCollidesWithWhatIsOurs(t *testing.T) {
	dir := t.TempDir()
	d := mustDisk(t, dir)
	keys := [][]byte{{}, {0}, []byte("mi"), []byte("mn"), []byte("m"), []byte("r"), []byte("i"), []byte("__offset"), {0xfe, 1}, {0xff}, []byte("a/../b"), []byte("x\x00y")}
	var b DiskBatch
	for _, k := range keys {
		b.Put(k, append([]byte("v"), k...))
		b.PutIndex(k)
	}
	if err := d.Apply(&b, 1, nil); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	d = mustDisk(t, dir)
	defer mustClose(t, d)
	for _, k := range keys {
		if got, err := d.Get(k); err != nil || string(got) != "v"+string(k) {
			t.Errorf("%q: got %q, %v", k, got, err)
		}
	}
	snap, err := d.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	slices.SortFunc(keys, bytes.Compare)
	for name, it := range map[string]*DiskIterator{"records": snap.Records(nil, nil), "index": snap.Index(nil, nil)} {
		var got [][]byte
		for it.Next() {
			got = append(got, bytes.Clone(it.Key()))
		}
		it.Release()
		if it.Err() != nil || !slices.EqualFunc(got, keys, bytes.Equal) {
			t.Errorf("%s: got %q, %v, want %q", name, got, it.Err(), keys)
		}
	}
	it := snap.Records([]byte("i"), []byte("mn"))
	defer it.Release()
	var got []string
	for it.Next() {
		got = append(got, string(it.Key()))
	}
	if want := []string{"i", "m", "mi"}; !slices.Equal(got, want) {
		t.Errorf("between i and mn: got %q, want %q", got, want)
	}
}

func TestDisk_SnapshotStaysWhileStateGoesOn(t *testing.T) {
	d := mustDisk(t, t.TempDir())
	defer mustClose(t, d)
	h := history{batches: 100, keys: 20}
	h.write(t, d, 0, 50)
	snap, err := d.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	h.write(t, d, 50, 100)
	want := h.at(150)
	pos, _ := snap.Position()
	if snap.Next() != 150 || pos.Seq != 50 {
		t.Errorf("got next %d, commit %d, want 150 and 50", snap.Next(), pos.Seq)
	}
	for i := range h.keys {
		key := fmt.Sprintf("id-%05d", i)
		got, err := snap.Get([]byte(key))
		if value, ok := want[key]; ok != (err == nil) || ok && string(got) != value {
			t.Errorf("%s: got %q, %v, want %q", key, got, err, value)
		}
	}
}

func TestDisk_NextNeverGoesBack(t *testing.T) {
	d := mustDisk(t, t.TempDir())
	defer mustClose(t, d)
	if err := d.Apply(&DiskBatch{}, 9, nil); err != nil {
		t.Fatal(err)
	}
	var b DiskBatch
	b.Put([]byte("late"), nil)
	if err := d.Apply(&b, 8, nil); err == nil || d.Next() != 9 {
		t.Errorf("got %v, next %d, want an error and 9", err, d.Next())
	}
	if _, err := d.Get([]byte("late")); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func TestDisk_MarkedAsDamagedRefusesAndBeginsAnew(t *testing.T) {
	dir := t.TempDir()
	d := mustDisk(t, dir)
	h := history{batches: 5, keys: 3}
	h.write(t, d, 0, 5)
	d.MarkDamaged("value of e-17 does not decode")
	if _, err := d.Get([]byte("id-00001")); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "e-17") {
		t.Errorf("get: got %v, want ErrDamaged with the reason", err)
	}
	if err := d.Apply(&DiskBatch{}, 99, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("apply: got %v, want ErrDamaged", err)
	}
	mustClose(t, d)
	for _, want := range []string{"e-17", ""} {
		d = mustDisk(t, dir)
		if !strings.Contains(d.Rebuilt(), want) || (want == "") != (d.Rebuilt() == "") || d.Next() != 0 {
			t.Errorf("rebuilt %q, next %d, want %q and 0", d.Rebuilt(), d.Next(), want)
		}
		mustClose(t, d)
	}
}
