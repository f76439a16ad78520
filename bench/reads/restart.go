package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// restarts measures how long a view takes from its start until it answers: from Kafka alone, and from its local state.
func (b *bench) restarts(ctx context.Context, j *job, bin binary, ids int) error {
	var anew, again []float64
	told := map[string]bool{} // of its progress, in the last round
	for round := range b.rounds {
		state := filepath.Join(j.dir, fmt.Sprintf("restart-%s-%d", bin.name, round))
		for i := range 2 {
			v, err := j.view(ctx, bin, state)
			if err != nil {
				return err
			}
			if took := v.took.Seconds(); i == 0 {
				anew, told = append(anew, took), v.told
			} else {
				again = append(again, took)
			}
			if err := v.stop(); err != nil {
				return err
			}
		}
		if err := os.RemoveAll(state); err != nil {
			return err
		}
	}
	b.logf("%s: a view of %d IDs answers %.2f s after its start from Kafka (%d steps of progress were told), %.2f s with its local state: medians of %d rounds",
		bin.name, ids, median(anew), len(told), median(again), b.rounds)
	return nil
}
