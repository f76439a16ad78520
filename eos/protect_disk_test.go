package eos

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A session whose final commit ends late, when the next one has recovered, must not write its values over
// what that one read. The control is the same flush by the owner.
func TestProtect_OnlyTheOwnerFlushesLocalState(t *testing.T) {
	disk, err := OpenDisk(t.TempDir(), DiskID{Topic: "table"}, 0, time.Now())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	owned := &ownedDisk{disk: disk}
	t.Cleanup(func() { _ = owned.close() })
	dead, heir := &session{}, &session{}
	flush := func(s *session, value string, at int64) error {
		p := &partition{disk: owned, table: &table{}}
		records := []*kgo.Record{{Key: []byte("k"), Value: []byte(value)}, {Key: PositionKey(), Offset: at}}
		return s.flush(&cut{p: p, table: records, position: Position{Seq: 1}})
	}
	for _, step := range []struct {
		who     *session
		value   string
		at      int64
		refused bool
	}{
		{dead, "old", 9, false},
		{heir, "new", 19, false},
		{dead, "late", 14, true},
		{dead, "late", 24, true},
		{heir, "lost place", -1, true},
		{heir, "older", 17, true},
	} {
		if !step.refused {
			owned.take(step.who)
		}
		err := flush(step.who, step.value, step.at)
		var own *ownFault
		if refused := errors.As(err, &own); refused != step.refused {
			t.Errorf("flush of %q at %d: refused %t (%v), want %t", step.value, step.at, refused, err, step.refused)
		}
		if err != nil && !strings.Contains(err.Error(), "flush partition") {
			t.Errorf("error = %v, want one that says what failed", err)
		}
	}
	if got, err := disk.Get([]byte("k")); err != nil || string(got) != "new" {
		t.Errorf("the value is %q, %v; want the heir's", got, err)
	}
}
