package codecs

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// ErrTime says that a text is no time, or one outside the years 0001 to 9999.
var ErrTime = errors.New("not a time")

// The times that can be written: years 0001 to 9999, in epoch ms.
var (
	TimeMinMs = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	TimeMaxMs = time.Date(9999, 12, 31, 23, 59, 59, 999_000_000, time.UTC).UnixMilli()
)

// ParseTime reads RFC 3339 and floors to ms. The usual form in UTC is read without package time.
func ParseTime(text []byte) (ms int64, err error) {
	if ms, ok := parseUTC(text); ok {
		return ms, nil
	}
	text = upperCase(text)
	t, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil || !isRFC3339(text) {
		return 0, fmt.Errorf("%w: %.40q is not RFC 3339", ErrTime, text)
	}
	ms = t.UnixMilli()
	if ms < TimeMinMs || ms > TimeMaxMs {
		return 0, fmt.Errorf("%w: %.40q is outside the years 0001 to 9999", ErrTime, text)
	}
	return ms, nil
}

// parseUTC reads 2006-01-02T15:04:05[.fff…]Z; ok is false where package time has to decide.
func parseUTC(b []byte) (ms int64, ok bool) {
	if len(b) < 20 || b[len(b)-1] != 'Z' || b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return 0, false
	}
	year, ok1 := digits(b[0:4])
	month, ok2 := digits(b[5:7])
	day, ok3 := digits(b[8:10])
	hour, ok4 := digits(b[11:13])
	minute, ok5 := digits(b[14:16])
	second, ok6 := digits(b[17:19])
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) || year < 1 || month < 1 || month > 12 || day < 1 || day > 28 || hour > 23 || minute > 59 || second > 59 {
		return 0, false // days 29 to 31 depend on the month
	}
	fraction := int64(0)
	if b[19] == '.' {
		scale := int64(100)
		for _, c := range b[20 : len(b)-1] {
			if c < '0' || c > '9' {
				return 0, false
			}
			fraction += int64(c-'0') * scale
			scale /= 10
		}
		if len(b) == 21 {
			return 0, false
		}
	} else if len(b) != 20 {
		return 0, false
	}
	return (daysFromCivil(year, month, day)*86400+hour*3600+minute*60+second)*1000 + fraction, true
}

// upperCase is the text with a T and a Z in place of t and z, which RFC 3339 allows and package time does not.
func upperCase(text []byte) []byte {
	if len(text) > 10 && (text[10] == 't' || text[len(text)-1] == 'z') {
		return bytes.ToUpper(text)
	}
	return text
}

// isRFC3339 refuses what package time lets pass beyond it: an hour of one digit, a comma before the fraction, and zones
// of 24 hours or 60 minutes.
func isRFC3339(b []byte) bool {
	if len(b) < 20 || b[13] != ':' || b[19] == ',' {
		return false
	}
	if b[len(b)-1] == 'Z' {
		return true
	}
	zone := b[len(b)-5:]
	hours, ok1 := digits(zone[:2])
	minutes, ok2 := digits(zone[3:])
	return ok1 && ok2 && hours <= 23 && minutes <= 59
}

func digits(b []byte) (n int64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// daysFromCivil counts the days from 1970-01-01 in the proleptic Gregorian calendar, with the year taken
// to begin in March so that the leap day is its last.
func daysFromCivil(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	return 365*year + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 719469
}

// AppendTime appends ms in RFC 3339, UTC, with milliseconds only where there are any.
func AppendTime(dst []byte, ms int64) []byte {
	t := time.UnixMilli(ms).UTC()
	if ms%1000 == 0 {
		return t.AppendFormat(dst, "2006-01-02T15:04:05Z")
	}
	return t.AppendFormat(dst, "2006-01-02T15:04:05.000Z")
}
