package rules

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/tidemark/tidemark/codecs"
)

// Limits of a job file.
const (
	fileBytesMax  = 1 << 20
	namedMax      = 1000 // totals, and flags
	maxItemsMax   = 1_000_000
	stateBytesCap = 1 << 30
	brokersMax    = 1000
)

// A loader builds a RuleSet from the nodes of a job file.
type loader struct {
	reader
	compiler
	rs         *RuleSet
	inner, all scope   // of a total's own expressions, and of a flag's
	steps      float64 // of one run of each expression so far
}

// Load reads a job file. Its error is *Faults: everything that is wrong, in the order of the file.
func Load(src []byte) (*RuleSet, error) {
	l := &loader{rs: &RuleSet{job: &Job{}}}
	l.cut, l.slots = map[*yaml.Node]bool{}, map[string]int{}
	switch {
	case len(src) > fileBytesMax:
		l.faultAt(1, 1, fmt.Sprintf("the job file is larger than %d bytes", fileBytesMax))
	case !utf8.Valid(src):
		l.faultAt(1+bytes.Count(validPrefix(src), []byte("\n")), 1, "the job file is not UTF-8")
	default:
		for _, line := range strings.Split(string(src), "\n") {
			l.lines = append(l.lines, []rune(strings.TrimSuffix(line, "\r")))
		}
		if root := l.parseYAML(src); root != nil {
			l.job(root)
		}
	}
	if len(l.faults) > 0 {
		slices.SortStableFunc(l.faults, func(a, b Fault) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		return nil, &l.faults
	}
	l.finish()
	return l.rs, nil
}

func validPrefix(src []byte) []byte {
	for i := 0; i < len(src); {
		r, n := utf8.DecodeRune(src[i:])
		if r == utf8.RuneError && n == 1 {
			return src[:i]
		}
		i += n
	}
	return src
}

func set(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, name := range names {
		m[name] = true
	}
	return m
}

var (
	jobKeys   = set("name", "brokers", "input", "totals", "flags", "state_bytes_max", "watch")
	inputKeys = set("topic", "format", "id", "time", "from", "allowed_lateness", "max_ahead")
	totalKeys = set("count", "sum", "min", "max", "avg", "last", "list", "when", "window", "grain", "max_items")
	flagKeys  = set("when", "clear")

	jobName   = regexp.MustCompile(`^[A-Za-z0-9._-]{1,200}$`)
	topicName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)
	ownTopic  = regexp.MustCompile(`^(\.g[0-9]+)?-(table|loop|flags|dead-letters)$`) // behind the job's name
	fieldName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,199}$`)
	celWords  = set("as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop",
		"package", "namespace", "null", "return", "true", "var", "void", "while")
)

func (l *loader) job(root *yaml.Node) {
	values, _, _ := l.fields(root, "the job file", jobKeys)
	job := l.rs.job
	job.StateBytesMax, job.WatchHorizonMs = StateBytesMaxDefault, WatchHorizonMsDefault
	if n := values["name"]; n == nil {
		l.fault(root, "name is missing")
	} else if s, ok := l.word(n, "name"); ok {
		if !jobName.MatchString(s) || s == "." || s == ".." {
			l.fault(n, "name must be 1 to 200 of A-Z a-z 0-9 . _ - and not . or ..")
		}
		job.Name = s
	}
	if n := values["brokers"]; n != nil {
		l.brokers(n)
	}
	if n := values["state_bytes_max"]; n != nil {
		job.StateBytesMax, _ = l.whole(n, "state_bytes_max", stateBytesCap)
	}
	if n := values["watch"]; n != nil {
		watch, _, _ := l.fields(n, "watch", set("horizon"))
		if h := watch["horizon"]; h != nil {
			job.WatchHorizonMs, _ = l.duration(h, "horizon")
		}
	}
	l.declare(values)
	if n := values["input"]; n == nil {
		l.fault(root, "input is missing")
	} else {
		l.input(n)
	}
	l.readTotals(values["totals"])
	l.readFlags(values["flags"])
}

func (l *loader) brokers(n *yaml.Node) {
	if !l.plain(n) {
		return
	}
	var list []string
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			if s, ok := l.word(item, "a broker"); ok {
				list = append(list, s)
			}
		}
	} else if s, ok := l.word(n, "brokers"); ok {
		list = strings.Split(s, ",")
	}
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
		if list[i] == "" {
			l.fault(n, "a broker's address is empty")
			return
		}
	}
	if len(list) > brokersMax {
		l.fault(n, "more than %d brokers", brokersMax)
	}
	l.rs.job.Brokers = list
}

func (l *loader) input(n *yaml.Node) {
	values, _, _ := l.fields(n, "input", inputKeys)
	if n.Kind != yaml.MappingNode {
		return
	}
	in := &l.rs.job.Input
	in.Format, in.MaxAheadMs = "json", MaxAheadMsDefault
	if t := values["topic"]; t == nil {
		l.fault(n, "input.topic is missing")
	} else if s, ok := l.word(t, "topic"); ok {
		if !topicName.MatchString(s) || s == "." || s == ".." {
			l.fault(t, "topic must be 1 to 249 of A-Z a-z 0-9 . _ - and not . or ..")
		}
		if own := strings.TrimPrefix(s, l.rs.job.Name); l.rs.job.Name != "" && own != s && ownTopic.MatchString(own) {
			l.fault(t, "topic %s is one that the job writes itself, and it would never end: name another input, or give the job another name", s)
		}
		in.Topic = s
	}
	if f := values["format"]; f != nil {
		if s, ok := l.word(f, "format"); ok && s != "json" {
			l.fault(f, "format %q is not known: json is the only one so far", s)
		}
	}
	event := &scope{input: true}
	if e := values["id"]; e != nil {
		in.ID = e.Value
		l.rs.id = l.expression(e, "input.id", event, wantID)
	}
	if e := values["time"]; e != nil {
		in.Time = e.Value
		l.rs.time = l.expression(e, "input.time", event, wantTime)
	}
	if f := values["from"]; f != nil {
		l.from(f)
	}
	if d := values["allowed_lateness"]; d != nil {
		if ms, ok := l.duration(d, "allowed_lateness"); ok {
			in.AllowedLatenessMs = &ms
		}
	}
	if d := values["max_ahead"]; d != nil {
		in.MaxAheadMs, _ = l.duration(d, "max_ahead")
	}
}

func (l *loader) from(n *yaml.Node) {
	s, ok := l.text(n, "from")
	if !ok || s == "earliest" {
		return
	}
	if s == "latest" {
		l.rs.job.Input.From = From{Latest: true}
		return
	}
	ms, err := codecs.ParseTime([]byte(s))
	if err != nil {
		l.fault(n, "from must be earliest, latest or an RFC 3339 time such as 2026-01-31T00:00:00Z")
		return
	}
	l.rs.job.Input.From = From{HasMs: true, Ms: ms}
}

// declare gathers the names and types that expressions may use, before any expression is read.
func (l *loader) declare(values map[string]*yaml.Node) {
	l.totals, l.flags = map[string]int{}, map[string]int{}
	l.all = scope{totals: map[string]typeOf{}, flags: map[string]bool{}}
	var totals, flags []string
	for name, decl := range mapping(values["totals"]) {
		l.all.totals[name] = number
		for key := range mapping(decl) {
			switch key {
			case "last":
				l.all.totals[name] = anyType
			case "list":
				l.all.totals[name] = anyList
			}
		}
		totals = append(totals, name)
	}
	for name := range mapping(values["flags"]) {
		l.all.flags[name] = true
		flags = append(flags, name)
	}
	slices.Sort(totals)
	slices.Sort(flags)
	for i, name := range totals {
		l.totals[name] = i
	}
	for i, name := range flags {
		l.compiler.flags[name] = i
	}
	l.inner = l.all
	l.inner.inner = true
	l.rs.totals, l.rs.flags = make([]total, len(totals)), make([]flag, len(flags))
	l.rs.schema = &codecs.Schema{Totals: totals, Flags: flags}
}

// mapping reads a node's pairs, whatever else is wrong with it.
func mapping(n *yaml.Node) map[string]*yaml.Node {
	m := map[string]*yaml.Node{}
	if n == nil || n.Kind != yaml.MappingNode {
		return m
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Kind == yaml.ScalarNode {
			m[n.Content[i].Value] = n.Content[i+1]
		}
	}
	return m
}

// named checks the name of a total or a flag.
func (l *loader) named(key *yaml.Node) {
	switch {
	case !fieldName.MatchString(key.Value):
		l.fault(key, "name %q must match [a-z][a-z0-9_]* and have at most 200 characters", key.Value)
	case celWords[key.Value]:
		l.fault(key, "name %q is a word of the expression language", key.Value)
	}
}
