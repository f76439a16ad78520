package ops

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
)

// compare walks the committed and the folded records side by side. IDs come first, then the entries of windows.
func (v *verification) compare(ctx context.Context) error {
	committed, err := v.table.disk.Snapshot()
	if err != nil {
		return err
	}
	defer committed.Release()
	expected, err := v.fold.disk.Snapshot()
	if err != nil {
		return err
	}
	defer expected.Release()
	have, want := committed.Records(nil, nil), expected.Records(nil, nil)
	defer have.Release()
	defer want.Release()
	haveOK, wantOK := have.Next(), want.Next()
	for haveOK || wantOK {
		if err := ctx.Err(); err != nil {
			return err
		}
		order := 0
		switch {
		case !haveOK:
			order = 1
		case !wantOK:
			order = -1
		default:
			order = bytes.Compare(have.Key(), want.Key())
		}
		switch {
		case order < 0:
			v.pair(have.Key(), have.Value(), nil)
			haveOK = have.Next()
		case order > 0:
			v.pair(want.Key(), nil, want.Value())
			wantOK = want.Next()
		default:
			v.pair(have.Key(), have.Value(), want.Value())
			haveOK, wantOK = have.Next(), want.Next()
		}
	}
	if err := have.Err(); err != nil {
		return err
	}
	if id := v.table.Misplaced; id != "" {
		v.differs(&Difference{ID: id, Field: "its place", Committed: "another partition", Expects: "the one that its key hashes to"})
	}
	return want.Err()
}

// pair compares the records of one key; nil is none.
func (v *verification) pair(key, have, want []byte) {
	if !eos.IsUserKey(key) {
		v.pairOfEntries(key, have, want)
		return
	}
	id, marks := string(key), byte(0)
	if want != nil {
		if marks, want = want[0], want[1:]; len(want) == 0 {
			want = nil // every event was refused
		}
	}
	if have == nil && want == nil {
		return
	}
	v.report.IDs++
	var d *Difference
	switch {
	case marks == markRekeyed|markRefused:
		v.report.NotCompared++
		return
	case marks&markRekeyed != 0:
		v.report.OrderFree++
		d = v.difference(id, have, want, v.rules.OrderFree())
	default:
		v.report.Whole++
		if bytes.Equal(have, want) {
			return
		}
		d = v.difference(id, have, want, nil)
	}
	if d != nil {
		v.differs(d)
	}
}

// pairOfEntries compares records that hold entries of windows, where the whole state of their ID is compared.
func (v *verification) pairOfEntries(key, have, want []byte) {
	if bytes.Equal(have, want) && (have == nil) == (want == nil) {
		return
	}
	id, ok := rules.ChunkOwner(key)
	if !ok {
		id = string(key)
	} else if marks, err := v.fold.disk.Get([]byte(id)); err == nil && len(marks) > 0 && marks[0]&markRekeyed != 0 {
		return
	}
	v.differs(&Difference{
		ID: id, Partition: eos.Place([]byte(id), v.table.Partitions), Field: "the entries of its windows",
		Committed: sizeOf(have), Expects: sizeOf(want),
	})
}

func sizeOf(b []byte) string {
	if b == nil {
		return "absent"
	}
	return fmt.Sprintf("other data (%d bytes)", len(b))
}

func (v *verification) differs(d *Difference) {
	if v.report.First == nil || d.ID < v.report.First.ID {
		v.report.First = d
	}
	v.report.Differ++
}

// difference finds the first field that differs; orderFree, where not nil, limits it to totals that do not depend on the
// order of events.
func (v *verification) difference(id string, have, want []byte, orderFree []bool) *Difference {
	d := &Difference{ID: id, Partition: eos.Place([]byte(id), v.table.Partitions)}
	switch {
	case have == nil:
		d.Field, d.Committed, d.Expects = "its state", "absent", "one"
		return d
	case want == nil:
		d.Field, d.Committed, d.Expects = "its state", "one", "none: no event of that ID was counted"
		return d
	}
	haveFields, err := v.fields(id, have, orderFree)
	if err != nil {
		d.Field, d.Committed, d.Expects = "its state", "bytes that do not decode ("+err.Error()+")", "a state"
		return d
	}
	wantFields, err := v.fields(id, want, orderFree)
	if err != nil {
		d.Field, d.Committed, d.Expects = "its state", "a state", "bytes that do not decode ("+err.Error()+")"
		return d
	}
	for i := range haveFields {
		if haveFields[i].value != wantFields[i].value {
			d.Field, d.Committed, d.Expects = haveFields[i].name, haveFields[i].value, wantFields[i].value
			return d
		}
	}
	if orderFree != nil {
		return nil
	}
	d.Field, d.Committed, d.Expects = "the working state behind its totals", sizeOf(have), sizeOf(want)
	return d
}

type namedField struct{ name, value string }

// fields takes a stored state apart into what an answer shows, in a fixed order.
func (v *verification) fields(id string, stored []byte, orderFree []bool) ([]namedField, error) {
	var st codecs.State
	if err := st.UnmarshalBinary(stored, v.job.Schema); err != nil {
		return nil, err
	}
	var shown struct {
		Version   string                     `json:"version"`
		Count     string                     `json:"count"`
		Late      json.RawMessage            `json:"late"`
		FirstTime string                     `json:"first_time"`
		LastTime  string                     `json:"last_time"`
		Totals    map[string]json.RawMessage `json:"totals"`
		Flags     map[string]json.RawMessage `json:"flags"`
	}
	if err := json.Unmarshal(st.AppendJSON(nil, id, v.job.Schema), &shown); err != nil {
		return nil, err
	}
	fields := []namedField{
		{"count", shown.Count}, {"version", shown.Version}, {"first_time", shown.FirstTime}, {"last_time", shown.LastTime},
	}
	for i, name := range v.job.Schema.Totals {
		if orderFree == nil || orderFree[i] {
			fields = append(fields, namedField{"totals." + name, string(shown.Totals[name])})
		}
	}
	if orderFree != nil {
		return fields, nil
	}
	for _, name := range v.job.Schema.Flags {
		value := "not raised"
		if raw, ok := shown.Flags[name]; ok {
			value = string(raw)
		}
		fields = append(fields, namedField{"flags." + name, value})
	}
	return append(fields, namedField{"late", fmt.Sprint(st.Late)}), nil
}
