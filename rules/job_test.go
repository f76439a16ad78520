package rules

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func mustLoad(t testing.TB, src string) *RuleSet {
	t.Helper()
	rs, err := Load([]byte(src))
	if err != nil {
		t.Fatalf("load:\n%s\n%v", src, err)
	}
	return rs
}

func TestLoad_RealJobFiles(t *testing.T) {
	files, err := filepath.Glob("../testdata/*/job.yaml")
	if err != nil || len(files) != 3 {
		t.Fatalf("got %d job files, %v, want 3", len(files), err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		rs := mustLoad(t, string(src))
		if len(rs.totals) == 0 || len(rs.flags) == 0 || rs.id == nil || rs.time == nil || rs.job.Input.Topic == "" {
			t.Errorf("%s: parts are missing: %+v", file, rs.job)
		}
	}
}

var regexpComment = regexp.MustCompile(` *#! [^\n]*`)

const fullJob = `
name: full.job-1
brokers: [a:9092, "b:9092"]
state_bytes_max: 50000
watch: {horizon: 2h}
input:
  topic: events
  format: json
  id: event.user.id
  time: event.at
  from: 2026-01-31T00:00:00Z
  allowed_lateness: 1h
  max_ahead: 5m
totals:
  n:      {count: true, when: 'event.type == "x"', window: 10m, grain: 10s}
  mean:   {avg: event.value}
  recent: {list: event.value, window: 30m, max_items: 100}
  newest: {last: event.name}
flags:
  up:     {when: totals.n >= 3 && prior.totals.recent.size() > 1, clear: totals.n < 1}
  seen:   {when: flags.up || has(event.missing)}
`

func TestLoad_FullJob(t *testing.T) {
	rs := mustLoad(t, fullJob)
	job, in := rs.Job(), rs.Job().Input
	got := fmt.Sprintln(job.Name, job.Brokers, job.StateBytesMax, job.WatchHorizonMs, in.Topic, in.Format, in.ID, in.Time, in.From, *in.AllowedLatenessMs, in.MaxAheadMs)
	if want := "full.job-1 [a:9092 b:9092] 50000 7200000 events json event.user.id event.at {false true 1769817600000} 3600000 300000\n"; got != want {
		t.Errorf("job:\ngot  %s\nwant %s", got, want)
	}
	for i, want := range []string{
		"mean avg 0 0 0 0", "n count 600000 3600000 10000 0", "newest last 0 0 0 0", "recent list 1800000 3600000 0 100",
	} {
		t1 := &rs.totals[i]
		if got := fmt.Sprint(t1.name, " ", t1.kind, " ", t1.windowMs, t1.latenessMs, t1.grainMs, t1.maxItems); got != want {
			t.Errorf("total %d: got %s, want %s", i, got, want)
		}
	}
	if got, want := fmt.Sprint(rs.flags[1].name, rs.flags[1].whenWindows, rs.flags[1].clearWindows), "up[1 3] [1]"; got != want {
		t.Errorf("flag: got %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(rs.usedTotals, rs.usedPrior, rs.paths), "[1] [3] [[user id] [at] [type] [value] [name] [missing]]"; got != want {
		t.Errorf("uses: got %s, want %s", got, want)
	}
	if got, want := fmt.Sprintln(rs.schema.Totals, rs.schema.Flags, rs.schema.Job, rs.schema.InputTopic, rs.schema.Generation), "[mean n newest recent] [seen up] full.job-1 events 1\n"; got != want {
		t.Errorf("schema: got %s, want %s", got, want)
	}
}

func TestLoad_Defaults(t *testing.T) {
	rs := mustLoad(t, "name: x\nbrokers: a:1, b:2\ninput: {topic: t}\ntotals: {n: {count: true, window: 10m}}\n")
	job := rs.Job()
	if rs.id != nil || rs.time != nil || job.Input.Format != "json" || job.Input.AllowedLatenessMs != nil || job.Input.From != (From{}) ||
		job.Input.MaxAheadMs != 86_400_000 || job.StateBytesMax != 921_600 || len(job.Brokers) != 2 || job.Brokers[1] != "b:2" {
		t.Errorf("got %+v", job)
	}
	if late := rs.totals[0].latenessMs; late != 600_000 {
		t.Errorf("lateness: got %d, want the window's length", late)
	}
}

// Each line of the file that ends in a comment #! is expected to have the fault that the comment says: column and words.
const faultyJob = `name: "a b"                       #! 7 name must be 1 to 200
brokers: 5                        #! 10 brokers must be text
nope: 1                           #! 1 unknown key "nope"
state_bytes_max: lots             #! 18 must be a whole number
watch: {horizon: 1w}              #! 18 is no duration
input:                            #! 3 x
  topic: 7                        #! 10 topic must be text
  topc: x                         #! 3 unknown key "topc" in input; did you mean "topic"?
  format: avro                    #! 11 json is the only one so far
  from: yesterday                 #! 9 from must be earliest, latest or an RFC 3339 time
  allowed_lateness: 10            #! 21 is no duration
  max_ahead: -1h                  #! 14 is no duration
  id: event.id + 1 + totals.d     #! 22 totals cannot be used here
  time: true                      #! 9 the time must be RFC 3339 text
totals:
  Sum: {sum: event.value}         #! 3 must match [a-z][a-z0-9_]*
  in: {sum: event.value}          #! 3 is a word of the expression language
  a: {sum: event.v, min: event.v} #! 21 has both sum and min
  b: {}                           #! 3 total b needs one of
  c: {count: false}               #! 14 count takes true
  d: {sum: event.v, window: 10m, grain: 3m}         #! 41 grain must divide the window
  e: {list: event.x}              #! 3 list without a window needs max_items
  f: {last: event.x, window: 1h, grain: 1m}         #! 41 grain has no meaning with last
  g: {sum: event.value / 2}       #! 24 there is no division
  h: {sum: totals.d}              #! 12 a total's own expressions cannot use totals
  a: {count: true}                #! 3 key "a" stands twice in totals (first at 18:3)
  i: {sum: "'x' + event.y + 1"}   #! 27 + cannot take (string, number)
  j: {max: time}                  #! 12 take numbers: this is timestamp
  k: {sum: event.v, wehn: true}   #! 21 did you mean "when"?
  l: {list: "[1]", window: 1m}    #! 13 last and list take
  m: {sum: event.v, grain: 1m}    #! 28 grain needs a window
  n: {sum: event.v, window: 0s}   #! 29 window must be longer than 0
  o: {sum: event.v, max_items: 5} #! 32 list alone
  p: {list: event.v, max_items: 0} #! 33 max_items must be a whole number
  q: 5                            #! 6 total q must be a mapping
  r: {sum: [event.v]}             #! 12 must be text
  s: {sum: !x event.v}            #! 12 quote the expression
  t: {sum: }                      #! 12 is empty
  u:                              #! 3 total u needs one of
    window: 10x                   #! 13 is no duration
    when: 1 + 1                   #! 11 a condition must be true or false
    max_items: x                  #! 16 max_items must be a whole number
  v:
    sum: event.v / 2              #! 18 there is no division
    last: event.v                 #! 5 has both sum and last
    when: nme == 1                #! 11 unknown name nme
    grain: 1m                     #! 12 grain needs a window
flags:
  xa: {when: f(event.a, b) > 1}   #! 25 cut at a comma: quote the expression
  y: {when: totals.dd >= 3}       #! 13 there is no total named dd; did you mean "d"?
  z: {when: totals.d == "x"}      #! 22 == cannot take (number, string)
  q:
    when: event.a == 0.1234567890123456789          #! 22 write decimal("0.1234567890123456789")
    clear: >
      event.x &&
      tim > 4                                       #! 7 unknown name tim; did you mean "time"?
  r: {when: 'event.x == ''é'' && nme == 1'}         #! 34 unknown name nme
  s: {when: "event.x == \"é\" && nme == 1"}         #! 34 unknown name nme
  t: {when: totals.d}                               #! 13 a condition must be true or false: this is number
  u: {clear: totals.d > 1}                          #! 3 flag u needs when
  v: {when: duration("90") > time - prior.last_time} #! 22 "90" is no duration
  w: {when: event.a == 12345678901234567890123}     #! 24 this number loses digits as it is read: write decimal("12345678901234567890123")
  x: {when: 'event.name.matches("(")'}              #! 33 missing closing )
  aa:
    when: |
      event.x == 1 ||

        nme == 1                                    #! 9 unknown name nme
  ab:
    when: event.x == 1
      || nme == 1                                   #! 10 unknown name nme
  ac: {when: event.x == 1 && event.y == "a #b"}
`

func TestLoad_ReportsEveryFaultWithItsPlace(t *testing.T) {
	src := strings.Replace(faultyJob, "  ac: {when: event.x == 1 && event.y == \"a #b\"}\n", "", 1)
	src = strings.Replace(src, "#! 3 x", "", 1)
	type place struct{ line, column int }
	want := map[place]string{}
	for i, line := range strings.Split(src, "\n") {
		_, comment, ok := strings.Cut(line, "#! ")
		if !ok {
			continue
		}
		var column int
		var words string
		if _, err := fmt.Sscanf(comment, "%d", &column); err != nil {
			t.Fatal(err)
		}
		_, words, _ = strings.Cut(comment, " ")
		want[place{i + 1, column}] = words
	}
	want[place{49, 23}] = "quote the expression" // the half that is left before the comma
	// A comment inside a block scalar is part of the expression, and CEL has none that begins with #.
	src = regexpComment.ReplaceAllString(src, "")
	_, err := Load([]byte(src))
	var faults *Faults
	if !errors.As(err, &faults) {
		t.Fatalf("got %v, want *Faults", err)
	}
	last := Fault{}
	for _, f := range *faults {
		at := place{f.Line, f.Column}
		if words, ok := want[at]; !ok || !strings.Contains(f.Message, words) {
			t.Errorf("got %s, want %q there", f, words)
		}
		delete(want, at)
		if f.Line < last.Line || f.Line == last.Line && f.Column < last.Column {
			t.Errorf("%s stands after %s", f, last)
		}
		last = f
	}
	for at, words := range want {
		t.Errorf("no fault at %d:%d, want %q", at.line, at.column, words)
	}
}

func TestLoad_FaultsOfTheWholeFile(t *testing.T) {
	cases := []struct{ src, want string }{
		{"", "1:1: the job file is empty"},
		{"# nothing\n", "1:1: the job file is empty"},
		{"[]", "1:1: the job file must be a mapping"},
		{"name: x\n", "1:1: input is missing"},
		{"input: {topic: t}\n", "1:1: name is missing"},
		{"name: x\ninput: {topic: x-flags}\n", "2:16: topic x-flags is one that the job writes itself"},
		{"input: {topic: x.g2-table}\nname: x\n", "1:16: topic x.g2-table is one that the job writes itself"},
		{"name: x\ninput: {}\n", "2:8: input.topic is missing"},
		{"name: x\ninput:\n\ttopic: y\n", "3:1: while scanning for the next token: found character that cannot start any token; indent with spaces"},
		{"name: x\ninput: {topic: t}\nflags:\n  a: {when: event.x > 3\n  b: {when: event.y > 3}\n", "5:4: while parsing a flow mapping that begins at 4:6: "},
		{"name: x\ninput: {topic: t}\nflags:\n  a: {when: event.x > 3\n\n", "4:24: while parsing a flow mapping: "},
		{"name: x\n---\nname: y\n", "expected single document"},
		{"name: x\ninput: {topic: t}\nflags:\n  a: {when: event.x in [\"a\", \"b\"]}\n", "quote the expression"},
		{"name: x\ninput: {topic: t}\nflags:\n  a: {when: event.x == \"a #b\"}\n", "quote the expression"},
		{"name: x\ninput: {topic: t}\nflags:\n  a: {when: !event.x}\n", "quote the expression"},
		{"name: x\ninput: {topic: t}\nflags:\n  a: {when: event.x ? 1 : 2}\n", "quote the expression"},
		{"name: x\ninput: &a {topic: t}\n", "2:8: anchors and aliases have no meaning"},
		{"name: ..\ninput: {topic: t}\n", "1:7: name must be"},
		{"name: x\ninput: {topic: t}\ntotals: 5\n", "3:9: totals must be a mapping"},
		{"name: x\n\xff\ninput: {topic: t}\n", "2:1: the job file is not UTF-8"},
		{strings.Repeat("#", 2<<20), "1:1: the job file is larger"},
	}
	for _, c := range cases {
		_, err := Load([]byte(c.src))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80q: got %v, want %q", c.src, err, c.want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(fullJob))
	f.Add([]byte(faultyJob))
	f.Add([]byte("name: x\ninput: {topic: t, id: \"event['a']\"}\nflags:\n  a:\n    when: >-\n      event.x\n      == 1\n"))
	for _, c := range hostileJobs(4 << 10) {
		f.Add([]byte(c[0]))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		within := time.AfterFunc(20*time.Second, func() { panic(fmt.Sprintf("Load takes more than 20 s: %q", src)) })
		rs, err := Load(src)
		within.Stop()
		if err == nil {
			_ = rs.newEnv()
			if err := rs.Describe(&strings.Builder{}); err != nil {
				t.Error(err)
			}
			return
		}
		var faults *Faults
		if !errors.As(err, &faults) || len(*faults) == 0 {
			t.Fatalf("got %v, want *Faults", err)
		}
		for _, fault := range *faults {
			if fault.Line < 1 || fault.Column < 1 || fault.Message == "" {
				t.Errorf("got %+v, want a place and words", fault)
			}
		}
	})
}
