package view

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/eos"
)

func TestView_ShowsACommitOnlyWhenItsPositionRecordIsThere(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	w.commit(change{"a", 1, 10})
	r := w.view(t.TempDir()).ready()
	r.covers(0, 2)
	w.transact(kgo.TryCommit, w.record(change{"a", 2, 20}), w.record(change{"b", 1, 1})) // committed, but half a commit
	r.await("reading the records", func() bool { return r.Status().Partitions[0].TableNext >= 7 })
	if a, b := r.version("a"), r.version("b"); a != 1 || b != 0 {
		t.Errorf("before the position record: got versions %d and %d, want 1 and 0", a, b)
	}
	w.transact(kgo.TryCommit, w.position(0, 2, 0))
	r.covers(0, 3)
	if a, b := r.version("a"), r.version("b"); a != 2 || b != 1 {
		t.Errorf("after the position record: got versions %d and %d, want 2 and 1", a, b)
	}
}

func TestView_NeverShowsWhatWasAborted(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	w.commit(change{"a", 1, 10})
	w.transact(kgo.TryAbort, w.record(change{"a", 2, 66}), w.record(change{"ghost", 1, 6}), w.position(0, 0, 0))
	r := w.view(t.TempDir()).ready()
	w.transact(kgo.TryAbort, w.record(change{"a", 3, 77}), w.position(0, 0, 0))
	w.commit(change{"c", 1, 3})
	r.await("c", func() bool { return r.version("c") == 1 })
	if a, ghost := r.version("a"), r.version("ghost"); a != 1 || ghost != 0 {
		t.Errorf("got versions %d and %d of aborted records, want 1 and 0", a, ghost)
	}
}

func TestView_IsNotReadyBeforeAProcessorHasBegun(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	r := w.view(t.TempDir())
	r.await("reading", func() bool { return strings.Contains(fmt.Sprint(r.Ready()), "no commit yet") })
	for _, path := range []string{"/v1/ids/a", "/v1/ids", "/v1/flags/big/ids", "/readyz"} {
		if code, body, _ := r.get(path); code != 503 || !strings.Contains(body, `"unavailable"`) {
			t.Errorf("%s: got %d %s, want 503", path, code, body)
		}
	}
	w.begin()
	r.ready()
	if code, body, _ := r.get("/v1/ids/a"); code != 404 || !strings.Contains(body, `"details":[{"type":"tidemark.v1.Freshness","value":"`) || !strings.Contains(body, `"debug":{"partition"`) {
		t.Errorf("got %d %s, want 404 that says as of when", code, body)
	}
}

func TestView_RefusesATableOfOtherRules(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	digest := w.schema.Digest
	w.schema.Digest = "ffff"
	w.begin()
	w.schema.Digest = digest
	r := w.view(t.TempDir())
	r.await("refusing", func() bool { return errors.Is(r.Ready(), errStopped) })
	var stop *eos.FailStop
	if err := r.stop(); !errors.As(err, &stop) || stop.Mend == "" {
		t.Errorf("got %v, want a FailStop with a mend", err)
	}
	if code, _, _ := r.get2("/v1/ids/a"); code != 503 {
		t.Errorf("after the refusal: got %d, want 503", code)
	}
}

// get2 asks the view without its server.
func (r *running) get2(path string) (int, string, error) {
	rec := newRecorder()
	r.Handler().ServeHTTP(rec, mustRequest(r.t, path))
	return rec.Code, rec.Body.String(), nil
}

func TestView_GoesOnFromLocalState(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	for i := range 50 {
		w.commit(change{fmt.Sprint("id", i), 1, int64(i)})
	}
	dir := t.TempDir()
	r := w.view(dir).ready()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	w.commit(change{"id7", 2, 100}, change{"id8", 2, 8})
	r = w.view(dir).ready()
	for _, p := range r.Status().Partitions {
		if p.Rebuilt != "" {
			t.Errorf("partition %d was rebuilt: %s; want it continued", p.Partition, p.Rebuilt)
		}
	}
	if got := r.version("id7"); got != 2 {
		t.Errorf("a commit made meanwhile: got version %d, want 2", got)
	}
	if got := r.version("id49"); got != 1 {
		t.Errorf("got version %d of id49, want 1", got)
	}
}

// TestView_EqualsAModelAndNeverGoesBack compares with a map after random commits, while readers look on. What these were shown
// is held to the order of commits: nothing else than the commit that it names, and no older one than before.
func TestView_EqualsAModelAndNeverGoesBack(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	w := mustTable(t, embedded(t), 3)
	w.begin()
	r := w.view(t.TempDir()).ready()
	pages := map[string][]string{"pa": {"pair", w.partner()}}
	for i := range 40 {
		prefix := fmt.Sprint("k", i/10)
		pages[prefix] = append(pages[prefix], fmt.Sprintf("k%02d", i))
	}
	lookers, stop, looked := []*looker{w.looker(r, seed, pages)}, make(chan struct{}), sync.WaitGroup{}
	lookers[0].get("pair")
	for i := range uint64(3) {
		k := w.looker(r, seed+i, pages)
		lookers = append(lookers, k)
		looked.Go(func() { k.look(stop) })
	}
	model := w.commitAtRandom(rnd)
	for p := range w.partitions {
		r.covers(p, w.seq[p])
	}
	close(stop)
	looked.Wait()
	for prefix, ids := range pages {
		lookers[0].list(prefix, ids)
	}
	reads, pair := shown(lookers...), lookers[0].reads["pair"]
	if faults := w.truth.CheckReads(reads); len(faults) > 0 {
		t.Errorf("%d reads: %s", len(reads), strings.Join(faults, "\n"))
	}
	findsLies(t, w.truth, reads, pair[0], pair[len(pair)-1])
	for flag, bears := range map[string]func(change) bool{
		"": func(change) bool { return true }, "big": func(c change) bool { return c.sum >= 100 }, "odd": func(c change) bool { return c.sum%2 != 0 },
	} {
		var want []string
		for id, c := range model {
			if bears(c) {
				want = append(want, fmt.Sprintf("%s v%d %d", id, c.version, c.sum))
			}
		}
		slices.Sort(want)
		if got := r.all(Filter{Flag: flag, Prefix: prefixUnless(flag), Limit: 1 + rnd.IntN(7)}); !slices.Equal(got, want) {
			t.Errorf("flag %q: got %v\nwant %v", flag, got, want)
		}
	}
}

// commitAtRandom commits changes and deletions of forty IDs, and in each commit of their partition a pair of two, which no reader may see
// apart. It answers what is left.
func (w *table) commitAtRandom(rnd *rand.Rand) (model map[string]change) {
	model, versions := map[string]change{}, map[string]uint64{}
	for range 150 {
		var changes []change
		chosen := map[string]bool{}
		for range 1 + rnd.IntN(8) {
			id := fmt.Sprintf("k%02d", rnd.IntN(40))
			if chosen[id] {
				continue
			}
			chosen[id] = true
			versions[id]++
			c := change{id, versions[id], rnd.Int64N(200)}
			if rnd.IntN(10) == 0 {
				c.version = 0
				delete(model, id)
			} else {
				model[id] = c
			}
			changes = append(changes, c)
		}
		versions["pair"]++
		v := versions["pair"]
		changes = append(changes, change{"pair", v, int64(v)}, change{w.partner(), v, int64(v)})
		w.commit(changes...)
	}
	return model
}

func prefixUnless(flag string) string {
	if flag == "" {
		return "k"
	}
	return ""
}

// partner is an ID on the same partition as "pair".
func (w *table) partner() string {
	for i := 0; ; i++ {
		if id := fmt.Sprint("partner", i); w.on(id) == w.on("pair") {
			return id
		}
	}
}

// all reads a list page by page.
func (r *running) all(f Filter) []string {
	r.t.Helper()
	var out []string
	for {
		page, more, asOf, err := r.List(r.t.Context(), f, Read{})
		if err != nil || len(asOf) != len(r.View.all()) {
			r.t.Fatalf("list %+v: %v, as of %d partitions", f, err, len(asOf))
		}
		for _, e := range page {
			if f.After = e.ID; !strings.HasPrefix(e.ID, "pa") {
				out = append(out, fmt.Sprintf("%s v%d %s", e.ID, e.State.Version, &e.State.Totals[0].Num))
			}
		}
		if !more {
			return out
		}
	}
}
