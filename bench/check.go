package main

import (
	"context"
	"fmt"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
	"github.com/twmb/franz-go/pkg/kgo"
)

// found is what a table says of an ID, as text: decimals are compared as they are shown.
type found struct {
	count         uint64
	sum, min, max string
	raised        bool
}

// verdict is a table against the expectation.
type verdict struct {
	ids, wrong, missing, extra int
	first                      string // of the faults, for a person
	bytes                      int64  // keys and values in the changelog
	records                    int
}

func (v *verdict) ok() bool { return v.wrong+v.missing+v.extra == 0 }

func (v *verdict) String() string {
	if v.ok() {
		return "OK"
	}
	return fmt.Sprintf("%d IDs differ, %d missing, %d too many; first: %s", v.wrong, v.missing, v.extra, v.first)
}

// check reads the table back, newest record of each key, and compares every ID.
func check(ctx context.Context, c *cluster, t *task, want expectation) (*verdict, error) {
	decode := binaryReader(stockSchema(t.Job, t.Topic))
	switch {
	case t.JSON:
		decode = readJSONState
	case t.Rules != "":
		set, err := rules.Load([]byte(t.Rules))
		if err != nil {
			return nil, err
		}
		decode = binaryReader(set.Schema())
	}
	newest := make(map[string][]byte, len(want))
	v := &verdict{ids: len(want)}
	var err error
	v.bytes, err = c.readTable(ctx, t.Job+"-table", func(r *kgo.Record) error {
		v.records++
		if eos.IsUserKey(r.Key) {
			newest[string(r.Key)] = r.Value
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the table of %s: %w", t.Job, err)
	}
	for id, w := range want {
		value, ok := newest[id]
		if !ok {
			v.missing++
			v.note("%s is missing", id)
			continue
		}
		delete(newest, id)
		f, err := decode(value)
		if err != nil {
			return nil, fmt.Errorf("state of %s in the table of %s: %w", id, t.Job, err)
		}
		if wanted := w.found(); f != wanted {
			v.wrong++
			v.note("%s is %+v, not %+v", id, f, wanted)
		}
	}
	v.extra = len(newest)
	for id := range newest {
		v.note("%q is too many", id)
	}
	return v, nil
}

func (v *verdict) note(format string, args ...any) {
	if v.first == "" {
		v.first = fmt.Sprintf(format, args...)
	}
}

func (x *expected) found() found {
	return found{
		count: uint64(x.count), sum: decimalText(x.sum), min: decimalText(x.min), max: decimalText(x.max), raised: x.raised,
	}
}

func binaryReader(sc *codecs.Schema) func([]byte) (found, error) {
	return func(value []byte) (found, error) {
		var s codecs.State
		if err := s.UnmarshalBinary(value, sc); err != nil {
			return found{}, err
		}
		return found{
			count: s.Count, sum: s.Totals[3].Num.String(), min: s.Totals[2].Num.String(), max: s.Totals[1].Num.String(),
			raised: s.Flags[0].Raised,
		}, nil
	}
}

func readJSONState(value []byte) (found, error) {
	v, err := jsonStateCodec{}.Decode(value)
	if err != nil {
		return found{}, err
	}
	s := v.(*stockState)
	return found{count: s.count, sum: s.sum.String(), min: s.min.String(), max: s.max.String(), raised: s.flag.Raised}, nil
}
