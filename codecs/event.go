package codecs

import (
	"fmt"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// depthMax bounds the nesting of an event.
const depthMax = 128

// Reasons of an EventError.
const (
	ReasonJSON         = "json"
	ReasonDuplicateKey = "duplicate_key"
	ReasonNumber       = "number"
	ReasonUTF8         = "utf8"
	ReasonDepth        = "depth"
)

// EventError says why the bytes are no event.
type EventError struct {
	Reason string // one of the Reason constants
	Detail string
}

func (e *EventError) Error() string { return e.Reason + ": " + e.Detail }

// EventDecoder decodes JSON objects for a fixed set of wanted paths. The whole document is checked
// (grammar, UTF-8, duplicate keys at every level, numbers within the limits of an event, depth); only
// what is wanted is made into values. One decoder per goroutine.
type EventDecoder struct {
	root  *wanted
	paths int

	data []byte
	pos  int
	out  []Value
	keys []string // of the open objects, innermost last
	text []byte   // scratch for strings with escapes
}

// wanted is a node of the tree of wanted paths.
type wanted struct {
	slot     int // -1: only something below
	name     string
	children []*wanted
}

// NewEventDecoder compiles the paths. Decode puts the value at paths[i] into out[i].
func NewEventDecoder(paths []Path) *EventDecoder {
	d := &EventDecoder{root: &wanted{slot: -1}, paths: len(paths)}
	for i, p := range paths {
		n := d.root
		for _, name := range p {
			next := n.child(name)
			if next == nil {
				next = &wanted{slot: -1, name: name}
				n.children = append(n.children, next)
			}
			n = next
		}
		if n.slot >= 0 {
			panic(fmt.Sprintf("codecs: path %v twice", p))
		}
		n.slot = i
	}
	return d
}

func (n *wanted) child(name string) *wanted {
	if n == nil {
		return nil
	}
	for _, c := range n.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

// Decode reads one event. out must have a place for each path; what the event lacks becomes Null.
// Strings in out alias data or are fresh. The error is an *EventError.
func (d *EventDecoder) Decode(data []byte, out []Value) error {
	if len(out) != d.paths {
		panic(fmt.Sprintf("codecs: %d places for %d paths", len(out), d.paths))
	}
	for i := range out {
		out[i].Kind = Null
	}
	if !utf8.Valid(data) {
		return &EventError{ReasonUTF8, "the event is not UTF-8"}
	}
	d.data, d.pos, d.out, d.keys = data, 0, out, d.keys[:0]
	d.space()
	if d.peek() != '{' {
		return &EventError{ReasonJSON, "the event is not a JSON object"}
	}
	if err := d.value(d.root, nil, 0); err != nil {
		return err
	}
	d.space()
	if d.pos != len(data) {
		return d.bad("something follows the object")
	}
	return nil
}

func (d *EventDecoder) bad(what string) *EventError {
	return &EventError{ReasonJSON, fmt.Sprintf("%s, at byte %d", what, d.pos)}
}

// space is small enough to be inlined: mostly there is none.
func (d *EventDecoder) space() {
	if d.pos < len(d.data) && d.data[d.pos] <= ' ' {
		d.spaces()
	}
}

func (d *EventDecoder) spaces() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// peek is the next byte, 0 at the end.
func (d *EventDecoder) peek() byte {
	if d.pos < len(d.data) {
		return d.data[d.pos]
	}
	return 0
}

// value reads one value. It is made into the node's slot, or into v if that is not nil (then something
// above is wanted as a whole); otherwise it is only checked.
func (d *EventDecoder) value(n *wanted, v *Value, depth int) *EventError {
	if v == nil && n != nil && n.slot >= 0 {
		v = &d.out[n.slot]
		if len(n.children) > 0 {
			return d.wholeAndBelow(n, v, depth)
		}
		n = nil
	}
	switch c := d.peek(); {
	case c == '{':
		return d.object(n, v, depth+1)
	case c == '[':
		return d.array(v, depth+1)
	case c == '"':
		s, err := d.str()
		if err == nil && v != nil {
			v.Kind, v.Str = String, s
		}
		return err
	case c == '-' || c >= '0' && c <= '9':
		return d.number(v)
	case c == 't':
		return d.literal("true", v, Bool, true)
	case c == 'f':
		return d.literal("false", v, Bool, false)
	case c == 'n':
		return d.literal("null", v, Null, false)
	}
	return d.bad("want a value")
}

// wholeAndBelow reads a value that is wanted itself and has wanted members too.
func (d *EventDecoder) wholeAndBelow(n *wanted, v *Value, depth int) *EventError {
	if err := d.value(nil, v, depth); err != nil {
		return err
	}
	d.spread(n, v)
	return nil
}

func (d *EventDecoder) spread(n *wanted, v *Value) {
	if v.Kind != Map {
		return
	}
	for i := range v.Members {
		c := n.child(v.Members[i].Name)
		if c == nil {
			continue
		}
		if c.slot >= 0 {
			d.out[c.slot] = v.Members[i].Value
		}
		d.spread(c, &v.Members[i].Value)
	}
}

func (d *EventDecoder) literal(text string, v *Value, kind Kind, b bool) *EventError {
	if len(d.data)-d.pos < len(text) || string(d.data[d.pos:d.pos+len(text)]) != text {
		return d.bad("want " + text)
	}
	d.pos += len(text)
	if v != nil {
		v.Kind, v.Bool = kind, b
	}
	return nil
}

func (d *EventDecoder) object(n *wanted, v *Value, depth int) *EventError {
	if depth > depthMax {
		return &EventError{ReasonDepth, fmt.Sprintf("nested deeper than %d", depthMax)}
	}
	if v != nil {
		v.Kind, v.Members = Map, nil
	}
	seen := keySet{base: len(d.keys)}
	d.pos++
	d.space()
	if d.peek() == '}' {
		d.pos++
		return nil
	}
	for {
		if d.peek() != '"' {
			return d.bad("want a key")
		}
		key, err := d.str()
		if err != nil {
			return err
		}
		if !d.note(&seen, key) {
			return &EventError{ReasonDuplicateKey, fmt.Sprintf("key %.100q stands twice in one object", key)}
		}
		d.space()
		if d.peek() != ':' {
			return d.bad("want a colon")
		}
		d.pos++
		d.space()
		if err := d.member(n, v, key, depth); err != nil {
			return err
		}
		d.space()
		switch d.peek() {
		case ',':
			d.pos++
			d.space()
		case '}':
			d.pos++
			d.keys = d.keys[:seen.base]
			return nil
		default:
			return d.bad("want a comma or the end of the object")
		}
	}
}

func (d *EventDecoder) member(n *wanted, v *Value, key string, depth int) *EventError {
	if v == nil {
		return d.value(n.child(key), nil, depth)
	}
	var m Member
	m.Name = key
	if err := d.value(nil, &m.Value, depth); err != nil {
		return err
	}
	v.Members = append(v.Members, m)
	return nil
}

// keySet finds duplicates: few keys are compared with each other, many go to a map.
type keySet struct {
	base int
	many map[string]struct{}
}

const fewKeys = 24

// note adds a key of the innermost object; false if it has it.
func (d *EventDecoder) note(s *keySet, key string) bool {
	if s.many != nil {
		if _, dup := s.many[key]; dup {
			return false
		}
		s.many[key] = struct{}{}
		return true
	}
	for _, k := range d.keys[s.base:] {
		if k == key {
			return false
		}
	}
	d.keys = append(d.keys, key)
	if len(d.keys)-s.base > fewKeys {
		s.many = make(map[string]struct{}, 4*fewKeys)
		for _, k := range d.keys[s.base:] {
			s.many[k] = struct{}{}
		}
		d.keys = d.keys[:s.base]
	}
	return true
}

func (d *EventDecoder) array(v *Value, depth int) *EventError {
	if depth > depthMax {
		return &EventError{ReasonDepth, fmt.Sprintf("nested deeper than %d", depthMax)}
	}
	if v != nil {
		v.Kind, v.Items = List, nil
	}
	d.pos++
	d.space()
	if d.peek() == ']' {
		d.pos++
		return nil
	}
	for {
		var item Value
		to := &item
		if v == nil {
			to = nil
		}
		if err := d.value(nil, to, depth); err != nil {
			return err
		}
		if v != nil {
			v.Items = append(v.Items, item)
		}
		d.space()
		switch d.peek() {
		case ',':
			d.pos++
			d.space()
		case ']':
			d.pos++
			return nil
		default:
			return d.bad("want a comma or the end of the list")
		}
	}
}

// number checks JSON's grammar, which is narrower than ParseDecimal's, and the limits.
func (d *EventDecoder) number(v *Value) *EventError {
	start := d.pos
	if d.data[d.pos] == '-' {
		d.pos++
	}
	whole := d.digits()
	if whole == 0 {
		return d.bad("want a digit")
	}
	if whole > 1 && d.data[d.pos-whole] == '0' {
		return d.bad("a number begins with 0")
	}
	fraction, exponent := 0, 0
	if d.peek() == '.' {
		d.pos++
		if fraction = d.digits(); fraction == 0 {
			return d.bad("want a digit after the point")
		}
	}
	if c := d.peek(); c == 'e' || c == 'E' {
		d.pos++
		if c := d.peek(); c == '-' || c == '+' {
			d.pos++
		}
		if exponent = d.digits(); exponent == 0 {
			return d.bad("want a digit of the exponent")
		}
	}
	if v == nil && exponent == 0 && whole+fraction <= EventDigitsMax {
		return nil // within the limits whatever the digits are
	}
	n, err := ParseDecimal(d.data[start:d.pos])
	if err != nil {
		return &EventError{ReasonNumber, fmt.Sprintf("%v, at byte %d", err, start)}
	}
	if v != nil {
		v.Kind, v.Num = Number, n
	}
	return nil
}

func (d *EventDecoder) digits() int {
	start := d.pos
	for d.pos < len(d.data) && d.data[d.pos] >= '0' && d.data[d.pos] <= '9' {
		d.pos++
	}
	return d.pos - start
}

// plain marks the bytes that stand for themselves inside a string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 256; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// str reads a string. Without escapes it aliases the data.
func (d *EventDecoder) str() (string, *EventError) {
	start := d.pos + 1
	i := start
	for i < len(d.data) && plain[d.data[i]] {
		i++
	}
	if i < len(d.data) && d.data[i] == '"' {
		d.pos = i + 1
		return unsafe.String(unsafe.SliceData(d.data[start:]), i-start), nil
	}
	d.text = append(d.text[:0], d.data[start:i]...)
	d.pos = i
	for d.pos < len(d.data) {
		switch c := d.data[d.pos]; {
		case c == '"':
			d.pos++
			return strings.Clone(unsafe.String(unsafe.SliceData(d.text), len(d.text))), nil
		case c == '\\':
			if err := d.escape(); err != nil {
				return "", err
			}
		case c < 0x20:
			return "", d.bad("a control character in a string")
		default:
			d.text = append(d.text, c)
			d.pos++
		}
	}
	return "", d.bad("a string does not end")
}

func (d *EventDecoder) escape() *EventError {
	d.pos++
	c := d.peek()
	d.pos++
	switch c {
	case '"', '\\', '/':
		d.text = append(d.text, c)
	case 'b':
		d.text = append(d.text, '\b')
	case 'f':
		d.text = append(d.text, '\f')
	case 'n':
		d.text = append(d.text, '\n')
	case 'r':
		d.text = append(d.text, '\r')
	case 't':
		d.text = append(d.text, '\t')
	case 'u':
		return d.unicode()
	default:
		d.pos--
		return d.bad("an unknown escape")
	}
	return nil
}

// unicode reads \uXXXX, a surrogate pair as one; half a pair is no text.
func (d *EventDecoder) unicode() *EventError {
	r, ok := d.hex4()
	if !ok {
		return d.bad("want four hexadecimal digits")
	}
	if r >= 0xD800 && r < 0xE000 {
		if r >= 0xDC00 || len(d.data)-d.pos < 2 || d.data[d.pos] != '\\' || d.data[d.pos+1] != 'u' {
			return &EventError{ReasonUTF8, fmt.Sprintf("half a surrogate pair, at byte %d", d.pos)}
		}
		d.pos += 2
		low, ok := d.hex4()
		if !ok || low < 0xDC00 || low >= 0xE000 {
			return &EventError{ReasonUTF8, fmt.Sprintf("half a surrogate pair, at byte %d", d.pos)}
		}
		r = 0x10000 + (r-0xD800)<<10 + (low - 0xDC00)
	}
	d.text = utf8.AppendRune(d.text, r)
	return nil
}

func (d *EventDecoder) hex4() (r rune, ok bool) {
	if len(d.data)-d.pos < 4 {
		return 0, false
	}
	for _, c := range d.data[d.pos : d.pos+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	d.pos += 4
	return r, true
}
