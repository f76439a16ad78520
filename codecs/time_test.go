package codecs

import (
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestParseTime_FloorsToMilliseconds(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
	}{
		{"1970-01-01T00:00:00Z", 0},
		{"1970-01-01T00:00:00.0019Z", 1},
		{"1969-12-31T23:59:59.9999Z", -1},
		{"1969-12-31T23:59:59.9999+00:00", -1},
		{"1969-12-31T23:59:59.0001Z", -1000},
		{"1970-01-01T01:00:00+01:00", 0},
		{"1969-12-31T18:30:00.5-05:30", 500},
		{"2024-02-29T00:00:00Z", 1_709_164_800_000},
		{"2024-02-29t00:00:00.5z", 1_709_164_800_500},
		{"2024-02-29t01:00:00+01:00", 1_709_164_800_000},
		{"2000-02-29T23:59:59.999999999Z", 951_868_799_999},
		{"0001-01-01T00:00:00Z", TimeMinMs},
		{"9999-12-31T23:59:59.999Z", TimeMaxMs},
		{"2017-03-27T13:08:09." + strings.Repeat("1", 60) + "Z", 1_490_620_089_111},
	} {
		if got, err := ParseTime([]byte(c.text)); err != nil || got != c.want {
			t.Errorf("%s: got %d (%v), want %d", c.text, got, err, c.want)
		}
	}
}

func TestParseTime_RefusesWhatIsNotRFC3339(t *testing.T) {
	for _, text := range []string{
		"", "2017", "2017-03-27", "2017-03-27 13:08:09Z", "2017-03-27T13:08:09", "2017-03-27T13:08Z", "2017-03-27T13:08:09.Z",
		"2017-03-27T3:08:09Z", "2017-03-27T13:08:09,5Z", "2017-03-27T13:08:09+24:00", "2017-03-27T13:08:09+01:60", "2017-03-27T13:08:09+0100",
		"2017-02-29T00:00:00Z", "2017-04-31T00:00:00Z", "2100-02-29T00:00:00Z", "2017-13-01T00:00:00Z", "2017-00-01T00:00:00Z", "2017-01-00T00:00:00Z",
		"2017-01-01T24:00:00Z", "2017-01-01T00:60:00Z", "2017-01-01T00:00:60Z", "17-01-01T00:00:00Z", "12017-01-01T00:00:00Z", "-001-01-01T00:00:00Z",
		"2017-01-01T00:00:00ZZ", "2017-01-01T00:00:00.5xZ", "0000-12-31T23:59:59Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "1490620089",
	} {
		if got, err := ParseTime([]byte(text)); !errors.Is(err, ErrTime) {
			t.Errorf("%q: got %d (%v), want ErrTime", text, got, err)
		}
	}
}

func TestParseTime_ComesBackOnBothWays(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 9))
	for range 20_000 {
		ms := TimeMinMs + r.Int64N(TimeMaxMs-TimeMinMs+1)
		if r.IntN(2) == 0 {
			ms -= ((ms % 1000) + 1000) % 1000
		}
		text := AppendTime(nil, ms)
		got, err := ParseTime(text)
		if err != nil || got != ms {
			t.Fatalf("seed %d: %d is %s, which reads as %d (%v)", seed, ms, text, got, err)
		}
		zone := time.FixedZone("", (r.IntN(47)-23)*1800)
		local := time.UnixMilli(ms).In(zone)
		if year := local.Year(); year < 1 || year > 9999 {
			continue
		}
		if got, err := ParseTime(local.AppendFormat(nil, time.RFC3339Nano)); err != nil || got != ms {
			t.Fatalf("seed %d: %s is %d (%v), want %d", seed, local.Format(time.RFC3339Nano), got, err, ms)
		}
	}
}

// strict is the grammar of RFC 3339, section 5.6, in upper case; the calendar is package time's affair.
var strict = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{"1970-01-01T00:00:00Z", "1969-12-31T23:59:59.9999+00:00", "2024-02-29T00:00:00.5-23:59", "2017-03-27T3:08:09,5Z", "0000-01-01T00:00:00Z", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := ParseTime(text)
		want, wantErr := time.Parse(time.RFC3339Nano, string(text))
		switch {
		case err == nil && (wantErr != nil || got != want.UnixMilli()):
			t.Fatalf("%q: got %d, want %d (%v)", text, got, want.UnixMilli(), wantErr)
		case err != nil && wantErr == nil && strict.Match(text) && want.UnixMilli() >= TimeMinMs && want.UnixMilli() <= TimeMaxMs:
			t.Fatalf("%q: got %v, want %d", text, err, want.UnixMilli())
		case err == nil && !strict.Match(text):
			t.Fatalf("%q was accepted", text)
		}
		if err == nil {
			if again, err := ParseTime(AppendTime(nil, got)); err != nil || again != got {
				t.Fatalf("%q: %d comes back as %d (%v)", text, got, again, err)
			}
		}
	})
}
