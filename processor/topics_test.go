package processor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
)

// A job that reads what it writes would never end: its own dead letters are refused again and again. rules knows no
// Kafka, so that this is where its list of a job's topics is held against the real one.
func TestLoad_RefusesEveryTopicThatAJobWrites(t *testing.T) {
	for generation := range uint32(3) {
		n := eos.Names{Job: "job", Generation: generation}
		for _, topic := range []string{n.Table(), n.Loop(), n.Flags(), n.DeadLetters()} {
			_, err := rules.Load(fmt.Appendf(nil, "name: job\ninput: {topic: %s}\n", topic))
			if err == nil || !strings.Contains(err.Error(), "one that the job writes itself") {
				t.Errorf("input topic %s of job %s: got %v, want a fault", topic, n.Job, err)
			}
		}
	}
	for _, topic := range []string{"job", "job-events", "other-flags", "job-flags-2", "job.gx-table"} {
		if _, err := rules.Load(fmt.Appendf(nil, "name: job\ninput: {topic: %s}\n", topic)); err != nil {
			t.Errorf("input topic %s: %v", topic, err)
		}
	}
}
