package view

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tidemark/tidemark/eos"
)

// cached is a View's cache as the reads use it, and partitions that publish without a disk.
func cached(most int) (*cache, *partition, func() *published) {
	c, p := newCache(most), &partition{}
	return c, p, func() *published { return &published{turn: p.turn.Load(), since: p.since} }
}

// get appends the state of an ID as a reader of s sees it.
func (c *cache) get(dst []byte, s *published, id string) (out []byte, version uint64, ok bool) {
	return c.show(dst, s, id, c.entry(id))
}

func TestCache_GivesWhatTheReadersCommitHas(t *testing.T) {
	c, p, now := cached(1 << 20)
	p.since = p.turn.Add(1)
	first := now()
	c.put(p, first, "a", 7, []byte("A7"))
	c.put(p, first, "b", 1, []byte("B1"))
	p.turn.Add(1) // a commit of a
	c.forget("a")
	second := now()
	want := func(what string, s *published, id, text string, version uint64) {
		t.Helper()
		got, v, ok := c.get([]byte("x"), s, id)
		if ok != (text != "") || string(got) != "x"+text || v != version {
			t.Errorf("%s: got %q, version %d, %v; want %q, version %d", what, got, v, ok, text, version)
		}
	}
	want("what the commit left", second, "b", "B1", 1)
	want("what the commit changed", second, "a", "", 0)
	c.put(p, first, "a", 7, []byte("A7")) // a slow reader of the first commit
	want("what a slow reader brings", second, "a", "", 0)
	c.put(p, second, "a", 8, []byte("A8"))
	want("the new one", second, "a", "A8", 8)
	want("the new one to a reader of the first commit", first, "a", "", 0)
	p.since = p.turn.Add(1) // the local state is begun anew
	want("what the state before had", now(), "b", "", 0)
}

func TestCache_IsBounded(t *testing.T) {
	const most = 1 << 20
	c, p, now := cached(most)
	p.since = p.turn.Add(1)
	s, state := now(), []byte(strings.Repeat("s", 300))
	for n := range 20_000 {
		c.put(p, s, benchID(n), uint64(n), state)
		if _, _, ok := c.get(nil, s, benchID(n)); !ok {
			t.Fatalf("what was just kept is not there: %d", n)
		}
		if _, _, ok := c.get(nil, s, benchID(0)); !ok {
			t.Fatalf("what is asked for all the time is gone after %d others", n)
		}
	}
	c.put(p, s, "large", 1, make([]byte, most))
	if _, _, ok := c.get(nil, s, "large"); ok {
		t.Error("a state of the size of the cache is kept")
	}
	bytes, there := 0, 0
	for i := range c.shards {
		for _, g := range []*generation{&c.shards[i].young, &c.shards[i].old} {
			bytes += cap(g.data) + indexBytes*len(g.at)
		}
	}
	for n := range 20_000 {
		if got, v, ok := c.get(nil, s, benchID(n)); ok {
			if there++; v != uint64(n) || string(got) != string(state) {
				t.Errorf("%d: got version %d, %q", n, v, got)
			}
		}
	}
	if bytes > most*3/2 || there < 1000 {
		t.Errorf("%d bytes are held and %d states are there, want about %d bytes at most and at least 1000", bytes, there, most)
	}
	off, p, now := cached(0)
	off.put(p, now(), "a", 1, []byte("A"))
	if _, _, ok := off.get(nil, now(), "a"); ok {
		t.Error("a cache of no bytes gives something")
	}
}

// since is a version and the commit of its partition from which on an ID had it.
type since struct{ seq, version uint64 }

// checkAnswers holds the answers of each reader to what each ID has been, and tells how many they are.
func checkAnswers(t *testing.T, answers [][]answered, truth map[string][]since) int {
	t.Helper()
	checked, newest := 0, map[string]uint64{}
	for _, of := range answers {
		clear(newest)
		for _, a := range of {
			want := uint64(0)
			for _, s := range truth[a.id] {
				if s.seq <= a.commit {
					want = s.version
				}
			}
			if a.version != want {
				t.Fatalf("%s as of commit %d: got version %d, want %d", a.id, a.commit, a.version, want)
			}
			if a.version < newest[a.id] {
				t.Fatalf("%s went back from version %d to %d", a.id, newest[a.id], a.version)
			}
			newest[a.id] = a.version
			checked++
		}
	}
	return checked
}

// TestView_CachedAnswersAreOfTheirCommit reads few IDs over and over while commits change them: every state is that of the
// commit that the answer names, and what is asked for after a commit was seen is not older.
func TestView_CachedAnswersAreOfTheirCommit(t *testing.T) {
	const ids, commits = 20, 150
	w := mustTable(t, embedded(t), 2)
	w.begin()
	all := make([]change, ids)
	for i := range all {
		all[i] = change{fmt.Sprintf("id%d", i), 1, 1}
	}
	w.commit(all...)
	truth := map[string][]since{}
	note := func(c change) { truth[c.id] = append(truth[c.id], since{w.seq[w.on(c.id)], c.version}) }
	for _, c := range all {
		note(c)
	}
	r := w.view(t.TempDir()).ready()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var (
		reading sync.WaitGroup
		ended   atomic.Bool
		reads   atomic.Int64
		answers = make([][]answered, 4)
	)
	for n := range answers {
		reading.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(n)))
			for !ended.Load() {
				answers[n] = append(answers[n], r.ask(random, n%2 == 0, ids)...)
				reads.Add(1)
			}
		})
	}
	random := rand.New(rand.NewPCG(seed, 99))
	for n := range commits {
		var changes []change
		for i := range all {
			if random.IntN(4) == 0 {
				all[i].version++
				changes = append(changes, all[i])
			}
		}
		if len(changes) == 0 {
			continue
		}
		w.commit(changes...)
		for _, c := range changes {
			note(c)
		}
		at := reads.Load()
		r.await("some reads", func() bool { return reads.Load() > at+int64(n%3) })
	}
	ended.Store(true)
	reading.Wait()
	checked := checkAnswers(t, answers, truth)
	t.Logf("%d answers", checked)
	if hits, _ := r.cache.asked(); checked < commits || hits < int64(checked)/4 {
		t.Errorf("%d answers, %d of them from the cache: too few to show anything", checked, hits)
	}
}

// answered is one state of an answer, and as of which commit it is.
type answered struct {
	id              string
	version, commit uint64
}

// ask reads one ID, or some of them in a batch, over HTTP.
func (r *running) ask(random *rand.Rand, batch bool, ids int) []answered {
	type state struct {
		ID      string
		Version uint64 `json:",string"`
	}
	type asOf struct {
		Partition int32
		Commit    uint64 `json:",string"`
	}
	if !batch {
		var one struct {
			State state
			AsOf  asOf `json:"as_of"`
		}
		status, body, _ := r.get(fmt.Sprintf("/v1/ids/id%d", random.IntN(ids)))
		if err := json.Unmarshal([]byte(body), &one); err != nil || status != http.StatusOK {
			r.t.Errorf("got %d, %s: %v", status, body, err)
		}
		return []answered{{one.State.ID, one.State.Version, one.AsOf.Commit}}
	}
	var asked []string
	for range 5 {
		asked = append(asked, fmt.Sprintf(`"id%d"`, random.IntN(ids)))
	}
	req, err := http.NewRequest(http.MethodPost, r.url+"/v1/ids:batchGet", strings.NewReader(`{"ids":[`+strings.Join(asked, ",")+`]}`))
	if err != nil {
		r.t.Error(err)
		return nil
	}
	status, body, _ := r.do(req)
	var many struct {
		Results []struct{ State state }
		AsOf    []asOf `json:"as_of"`
	}
	if err := json.Unmarshal([]byte(body), &many); err != nil || status != http.StatusOK {
		r.t.Errorf("got %d, %s: %v", status, body, err)
	}
	commits, out := map[int32]uint64{}, []answered{}
	for _, a := range many.AsOf {
		commits[a.Partition] = a.Commit
	}
	for _, res := range many.Results {
		out = append(out, answered{res.State.ID, res.State.Version, commits[eos.Place([]byte(res.State.ID), int32(len(r.View.all())))]})
	}
	return out
}
