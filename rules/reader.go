package rules

import (
	"strings"

	"github.com/tidemark/tidemark/codecs"
)

// Reader reads events on their way into the input as the job will when they have arrived: it finds the ID that is their
// key, or the refusal with which they would be among the dead letters. What only the state of the ID can tell, a rule that
// fails or a state that is too large, it does not know. One Reader per goroutine.
type Reader struct {
	applier *Applier
	path    codecs.Path
	key     *codecs.EventDecoder // nil: the rules say where the ID is
	found   []codecs.Value
}

// NewReader makes a Reader. key names the member of an event that is to be the record's key, for a job whose ID is that;
// nil otherwise.
func (rs *RuleSet) NewReader(key codecs.Path) *Reader {
	r := &Reader{applier: rs.NewApplier(), path: key}
	if len(key) > 0 {
		r.key, r.found = codecs.NewEventDecoder([]codecs.Path{key}), make([]codecs.Value, 1)
	}
	return r
}

// Read finds the ID of a record that has a value and a timestamp. The ID may share the record's memory; rec must stay as it
// is until the next Read.
func (r *Reader) Read(rec *Record) (string, *Refusal) {
	if r.key != nil {
		if err := r.key.Decode(rec.Value, r.found); err != nil {
			return "", refusalOf(err)
		}
		if r.found[0].Kind != codecs.String {
			return "", &Refusal{ReasonID, "the event has no text at " + strings.Join(r.path, ".")}
		}
		rec.Key = []byte(r.found[0].Str)
	}
	return r.applier.Read(rec)
}

// TimeMs is the time of the event of the last Read that was not refused.
func (r *Reader) TimeMs() int64 { return r.applier.TimeMs() }
