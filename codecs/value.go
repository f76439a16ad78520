package codecs

import "strconv"

// Kind says what a Value is.
type Kind uint8

// The kinds. Null also stands for a field that an event lacks.
const (
	Null Kind = iota
	Bool
	Number
	String
	List
	Map
	Time
	Duration
)

func (k Kind) String() string {
	names := [...]string{"null", "bool", "number", "string", "list", "map", "time", "duration"}
	if int(k) >= len(names) {
		return "kind " + strconv.Itoa(int(k))
	}
	return names[k]
}

// Value is a value of an event, of a rule or of a total. Only the field of its Kind means anything.
// Str may alias the bytes of the record that it was decoded from: clone it to keep it.
type Value struct {
	Kind    Kind
	Bool    bool
	Int     int64 // Time: epoch ms; Duration: ms
	Num     Decimal
	Str     string
	Items   []Value
	Members []Member // of a map, in the order of the text
}

// Member is one entry of a map.
type Member struct {
	Name  string
	Value Value
}

// Path is a chain of member names below the event; the empty path is the whole event.
type Path []string

// AppendJSON appends the value as answers carry it: decimals as strings, times in RFC 3339, durations in
// seconds with an s.
func (v *Value) AppendJSON(dst []byte) []byte {
	switch v.Kind {
	case Bool:
		return strconv.AppendBool(dst, v.Bool)
	case Number:
		dst = append(dst, '"')
		dst = v.Num.AppendText(dst)
		return append(dst, '"')
	case String:
		return AppendJSONString(dst, v.Str)
	case Time:
		dst = append(dst, '"')
		dst = AppendTime(dst, v.Int)
		return append(dst, '"')
	case Duration:
		seconds := Decimal{coef: v.Int, exp: -3}
		dst = append(dst, '"')
		dst = seconds.AppendText(dst)
		return append(dst, 's', '"')
	case List:
		dst = append(dst, '[')
		for i := range v.Items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = v.Items[i].AppendJSON(dst)
		}
		return append(dst, ']')
	case Map:
		dst = append(dst, '{')
		for i := range v.Members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(AppendJSONString(dst, v.Members[i].Name), ':')
			dst = v.Members[i].Value.AppendJSON(dst)
		}
		return append(dst, '}')
	}
	return append(dst, "null"...)
}

// AppendJSONString appends s, which is UTF-8, as a JSON string.
func AppendJSONString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		start = i + 1
	}
	return append(append(dst, s[start:]...), '"')
}
