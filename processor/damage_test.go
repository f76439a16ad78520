package processor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/twmb/franz-go/pkg/kgo"
)

// damageJob keeps windows, so that the state of an ID with many events lies in several records.
const damageJob = `name: NAME
input: {topic: NAME-events, id: event.id, time: event.time}
totals:
  sum:    {sum: event.value}
  last_h: {sum: event.value, window: 1h}
  recent: {list: event.value, window: 1h, max_items: 5}
flags:
  many: {when: "totals.sum >= 100"}
`

const damagedIDs = 300

// Every deepStep-th ID begins with deepEvents events: more than stay in a window's tail, and enough for the flag.
const deepStep, deepEvents = 30, 80

// stateFiles are LevelDB's files of all partitions.
func stateFiles(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != "LOCK" && e.Name() != "LOG" {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// damage harms one file, two where it swaps them, and says how. Half of it goes to manifests and CURRENT.
func damage(t testing.TB, rng *rand.Rand, dir string) string {
	t.Helper()
	files := stateFiles(t, dir)
	if rng.IntN(2) == 0 {
		var few []string
		for _, f := range files {
			if base := filepath.Base(f); base == "CURRENT" || strings.HasPrefix(base, "MANIFEST") {
				few = append(few, f)
			}
		}
		files = few
	}
	file := files[rng.IntN(len(files))]
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(file)
	put := func(path string, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	switch kind := rng.IntN(10); {
	case kind == 0:
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		return "removed " + name
	case kind == 1:
		put(file, nil)
		return "emptied " + name
	case kind == 2:
		n := rng.IntN(len(b) + 1)
		put(file, b[:n])
		return fmt.Sprintf("cut %s at %d of %d", name, n, len(b))
	case kind == 3:
		other := files[rng.IntN(len(files))]
		c, err := os.ReadFile(other)
		if err != nil {
			t.Fatal(err)
		}
		put(file, c)
		put(other, b)
		return fmt.Sprintf("swapped %s and %s", name, filepath.Base(other))
	case len(b) == 0:
		put(file, []byte("x"))
		return "wrote into " + name
	}
	how := ""
	for range 1 + rng.IntN(3) {
		at := rng.IntN(len(b))
		b[at] ^= 1 << rng.IntN(8)
		how += fmt.Sprintf("flipped a bit of %s at %d of %d ", name, at, len(b))
	}
	put(file, b)
	return how
}

// damageModel is what was produced, by ID in order.
type damageModel map[string][]damageEvent

type damageEvent struct {
	at    time.Time
	value int
}

// damageEvents are one event for each of some IDs, with a value of the round's own, and in round 0 many for some. The rounds are so
// far apart that the first slide out of the window.
func damageEvents(j *job, want damageModel, round, step int) {
	j.t.Helper()
	cl := j.mustClient()
	defer cl.Close()
	at := time.Date(2024, 5, 1, 10, 0, 0, 0, time.UTC).Add(7 * time.Duration(round) * time.Minute)
	var out []*kgo.Record
	for i := round % step; i < damagedIDs; i += step {
		id, n := fmt.Sprint("id-", i), 1
		if round == 0 && i%deepStep == 0 {
			n = deepEvents
		}
		for k := range n {
			e := damageEvent{at.Add(time.Duration(k) * time.Second), round + 1 + k%3}
			want[id] = append(want[id], e)
			out = append(out, &kgo.Record{Key: []byte(id), Value: fmt.Appendf(nil, `{"id":%q,"time":%q,"value":%d}`, id, e.at.Format(time.RFC3339), e.value)})
		}
	}
	j.mustWrite(cl, out...)
}

// state is what the events of an ID have to come to.
func (m damageModel) state(id string) string {
	events := m[id]
	last := events[len(events)-1].at
	sum, inWindow, recent := 0, 0, []string{}
	for _, e := range events {
		sum += e.value
		if e.at.After(last.Add(-time.Hour)) {
			inWindow += e.value
			recent = append(recent, fmt.Sprint(e.value))
		}
	}
	return describe(uint64(len(events)), fmt.Sprint(sum), fmt.Sprint(inWindow), recent[max(0, len(recent)-5):], sum >= 100)
}

func describe(count uint64, sum, inWindow string, recent []string, many bool) string {
	return fmt.Sprintf("count %d, sum %s, last_h %s, recent %v, many %t", count, sum, inWindow, recent, many)
}

// checkDamaged asks for each ID's totals, windows and flag.
func checkDamaged(j *job, want damageModel, how string) {
	j.t.Helper()
	states := j.table()
	for id := range want {
		st, got := states[id], "nothing"
		if st != nil {
			var recent []string
			for _, v := range st.Totals[slices.Index(j.rules.Schema().Totals, "recent")].Items {
				recent = append(recent, v.Num.String())
			}
			got = describe(st.Count, j.total(st, "sum"), j.total(st, "last_h"), recent, flagOf(j, st, "many"))
		}
		if want := want.state(id); got != want {
			j.t.Errorf("%s: %s: got %s, want %s", how, id, got, want)
			return
		}
	}
	if len(states) != len(want) {
		j.t.Errorf("%s: got %d IDs, want %d", how, len(states), len(want))
	}
}

// sealed counts the chunks that windows have put into records of their own.
func sealed(j *job) (n int) {
	j.t.Helper()
	for _, r := range j.records(j.names.Table()) {
		if !eos.IsUserKey(r.Key) && !eos.IsPositionKey(r.Key) && r.Value != nil {
			n++
		}
	}
	return n
}

func flagOf(j *job, st *codecs.State, name string) bool {
	for i, f := range j.rules.Schema().Flags {
		if f == name {
			return st.Flags[i].Raised
		}
	}
	return false
}

func TestProcessor_DamagedLocalStateIsNeverCountedOn(t *testing.T) {
	const jobs, rounds = 4, 10
	var noticed atomic.Int64
	t.Run("of", func(t *testing.T) {
		for i := range jobs {
			t.Run(fmt.Sprint("job ", i), func(t *testing.T) {
				t.Parallel() // most of it is waiting
				noticed.Add(damageAndRun(t, rounds))
			})
		}
	})
	t.Logf("%d of %d damages were noticed", noticed.Load(), jobs*rounds)
	if noticed.Load() == 0 {
		t.Error("nothing was begun anew or refused: the test did no real damage")
	}
}

// damageAndRun damages a job's state before each round of events, and answers how often that was noticed.
func damageAndRun(t *testing.T, rounds int) (noticed int64) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	j := mustJob(t, mustFake(t), damageJob, 2)
	want := damageModel{}
	damageEvents(j, want, 0, 1)
	j.mustRun()
	if n := sealed(j); n < damagedIDs/deepStep {
		t.Errorf("%d chunks have records of their own, want one at least of each ID with many events", n)
	}
	rebuilt, refused, continued := 0, 0, 0
	for round := 1; round <= rounds; round++ {
		how := damage(t, rng, j.dir)
		damageEvents(j, want, round, 7)
		var said bytes.Buffer
		err := j.try(func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&said, nil)) })
		switch {
		case err != nil: // refused by name, and the next start is whole
			refused++
			t.Logf("%s: refused: %v", how, err)
			if err := j.try(nil); err != nil {
				t.Errorf("%s: refused again: %v", how, err)
			}
		case strings.Contains(said.String(), "begun anew"):
			rebuilt++
		default:
			continued++
		}
		checkDamaged(j, want, how)
	}
	t.Logf("%d begun anew, %d refused, %d continued", rebuilt, refused, continued)
	return int64(rebuilt + refused)
}

// TestProcessor_StockLevelDBServesDamage is the control: the same kinds of damage under LevelDB's defaults. What a crash takes
// from the end is forgiven; a record that is gone while a later one stands, or that differs, is served.
func TestProcessor_StockLevelDBServesDamage(t *testing.T) {
	const records = 2000
	whole := t.TempDir()
	db, err := leveldb.OpenFile(whole, &opt.Options{WriteBuffer: 32 << 10})
	if err != nil {
		t.Fatal(err)
	}
	value := func(i int) string { return strings.Repeat(fmt.Sprint("state of ", i, " "), 10) }
	for i := range records {
		if err := db.Put(fmt.Append(nil, "id-", i), []byte(value(i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil { // which leaves the journal as it is
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	silent := 0
	for range 60 {
		dir := filepath.Join(t.TempDir(), "db")
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		how := damage(t, rng, dir)
		db, err := leveldb.OpenFile(dir, nil)
		if err != nil {
			continue // refused is not served
		}
		missing := -1
		for i := range records {
			got, err := db.Get(fmt.Append(nil, "id-", i), nil)
			switch {
			case errors.Is(err, leveldb.ErrNotFound):
				if missing < 0 {
					missing = i
				}
				continue
			case err != nil || string(got) == value(i) && missing < 0:
				continue
			}
			t.Logf("%s: record %d is gone or record %d differs", how, missing, i)
			silent++
			break
		}
		_ = db.Close()
	}
	t.Logf("%d of 60 damaged states were served", silent)
	if silent == 0 {
		t.Error("no damage was served: the test of damage could not find any either")
	}
}
