package eos

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

// The loop is trimmed while somebody asks for its end.
func TestUnit_TheEndOfALogThatIsTrimmedMeanwhile(t *testing.T) {
	base := newWorld(t, startFake(t), 1)
	w := &tampered{world: base, adm: kadm.NewClient(base.cl)}
	w.produce(50, 5)
	u, err := New(w.config("a", t.TempDir()))
	if err != nil {
		t.Fatalf("new: %v", err)
	}
	defer func() { _ = u.Close() }()
	before := Span{Start: 0, LSO: 50, HW: 50}
	if last, ok, err := u.lastOf(t.Context(), w.input, 0, before); err != nil || !ok || last != 49 {
		t.Errorf("the end is %d, %t, %v; want 49", last, ok, err)
	}
	w.deleteRecords(w.input, 50)
	if _, _, err := LastDeliverable(t.Context(), w.kafka, w.input, 0, before); !errors.Is(err, ErrTruncated) {
		t.Errorf("control: error = %v, want %v", err, ErrTruncated)
	}
	if last, ok, err := u.lastOf(t.Context(), w.input, 0, before); err != nil || ok {
		t.Errorf("the end of a trimmed log is %d, %t, %v; want none", last, ok, err)
	}
}

// damagedCodec fails for values that say so.
type damagedCodec struct{ sumCodec }

func (c damagedCodec) Decode(key string, base []byte, read func([]byte) ([]byte, error)) (any, error) {
	if len(base) == 8 && binary.BigEndian.Uint64(base) == 0xdead {
		return nil, errors.New("no sum")
	}
	return c.sumCodec.Decode(key, base, read)
}

// A value on disk that does not decode is not tried three times, but built again from Kafka.
func TestUnit_ALocalValueThatDoesNotDecodeIsBuiltAgain(t *testing.T) {
	w := newWorld(t, startFake(t), 1)
	w.produce(100, 10)
	cfg := w.config("a", t.TempDir())
	cfg.Codec = damagedCodec{}
	u, stop := w.run(cfg)
	w.caughtUp(u)
	u.mu.Lock()
	disk := u.disks[0].disk
	u.mu.Unlock()
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	again, err := OpenDisk(disk.Dir(), disk.ID(), 0, now())
	if err != nil {
		t.Fatalf("open local state: %v", err)
	}
	var b DiskBatch
	b.Put([]byte("k3"), binary.BigEndian.AppendUint64(nil, 0xdead))
	if err := errors.Join(again.Apply(&b, again.Next(), nil), again.Close()); err != nil {
		t.Fatalf("damage local state: %v", err)
	}
	u, stop = w.run(cfg)
	w.produce(100, 10)
	w.caughtUp(u)
	if got := u.Status()[0].Rebuilt; got == "" {
		t.Errorf("local state was not built again")
	}
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	w.check()
}
