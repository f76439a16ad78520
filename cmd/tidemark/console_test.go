package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// failure is an event of the ssh-auth job. Three of an ID within ten minutes raise third_failure_10m.
func failure(id string, minute int) string {
	return fmt.Sprintf(`{"id":%q,"type":"failed_password","time":"2017-04-20T00:%02d:00Z","value":1}`+"\n", id, minute)
}

// TestPage_ShowsAnIDAndWhatBecomesOfIt is what a person sees who opens the page of a view in a browser, from before the view
// is ready until after it was away.
func TestPage_ShowsAnIDAndWhatBecomesOfIt(t *testing.T) {
	t.Parallel()
	b := mustOpenBrowser(t)
	s := newShell(t)
	s.must("", "topics", "--create", "--partitions", "1")
	state := t.TempDir()
	v, url := s.view("127.0.0.1:0", state)
	b.does("open the page", chromedp.Navigate(url))
	b.does("mark the page", chromedp.Evaluate[chromedp.Void]("loaded = 'once'"))
	b.lookUp("10.0.0.9")
	b.sees("why nothing is shown", `fault.textContent.startsWith('unavailable: ') && live.textContent === 'Not live'`)

	start(t, "run", "--state", t.TempDir(), "--job", s.job, "--brokers", strings.Join(s.brokers, ","))
	b.sees("that there is nothing yet", `live.textContent === 'Live' && !nothing.hidden && fault.textContent === ''`)
	s.must(failure("10.0.0.9", 1)+failure("10.0.0.8", 1), "produce")
	b.sees("the first event", has("totals", "sum", "1"))
	b.sees("no flag", `!none.hidden && raised.rows.length === 0`)
	s.must(failure("10.0.0.9", 2)+failure("10.0.0.9", 3), "produce")
	b.sees("two more", has("totals", "failures_10m", "3"))
	b.sees("the flag and why", has("raised", "third_failure_10m", "2017-04-20T00:03:00Z", "ssh-auth-events, partition 0, offset 3"))

	if code := v.stop(); code != exitDone {
		t.Errorf("view ended with %d, want 0", code)
	}
	b.sees("that the view is away", `live.textContent === 'Not live' && document.getElementById('status').textContent === 'The view does not answer.'`)
	s.must(failure("10.0.0.9", 4), "produce")
	s.view(strings.TrimPrefix(url, "http://"), state)
	b.sees("what it missed", has("totals", "failures_10m", "4")+` && live.textContent === 'Live'`)
	b.sees("the page as it was loaded", `loaded === 'once'`)

	b.does("list the flag", chromedp.Click("#raised a"))
	b.sees("who bears the flag", has("bearers", "10.0.0.9", "4"))
}

// view starts a view of the job and gives its address.
func (s *shell) view(addr, state string) (*background, string) {
	v := start(s.t, "view", "--listen", addr, "--state", state, "--job", s.job, "--brokers", strings.Join(s.brokers, ","))
	return v, v.says(`url=(http://\S+)`)
}

// lookUp asks the page for an ID by its form.
func (b *browser) lookUp(id string) {
	b.t.Helper()
	b.does("look up "+id, chromedp.Evaluate[chromedp.Void]("$('ask').reset()"), chromedp.SendKeys("#id", id+kb.Enter))
	b.sees("its name", fmt.Sprintf("document.getElementById('name').textContent === %q", id))
}

// has is true when a table has a row that begins with these cells.
func has(table string, cells ...string) string {
	return fmt.Sprintf(`[...%s.rows].some(r => %s.every((c, i) => r.cells[i].textContent === c))`, table, quoted(cells))
}

func quoted(all []string) string {
	var b strings.Builder
	for i, s := range all {
		b.WriteString([]string{"", ","}[min(i, 1)])
		fmt.Fprintf(&b, "%q", s)
	}
	return "[" + b.String() + "]"
}

// TestPage_TakesAnIDForTextAlone: an ID that is HTML with a script becomes no element. The controls: the same text is an
// element where it is taken for HTML, of which the page's policy lets no script run, as it does where there is no policy.
func TestPage_TakesAnIDForTextAlone(t *testing.T) {
	t.Parallel()
	b := mustOpenBrowser(t)
	s := newShell(t)
	s.must("", "topics", "--create", "--partitions", "1")
	const evil = `<img src=x onerror="hacked=true">`
	s.must(failure(evil, 1)+failure(evil, 2)+failure(evil, 3), "produce")
	s.runUntilCaughtUp()
	_, url := s.view("127.0.0.1:0", t.TempDir())
	b.does("open the page", chromedp.Navigate(url))
	b.lookUp(evil)
	b.sees("its totals", has("totals", "sum", "3"))
	b.does("list the flag", chromedp.Click("#raised a"))
	b.sees("who bears the flag", has("bearers", evil, "3"))
	const none = `document.querySelector('img') === null && typeof hacked === 'undefined'`
	b.sees("no element of it", none)

	insert := fmt.Sprintf(`broken = new Promise(r => addEventListener('error', r, true)); document.body.insertAdjacentHTML('beforeend', %q)`, evil)
	b.does("take it for HTML", chromedp.Evaluate[chromedp.Void](insert))
	b.sees("the element", `document.querySelector('img') !== null`)
	b.does("wait until it failed to load", chromedp.Evaluate[chromedp.Void](`broken.then(() => 1)`, chromedp.EvalAwaitPromise))
	b.sees("no script of it", `typeof hacked === 'undefined'`)
	b.does("open a page without a policy", chromedp.Navigate(url+"/openapi.json"))
	b.does("take it for HTML there", chromedp.Evaluate[chromedp.Void](insert))
	b.sees("its script run", `typeof hacked !== 'undefined'`)
}
