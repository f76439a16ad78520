package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tidemark/tidemark/codecs"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == childArgument {
		os.Exit(runChild(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// TestBench_EveryContenderIsRight runs the whole benchmark, tiny. It asks nothing of the clock.
func TestBench_EveryContenderIsRight(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	err := run(t.Context(), strings.Fields("-broker embedded -events 10000 -ids 100,2000 -rounds 1 -rates 300 -seconds 1"+
		" -latency-rounds 1 -recovery-ids 1000 -recovery-rounds 1 -hot-entries 300"), &out)
	t.Log("\n" + out.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range contenders {
		if got := strings.Count(out.String(), "\n"+c.name); got < 2 {
			t.Errorf("%q has %d lines in the tables, want one for each number of IDs", c.name, got)
		}
	}
}

func TestStream_IsTheSameEachTime(t *testing.T) {
	text := func() string {
		var b bytes.Buffer
		s := stream{Events: 100, IDs: 7, Seed: 9, StepMs: 10}
		if err := s.each(func(_ int, e *event) error { _, err := b.Write(e.appendJSON(nil)); return err }); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if a, b := text(), text(); a != b {
		t.Error("two runs of one stream differ")
	}
}

func TestEvent_IsJSONOfTheSizeThatIsSaid(t *testing.T) {
	s := stream{Events: 1000, IDs: 100, Seed: 1, StepMs: 10}
	size := 0
	err := s.each(func(_ int, e *event) error {
		var got jsonEvent
		text := e.appendJSON(nil)
		size += len(text)
		if err := json.Unmarshal(text, &got); err != nil {
			return err
		}
		if got.ID != idText(e.id) || got.Time.UnixMilli() != e.timeMs || (got.Type == typeFailed) != e.failed {
			t.Errorf("got %+v of %+v", got, e)
		}
		d, err := codecs.ParseDecimal([]byte(got.Value))
		if err != nil {
			return err
		}
		if d.String() != decimalText(e.value) {
			t.Errorf("value %s, want %s", &d, decimalText(e.value))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if mean := size / s.Events; mean < 105 || mean > 115 {
		t.Errorf("an event has %d bytes in the mean, want about 110", mean)
	}
}

func TestDecimalText(t *testing.T) {
	for hundredths, want := range map[int64]string{0: "0", 5: "0.05", 50: "0.5", 100: "1", 1234: "12.34", 1230: "12.3"} {
		if got := decimalText(hundredths); got != want {
			t.Errorf("%d hundredths: got %s, want %s", hundredths, got, want)
		}
	}
}

// TestStock_FoldsAsExpected folds a stream through each of the handwritten processor's codecs and compares every ID.
func TestStock_FoldsAsExpected(t *testing.T) {
	s := stream{Events: 20_000, IDs: 50, Seed: 2, StepMs: 500}
	binary := &stateCodec{schema: stockSchema("job", "topic")}
	for name, c := range map[string]struct {
		events interface{ Decode([]byte) (any, error) }
		states interface {
			Encode(any) ([]byte, error)
			Decode([]byte) (any, error)
		}
		read func([]byte) (found, error)
	}{
		"our codecs":    {newEventCodec(), binary, binaryReader(binary.schema)},
		"encoding/json": {jsonEventCodec{}, jsonStateCodec{}, readJSONState},
	} {
		t.Run(name, func(t *testing.T) {
			want, table := expectation{}, map[string][]byte{}
			err := s.each(func(_ int, e *event) error {
				want.add(e)
				in, err := c.events.Decode(e.appendJSON(nil))
				if err != nil {
					return err
				}
				st, id := any(&stockState{}), idText(e.id)
				if old, ok := table[id]; ok {
					if st, err = c.states.Decode(old); err != nil {
						return err
					}
				}
				if _, err := st.(*stockState).fold(in.(*stockEvent)); err != nil {
					return err
				}
				table[id], err = c.states.Encode(st)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			raised := 0
			for id, w := range want {
				got, err := c.read(table[id])
				if err != nil {
					t.Fatal(err)
				}
				if got != w.found() {
					t.Errorf("%s: got %+v, want %+v", id, got, w.found())
				}
				if got.raised {
					raised++
				}
			}
			if raised == 0 {
				t.Error("no flag was raised: the stream does not test them")
			}
		})
	}
}

func TestMeasure_TakesTheFirstMomentPastAnOffset(t *testing.T) {
	start := time.Unix(100, 0)
	at := func(d time.Duration) int64 { return start.Add(warmUp + d).UnixNano() }
	events := []sent{
		{scheduled: start, acked: start, partition: 0, offset: 0},
		{scheduled: start.Add(warmUp), acked: start.Add(warmUp + time.Millisecond), partition: 1, offset: 4},
	}
	seen := map[int32][]visit{1: {{AtNs: at(2 * time.Millisecond), Next: 4}, {AtNs: at(7 * time.Millisecond), Next: 9}}}
	d, err := measure(events, seen)
	if err != nil {
		t.Fatal(err)
	}
	if d.scheduled50 != 7*time.Millisecond || d.acked50 != 6*time.Millisecond || d.ack50 != time.Millisecond {
		t.Errorf("got %+v", d)
	}
	seen[1] = seen[1][:1]
	if _, err := measure(events, seen); err == nil {
		t.Error("an event that never became visible is no error")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 3}, 2.5}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median of %v: got %v, want %v", c.in, got, c.want)
		}
	}
}
