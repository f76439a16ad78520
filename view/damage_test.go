package view

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
)

const damages = 50

// TestView_DamagedLocalStateIsNeverServed damages the files of a view that was stopped, and starts it on them: it comes up
// with the right answers. The control reads the same files as LevelDB does by default and finds wrong ones among them.
func TestView_DamagedLocalStateIsNeverServed(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	want := map[string]change{}
	for range 2 {
		var changes []change
		for i := range 300 {
			c := change{fmt.Sprintf("id%04d", i), uint64(len(changes) + 1), int64(i * 7)}
			changes, want[c.id] = append(changes, c), c
		}
		w.commit(changes...)
	}
	whole := t.TempDir()
	if err := w.view(whole).ready().stop(); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	rebuilt, silent := 0, 0
	for range damages {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		how := damage(t, rnd, filepath.Join(dir, "0"))
		if wrongByDefault(t, filepath.Join(dir, "0"), want) {
			silent++
		}
		r := w.view(dir).ready()
		got := r.listed()
		r.awaitSame(how, want, got)
		if r.Status().Partitions[0].Rebuilt != "" {
			rebuilt++
		}
		if err := r.stop(); err != nil {
			t.Fatalf("%s: %v", how, err)
		}
	}
	t.Logf("%d damages: %d rebuilt, the control served %d wrong states", damages, rebuilt, silent)
	for tries := 0; silent == 0 && tries < 2000; tries++ { // few of the damages deceive it
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		damage(t, rnd, filepath.Join(dir, "0"))
		if wrongByDefault(t, filepath.Join(dir, "0"), want) {
			silent++
		}
	}
	if silent == 0 {
		t.Error("the control served no wrong state: the damages are too mild to show anything")
	}
}

// listed reads all states; nil when the view refused, which it may while it repairs.
func (r *running) listed() map[string]change {
	out := map[string]change{}
	f := Filter{Limit: limitMax}
	for {
		page, more, _, err := r.List(r.t.Context(), f, Read{})
		if err != nil {
			return nil
		}
		for _, e := range page {
			sum, _ := e.State.Totals[0].Num.Int64()
			out[e.ID] = change{e.ID, e.State.Version, sum}
			f.After = e.ID
		}
		if !more {
			return out
		}
	}
}

func (r *running) awaitSame(how string, want, got map[string]change) {
	r.t.Helper()
	r.await(how, func() bool {
		if got == nil { // damage that reading found
			got = r.listed()
			return false
		}
		return true
	})
	if len(got) != len(want) {
		r.t.Errorf("%s: got %d IDs, want %d", how, len(got), len(want))
	}
	for id, c := range want {
		if got[id] != c {
			r.t.Fatalf("%s: got %+v, want %+v", how, got[id], c)
		}
	}
}

func damage(t *testing.T, rnd *rand.Rand, dir string) string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if base := filepath.Base(path); err == nil && !d.IsDir() && base != "LOCK" && !strings.HasPrefix(base, "LOG") {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("files of %s: %v", dir, err)
	}
	file := files[rnd.IntN(len(files))]
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(file)
	switch kind := rnd.IntN(8); {
	case kind == 0:
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		return "removed " + name
	case kind < 3:
		n := rnd.IntN(len(b) + 1)
		if err := os.WriteFile(file, b[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("cut %s at %d of %d", name, n, len(b))
	}
	how := ""
	for range 1 + rnd.IntN(3) {
		at := rnd.IntN(len(b))
		b[at] ^= 1 << rnd.IntN(8)
		how += fmt.Sprintf("flipped a bit of %s at %d of %d ", name, at, len(b))
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return how
}

// wrongByDefault tells whether LevelDB with default options opens a copy of the files and reads fewer or other states,
// without any error.
func wrongByDefault(t *testing.T, dir string, want map[string]change) (wrong bool) {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() != nil {
			wrong = false // it panics: not silent
		}
	}()
	db, err := leveldb.OpenFile(copied, &opt.Options{})
	if err != nil {
		return false
	}
	defer db.Close()
	for id := range want {
		_, err := db.Get(append([]byte{'r'}, id...), nil)
		if err == leveldb.ErrNotFound {
			return true
		} else if err != nil {
			return false
		}
	}
	return false
}
