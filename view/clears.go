package view

import (
	"encoding/binary"
	"time"

	"github.com/tidemark/tidemark/eos"
)

// The index also remembers which table records cleared a flag. A record says which flags an ID bears, not which it bore;
// who resumes a watch of a flag is told the version that cleared it, and nothing of IDs that never bore it.
//
//	1 flag 0 offset           the record at that offset cleared the flag
//	2 milliseconds offset     a commit of that time ended before that offset
//
// Names of flags begin with a letter, so nothing collides. The second kind is written once a minute and tells up to where
// the first can be forgotten: behind the watch horizon nobody resumes.
const (
	spaceCleared = 1
	spaceMinute  = 2

	minuteEvery = time.Minute
)

func clearedKey(flag string, offset int64) []byte {
	key := append(append([]byte{spaceCleared}, flag...), 0)
	return binary.BigEndian.AppendUint64(key, uint64(offset))
}

func minuteKey(ms, offset int64) []byte {
	key := binary.BigEndian.AppendUint64([]byte{spaceMinute}, uint64(max(ms, 0)))
	return binary.BigEndian.AppendUint64(key, uint64(offset))
}

// numberAtEnd is the offset in a key.
func numberAtEnd(key []byte) int64 { return int64(binary.BigEndian.Uint64(key[len(key)-8:])) }

// noteClears adds to the batch which flags a version cleared.
func (p *partition) noteClears(was, is []bool, offset int64) {
	for i := range was {
		if was[i] && (i >= len(is) || !is[i]) && !p.view.cfg.Watch.weak.forgetful {
			p.batch.PutIndex(clearedKey(p.view.cfg.Schema.Flags[i], offset))
		}
	}
}

// noteMinute adds to the batch, once a minute of commits, when this was, and forgets what lies behind the horizon.
func (p *partition) noteMinute(next int64, pos *eos.Position) error {
	at := time.UnixMilli(pos.CommittedMs)
	if len(p.view.cfg.Schema.Flags) == 0 || at.Sub(p.minute) < minuteEvery {
		return nil
	}
	horizon := time.Now().Add(-p.view.cfg.Watch.Horizon - minuteEvery)
	p.minute = at
	p.batch.PutIndex(minuteKey(pos.CommittedMs, next))
	snap, err := p.disk.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Release()
	upTo := int64(0)
	err = eachIndex(snap, minuteKey(0, 0), minuteKey(horizon.UnixMilli(), 0), func(key []byte) {
		upTo = max(upTo, numberAtEnd(key))
		p.batch.DeleteIndex(key)
	})
	for _, flag := range p.view.cfg.Schema.Flags {
		if err == nil && upTo > 0 {
			err = eachIndex(snap, clearedKey(flag, 0), clearedKey(flag, upTo), p.batch.DeleteIndex)
		}
	}
	return err
}

// clearedBetween gives the offsets of the published records that cleared a flag, both ends included.
func (p *partition) clearedBetween(flag string, first, last int64) (offsets []int64, err error) {
	s, err := p.hold()
	if err != nil {
		return nil, err
	}
	defer s.release()
	err = eachIndex(s.snap, clearedKey(flag, first), clearedKey(flag, last+1), func(key []byte) { offsets = append(offsets, numberAtEnd(key)) })
	return offsets, err
}

func eachIndex(snap *eos.DiskSnapshot, start, limit []byte, use func(key []byte)) error {
	it := snap.Index(start, limit)
	defer it.Release()
	for it.Next() {
		use(it.Key())
	}
	return it.Err()
}
