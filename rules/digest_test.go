package rules

import (
	"strings"
	"testing"
)

const digestJob = `name: x
brokers: a:1
input: {topic: t, id: event.id, time: event.time}
totals:
  n: {count: true, when: 'event.a == 1 && event.b.exists(x, x > 2)', window: 10m}
  s: {sum: event.v}
  r: {list: event.v, max_items: 5}
flags:
  f: {when: totals.n >= 3 && time - prior.last_time < duration("1h")}
  g: {when: totals.s > 1, clear: totals.s < 1}
`

func digestOf(t *testing.T, old, new string) string {
	t.Helper()
	if !strings.Contains(digestJob, old) {
		t.Fatalf("%q is not in the job", old)
	}
	return mustLoad(t, strings.Replace(digestJob, old, new, 1)).Schema().Digest
}

func TestDigest_FollowsTheMeaningAlone(t *testing.T) {
	base := digestOf(t, "", "")
	if len(base) != 32 {
		t.Fatalf("got digest %q, want 16 bytes in hex", base)
	}
	same := [][2]string{
		{"name: x", "# a comment\nname:   'x'"},
		{"brokers: a:1", "brokers: [b:1, c:2]"},
		{"brokers: a:1\n", "watch: {horizon: 3h}\n"},
		{"topic: t, id: event.id", "id: \"event['id']\", topic: t, format: json, max_ahead: 1d, from: earliest, allowed_lateness: 600s"},
		{"window: 10m", "window: 600s"},
		{"event.a == 1 &&", "(event[\"a\"]  ==  1.0) &&"},
		{"event.a == 1 &&", "event.a == decimal(\"1\") &&"},
		{"exists(x, x > 2)", "exists(item, item > 2)"},
		{"duration(\"1h\")", "duration('60m')"},
		{"  s: {sum: event.v}\n  r: {list: event.v, max_items: 5}\n", "  r: {max_items: 5, list: event.v}\n  s: {sum: event.v}\n"},
		{"  s: {sum: event.v}\n", "  s:\n    sum: >-\n      event.v\n"},
		{"totals:", "state_bytes_max: 921600\ntotals:"},
	}
	for _, s := range same {
		if got := digestOf(t, s[0], s[1]); got != base {
			t.Errorf("%q for %q changes the digest", s[1], s[0])
		}
	}
	seen := map[string]string{base: "the job as it is"}
	other := [][2]string{
		{"name: x", "name: y"},
		{"topic: t", "topic: u"},
		{"id: event.id, ", ""},
		{", time: event.time", ""},
		{"topic: t", "topic: t, from: latest"},
		{"topic: t", "topic: t, from: 2026-01-01T00:00:00Z"},
		{"topic: t", "topic: t, allowed_lateness: 1h"},
		{"topic: t", "topic: t, max_ahead: 1h"},
		{"totals:", "state_bytes_max: 1000\ntotals:"},
		{"window: 10m", "window: 11m"},
		{"window: 10m", "window: 10m, grain: 1m"},
		{", window: 10m", ""},
		{"event.a == 1", "event.a == 2"},
		{"event.a == 1", "event.a == \"1\""},
		{"event.a == 1", "event.a != 1"},
		{"event.a == 1", "event.c == 1"},
		{"event.a == 1", "event.a.b == 1"},
		{"event.a == 1", "event[\"a.b\"] == 1"},
		{"&& event.b", "|| event.b"},
		{"exists(x, x > 2)", "all(x, x > 2)"},
		{"exists(x, x > 2)", "exists_one(x, x > 2)"},
		{"exists(x, x > 2)", "exists(x, 2 > x)"},
		{"max_items: 5", "max_items: 6"},
		{"s: {sum: event.v}", "s: {min: event.v}"},
		{"s: {sum: event.v}", "s: {sum: event.v, when: true}"},
		{"prior.last_time < duration", "prior.last_time <= duration"},
		{"duration(\"1h\")", "duration('1m')"},
		{", clear: totals.s < 1", ""},
		{"  g: {", "  h: {"},
		{"totals.s > 1", "prior.totals.s > 1"},
		{"totals.s > 1", "flags.f"},
		{"totals.s > 1", "(totals.s > 1) == true"},
	}
	for _, o := range other {
		got := digestOf(t, o[0], o[1])
		if before, ok := seen[got]; ok {
			t.Errorf("%q for %q has the digest of %s", o[1], o[0], before)
		}
		seen[got] = o[1]
	}
}

func TestDescribe_SaysWhatTheJobMeans(t *testing.T) {
	var b strings.Builder
	if err := mustLoad(t, fullJob).Describe(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Job full.job-1, rules ", "Reads topic events as json, a new job from 2026-01-31T00:00:00Z.", "The ID is event.user.id.",
		"The time is event.at: RFC 3339 text or epoch milliseconds; refused when more than 5m ahead", "up to 1h late",
		`n: the number of events, when event.type == "x", within 10m (both ends included; late by up to 1h), times taken down to 10s`,
		"mean: the mean of event.value, to 16 digits", "recent: the list of event.value, oldest first, the newest 100, within 30m",
		"newest: the last event.name by time", "up: raised when totals.n >= 3 && prior.totals.recent.size() > 1, cleared when totals.n < 1",
		"seen: raised for good once flags.up", "n: 421 entries", "at 1 event a second; 421 entries", "recent: 5401 entries", "54001 entries",
		"Warning: at 10 events a second",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
}
