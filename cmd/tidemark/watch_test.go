package main

import (
	"bufio"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestWatch_IsBoundedByTheJobsHorizon: the table keeps every version for as long as the job file says, and a view takes a
// place back that is younger, and no other.
func TestWatch_IsBoundedByTheJobsHorizon(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	horizon := func(h string) string {
		return writeFile(t, h+".yaml", "name: watched\ninput: {topic: watched-events, id: event.id}\ntotals:\n  n: {count: true}\nwatch: {horizon: "+h+"}\n")
	}
	s.job = horizon("2h")
	s.must("", "topics", "--create", "--partitions", "1")
	s.must("", "topics").wants(t, "topics", exitDone, "", "")
	longer := &shell{t, horizon("3h"), s.brokers}
	longer.do("", "topics").wants(t, "topics of a longer horizon", exitDone, "min.compaction.lag.ms=7200000, not 10800000", "")
	s.must(`{"id":"a"}`, "produce")
	s.runUntilCaughtUp()
	shorter := &shell{t, horizon("1ms"), s.brokers}
	_, far := s.view("127.0.0.1:0", t.TempDir())
	_, near := shorter.view("127.0.0.1:0", t.TempDir())
	fetch(t, far+"/readyz")
	fetch(t, near+"/readyz")
	place := firstEvent(t, far, "now", "heartbeat")["id"]
	s.must(`{"id":"a"}`, "produce")
	s.runUntilCaughtUp()
	if e := firstEvent(t, far, place, "change"); !strings.Contains(e["data"], `"version":"2"`) {
		t.Errorf("within the horizon: got %q, want version 2", e)
	}
	if e := firstEvent(t, near, place, "reset"); !strings.Contains(e["data"], `"gone: `) || !strings.Contains(e["data"], "older than 1ms") {
		t.Errorf("behind the horizon: got %q, want that the place is gone", e)
	}
}

// firstEvent watches from a place and gives the fields of the first event that is of a kind or no heartbeat.
func firstEvent(t *testing.T, view, from, kind string) map[string]string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, view+"/v1/watch?from="+url.QueryEscape(from), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	event := map[string]string{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ": "); ok {
			event[name] = value
		} else if is := event["event"]; is == kind || is == "change" || is == "reset" {
			return event
		} else {
			clear(event)
		}
	}
	t.Fatalf("watch of %s from %s: %s, ended without a %s", view, from, resp.Status, kind)
	return nil
}
