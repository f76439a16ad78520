package ops

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
)

// fold counts events into states as the processor does, in a temporary LevelDB, with the states of the IDs that are
// being worked on in memory. When these outgrow foldBytesMax they are written away and memory is empty again.
type fold struct {
	rules   *rules.RuleSet
	applier *rules.Applier
	dir     string
	disk    *eos.Disk
	hot     map[string]*folded
	bytes   int64
}

// folded is the state of one ID, and what makes it hard to compare.
type folded struct {
	state *rules.State
	marks byte
}

const (
	// markRekeyed: events of the ID came over the loop, so their order against the others is not known.
	markRekeyed = 1 << iota
	// markRefused: a rule refused an event of the ID, which may depend on the order.
	markRefused

	foldBytesMax  = 64 << 20
	foldEntry     = 256 // what an entry takes besides its state
	foldBatchSize = 4 << 20
)

func openFold(rs *rules.RuleSet, tempDir string) (*fold, error) {
	dir, err := os.MkdirTemp(tempDir, "tidemark-")
	if err != nil {
		return nil, fmt.Errorf("temporary directory: %w", err)
	}
	disk, err := eos.OpenDisk(dir, eos.DiskID{Layout: "fold"}, 0, time.Now())
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &fold{rules: rs, applier: rs.NewApplier(), dir: dir, disk: disk, hot: map[string]*folded{}}, nil
}

func (f *fold) close() error { return errors.Join(f.disk.Close(), os.RemoveAll(f.dir)) }

// apply counts the event that the applier has read.
func (f *fold) apply(id string, marks byte) (refused bool, err error) {
	e, err := f.get(id)
	if err != nil {
		return false, err
	}
	e.marks |= marks
	before := e.state.SizeBound()
	if _, refusal := f.applier.Apply(e.state); refusal != nil {
		e.marks |= markRefused
		return true, nil
	}
	f.bytes += e.state.SizeBound() - before
	if f.bytes > foldBytesMax {
		return false, f.spill()
	}
	return false, nil
}

func (f *fold) get(id string) (*folded, error) {
	if e := f.hot[id]; e != nil {
		return e, nil
	}
	id = string([]byte(id)) // it may lie in the record
	e := &folded{}
	stored, err := f.disk.Get([]byte(id))
	switch {
	case errors.Is(err, eos.ErrNotFound):
		e.state = f.rules.NewState()
	case err != nil:
		return nil, err
	default:
		e.marks = stored[0]
		e.state = f.rules.NewState()
		if len(stored) > 1 {
			e.state, err = f.rules.DecodeState(id, stored[1:], f.chunk)
		}
		if err != nil {
			return nil, err
		}
	}
	f.hot[id] = e
	f.bytes += e.state.SizeBound() + foldEntry + int64(len(id))
	return e, nil
}

func (f *fold) chunk(key []byte) ([]byte, error) {
	b, err := f.disk.Get(key)
	if errors.Is(err, eos.ErrNotFound) {
		return nil, nil
	}
	return b, err
}

// spill writes every state away. An ID whose events were all refused has marks alone.
func (f *fold) spill() error {
	var batch eos.DiskBatch
	for id, e := range f.hot {
		if e.state.Version() == 0 {
			batch.Put([]byte(id), []byte{e.marks})
		} else {
			e.state.Encode(id, func(key, value []byte) {
				switch {
				case value == nil:
					batch.Delete(key)
				case string(key) == id:
					batch.Put(key, append([]byte{e.marks}, value...))
				default:
					batch.Put(key, value)
				}
			})
		}
		if batch.Bytes() > foldBatchSize {
			if err := f.disk.Apply(&batch, 0, nil); err != nil {
				return err
			}
			batch.Reset()
		}
	}
	clear(f.hot)
	f.bytes = 0
	return f.disk.Apply(&batch, 0, nil)
}
