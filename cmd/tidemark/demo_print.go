package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// How much of it is shown.
const (
	demoRows = 10
	demoWhys = 3
)

func (d *demo) introduce() {
	p := newPaper(d.out)
	p.printf("%s\n  %s\n", p.bold("tidemark demo "+d.set.name), d.set.title)
	p.printf("  %s\n", p.faint("data: "+d.set.source))
	p.flush()
}

// summary is what a person reads at the end of a demo.
type summary struct {
	*demo
	*paper
	lines   [][]byte
	meaning map[string]string
	flags   []string // the rarest first
	marks   map[string]string
}

func (s *summary) print() {
	defer s.flush()
	bearers := flagged(s.states)
	s.flags = slices.Clone(s.conn.job.Schema.Flags)
	slices.SortStableFunc(s.flags, func(a, b string) int { return cmp.Compare(bearers[a], bearers[b]) })
	s.marks = map[string]string{}
	for i, flag := range s.flags {
		s.marks[flag] = string(rune('A' + i))
	}
	telling := mostTelling(s.states, s.flags)
	s.legend(bearers)
	s.table(telling)
	s.whys(telling)
	s.numbers()
	s.ask(telling)
}

func (s *summary) legend(bearers map[string]int) {
	s.heading("Flags, the rarest first")
	for _, flag := range s.flags {
		s.printf("  %s  %s  %s  %s\n", s.bold(s.marks[flag]), pad(flag, 26), pad(counted(int64(bearers[flag]), "ID"), 7), cut(s.set.words[flag], widthMax-42))
		for _, line := range wrap(s.meaning[flag], widthMax-5) {
			s.printf("     %s\n", s.faint(line))
		}
	}
}

// table shows the most telling IDs.
func (s *summary) table(telling []*demoState) {
	s.heading("The most telling of %s %s with a flag, of %s in all", grouped(int64(len(telling))), s.set.ids, grouped(int64(len(s.states))))
	rows := [][]string{append([]string{s.set.ids, "events"}, append(slices.Clone(s.set.totals), "first event", "last event", "flags")...)}
	for _, st := range telling[:min(demoRows, len(telling))] {
		row := []string{cut(s.name(st), 38), grouped(st.Count)}
		for _, total := range s.set.totals {
			row = append(row, textOf(st.Totals[total]))
		}
		marks := make([]string, len(s.flags))
		for i, flag := range s.flags {
			if marks[i] = "·"; st.Flags[flag] != nil {
				marks[i] = s.marks[flag]
			}
		}
		rows = append(rows, append(row, day(st.FirstTime), day(st.LastTime), strings.Join(marks, " ")))
	}
	numbers := 1 + len(s.set.totals) // columns that stand to the right
	for r, row := range rows {
		line := "  "
		for c := range row {
			width := 0
			for i := range rows {
				width = max(width, len([]rune(rows[i][c])))
			}
			if c >= 1 && c <= numbers {
				width = -width
			}
			line += pad(row[c], width) + "  "
		}
		if line = strings.TrimRight(line, " "); r == 0 {
			line = s.faint(line)
		}
		s.printf("%s\n", line)
	}
}

// whys shows the very events that raised flags.
func (s *summary) whys(telling []*demoState) {
	s.heading("Why")
	for _, st := range telling[:min(demoWhys, len(telling))] {
		s.printf("  %s\n", s.name(st))
		names := flagNames(st.Flags, s.flags)
		slices.SortStableFunc(names, func(a, b string) int { return st.Flags[a].Time.Compare(st.Flags[b].Time) })
		for _, flag := range names {
			why := st.Flags[flag]
			line := s.places.line(why)
			s.printf("    %s  %s  %s  %s\n", s.bold(s.marks[flag]), moment(why.Time), pad(flag, 26),
				s.faint(fmt.Sprintf("partition %d, offset %s, line %s", why.Partition, grouped(why.Offset), grouped(line+1))))
			if line >= 0 {
				s.printf("       %s\n", cut(visible(members(s.lines[line], s.set.telling)), widthMax-7))
			}
		}
	}
}

// name is an ID, and what people call it.
func (s *summary) name(st *demoState) string {
	for _, flag := range flagNames(st.Flags, s.flags) {
		if line := s.places.line(st.Flags[flag]); line >= 0 && len(s.set.label) > 0 {
			return visible(st.ID + " " + values(s.lines[line], s.set.label))
		}
	}
	return visible(st.ID)
}

func (s *summary) numbers() {
	s.heading("Numbers")
	rate := int64(float64(s.events) / s.counting.Seconds())
	s.printf("  %s written in %s\n", counted(s.events, "event"), short(s.writing))
	s.printf("  counted in %s, %s a second, until the view answered; each exactly once\n",
		short(s.counting), grouped(rate))
	verdict := fmt.Sprintf("%s of %s IDs equal the independent oracle", grouped(int64(s.equal)), grouped(int64(s.oracle)))
	if s.different == "" {
		s.printf("  %s: counts, exact sums, extremes, flags,\n  and the very event that raised each flag\n", s.green(verdict))
	} else {
		s.printf("  %s; the first that differs is %s\n", s.red("DIFFERENT: "+verdict), visible(s.different))
	}
}

// ask says how to ask the view.
func (s *summary) ask(telling []*demoState) {
	s.heading("Ask it")
	if s.cmd.Once {
		again := "tidemark demo"
		if s.set != demoSets[0] {
			again += " " + s.set.name
		}
		s.printf("  `%s` without --once goes on and answers over HTTP\n", again)
		return
	}
	base := "http://" + s.l.Addr().String()
	if len(telling) > 0 {
		s.printf("  curl %s/v1/ids/%s\n", base, escapeID(telling[0].ID))
	}
	s.printf("  curl %s/v1/flags/%s/ids\n", base, s.flags[0])
	s.printf("  curl %s/v1/status\n", base)
	s.printf("  more events, by any Kafka client: brokers %s, topic %s\n", strings.Join(s.conn.kafka.Brokers, ","), s.conn.job.Input)
	s.printf("%s\n", s.faint("Ctrl-C ends it, and removes its data."))
}

func short(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

func day(t time.Time) string    { return t.UTC().Format("2006-01-02") }
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// members shows some members of an event, as they are written there; one alone is shown without its name.
func members(line []byte, names []string) string {
	var event map[string]json.RawMessage
	if json.Unmarshal(line, &event) != nil {
		return string(line)
	}
	var parts []string
	for _, name := range names {
		raw, ok := event[name]
		if !ok || string(raw) == "null" {
			continue
		}
		text := string(raw)
		var s string
		if json.Unmarshal(raw, &s) == nil {
			text = s
		}
		if len(names) > 1 {
			text = name + " " + text
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// values shows some members of an event without their names.
func values(line []byte, names []string) string {
	var parts []string
	for _, name := range names {
		parts = append(parts, members(line, []string{name}))
	}
	return strings.Join(parts, " ")
}
