package view

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/internal/history"
)

// looker reads a view over and over, and writes down what it was shown as of which commit.
type looker struct {
	w     *table
	r     *running
	rnd   *rand.Rand
	pages map[string][]string       // every ID that there may be, by a prefix of which they are all
	reads map[string][]history.Read // of each ID
}

func (w *table) looker(r *running, seed uint64, pages map[string][]string) *looker {
	return &looker{w: w, r: r, rnd: rand.New(rand.NewPCG(seed, 7)), pages: pages, reads: map[string][]history.Read{}}
}

// look reads until stop is closed, in one way or another.
func (k *looker) look(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		for prefix, ids := range k.pages {
			switch k.rnd.IntN(4) {
			case 0:
				k.get(ids[k.rnd.IntN(len(ids))])
			case 1:
				k.getText(ids[k.rnd.IntN(len(ids))])
			case 2:
				k.batch(ids)
			default:
				k.list(prefix, ids)
			}
		}
	}
}

func (k *looker) get(id string) {
	s, began := &codecs.State{}, time.Now()
	asOf, err := k.r.Get(k.r.t.Context(), id, Read{}, s)
	if errors.Is(err, ErrNotFound) {
		s, err = nil, nil
	}
	k.saw(began, err, []string{id}, map[string]*codecs.State{id: s}, asOf)
}

// getText asks as a caller of REST does, who is answered from the cache too.
func (k *looker) getText(id string) {
	type place struct {
		Partition int32
		Commit    uint64 `json:",string"`
	}
	var body struct {
		State   json.RawMessage
		AsOf    place                   `json:"as_of"`
		Details []struct{ Debug place } // of an ID that is not found
	}
	var state struct {
		Version uint64 `json:",string"`
	}
	began := time.Now()
	code, text, err := k.r.get2("/v1/ids/" + id)
	ended := time.Now()
	err = errors.Join(err, json.Unmarshal([]byte(text), &body))
	switch {
	case err == nil && code == http.StatusOK:
		err = json.Unmarshal(body.State, &state)
	case err == nil && code == http.StatusNotFound && len(body.Details) == 1:
		body.AsOf = body.Details[0].Debug
	default:
		err = errors.Join(err, fmt.Errorf("%d %s", code, text))
	}
	if err != nil {
		k.r.t.Errorf("read of %q: %v", id, err)
		return
	}
	k.keep(history.Read{
		View: "the view", Began: began, Ended: ended, ID: id, Partition: body.AsOf.Partition, Commit: body.AsOf.Commit,
		Found: code == http.StatusOK, Version: state.Version, Content: string(body.State),
	})
}

func (k *looker) batch(ids []string) {
	began := time.Now()
	states, asOf, err := k.r.BatchGet(k.r.t.Context(), ids, Read{})
	found := map[string]*codecs.State{}
	for i := range states {
		found[ids[i]] = states[i]
	}
	k.saw(began, err, ids, found, asOf...)
}

// list reads a page of a prefix; an ID that is not on it is not found.
func (k *looker) list(prefix string, ids []string) {
	began := time.Now()
	page, more, asOf, err := k.r.List(k.r.t.Context(), Filter{Prefix: prefix, Limit: len(ids)}, Read{})
	if more {
		err = fmt.Errorf("more IDs than %q", ids)
	}
	found := map[string]*codecs.State{}
	for i := range page {
		found[page[i].ID] = &page[i].State
	}
	k.saw(began, err, ids, found, asOf...)
}

// saw writes down one answer: a read of each ID, as of the commit of its partition.
func (k *looker) saw(began time.Time, err error, ids []string, found map[string]*codecs.State, asOf ...AsOf) {
	ended := time.Now()
	if err != nil {
		k.r.t.Errorf("read of %q: %v", ids, err)
		return
	}
	commits := map[int32]uint64{}
	for i := range asOf {
		commits[asOf[i].Partition] = asOf[i].Commit
	}
	for _, id := range ids {
		p := k.w.on(id)
		read := history.Read{View: "the view", Began: began, Ended: ended, ID: id, Partition: p, Commit: commits[p]}
		if s := found[id]; s != nil {
			read.Found, read.Version, read.Content = true, s.Version, string(s.AppendJSON(nil, id, k.w.schema))
		}
		k.keep(read)
	}
}

// keep leaves the first and the last of equal reads that follow each other: those between can convict nobody of more.
func (k *looker) keep(read history.Read) {
	same := func(other history.Read) bool {
		other.Began, other.Ended = read.Began, read.Ended
		return other == read
	}
	of := k.reads[read.ID]
	if n := len(of); n > 1 && same(of[n-1]) && same(of[n-2]) {
		of[n-1] = read
		return
	}
	k.reads[read.ID] = append(of, read)
}

// shown is what some lookers were shown.
func shown(lookers ...*looker) (reads []history.Read) {
	for _, k := range lookers {
		for _, of := range k.reads {
			reads = append(reads, of...)
		}
	}
	return reads
}

// findsLies is the control: what was read is believed, and no more when one read of it lies. The first and the last of an ID
// that every commit of its partition changes are given.
func findsLies(t *testing.T, truth *history.Truth, reads []history.Read, first, last history.Read) {
	t.Helper()
	for name, c := range map[string]struct {
		lie  func(r *history.Read)
		want string
	}{
		"an ID that is missing":        {func(r *history.Read) { r.Found, r.Version, r.Content = false, 0, "" }, "not found, want version"},
		"a state of the commit before": {func(r *history.Read) { r.Version, r.Content = r.Version-1, "" }, fmt.Sprintf("version %d, want version %d", last.Version-1, last.Version)},
		"a commit before the state":    {func(r *history.Read) { r.Commit-- }, fmt.Sprintf("version %d, want version %d", last.Version, last.Version-1)},
		"a version that nobody wrote":  {func(r *history.Read) { r.Version++ }, "never committed"},
		"a commit that nobody made":    {func(r *history.Read) { r.Commit++ }, "no such commit"},
		"another state":                {func(r *history.Read) { r.Content = "{}" }, "reads {}"},
		"the first answer, once again": {func(r *history.Read) { began, ended := r.Began, r.Ended; *r = first; r.Began, r.Ended = began, ended }, "was shown after commit"},
		"another partition":            {func(r *history.Read) { r.Partition, r.Commit = (r.Partition+1)%3, 1 }, "it lives on partition"},
	} {
		lie := last
		lie.Began, lie.Ended = time.Now(), time.Now()
		if got := truth.CheckReads(append(reads[:len(reads):len(reads)], lie)); len(got) != 0 {
			t.Fatalf("the last read once again: got %q, want it believed", got)
		}
		c.lie(&lie)
		if got := strings.Join(truth.CheckReads(append(reads[:len(reads):len(reads)], lie)), "\n"); !strings.Contains(got, c.want) {
			t.Errorf("the control, %s: got %q, want %q", name, got, c.want)
		}
	}
}
