package ops

import (
	"context"

	"github.com/tidemark/tidemark/codecs"
)

// Dump reads the whole table from Kafka and calls use with each state of the filter as one line of JSON, without the
// line's end, in byte order of the IDs. The bytes are good until the next one.
func (j *Job) Dump(ctx context.Context, f Filter, tell Progress, use func(line []byte) error) (*ScanReport, error) {
	var line []byte
	return j.scan(ctx, f, tell, func(id string, st *codecs.State) error {
		line = st.AppendJSON(line[:0], id, j.Schema)
		return use(line)
	})
}
