package rules

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/tidemark/tidemark/codecs"
)

// Describe writes what the job file means, in words, and what an ID costs. It fails when w does.
func (rs *RuleSet) Describe(w io.Writer) error {
	d := &description{rs: rs}
	d.input()
	d.totals()
	d.flags()
	d.costs()
	_, err := io.WriteString(w, d.String())
	return err
}

type description struct {
	strings.Builder
	rs *RuleSet
}

func (d *description) line(format string, args ...any) {
	fmt.Fprintf(d, format+"\n", args...)
}

func (d *description) input() {
	job, in := d.rs.job, &d.rs.job.Input
	d.line("Job %s, rules %s", job.Name, d.rs.schema.Digest)
	d.line("Reads topic %s as %s, %s.", in.Topic, in.Format, d.from())
	if d.rs.id == nil {
		d.line("The ID is the record's key.")
	} else {
		d.line("The ID is %s.", d.rs.id.source)
	}
	if d.rs.time == nil {
		d.line("The time is the record's timestamp.")
	} else {
		d.line("The time is %s: RFC 3339 text or epoch milliseconds; refused when more than %s ahead of the record's timestamp.",
			d.rs.time.source, durationText(in.MaxAheadMs))
	}
	if in.AllowedLatenessMs == nil {
		d.line("An event may enter a window as late as the window is long, against the same ID's latest time.")
	} else {
		d.line("An event may enter a window up to %s late, against the same ID's latest time.", durationText(*in.AllowedLatenessMs))
	}
}

func (d *description) from() string {
	switch from := d.rs.job.Input.From; {
	case from.Latest:
		return "a new job from its end"
	case from.HasMs:
		return "a new job from " + string(codecs.AppendTime(nil, from.Ms))
	}
	return "a new job from its beginning"
}

func (d *description) totals() {
	d.line("\nTotals of each ID, besides count, first_time, last_time and version:")
	if len(d.rs.totals) == 0 {
		d.line("  none")
	}
	for i := range d.rs.totals {
		t := &d.rs.totals[i]
		d.line("  %s: %s", t.name, t.words())
	}
}

// words says what a total is.
func (t *total) words() string {
	var b strings.Builder
	switch t.kind {
	case kindCount:
		b.WriteString("the number of events")
	case kindSum:
		b.WriteString("the exact sum of " + t.value.source)
	case kindMin:
		b.WriteString("the least " + t.value.source)
	case kindMax:
		b.WriteString("the greatest " + t.value.source)
	case kindAvg:
		b.WriteString("the mean of " + t.value.source + ", to 16 digits")
	case kindLast:
		b.WriteString("the last " + t.value.source + " by time")
	case kindList:
		b.WriteString("the list of " + t.value.source + ", oldest first")
	}
	if t.maxItems > 0 {
		fmt.Fprintf(&b, ", the newest %d", t.maxItems)
	}
	if t.when != nil {
		b.WriteString(", when " + t.when.source)
	}
	if t.windowMs > 0 {
		fmt.Fprintf(&b, ", within %s (both ends included; late by up to %s)", durationText(t.windowMs), durationText(t.latenessMs))
	}
	if t.grainMs > 0 {
		fmt.Fprintf(&b, ", times taken down to %s", durationText(t.grainMs))
	}
	return b.String()
}

func (d *description) flags() {
	d.line("\nFlags of each ID:")
	if len(d.rs.flags) == 0 {
		d.line("  none")
	}
	for i := range d.rs.flags {
		f := &d.rs.flags[i]
		if f.clear == nil {
			d.line("  %s: raised for good once %s", f.name, f.when.source)
		} else {
			d.line("  %s: raised when %s, cleared when %s", f.name, f.when.source, f.clear.source)
		}
	}
}

// Values that stand for the usual ones when sizes are told.
var (
	usualNumber = codecs.Value{Kind: codecs.Number, Num: codecs.DecimalFromInt64(12345678)}
	usualText   = codecs.Value{Kind: codecs.String, Str: "16 bytes of text"}
)

// entries is the greatest number of window entries of one ID at a rate of events with different times.
func (t *total) entries(perSecond int64) int64 {
	if t.windowMs == 0 {
		return int64(t.maxItems)
	}
	span := t.windowMs + t.latenessMs
	n := span/1000*perSecond + span%1000*perSecond/1000 + 1
	if t.grainMs > 0 {
		late := (t.latenessMs + t.grainMs - 1) / t.grainMs // the oldest end is taken down to its grain
		n = min(n, t.windowMs/t.grainMs+late+1)
	}
	return n
}

// entryBytes is what one entry or item costs, with usual values.
func (t *total) entryBytes() int64 {
	c := contribution{}
	switch t.kind {
	case kindLast, kindList:
		c.val = usualText
	default:
		c.num = usualNumber.Num
	}
	c.size(t)
	return c.bytes
}

func (d *description) costs() {
	rates := [2]int64{1, 10}
	fixed := d.rs.fixedBytes()
	sum := [2]int64{fixed, fixed}
	d.line("\nAn ID costs up to (numbers of 8 digits, text of 16 bytes)")
	d.line("  %s in any case", bytesText(fixed))
	for i := range d.rs.totals {
		t := &d.rs.totals[i]
		if t.windowMs == 0 && t.maxItems == 0 {
			continue
		}
		var parts []string
		for j, rate := range rates {
			n := t.entries(rate)
			size := n * t.entryBytes()
			sum[j] += size
			parts = append(parts, fmt.Sprintf("%d entries, %s at %d event%s a second", n, bytesText(size), rate, "s"[:min(rate-1, 1)]))
		}
		d.line("  %s: %s", t.name, strings.Join(parts, "; "))
	}
	limit := d.rs.job.StateBytesMax
	for j, rate := range rates {
		if sum[j] > limit {
			d.line("Warning: at %d event%s a second an ID costs %s, more than state_bytes_max (%s): its events would be refused. A grain, a shorter window or less lateness costs less.",
				rate, "s"[:min(rate-1, 1)], bytesText(sum[j]), bytesText(limit))
		}
	}
}

// durationText spells milliseconds in the largest unit that divides them.
func durationText(ms int64) string {
	for i := len(durationUnits) - 1; i >= 0; i-- {
		if unit := durationUnits[i]; ms%unit.ms == 0 && ms != 0 {
			return strconv.FormatInt(ms/unit.ms, 10) + unit.name
		}
	}
	return "0s"
}

func bytesText(n int64) string {
	switch {
	case n < 10<<10:
		return strconv.FormatInt(n, 10) + " bytes"
	case n < 10<<20:
		return strconv.FormatInt(n>>10, 10) + " KiB"
	}
	return strconv.FormatInt(n>>20, 10) + " MiB"
}
