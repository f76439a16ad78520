package view

import (
	"context"
	"sync"

	"github.com/tidemark/tidemark/codecs"
	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// What REST asks for most is written in one go: no state is decoded where the cache has its text, and each byte is copied once.

// oneText is one as JSON, appended to dst, and the state's version.
func (v *View) oneText(ctx context.Context, req *pb.GetRequest, dst []byte) (out []byte, version uint64, err error) {
	read, err := readOf(req)
	if err != nil {
		return dst, 0, err
	}
	out = append(dst, `{"state":`...)
	asOf, err := v.get(ctx, req.Id, read, func(p *partition, s *published) (found bool, err error) {
		out, version, found, err = p.appendText(out, s, req.Id, v.cache.entry(req.Id))
		return found, err
	})
	if err != nil {
		return dst, 0, noneOf(req.Id, &asOf, err)
	}
	return appendOneEnd(out, &asOf), version, nil
}

// batchText is batch as JSON, appended to dst.
func (v *View) batchText(ctx context.Context, req *pb.BatchGetRequest, dst []byte) (out []byte, err error) {
	read, err := readOf(req)
	if err != nil {
		return dst, err
	}
	out = append(dst, `{"results":[`...)
	asOf, err := v.batchGet(ctx, req.Ids, read, func(on func(i int) (*partition, *published)) error {
		for i, e := range v.cache.entries(req.Ids) {
			p, s := on(i)
			if i > 0 {
				out = append(out, ',')
			}
			out = append(codecs.AppendJSONString(append(out, `{"id":`...), req.Ids[i]), `,"state":`...)
			found := false
			if out, _, found, err = p.appendText(out, s, req.Ids[i], e); err != nil {
				return err
			}
			if !found {
				out = append(out, `null`...)
			}
			out = append(out, '}')
		}
		return nil
	})
	if err != nil {
		return dst, err
	}
	return appendBatchEnd(out, asOf), nil
}

// states are for those that need one for a moment.
var states = sync.Pool{New: func() any { return &codecs.State{} }}

// appendText appends the state of one ID in JSON, from what the cache has where that holds; found is false where no event of it
// was counted.
func (p *partition) appendText(dst []byte, s *published, id string, e cacheEntry) (out []byte, version uint64, found bool, err error) {
	cache := p.view.cache
	if out, version, ok := cache.show(dst, s, id, e); ok {
		return out, version, true, nil
	}
	state := states.Get().(*codecs.State)
	defer states.Put(state)
	if found, err = p.find(s, id, state); err != nil || !found {
		return dst, 0, false, err
	}
	out = state.AppendJSON(dst, id, p.view.cfg.Schema)
	cache.put(p, s, id, state.Version, out[len(dst):])
	return out, state.Version, true, nil
}
