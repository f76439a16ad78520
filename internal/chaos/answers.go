package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// askEvery is the pause between two questions to a view, listEvery how often one of them is for every ID.
	askEvery  = 10 * time.Millisecond
	listEvery = 500
	listMax   = 1000 // IDs in one page
	// answerWithin is the patience with an answer.
	answerWithin = 2 * time.Second
)

// answer is what a view said of one ID, and when it was asked.
type answer struct {
	view, id string
	asked    time.Time
	version  uint64        // 0: not found
	holds    found         // without changes
	asOf     place         // of the ID's partition
	age      time.Duration // below 0: not known
}

// place is where a partition stood: a commit of the table, and how far in the input that was.
type place struct {
	partition int32
	commit    uint64
	position  int64
}

// asker asks one view all the time, and keeps every answer.
type asker struct {
	view    *slot
	seed    uint64
	ids     int
	client  http.Client
	answers []answer

	refused atomic.Int64 // questions that were not answered
	silence time.Duration
}

// run asks until ctx ends. Its error is an answer that is none.
func (a *asker) run(ctx context.Context) error {
	a.client.Timeout = answerWithin
	rng := rand.New(rand.NewPCG(a.seed, 4))
	var last time.Time // of an answer
	harmed := true     // the view, at some moment since then
	for n := 1; pause(ctx, askEvery) == nil; n++ {
		harmed = harmed || a.view.harmed.Load()
		asked, before := time.Now(), len(a.answers)
		var err error
		if n%listEvery == 0 && a.ids <= listMax {
			err = a.askAll(ctx, asked)
		} else {
			err = a.askOne(ctx, asked, fmt.Sprintf("e-%05d", rng.IntN(a.ids)))
		}
		var silent *silentError
		switch {
		case errors.As(err, &silent):
			a.refused.Add(1)
		case err != nil && ctx.Err() == nil:
			return fmt.Errorf("view %s: %w", a.view.task.Instance, err)
		case len(a.answers) > before || err == nil:
			if !harmed {
				a.silence = max(a.silence, time.Since(last))
			}
			last, harmed = time.Now(), a.view.harmed.Load()
		}
	}
	return nil
}

// silentError is no answer: the view is away or says that it is not ready.
type silentError struct{ err error }

func (e *silentError) Error() string { return e.err.Error() }

// stateJSON is a state as a view gives it, as far as it is compared.
type stateJSON struct {
	ID      string                     `json:"id"`
	Version uint64                     `json:"version,string"`
	Count   uint64                     `json:"count,string"`
	Totals  map[string]string          `json:"totals"`
	Flags   map[string]json.RawMessage `json:"flags"`
}

type asOfJSON struct {
	Partition int32  `json:"partition"`
	Position  int64  `json:"position,string"`
	Commit    uint64 `json:"commit,string"`
	Age       *string
}

func (s *stateJSON) found() (found, error) {
	recent, err := strconv.ParseUint(s.Totals[totalRecent], 10, 64)
	_, busy := s.Flags[flagBusy]
	return found{
		count: s.Count, sum: s.Totals[totalSum], hash: s.Totals[totalHash], max: s.Totals[totalMax], recent: recent, busy: busy,
	}, err
}

func (a *asker) askOne(ctx context.Context, asked time.Time, id string) error {
	var body struct {
		State stateJSON
		AsOf  asOfJSON `json:"as_of"`
		Age   *string

		Details []struct{ Debug asOfJSON } // of an ID that is not found
	}
	status, err := a.get(ctx, "/v1/ids/"+url.PathEscape(id), &body)
	if err != nil {
		return err
	}
	body.AsOf.Age = body.Age
	if status == http.StatusNotFound {
		if len(body.Details) != 1 {
			return fmt.Errorf("ID %s is not found as of no place", id)
		}
		body.State, body.AsOf = stateJSON{ID: id}, body.Details[0].Debug
	}
	return a.keep(asked, id, &body.State, &body.AsOf)
}

// askAll asks for every ID at once. One that is not in the page is an answer too.
func (a *asker) askAll(ctx context.Context, asked time.Time) error {
	var body struct {
		States []stateJSON
		AsOf   []asOfJSON `json:"as_of"`
		Next   string     `json:"next_page_token"`
	}
	if _, err := a.get(ctx, fmt.Sprintf("/v1/ids?limit=%d", listMax), &body); err != nil {
		return err
	}
	if body.Next != "" {
		return errors.New("a second page of a list that fits in one")
	}
	states := map[string]*stateJSON{}
	for i := range body.States {
		states[body.States[i].ID] = &body.States[i]
	}
	for i := range a.ids {
		id := fmt.Sprintf("e-%05d", i)
		st := states[id]
		if st == nil {
			st = &stateJSON{ID: id}
		}
		if err := a.keep(asked, id, st, &body.AsOf[partitionOf(id, len(body.AsOf))]); err != nil {
			return err
		}
		delete(states, id)
	}
	for id := range states {
		return fmt.Errorf("ID %q, which nobody produced", id)
	}
	return nil
}

// get reads an answer into body. That of a view which is not ready is silence.
func (a *asker) get(ctx context.Context, path string, body any) (status int, err error) {
	addr, err := os.ReadFile(a.view.task.Addr)
	if err != nil {
		return 0, &silentError{err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+string(addr)+path, nil)
	if err != nil {
		return 0, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return 0, &silentError{err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return 0, &silentError{err}
	case resp.StatusCode == http.StatusServiceUnavailable:
		return 0, &silentError{fmt.Errorf("%s", bytes.TrimSpace(text))}
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound:
		return 0, fmt.Errorf("%s: %s: %s", path, resp.Status, text)
	}
	if err := json.Unmarshal(text, body); err != nil {
		return 0, fmt.Errorf("%s: %w in %s", path, err, text)
	}
	return resp.StatusCode, nil
}

func (a *asker) keep(asked time.Time, id string, st *stateJSON, asOf *asOfJSON) error {
	one := answer{
		view: a.view.task.Instance, id: id, asked: asked, version: st.Version, age: -1,
		asOf: place{asOf.Partition, asOf.Commit, asOf.Position},
	}
	if asOf.Age != nil {
		age, err := time.ParseDuration(*asOf.Age)
		if err != nil {
			return fmt.Errorf("age of %s: %w", id, err)
		}
		one.age = age
	}
	if st.Version > 0 {
		holds, err := st.found()
		if err != nil {
			return fmt.Errorf("state of %s: %w", id, err)
		}
		one.holds = holds
	}
	a.answers = append(a.answers, one)
	return nil
}
