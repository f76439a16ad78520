package codecs

import (
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// flagChangeFormat is the version of the value of a flag change.
const flagChangeFormat = 1

// FlagChange says that a flag of an ID was raised or cleared, and by which event.
type FlagChange struct {
	ID, Flag string
	Raised   bool
	Why      Why
	Version  uint64 // of the ID's state with the change
}

// Encode gives the record of the flags topic: the key is the ID, the value JSON with a format version.
func (c *FlagChange) Encode() (key, value []byte) {
	v := strconv.AppendInt([]byte(`{"format":`), flagChangeFormat, 10)
	v = AppendJSONString(append(v, `,"id":`...), c.ID)
	v = AppendJSONString(append(v, `,"flag":`...), c.Flag)
	v = strconv.AppendBool(append(v, `,"raised":`...), c.Raised)
	v = c.Why.AppendJSON(append(v, `,"why":`...))
	v = strconv.AppendUint(append(v, `,"version":"`...), c.Version, 10)
	return []byte(c.ID), append(v, '"', '}')
}

// DecodeFlagChange reads what Encode wrote: ErrFormat for another version, else ErrMalformed.
func DecodeFlagChange(value []byte) (*FlagChange, error) {
	var j struct {
		ID      string `json:"id"`
		Flag    string `json:"flag"`
		Raised  bool   `json:"raised"`
		Version uint64 `json:"version,string"`
		Why     struct {
			Time      string `json:"time"`
			Topic     string `json:"topic"`
			Partition int32  `json:"partition"`
			Offset    int64  `json:"offset,string"`
			Rules     string `json:"rules"`
		} `json:"why"`
	}
	var version struct { // read before the rest, which another format may have changed
		Format *int `json:"format"`
	}
	if err := json.Unmarshal(value, &version); err != nil {
		return nil, fmt.Errorf("flag change: %w: %w", ErrMalformed, err)
	}
	switch {
	case version.Format == nil:
		return nil, fmt.Errorf("flag change: %w: no format version", ErrMalformed)
	case *version.Format != flagChangeFormat:
		return nil, fmt.Errorf("flag change: %w: format %d, this binary knows %d", ErrFormat, *version.Format, flagChangeFormat)
	}
	if err := json.Unmarshal(value, &j); err != nil {
		return nil, fmt.Errorf("flag change: %w: %w", ErrMalformed, err)
	}
	if !utf8.Valid(value) {
		return nil, fmt.Errorf("flag change: %w: not UTF-8", ErrMalformed)
	}
	ms, err := ParseTime([]byte(j.Why.Time))
	if err != nil {
		return nil, fmt.Errorf("flag change: %w: %w", ErrMalformed, err)
	}
	return &FlagChange{
		ID: j.ID, Flag: j.Flag, Raised: j.Raised, Version: j.Version,
		Why: Why{TimeMs: ms, Topic: j.Why.Topic, Partition: j.Why.Partition, Offset: j.Why.Offset, Rules: j.Why.Rules},
	}, nil
}
