package rules

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"
)

// faultsMax is how many faults are gathered. A file with more of them is no job file, and looking for its last one would
// take long.
const faultsMax = 100

// A reader walks the nodes of a job file and gathers faults instead of stopping at the first.
type reader struct {
	lines  [][]rune
	cut    map[*yaml.Node]bool // plain values that lost their end to a comma
	faults Faults
}

// parseYAML reads the one document of a job file. The root is nil where YAML itself found a fault.
func (r *reader) parseYAML(src []byte) *yaml.Node {
	var doc yaml.Node
	if err := yaml.Load(src, &doc); err != nil && !strings.Contains(err.Error(), "no documents in stream") {
		r.syntaxFault(err)
		return nil
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		r.faultAt(1, 1, "the job file is empty")
		return nil
	}
	return doc.Content[0]
}

var flowExpression = regexp.MustCompile(`(when|clear|sum|min|max|avg|last|list|id|time)\s*:`)

func (r *reader) syntaxFault(err error) {
	line, column, message := 1, 1, err.Error()
	hint := false
	if load := (*yaml.LoadError)(nil); errors.As(err, &load) {
		message = strings.TrimPrefix(load.Message, "yaml: ")
		line, column = max(load.Mark.Line, 1), max(load.Mark.Column, 1)
		if line > len(r.lines) || line == len(r.lines) && len(r.lines[line-1]) == 0 { // at the file's end
			line, column = r.endOfText()
		}
		if at := load.ContextMark; load.ContextMsg != "" && at.Line > 0 && at.Line < line {
			message = fmt.Sprintf("%s that begins at %d:%d: %s", load.ContextMsg, at.Line, at.Column, message)
		} else if load.ContextMsg != "" {
			message = load.ContextMsg + ": " + message
		}
		if column <= len(r.lines[line-1]) && r.lines[line-1][column-1] == '\t' {
			message += "; indent with spaces: YAML takes no tabs"
		}
		hint = r.holdsExpression(load.ContextMark.Line)
	}
	if hint || r.holdsExpression(line) {
		message += "; if this is an expression, quote the expression"
	}
	r.faultAt(line, column, message)
}

// endOfText is the place after the last line that is not empty.
func (r *reader) endOfText() (line, column int) {
	for line = len(r.lines); line > 1 && len(r.lines[line-1]) == 0; {
		line--
	}
	return line, len(r.lines[line-1]) + 1
}

func (r *reader) holdsExpression(line int) bool {
	return line > 0 && line <= len(r.lines) && flowExpression.MatchString(string(r.lines[line-1]))
}

func (r *reader) faultAt(line, column int, message string) {
	f := Fault{Line: line, Column: column, Message: message}
	switch {
	case slices.Contains(r.faults, f) || r.full():
	case len(r.faults) < faultsMax:
		r.faults = append(r.faults, f)
	default:
		r.faults = append(r.faults, Fault{Line: max(len(r.lines), 1), Column: 1, Message: "there are more faults than these: mend them first"})
	}
}

// full tells that no further fault is taken.
func (r *reader) full() bool { return len(r.faults) > faultsMax }

func (r *reader) fault(n *yaml.Node, format string, args ...any) {
	r.faultAt(n.Line, n.Column, fmt.Sprintf(format, args...))
}

// plain refuses what a job file has no use for: aliases, anchors, tags.
func (r *reader) plain(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.fault(n, "anchors and aliases have no meaning here; if this is an expression, quote the expression")
	case n.Style&yaml.TaggedStyle != 0:
		r.fault(n, "tags have no meaning here; if this is an expression, quote the expression")
	default:
		return true
	}
	return false
}

// fields reads a mapping. Unknown and repeated keys are faults; known nil takes every key.
func (r *reader) fields(n *yaml.Node, what string, known map[string]bool) (values, keys map[string]*yaml.Node, order []string) {
	values, keys = map[string]*yaml.Node{}, map[string]*yaml.Node{}
	if !r.plain(n) {
		return values, keys, nil
	}
	if n.Kind != yaml.MappingNode {
		r.fault(n, "%s must be a mapping of keys to values", what)
		return values, keys, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case !r.plain(key):
		case key.Kind != yaml.ScalarNode:
			r.fault(key, "a key of %s must be text", what)
		case keys[key.Value] != nil:
			r.fault(key, "key %q stands twice in %s (first at %d:%d)", key.Value, what, keys[key.Value].Line, keys[key.Value].Column)
		case known != nil && !known[key.Value] && r.cutAtComma(n, i):
			r.cut[n.Content[i-1]] = true
			r.fault(key, "the expression before this was cut at a comma: quote the expression")
		case known != nil && !known[key.Value]:
			r.fault(key, "unknown key %q in %s%s", key.Value, what, suggest(key.Value, maps.Keys(known)))
		default:
			values[key.Value], keys[key.Value] = value, key
			order = append(order, key.Value)
		}
	}
	return values, keys, order
}

// cutAtComma sees {when: f(a, b)}, which YAML reads as {when: "f(a", "b)": null}.
func (r *reader) cutAtComma(n *yaml.Node, i int) bool {
	if n.Style&yaml.FlowStyle == 0 || i == 0 || !isEmpty(n.Content[i+1]) {
		return false
	}
	before := n.Content[i-1]
	return before.Kind == yaml.ScalarNode && before.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0
}

// isEmpty tells a value that is not there from one that is.
func isEmpty(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// text reads a scalar as it is spelled.
func (r *reader) text(n *yaml.Node, what string) (string, bool) {
	switch {
	case n == nil || !r.plain(n):
		return "", false
	case n.Kind != yaml.ScalarNode:
		r.fault(n, "%s must be text", what)
		return "", false
	case isEmpty(n) || n.Value == "":
		r.fault(n, "%s is empty", what)
		return "", false
	}
	return n.Value, true
}

// word reads a scalar that must be text: a number or a boolean is a wrong type.
func (r *reader) word(n *yaml.Node, what string) (string, bool) {
	s, ok := r.text(n, what)
	if ok && n.Tag != "!!str" {
		r.fault(n, "%s must be text: put it in quotes", what)
		return "", false
	}
	return s, ok
}

func (r *reader) duration(n *yaml.Node, what string) (ms int64, ok bool) {
	s, ok := r.text(n, what)
	if !ok {
		return 0, false
	}
	ms, err := parseDuration(s)
	if err != nil {
		r.fault(n, "%s: %v", what, err)
		return 0, false
	}
	return ms, true
}

// whole reads a whole number of at least 1.
func (r *reader) whole(n *yaml.Node, what string, limit int64) (int64, bool) {
	s, ok := r.text(n, what)
	if !ok {
		return 0, false
	}
	var v int64
	for _, c := range s {
		if c < '0' || c > '9' || v > limit {
			v = 0
			break
		}
		v = v*10 + int64(c-'0')
	}
	if v < 1 || v > limit || n.Tag != "!!int" {
		r.fault(n, "%s must be a whole number from 1 to %d", what, limit)
		return 0, false
	}
	return v, true
}

// place finds the line and column of a rune of a scalar's value in the file.
func (r *reader) place(n *yaml.Node, offset int) (line, column int) {
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return r.blockPlace(n, offset)
	}
	line, column = n.Line, n.Column
	quote := n.Style & (yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle)
	if quote != 0 {
		column++
	}
	for ; offset > 0 && line <= len(r.lines); offset-- {
		rest := r.lines[line-1][min(column-1, len(r.lines[line-1])):]
		switch {
		case blank(rest):
			for line++; line < len(r.lines) && blank(r.lines[line-1]); line++ {
			}
			if line > len(r.lines) {
				return n.Line, n.Column
			}
			column = 1 + indent(r.lines[line-1])
		case quote == yaml.DoubleQuotedStyle && rest[0] == '\\':
			column += escapeWidth(rest)
		case quote == yaml.SingleQuotedStyle && rest[0] == '\'':
			column += 2
		default:
			column++
		}
	}
	return line, column
}

// escapeWidth is the length of an escape in a double quoted scalar.
func escapeWidth(rest []rune) int {
	if len(rest) < 2 {
		return 1
	}
	switch rest[1] {
	case 'x':
		return 4
	case 'u':
		return 6
	case 'U':
		return 10
	}
	return 2
}

// blockPlace is place in a literal or folded scalar, which starts on the line after its mark.
func (r *reader) blockPlace(n *yaml.Node, offset int) (line, column int) {
	line = n.Line + 1
	for line < len(r.lines) && blank(r.lines[line-1]) {
		line++
	}
	if line > len(r.lines) {
		return n.Line, n.Column
	}
	margin := indent(r.lines[line-1])
	for line < len(r.lines) {
		width := max(len(r.lines[line-1])-margin, 0)
		if offset <= width {
			break
		}
		offset -= width + 1
		line++
	}
	return line, margin + 1 + offset
}

func indent(line []rune) int {
	if i := slices.IndexFunc(line, func(c rune) bool { return c != ' ' && c != '\t' }); i >= 0 {
		return i
	}
	return len(line)
}

func blank(line []rune) bool {
	return !slices.ContainsFunc(line, func(c rune) bool { return !unicode.IsSpace(c) })
}

// suggest names the known word that is nearest to an unknown one.
func suggest(word string, known iter.Seq[string]) string {
	best, least := "", max(1, len(word)/2)+1
	for _, name := range slices.Sorted(known) {
		if d := distance(word, name); d < least {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance counts the insertions, deletions and substitutions between two words.
func distance(a, b string) int {
	if len(a) > 100 || len(b) > 100 {
		return 100
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
