package rules

import (
	"fmt"
	"runtime"
	"testing"
)

// TestState_MemoryBytesIsNearWhatTheHeapSays holds many states of several shapes and compares with the runtime's figures.
func TestState_MemoryBytesIsNearWhatTheHeapSays(t *testing.T) {
	const job = `
name: memory
input: {topic: in, format: json, id: "event.id", time: "event.time"}
totals:
  sum: {sum: "event.value"}
  n: {count: true, window: 10m}
  mean: {avg: "event.value", window: 1h}
  texts: {list: "event.text", window: 30m, max_items: 50}
flags:
  big: {when: "totals.sum > 100"}
  many: {when: "totals.n > 3", clear: "totals.n < 1"}
`
	rs, err := Load([]byte(job))
	if err != nil {
		t.Fatal(err)
	}
	for _, events := range []int{1, 5, 100} {
		const states = 500
		before := heap()
		held := make([]*State, states)
		a := rs.NewApplier()
		for i := range held {
			held[i] = rs.NewState()
			for e := range events {
				value := fmt.Appendf(nil, `{"id":"x","time":%d,"value":%d.5,"text":"some text %d"}`, 1_600_000_000_000+e*10_000, e, e)
				if _, refusal := a.Read(&Record{Topic: "in", Offset: int64(e), TimestampMs: 1_700_000_000_000, Value: value}); refusal != nil {
					t.Fatal(refusal)
				}
				if _, refusal := a.Apply(held[i]); refusal != nil {
					t.Fatal(refusal)
				}
			}
		}
		got, said := heap()-before, int64(0)
		for _, st := range held {
			said += st.MemoryBytes()
		}
		ratio := float64(said) / float64(got)
		t.Logf("%d events: heap %d bytes a state, said %d (%.2f)", events, got/states, said/states, ratio)
		if ratio < 0.7 || ratio > 1.8 {
			t.Errorf("%d events: got %.2f of the heap, want 0.7 to 1.8", events, ratio)
		}
		runtime.KeepAlive(held)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
