package view

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/eos"
)

// placeOf gives the place of a watch that begins now.
func (r *running) placeOf(req WatchRequest) string {
	r.t.Helper()
	watcher, err := r.Watch(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer watcher.Close()
	events, err := watcher.Next(r.t.Context(), nil)
	if err != nil || len(events) == 0 {
		r.t.Fatalf("got %d events, %v, want a heartbeat", len(events), err)
	}
	return events[len(events)-1].Place()
}

// resetOf watches from a place until it is reset, and gives the reason; "" is that everything was told without.
func (w *table) resetOf(r *running, req WatchRequest) string {
	w.t.Helper()
	k := w.taker(req)
	k.place, k.req.From = req.From, ""
	watcher, err := k.begin(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer watcher.Close()
	for {
		events, err := watcher.Next(w.t.Context(), nil)
		if err != nil {
			if _, reset := k.told(); !errors.Is(err, ErrWatchEnded) || reset == "" {
				w.t.Fatalf("got %v after reset %q, want ErrWatchEnded after a reset", err, reset)
			}
			return k.reset
		}
		for i := range events {
			if k.take(&events[i]); events[i].Kind == Changed && events[i].Change.ID == "last" {
				return ""
			}
		}
	}
}

func TestWatch_IsResetWhereThePlaceIsGone(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	r := w.view(t.TempDir()).ready()
	o := r.hub.origin
	stand := func() place {
		r.hub.mu.Lock()
		defer r.hub.mu.Unlock()
		return r.hub.place()
	}
	w.commit(change{"a", 1, 1})
	r.covers(w.on("a"), w.seq[w.on("a")])
	now := stand()
	with := func(change func(*origin, place)) string {
		o, p := o, place{spots: slices.Clone(now.spots)}
		change(&o, p)
		return o.text(p, -1, spot{})
	}
	p := w.on("a")
	for name, test := range map[string]struct{ from, want string }{
		"another generation":    {with(func(o *origin, _ place) { o.generation = 7 }), "generation 7"},
		"another table":         {with(func(o *origin, _ place) { o.tableID[3]++ }), "deleted and made again"},
		"other partitions":      {(&origin{1, o.tableID, 3}).text(place{spots: make([]spot, 3)}, -1, spot{}), "3 partitions"},
		"another count":         {with(func(_ *origin, pl place) { pl.spots[p].records++ }), "a history"},
		"another count before":  {with(func(_ *origin, pl place) { pl.spots[p] = spot{0, 1} }), "compacted or deleted"},
		"behind the end":        {with(func(_ *origin, pl place) { pl.spots[p].next += 1000 }), "truncated"},
		"far behind the end":    {with(func(_ *origin, pl place) { pl.spots[p].next = 1 << 62 }), "truncated"},
		"in the middle, by one": {with(func(_ *origin, pl place) { pl.spots[p].next--; pl.spots[p].records -= 2 }), "compacted or deleted"},
	} {
		if got := w.resetOf(r, WatchRequest{From: test.from}); !strings.HasPrefix(got, "gone: ") || !strings.Contains(got, test.want) {
			t.Errorf("%s: got reset %q, want one with %q", name, got, test.want)
		}
	}
	if n := r.hub.watching.Load(); n != 0 {
		t.Errorf("%d watchers are left, want none", n)
	}
}

// TestWatch_IsResetBehindTheHorizon: what is younger is told, what is older is not, however complete the table is.
func TestWatch_IsResetBehindTheHorizon(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	within, beyond := w.view(t.TempDir()).ready(), w.viewWith(t.TempDir(), WatchConfig{Horizon: time.Nanosecond}).ready()
	from := within.placeOf(WatchRequest{})
	if got := beyond.placeOf(WatchRequest{From: from}); got != from {
		t.Errorf("a place that lacks nothing: got %s, want %s: it does not age", got, from)
	}
	w.commit(change{"a", 1, 1}, change{"last", 1, 1})
	within.covers(0, 2)
	beyond.covers(0, 2)
	if got := w.resetOf(within, WatchRequest{From: from}); got != "" {
		t.Errorf("within the horizon: got reset %q, want none", got)
	}
	if got := w.resetOf(beyond, WatchRequest{From: from}); !strings.Contains(got, "older than 1ns") {
		t.Errorf("behind the horizon: got reset %q, want one", got)
	}
}

// TestWatch_IsResetWhereRecordsWereDeleted deletes the beginning of the log, up to and behind places.
func TestWatch_IsResetWhereRecordsWereDeleted(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	r := w.view(t.TempDir()).ready()
	before := r.placeOf(WatchRequest{})
	w.commit(change{"a", 1, 1})
	r.covers(0, 2)
	after := r.placeOf(WatchRequest{})
	w.commit(change{"a", 2, 1}, change{"last", 1, 1})
	r.covers(0, 3)
	offsets := kadm.Offsets{}
	offsets.AddOffset(w.names.Table(), 0, r.hub.feeds[0].at.next-3, -1) // the second commit is left
	deleted, err := kadm.NewClient(w.cl).DeleteRecords(t.Context(), offsets)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := w.resetOf(r, WatchRequest{From: after}); got != "" {
		t.Errorf("a place whose records are there: got reset %q, want none", got)
	}
	if got := w.resetOf(r, WatchRequest{From: before}); !strings.Contains(got, "compacted or deleted") {
		t.Errorf("a place whose records are deleted: got reset %q, want one", got)
	}
}

// missing makes a commit of which compaction has already removed a version.
func (w *table) missing(changes ...change) {
	p := w.on(changes[0].id)
	w.records[p]++ // it was written, and is not there
	w.truth.Commit(p, w.seq[p]+1, w.truly(change{"removed", 1, 1}))
	w.seq[p]++
	w.commit(changes...)
}

// TestWatch_NeverPassesOverWhatIsMissing: versions that compaction removed before they were told are a reset, for who
// resumes and for who is live. The control does not count the records, and passes over them.
func TestWatch_NeverPassesOverWhatIsMissing(t *testing.T) {
	for _, control := range []bool{false, true} {
		w := mustTable(t, embedded(t), 1)
		w.begin()
		r := w.viewWith(t.TempDir(), WatchConfig{weak: weakWatch{uncounted: control}}).ready()
		from := r.placeOf(WatchRequest{})
		live, other := w.taker(WatchRequest{}), w.taker(WatchRequest{ID: "a"})
		live.start(r)
		other.start(r)
		w.commit(change{"a", 1, 1})
		r.covers(0, w.seq[0])
		w.missing(change{"a", 2, 1}, change{"last", 1, 1})
		r.covers(0, w.seq[0])
		if !control {
			if got := w.resetOf(r, WatchRequest{From: from}); !strings.Contains(got, "compacted or deleted") {
				t.Errorf("resumed: got reset %q, want one", got)
			}
			for _, k := range []*taker{live, other} {
				r.await("the reset of a live watch", func() bool { _, reset := k.told(); return reset != "" })
				if n, reset := k.told(); n != 1 || !strings.Contains(reset, "before this view read them") {
					t.Errorf("%s: got %d changes and reset %q, want 1 and a reset", k.watch.Name, n, reset)
				}
			}
			continue
		}
		if got := w.resetOf(r, WatchRequest{From: from}); got != "" {
			t.Errorf("control: got reset %q, want none", got)
		}
		r.await("the live watch of the control", func() bool { n, _ := live.told(); return n == 3 })
		if faults := live.faults(); len(faults) == 0 {
			t.Error("control: what is missing was passed over and no fault was found")
		}
	}
}

// TestWatch_ResumesAheadOfTheView: a place of another view may lie ahead of what this one has read.
func TestWatch_ResumesAheadOfTheView(t *testing.T) {
	for _, control := range []bool{false, true} {
		l := newLink(t)
		w := mustTable(t, embedded(t), 1)
		w.begin()
		ahead := w.view(t.TempDir()).ready()
		direct := w.kafka
		w.kafka = &eos.Kafka{Brokers: direct.Brokers, ClientID: "test", Dial: l.dial}
		late := w.viewWith(t.TempDir(), WatchConfig{weak: weakWatch{seatless: control}}).ready()
		w.kafka = direct
		k := w.taker(WatchRequest{})
		stop := k.start(ahead)
		l.cut()
		late.await("noticing", func() bool { return late.Status().Why != "" })
		w.commit(change{"a", 1, 1}, change{"b", 1, 1}, change{"c", 1, 1})
		allTold(t, k)
		stop()
		// In the middle of the commit, as if the connection had ended there.
		k.watch.Events = k.watch.Events[:1]
		k.place = placeBetween(t, ahead, k.watch.Events[0].Commit)
		k.start(late)
		l.mend()
		w.commit(change{"a", 2, 1})
		if !control {
			allTold(t, k)
			continue
		}
		late.await("being told", func() bool { n, _ := k.told(); return n >= 4 })
		if faults := k.faults(); len(faults) == 0 {
			t.Error("control: a commit was told whole from its middle, and no fault was found")
		}
	}
}

// placeBetween is the place behind the first of the three changes of the last commit.
func placeBetween(t *testing.T, r *running, commit uint64) string {
	t.Helper()
	r.covers(0, commit)
	at := r.hub.feeds[0].at
	return r.hub.origin.text(place{spots: []spot{{at.next - 3, at.records - 3}}}, -1, spot{})
}

// TestWatch_TellsAResumedWatchWhatClearedAFlag: by the table alone it cannot be told from a version of an ID that never
// bore the flag. The control does not remember it.
func TestWatch_TellsAResumedWatchWhatClearedAFlag(t *testing.T) {
	for _, control := range []bool{false, true} {
		w := mustTable(t, embedded(t), 1)
		w.begin()
		weak := WatchConfig{weak: weakWatch{forgetful: control}}
		w.commit(change{"cleared", 1, 100}, change{"deleted", 1, 100}, change{"never", 1, 2}, change{"again", 1, 100})
		first := w.viewWith(t.TempDir(), weak).ready()
		k := w.taker(WatchRequest{Flag: "big"})
		k.start(first)()
		w.commit(change{"cleared", 2, 4}, change{"never", 2, 4}, change{"again", 2, 4})
		w.commit(change{"cleared", 3, 6}, change{"deleted", 0, 0}, change{"again", 3, 100})
		fresh := w.viewWith(t.TempDir(), weak).ready() // which has seen all of it only when it was loaded
		for _, r := range []*running{first, fresh} {
			r.covers(0, w.seq[0])
			again := w.taker(WatchRequest{Flag: "big"})
			again.place, again.watch.Begin = k.place, k.watch.Begin
			stop := again.start(r)
			if !control {
				allTold(t, again)
			} else {
				r.await("being told", func() bool { n, _ := again.told(); return n > 0 })
				if faults := again.faults(); len(faults) == 0 {
					t.Error("control: nothing was remembered, and no fault was found")
				}
			}
			stop()
		}
	}
}

// TestView_ForgetsWhatClearedAFlagBehindTheHorizon: the memory of it does not grow for ever.
func TestView_ForgetsWhatClearedAFlagBehindTheHorizon(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	committed := func(back time.Duration, changes ...change) {
		var records []*kgo.Record
		for _, c := range changes {
			records = append(records, w.record(c))
		}
		end := w.position(0, 1, 0)
		pos, err := eos.ParsePosition(end.Value)
		if err != nil {
			t.Fatal(err)
		}
		pos.CommittedMs = time.Now().Add(-back).UnixMilli()
		end.Value = pos.AppendBinary(nil)
		w.transact(kgo.TryCommit, append(records, end)...)
	}
	committed(4 * time.Hour)
	r := w.view(t.TempDir()).ready()
	cleared := func() int {
		r.covers(0, w.seq[0])
		offsets, err := r.View.all()[0].clearedBetween("big", 0, 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		return len(offsets)
	}
	ids := func(sum int64) (changes []change) {
		for i := range 20 {
			changes = append(changes, change{fmt.Sprint("id", i), uint64(1000 - sum), sum})
		}
		return changes
	}
	all := ids(100)
	committed(3*time.Hour, all...)
	committed(3*time.Hour, ids(2)...)
	if got := cleared(); got != len(all) {
		t.Fatalf("got %d versions that cleared a flag, want %d", got, len(all))
	}
	committed(2*time.Hour, ids(100)...)
	committed(10*time.Minute, ids(2)[:5]...)
	committed(time.Minute, ids(4)[:1]...)
	if got := cleared(); got != 5 {
		t.Errorf("three hours later got %d versions that cleared a flag, want the 5 that are young", got)
	}
}

func FuzzPlace(f *testing.F) {
	o := &origin{2, [16]byte{1, 2, 3}, 4}
	f.Add(o.text(place{spots: make([]spot, 4)}, 2, spot{1 << 40, 1 << 50}))
	f.Add(o.text(place{3, []spot{{5, 6}}}, -1, spot{}))
	f.Fuzz(func(t *testing.T, text string) {
		p, gone, err := o.parse(text)
		var invalid *Invalid
		switch {
		case err != nil && !errors.As(err, &invalid):
			t.Errorf("got %v, want *Invalid", err)
		case err == nil && gone == "":
			if len(p.spots) != 1 && len(p.spots) != 4 || p.first+int32(len(p.spots)) > 4 {
				t.Errorf("got %+v, want a place of one or of all partitions", p)
			}
			canonical, _ := base64.RawURLEncoding.DecodeString(o.text(p, -1, spot{}))
			if again, _, err := o.parse(base64.RawURLEncoding.EncodeToString(canonical)); err != nil || !slices.Equal(again.spots, p.spots) {
				t.Errorf("got %+v again, want %+v (%v)", again, p, err)
			}
		}
	})
}
