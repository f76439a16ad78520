package ops

import (
	"context"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
)

// GetReport is what Get found.
type GetReport struct {
	// States are in the order asked, one JSON object each; nil where there is no such ID.
	States [][]byte
	Places []Place
}

// Get reads the states of some IDs from Kafka: of their partitions alone, each as of one commit.
func (j *Job) Get(ctx context.Context, ids []string, tell Progress) (*GetReport, error) {
	spans, err := j.ends(ctx, j.Names.Table())
	var wanted []int32
	if err == nil {
		for _, id := range ids {
			if p := eos.Place([]byte(id), int32(len(spans))); !contains(wanted, p) {
				wanted = append(wanted, p)
			}
		}
	} // else openTable says it
	asked := make(map[string][]byte, len(ids))
	for _, id := range ids {
		asked[id] = nil
	}
	t, err := j.openTable(ctx, wanted, func(key []byte) bool { _, ok := asked[string(key)]; return ok }, tell)
	if err != nil {
		return nil, err
	}
	report := &GetReport{States: make([][]byte, len(ids)), Places: t.Places(j.Input)}
	var st codecs.State
	err = t.Each("", func(id string, stored []byte) error {
		if err := j.decode(id, stored, &st); err != nil {
			return err
		}
		asked[id] = st.AppendJSON(nil, id, j.Schema)
		return nil
	})
	for i, id := range ids {
		report.States[i] = asked[id]
	}
	return report, closing(t, err)
}

func closing(t *Table, err error) error {
	if closed := t.Close(); err == nil {
		err = closed
	}
	return err
}
