package view

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/tidemark/tidemark/codecs"
)

// appendJSON appends how fresh an answer is; a list has the ages of each partition with it.
func (a *AsOf) appendJSON(dst []byte, ages bool) []byte {
	dst = strconv.AppendInt(append(dst, `{"partition":`...), int64(a.Partition), 10)
	dst = strconv.AppendInt(append(dst, `,"position":"`...), a.Position, 10)
	dst = append(dst, `","time":`...)
	if a.TimeMs == 0 {
		dst = append(dst, `null`...)
	} else {
		dst = append(codecs.AppendTime(append(dst, '"'), a.TimeMs), '"')
	}
	dst = append(strconv.AppendUint(append(dst, `,"commit":"`...), a.Commit, 10), '"')
	if ages {
		dst = appendAges(append(dst, ','), a.Age, a.TableAge)
	}
	return append(dst, '}')
}

func appendList(dst []byte, asOf []AsOf) []byte {
	dst = append(dst, '[')
	for i := range asOf {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = asOf[i].appendJSON(dst, true)
	}
	return append(dst, ']')
}

func appendAges(dst []byte, age, tableAge time.Duration) []byte {
	dst = appendAge(append(dst, `"age":`...), age)
	return appendAge(append(dst, `,"table_age":`...), tableAge)
}

// appendAge is the mapping of google.protobuf.Duration; null is not known.
func appendAge(dst []byte, d time.Duration) []byte {
	if d == NotKnown {
		return append(dst, `null`...)
	}
	d = (d + time.Millisecond - 1).Truncate(time.Millisecond) // never younger than it is
	dst = strconv.AppendFloat(append(dst, '"'), d.Seconds(), 'f', 3, 64)
	return append(dst, `s"`...)
}

func send(w http.ResponseWriter, status int, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a caller who has gone hears nothing
	return nil
}

// code names a kind of error, as gRPC and Connect do.
type code string

const (
	codeInvalid     code = "invalid_argument"
	codeNotFound    code = "not_found"
	codeMethod      code = "unimplemented"
	codeUnavailable code = "unavailable"
	codeExhausted   code = "resource_exhausted"
	codeInternal    code = "internal"
)

// httpStatus is the one table from code to HTTP status.
var httpStatus = map[code]int{
	codeInvalid:     http.StatusBadRequest,
	codeNotFound:    http.StatusNotFound,
	codeMethod:      http.StatusMethodNotAllowed,
	codeUnavailable: http.StatusServiceUnavailable,
	codeExhausted:   http.StatusTooManyRequests,
	codeInternal:    http.StatusInternalServerError,
}

// failure is an error as it is sent.
type failure struct {
	code    code
	message string
	asOf    []AsOf
}

func (f *failure) Error() string { return f.message }

func failureOf(err error) *failure {
	var (
		f           *failure
		invalid     *Invalid
		unavailable *Unavailable
		tooMany     *TooMany
	)
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &invalid):
		return &failure{code: codeInvalid, message: err.Error()}
	case errors.As(err, &tooMany):
		return &failure{code: codeExhausted, message: err.Error()}
	case errors.As(err, &unavailable), errors.Is(err, errStopped):
		return &failure{code: codeUnavailable, message: err.Error()}
	}
	return &failure{code: codeInternal, message: err.Error()}
}

func fail(w http.ResponseWriter, err error) {
	f := failureOf(err)
	if f.code == codeUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	b := codecs.AppendJSONString(append(append([]byte(`{"code":"`), f.code...), `","message":`...), f.message)
	b = append(b, `,"details":[]`...)
	if len(f.asOf) == 1 {
		b = f.asOf[0].appendJSON(append(b, `,"as_of":`...), false)
		b = appendAges(append(b, ','), f.asOf[0].Age, f.asOf[0].TableAge)
	}
	_ = send(w, httpStatus[f.code], append(b, '}'))
}

// statusJSON is the answer of /v1/status.
type statusJSON struct {
	Job        string          `json:"job"`
	Rules      string          `json:"rules"`
	Generation uint32          `json:"generation"`
	Build      string          `json:"build"`
	Ready      bool            `json:"ready"`
	Why        string          `json:"why,omitempty"`
	Rekeyed    bool            `json:"rekeyed"`
	Age        json.RawMessage `json:"age"`
	TableAge   json.RawMessage `json:"table_age"`
	Partitions []partitionJSON `json:"partitions"`
}

type partitionJSON struct {
	AsOf        json.RawMessage `json:"as_of"`
	Complete    bool            `json:"complete"`
	Age         json.RawMessage `json:"age"`
	TableAge    json.RawMessage `json:"table_age"`
	LagRecords  int64           `json:"lag_records,string"`
	LagSeconds  float64         `json:"lag_seconds"`
	InputEnd    int64           `json:"input_end,string"`
	TableNext   int64           `json:"table_next,string"`
	TableTarget int64           `json:"table_target,string"`
	Loaded      float64         `json:"loaded"`
	Rebuilt     string          `json:"rebuilt,omitempty"`
}

func (v *View) serveStatus(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	st := v.Status()
	age, tableAge := NotKnown, NotKnown
	var asOf []AsOf
	out := statusJSON{
		Job: v.cfg.Names.Job, Rules: v.cfg.Schema.Digest, Generation: max(v.cfg.Names.Generation, 1), Build: build(),
		Ready: st.Ready, Why: st.Why, Rekeyed: st.Rekeyed, Partitions: []partitionJSON{},
	}
	for i := range st.Partitions {
		p := &st.Partitions[i]
		asOf = append(asOf, p.AsOf)
		one := partitionJSON{
			AsOf: p.appendJSON(nil, false), Complete: p.Complete,
			Age: appendAge(nil, p.Age), TableAge: appendAge(nil, p.TableAge), LagRecords: p.LagRecords,
			InputEnd: p.InputEnd, TableNext: p.TableNext, TableTarget: p.TableTarget, Loaded: p.loaded(), Rebuilt: p.Rebuilt,
		}
		if p.LagRecords > 0 && p.Age != NotKnown {
			one.LagSeconds = p.Age.Seconds()
		}
		out.Partitions = append(out.Partitions, one)
	}
	if len(asOf) > 0 {
		age, tableAge = oldest(asOf)
	}
	out.Age, out.TableAge = appendAge(nil, age), appendAge(nil, tableAge)
	body, err := json.Marshal(out)
	if err != nil {
		return err
	}
	return send(w, http.StatusOK, body)
}
