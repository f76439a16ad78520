package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark/tidemark/internal/broker"
)

// shell runs the program as a person would, with a job of its own.
type shell struct {
	t       *testing.T
	job     string
	brokers []string
}

// done is what a run of the program left.
type done struct {
	code     int
	out, err string
}

// newShell has the ssh-auth job, on an embedded broker of this test.
func newShell(t *testing.T) *shell {
	t.Helper()
	b, err := broker.Start(t.Context(), broker.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatalf("broker: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close the broker: %v", err)
		}
	})
	return &shell{t: t, job: dataFile("job.yaml"), brokers: b.Addrs()}
}

func dataFile(name string) string { return filepath.Join("..", "..", "testdata", "ssh_auth", name) }

// do runs a verb on the job.
func (s *shell) do(in, verb string, args ...string) done {
	s.t.Helper()
	args = append([]string{verb, "--job", s.job, "--brokers", strings.Join(s.brokers, ",")}, args...)
	return try(s.t, in, args...)
}

// must runs a verb that has to end with 0.
func (s *shell) must(in, verb string, args ...string) done {
	s.t.Helper()
	d := s.do(in, verb, args...)
	if d.code != exitDone {
		s.t.Fatalf("%s %q: exit code %d, want 0\n%s%s", verb, args, d.code, d.out, d.err)
	}
	return d
}

// runUntilCaughtUp runs the processor on a state directory of its own.
func (s *shell) runUntilCaughtUp() {
	s.t.Helper()
	s.must("", "run", "--until-caught-up", "--state", s.t.TempDir())
}

func try(t *testing.T, in string, args ...string) done {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	code := run(ctx, args, stdio{strings.NewReader(in), &out, &errs})
	if ctx.Err() != nil {
		t.Fatalf("%q did not end within five minutes\n%s", args, errs.String())
	}
	return done{code, out.String(), errs.String()}
}

func (d done) wants(t *testing.T, what string, code int, out, errs string) {
	t.Helper()
	if d.code != code || !strings.Contains(d.out, out) || !strings.Contains(d.err, errs) {
		t.Errorf("%s: exit code %d\nstdout %q\nstderr %q\nwant %d, stdout with %q, stderr with %q", what, d.code, d.out, d.err, code, out, errs)
	}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheck_SaysEveryFaultWithItsPlaceAndWhatAGoodFileMeans(t *testing.T) {
	t.Parallel()
	bad := writeFile(t, "bad.yaml", "name: x\ninput: {topic: t}\ntotals:\n  n: {coun: true}\nflags:\n  f: {when: totals.m >= 3}\n")
	d := try(t, "", "check", bad)
	d.wants(t, "bad job", exitUser, "", bad+":4:7: unknown key \"coun\"")
	d.wants(t, "bad job, second fault", exitUser, "", bad+":6:")
	try(t, "", "check", "--job", dataFile("job.yaml")).wants(t, "good job", exitDone, "third_failure_10m: raised for good once", "")
	try(t, "", "check", dataFile("nothing.yaml")).wants(t, "no file", exitUser, "", "nothing.yaml")
	try(t, "", "check").wants(t, "no job", exitUser, "", "--job FILE")
}

func TestRun_UsageErrorsAreOneLineThatNamesTheMend(t *testing.T) {
	t.Parallel()
	job := dataFile("job.yaml")
	for _, c := range []struct {
		args []string
		code int
		err  string
	}{
		{[]string{"get", "--job", job, "x"}, exitUser, "--embedded"},
		{[]string{"fly"}, exitUser, "tidemark --help"},
		{[]string{"run", "--no-such-flag"}, exitUser, "--help"},
		{[]string{"get", "--job", job, "--brokers", "127.0.0.1:1"}, exitUser, "--stdin"},
		{[]string{"get", "--job", job, "--brokers", "no port", "x"}, exitUser, "no port"},
		{[]string{"get", "--job", job, "--brokers", "k:1", "--embedded", "x"}, exitUser, "say one of them"},
		{[]string{"get", "--job", job, "--brokers", "k:1", "--sasl-user", "u", "x"}, exitUser, "TIDEMARK_SASL_PASSWORD"},
		{[]string{"get", "--view", "127.0.0.1:1", "x"}, exitEnvironment, "no view answers"},
		{[]string{"demo", "nothing"}, exitUser, "hurdat2-storms"},
		{[]string{"produce", "--job", job, "--brokers", "127.0.0.1:1", "/no/such/file"}, exitUser, "/no/such/file"},
		{[]string{"view", "--job", job, "--brokers", "127.0.0.1:1"}, exitEnvironment, "127.0.0.1:1"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Parallel()
			d := try(t, "", c.args...)
			d.wants(t, strings.Join(c.args, " "), c.code, "", c.err)
			if strings.Count(d.err, "\n") != 1 {
				t.Errorf("%q says %q; want one line", c.args, d.err)
			}
		})
	}
}

func TestVerbs_FromEventsToAVerifiedState(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.do("", "topics").wants(t, "topics before", exitUser, "does not exist", "")
	s.do("", "run", "--until-caught-up", "--state", t.TempDir()).wants(t, "run without input", exitUser, "", "produce --create-topics")
	s.do("", "produce", dataFile("events.ndjson.gz")).wants(t, "produce without topics", exitUser, "", "--create-topics")
	s.must("", "topics", "--create", "--partitions", "3").wants(t, "topics --create", exitDone, "created ssh-auth-table", "")
	s.must("", "topics", "--acls", "--why").wants(t, "topics after", exitDone, "--operation Read", "")
	s.must("", "produce", dataFile("events.ndjson.gz")).wants(t, "produce", exitDone, "2,785 events written to ssh-auth-events", "")
	s.runUntilCaughtUp()

	d := s.do("", "get", "24.151.103.17", "nobody")
	d.wants(t, "get", exitUser, `{"id":"24.151.103.17","version":"602"`, "no event of ID nobody was counted")
	d.wants(t, "get, place", exitUser, "", "as of ssh-auth-events ")
	s.must("\"24.151.103.17\"\n\n", "get", "--stdin").wants(t, "get --stdin", exitDone, `"login_after_3_failures_60m":{"time":"2017-03-30T13:52:19Z"`, "")
	s.must("", "list", "--flag", "login_after_3_failures_60m").wants(t, "list --flag", exitDone, "24.151.103.17\n", "1 ID, as of ssh-auth-events")
	s.must("", "list", "--prefix", "24.").wants(t, "list --prefix", exitDone, "24.151.103.17\n", "")
	s.do("", "list", "--flag", "none").wants(t, "list of a strange flag", exitUser, "", "third_failure_10m")
	if lines := strings.Split(strings.TrimSpace(s.must("", "dump").out), "\n"); len(lines) != 202 {
		t.Errorf("dump has %d lines, want 202", len(lines))
	}
	s.must("", "verify").wants(t, "verify", exitDone, "202 of 202 IDs are as the input says", "")

	d = s.do("{\"id\":\"ü\\n/..\",\"type\":\"x\",\"time\":\"2017-04-20T00:00:00Z\",\"value\":1}\nnot json\n", "produce")
	d.wants(t, "produce a bad line", exitUser, "1 event written to ssh-auth-events", "refused standard input:2: json")
	s.runUntilCaughtUp()
	odd := s.must("", "list", "--prefix", "ü").out
	if want := `"ü\n/.."` + "\n"; odd != want {
		t.Errorf("list of an odd ID: got %q, want %q", odd, want)
	}
	s.must(odd, "get", "--stdin").wants(t, "get what list printed", exitDone, `"count":"1"`, "")
}

func TestProduce_KeysLinesOrSaysWhyItCannot(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.do("{}\n", "produce").wants(t, "no topic", exitUser, "", "does not exist: say --create-topics")
	if d := s.do("{}\n", "produce"); strings.Contains(d.out, "0 events written") {
		t.Errorf("produce without a topic tells of events: %q", d.out)
	}
	s.do("{}\n", "produce", "--key", "id").wants(t, "a key beside an ID", exitUser, "", "in this one it is event.id")

	s.job = writeFile(t, "keyed.yaml", "name: keyed\ninput: {topic: keyed-events}\ntotals:\n  n: {count: true}\n")
	lines := `{"user":{"id":"a"}}` + "\n" + `{"user":{"id":1}}` + "\n" + `{"user":1,"user":2}` + "\n"
	s.do(lines, "produce", "--create-topics").wants(t, "no key", exitUser, "", "say --key MEMBER")
	d := s.do(lines, "produce", "--create-topics", "--key", "user.id")
	d.wants(t, "keys", exitUser, "1 event written to keyed-events", "standard input:2: id: the event has no text at user.id")
	d.wants(t, "a key twice", exitUser, "2 lines refused", `standard input:3: duplicate_key: key "user" stands twice`)
	s.runUntilCaughtUp()
	s.must("", "get", "a").wants(t, "get", exitDone, `"count":"1"`, "")
	s.do(`{"at":-1}`+"\n", "produce", "--force", "--event-time").wants(t, "force", exitDone, "1 of them by force", "")
}

// TestVerify_NamesADifference is the control of verify: with a table that is not the input's, it must end with 3.
func TestVerify_NamesADifference(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.must("", "produce", "--create-topics", "--partitions", "1", dataFile("events.ndjson.gz"))
	s.runUntilCaughtUp()
	forge(t, s.brokers, "ssh-auth-table", "24.151.103.17")
	s.do("", "verify").wants(t, "verify of a forged table", exitFailStop, "24.151.103.17", "")
}

func TestGet_AnswersAreJSONOfThePromisedShape(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.must("", "produce", "--create-topics", dataFile("events.ndjson.gz"))
	s.runUntilCaughtUp()
	var state struct {
		ID      string
		Version int64 `json:",string"`
		Totals  map[string]*string
		Flags   map[string]struct {
			Topic  string
			Offset int64 `json:",string"`
			Rules  string
		}
	}
	if err := json.Unmarshal([]byte(s.must("", "get", "24.151.103.17").out), &state); err != nil {
		t.Fatalf("get: %v", err)
	}
	if state.Version != 602 || *state.Totals["sum"] != "602" || len(state.Flags) != 3 || state.Flags["third_failure_10m"].Topic != "ssh-auth-events" {
		t.Errorf("got %+v; want version and sum 602 and three flags", state)
	}
}
