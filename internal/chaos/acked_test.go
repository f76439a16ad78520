package chaos

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
)

// acknowledged is two events of "a" in partition 1, one that came under another key in partition 3, and one of "b".
func acknowledged(t *testing.T) *acks {
	t.Helper()
	k := newAcks(2, 8)
	for _, e := range []acked{{id: "a", partition: 1, offset: 10}, {id: "a", partition: 3, offset: 5}, {id: "b", partition: 1, offset: 11}, {id: "a", partition: 1, offset: 12}} {
		k.produce(e.id)
		if err := k.acknowledge(e.id, e.partition, e.offset); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func TestAcks_CountByPartitionAndGiveTheNewestFirst(t *testing.T) {
	k := acknowledged(t)
	all := k.take(t.Context(), 3)
	want := []acked{{"a", 1, 12, 2}, {"b", 1, 11, 1}, {"a", 3, 5, 1}}
	if !slices.Equal(all, want) {
		t.Errorf("took %v, want %v", all, want)
	}
	if again := k.take(t.Context(), 4); len(again) != 4 || again[0] != want[0] { // each is read twice
		t.Errorf("took %v, want all four", again)
	}
	if left := k.take(t.Context(), 4); !slices.Equal(left, []acked{{"a", 1, 10, 1}}) {
		t.Errorf("took %v, want the first event alone", left)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if none := k.take(ctx, 1); none != nil {
		t.Errorf("took %v, want none", none)
	}
	if n := k.most("a"); n != 3 {
		t.Errorf("%d events of a, want 3", n)
	}
	if err := k.acknowledge("a", 1, 12); err == nil {
		t.Error("an offset came twice, and that is no error")
	}
}

func TestQuestion_ConvictsOlderAnswersAndFalseClaims(t *testing.T) {
	k := acknowledged(t)
	one := question{events: []acked{{"a", 1, 12, 2}}, atLeast: "1@12"}
	both := question{events: k.last("a"), atLeast: "1@12,3@5"}
	batch := question{events: []acked{{"a", 1, 10, 1}, {"b", 1, 11, 1}, {"a", 1, 12, 2}}, atLeast: "1@10,1@11,1@12"}
	for name, c := range map[string]struct {
		q             question
		counts        map[string]uint64
		asOf          map[int32]int64
		older, claims int
	}{
		"one, right":               {one, map[string]uint64{"a": 2}, map[int32]int64{1: 13}, 0, 0},
		"one, more than asked":     {one, map[string]uint64{"a": 3}, map[int32]int64{1: 20}, 0, 0},
		"one, older":               {one, map[string]uint64{"a": 1}, map[int32]int64{1: 13}, 1, 0},
		"one, not found":           {one, nil, nil, 1, 0},
		"one, as of before":        {one, map[string]uint64{"a": 2}, map[int32]int64{1: 12}, 0, 1},
		"one, out of nothing":      {one, map[string]uint64{"a": 4}, map[int32]int64{1: 13}, 0, 1},
		"a foreign key, right":     {both, map[string]uint64{"a": 3}, map[int32]int64{1: 13, 3: 6}, 0, 0},
		"a foreign key, missing":   {both, map[string]uint64{"a": 2}, map[int32]int64{1: 13, 3: 6}, 1, 0},
		"a foreign key, as of too": {both, map[string]uint64{"a": 3}, map[int32]int64{1: 13, 3: 5}, 0, 1},
		"a batch, right":           {batch, map[string]uint64{"a": 2, "b": 1}, map[int32]int64{1: 13}, 0, 0},
		"a batch, one missing":     {batch, map[string]uint64{"a": 2}, map[int32]int64{1: 13}, 1, 0},
		"a batch, one older":       {batch, map[string]uint64{"a": 1, "b": 1}, map[int32]int64{1: 13}, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := &reply{c.counts, c.asOf}
			if older, claims := c.q.older(r), c.q.claims(r, k.most); len(older) != c.older || len(claims) != c.claims {
				t.Errorf("older %v, claims %v; want %d and %d", older, claims, c.older, c.claims)
			}
		})
	}
}

func TestTally_TellsARefusalFromSilenceAndFromAFault(t *testing.T) {
	var blames []string
	n := newTally(func(err error) { blames = append(blames, err.Error()) })
	c, q := &client{view: &slot{}}, &question{events: []acked{{id: "a"}}}
	for _, no := range []*refusal{
		{status: 503, Code: connect.CodeUnavailable}, {status: 504, Code: connect.CodeDeadlineExceeded}, {status: 504, Code: connect.CodeDeadlineExceeded},
	} {
		if !n.unavailable(c, q, no) {
			t.Errorf("%v is wrong, want it to be asked again", no)
		}
	}
	if !n.unavailable(c, q, errors.New("connection refused")) || len(blames) > 0 {
		t.Errorf("blames %q, want none", blames)
	}
	if want := map[string]int{notReady: 1, notYet: 2, unreachable: 1}; !maps.Equal(n.sum().Unavailable, want) {
		t.Errorf("got %v, want %v", n.sum().Unavailable, want)
	}
	for _, no := range []error{
		&refusal{status: 400, Code: connect.CodeInvalidArgument}, &refusal{status: 500, Code: connect.CodeInternal},
		&refusal{status: 200, Code: connect.CodeUnavailable}, errMalformed,
	} {
		if blames = nil; n.unavailable(c, q, no) || len(blames) != 1 {
			t.Errorf("%v: blames %q, want one", no, blames)
		}
	}
}

func TestEvents_OneThatIsCutOffIsNone(t *testing.T) {
	in := newEvents(strings.NewReader("retry: 1000\n\nid: 1\nevent: change\ndata: {}\n\nid: 2\nevent: change\ndata: {}\n"))
	if e, err := in.next(); err != nil || e.id != "1" || e.event != "change" || string(e.data) != "{}" {
		t.Errorf("got %+v (%v), want the first event", e, err)
	}
	if e, err := in.next(); err == nil {
		t.Errorf("got %+v, whose end never came", e)
	}
}

func TestTally_CountsTheIDsThatItJudges(t *testing.T) {
	k := acknowledged(t)
	n := newTally(func(err error) { t.Error(err) })
	batch := &question{form: formBatch, over: overREST, events: []acked{{"a", 1, 10, 1}, {"b", 1, 11, 1}, {"a", 1, 12, 2}}, atLeast: "1@10,1@11,1@12"}
	now := time.Now()
	n.answered(&client{view: &slot{}}, batch, &reply{map[string]uint64{"a": 2, "b": 1}, map[int32]int64{1: 13}}, now, now, k.most)
	if got := n.sum(); got.Reads != 2 || got.By["batch over REST"] != 2 {
		t.Errorf("got %d reads %v, want one of each of the two IDs", got.Reads, got.By)
	}
}

func TestTokenReads_BlamesWhatNoViewAnswered(t *testing.T) {
	for _, givenUp := range []int{0, 1} {
		blames := 0
		r := &TokenReads{Reads: 10, GivenUp: givenUp, Refused: map[string]int{wrongPartition: 1, earlierTopic: 1, notWritten: 1}}
		if r.holdTo(&Config{TokenReads: 10}, func(error) { blames++ }); blames != givenUp {
			t.Errorf("%d given up: blamed %d times", givenUp, blames)
		}
	}
}
