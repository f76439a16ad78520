package codecs

import (
	"errors"
	"math"
	"testing"
	"unicode/utf8"
)

func TestFlagChange_ComesBack(t *testing.T) {
	for _, want := range []FlagChange{
		{ID: "a", Flag: "f", Raised: true, Version: 1, Why: Why{TimeMs: 1, Topic: "t", Partition: 1, Offset: 2, Rules: "9f"}},
		{ID: "\x00\"\\\u2028é😀\ufffd", Flag: "", Version: math.MaxUint64, Why: Why{TimeMs: TimeMinMs, Partition: math.MaxInt32, Offset: math.MaxInt64}},
		{ID: "x", Why: Why{TimeMs: TimeMaxMs, Partition: -1, Offset: -1}},
	} {
		key, value := want.Encode()
		got, err := DecodeFlagChange(value)
		if err != nil || *got != want || string(key) != want.ID {
			t.Errorf("%s: got %+v (%v), want %+v", value, got, err, want)
		}
	}
}

func TestFlagChange_UnknownFormatsAndBrokenBytes(t *testing.T) {
	why := `"why":{"time":"1970-01-01T00:00:00Z","offset":"0"},"version":"1"}`
	for _, c := range []struct {
		text string
		want error
	}{
		{`{"format":1,"later":[{}],` + why, nil},
		{`{"format":2,` + why, ErrFormat},
		{`{"format":2,"id":[],"why":7}`, ErrFormat},
		{`{"format":0,` + why, ErrFormat},
		{`{` + why, ErrMalformed},
		{`{"format":"1",` + why, ErrMalformed},
		{`{"format":1,"id":7,` + why, ErrMalformed},
		{`{"format":1,"why":{"time":"yesterday"}}`, ErrMalformed},
		{`{"format":1}`, ErrMalformed},
		{"{\"format\":1,\"id\":\"\xff\"," + why, ErrMalformed},
		{`null`, ErrMalformed},
		{`[]`, ErrMalformed},
		{``, ErrMalformed},
	} {
		_, err := DecodeFlagChange([]byte(c.text))
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%q: got %v, want %v", c.text, err, c.want)
		}
	}
}

func FuzzFlagChange(f *testing.F) {
	f.Add("id", "flag", true, "topic", "9f2c", int64(0), int64(1), int32(2), uint64(3), []byte(`{"format":1}`))
	f.Add("\u2028\x00\"", "é", false, "", "", TimeMaxMs, int64(-1), int32(-1), uint64(math.MaxUint64), []byte(`null`))
	f.Fuzz(func(t *testing.T, id, flag string, raised bool, topic, rules string, ms, offset int64, partition int32, version uint64, raw []byte) {
		if _, err := DecodeFlagChange(raw); err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", raw, err)
		}
		for _, s := range []string{id, flag, topic, rules} {
			if !utf8.ValidString(s) {
				return
			}
		}
		want := FlagChange{id, flag, raised, Why{ms, topic, partition, offset, rules}, version}
		if ms < TimeMinMs || ms > TimeMaxMs {
			return
		}
		_, value := want.Encode()
		if got, err := DecodeFlagChange(value); err != nil || *got != want {
			t.Errorf("%s: got %+v (%v), want %+v", value, got, err, want)
		}
	})
}
