package chaos

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/tidemark/tidemark/view"
)

const (
	// batchMax is how many events a batch names at most.
	batchMax = 50
	// readWithin is the patience with one event, over all views.
	readWithin = time.Minute
	// againAfter is the pause before another view is asked.
	againAfter = 50 * time.Millisecond
)

// Of 100 reads so many are of these forms; the others are gets, of which so many are bare. Probes come besides.
const (
	shareBatch = 10
	shareList  = 5
	shareBare  = 4
	shareProbe = 10
)

// input is what tokens name.
type input struct {
	topic      string
	id         [16]byte
	earlier    [16]byte // of a topic of the same name that was deleted
	partitions int
}

// reader reads what was just acknowledged, each time from another view.
type reader struct {
	clients []*client
	acks    *acks
	input   *input
	rng     *rand.Rand
	tally   *tally
}

// run reads until ctx ends.
func (rd *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		most, form := 1, rd.form()
		if form == formBatch {
			most = batchMax
		}
		all := rd.acks.take(ctx, most)
		if len(all) == 0 {
			return
		}
		e := all[0]
		if !rd.atHome(&e) || rd.rng.IntN(100) < shareProbe {
			rd.probe(ctx, &e)
		}
		rd.read(ctx, rd.question(form, all))
	}
}

func (rd *reader) form() string {
	switch n := rd.rng.IntN(100); {
	case n < shareBatch:
		return formBatch
	case n < shareBatch+shareList:
		return formList
	}
	return formGet
}

// atHome tells whether the event lies in the partition of its ID. An ID's key decides; some events come under another one.
func (rd *reader) atHome(e *acked) bool { return partitionOf(e.id, rd.input.partitions) == e.partition }

// question draws a read of events. One that lies elsewhere is named in a list, which asks every partition.
func (rd *reader) question(form string, all []acked) *question {
	q := &question{form: form, over: rd.transport(), events: slices.DeleteFunc(slices.Clone(all), func(e acked) bool { return !rd.atHome(&e) })}
	if form == formList || len(q.events) == 0 {
		q.form, q.events = formList, rd.acks.last(all[0].id)
	}
	switch rd.rng.IntN(4) {
	case 0:
		q.wait = time.Duration(100+rd.rng.IntN(400)) * time.Millisecond
	case 1:
		q.wait = time.Duration(1+rd.rng.IntN(10)) * time.Second
	default:
		q.wait = view.WaitDefault
	}
	if q.form == formGet && rd.rng.IntN(100) < shareBare {
		return q
	}
	texts := make([]string, len(q.events))
	for i := range q.events {
		texts[i] = rd.token(&q.events[i])
	}
	q.atLeast = strings.Join(texts, ",")
	return q
}

func (rd *reader) transport() string {
	return []string{overREST, overREST, overGRPC, overGRPC, overConnect}[rd.rng.IntN(5)]
}

// token names an event, as its producer was told or for this one topic.
func (rd *reader) token(e *acked) string {
	if rd.rng.IntN(2) == 0 {
		return e.String()
	}
	return view.Token(1, rd.input.id, e.partition, e.offset)
}

// read asks one view after the other until one answers.
func (rd *reader) read(ctx context.Context, q *question) {
	for first := time.Now(); ; {
		c := rd.clients[rd.rng.IntN(len(rd.clients))]
		asked := time.Now()
		got, err := q.ask(ctx, c)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			rd.tally.answered(c, q, got, first, asked, rd.acks.most)
			return
		case !rd.tally.unavailable(c, q, err):
			return
		case time.Since(first) > readWithin:
			rd.tally.givenUp()
			return
		}
		_ = pause(ctx, againAfter)
	}
}

// The tokens that must be refused.
const (
	wrongPartition = "of a partition where the ID does not live"
	earlierTopic   = "of a topic that was deleted and made again"
	notWritten     = "of an event that is not written yet"
)

// probe asks with a token that no view may answer to.
func (rd *reader) probe(ctx context.Context, e *acked) {
	q := &question{form: formGet, over: rd.transport(), events: []acked{*e}, wait: time.Millisecond}
	what, want, at := wrongPartition, connect.CodeInvalidArgument, *e
	if rd.atHome(e) {
		switch rd.rng.IntN(3) {
		case 0:
			at.partition = (e.partition + 1) % int32(rd.input.partitions)
		case 1:
			what, want = earlierTopic, connect.CodeFailedPrecondition
		default:
			what, want = notWritten, connect.CodeDeadlineExceeded
			at.offset += 1 << 40
		}
	}
	if q.atLeast = rd.token(&at); what == earlierTopic {
		q.atLeast = view.Token(1, rd.input.earlier, e.partition, e.offset)
	}
	c, asked := rd.clients[rd.rng.IntN(len(rd.clients))], time.Now()
	_, err := q.ask(ctx, c)
	if ctx.Err() == nil {
		rd.tally.probed(c, q, what, want, asked, err)
	}
}
