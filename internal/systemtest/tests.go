package main

import (
	"bytes"
	"fmt"
	"io"
)

// outcome of a test: "" is that it passes, anything else that it fails, saying this.
type outcome string

// judge says in words what came, and whether that is what was wanted.
func (o outcome) judge(passed bool, said []byte) (verdict string, fine bool) {
	switch {
	case passed && o == "":
		return "passes", true
	case passed:
		return "PASSES, and was to fail", false
	case o == "":
		return "FAILS, and was to pass", false
	case !bytes.Contains(said, []byte(o)):
		return fmt.Sprintf("FAILS, but does not say %q", o), false
	default:
		return fmt.Sprintf("fails as declared: %q", o), true
	}
}

// test of Goka's, and what is to be expected of it.
type test struct {
	name        string
	stock, ours outcome
	why         string // it cannot, or what was changed
	covered     string // what has the behaviour here
}

// protocol0 is what Kafka 4 has dropped.
const protocol0 outcome = "Error getting config for topic"

const why0 = "it asks with the protocol of Kafka 0.11, which Kafka 4 has dropped"

var tests = []test{
	{name: "TestMessageCommit", covered: "`TestUnit_CountsOnceOverRestartsAndLostLocalState`"},
	{name: "TestProcessorGracefulShutdownContinue", why: "stock may count twice: the test asks for *at least* the sum", covered: "the same, for equal sums"},
	{name: "TestCallbackFail", why: "after three tries at the record", covered: "`TestUnit_ARecordThatTheHandlerNeverTakesStopsIt`"},
	{name: "TestProcessorSlowStuck", covered: "the same"},
	{name: "TestRebalance", covered: "`TestUnit_CountsOnceWhileASecondOneJoinsAndLeaves`, the chaos harness"},
	{name: "TestRebalanceSharePartitions", covered: "the same"},
	{name: "TestEmitter_KafkaDisconnect", why: "an emitter alone; nothing of ours but the hasher", covered: "`ops` produces with acknowledgements of all replicas"},
	{name: "TestEmitterOffset", why: "the same", covered: "the same"},
	{name: "TestView_Reconnect", why: "Goka's view of a plain topic; nothing of ours but the hasher", covered: "`view/level_test.go`, `view/link_test.go`"},
	{name: "TestDelayedCtxCloser", why: "a helper of the tests"},
	{
		name: "TestAutoCommit", ours: "waiting for all-received2 timed out",
		why:     "it wants *no* offset to be committed with autocommit off: here offsets are part of each transaction",
		covered: "`eos/protect_offsets_test.go`",
	},
	{
		name: "TestUnmarkedMessages", ours: "timed out",
		why: "it counts calls of the callback: after a failure, what was not committed is handed over again, and a record is tried three times. " +
			"State and offsets are as it wants them",
		covered: "`TestUnit_ARecordThatTheHandlerNeverTakesStopsIt`, `TestSession_AHandlerThatFailsWhileTheSessionEndsIsNotCommitted`",
	},
	{
		name: "TestMultiTopics", ours: "a unit has no several inputs",
		why:     "five input topics (`goka.Inputs`); a unit has one input and its loop",
		covered: "`processor/rekey_test.go`: the two sources of a unit in one transaction",
	},
	{
		name: "TestHotStandby", ours: "a unit has no joined tables",
		why: "`goka.Join`, `WithHotStandby`, and it looks into storages of its own (`WithStorageBuilder`): only the unit may write local state, " +
			"and only after the commit",
		covered: "recovery: `eos/crash_test.go`, `eos/protect_takeover_test.go`; state for readers: `view`",
	},
	{
		name: "TestRecoverAhead", ours: "a unit has no joined tables",
		why: "`goka.Join`; and it writes into the group table past the processor, and expects that to be state: here the table is refused " +
			"(`delete.retention.ms`, and then records without a position record)",
		covered: "`TestTopics_NamesEveryFaultWithItsMend`, `processor/failstop_test.go`",
	},
	{
		name: "TestProcessorShutdown_KafkaDisconnect", ours: "test timed out",
		why: "it wants the processor to end when Kafka is away, and cuts through its own builders' connections; here brokers are waited for, " +
			"without end",
		covered: "`eos/crash_test.go`, the chaos harness",
	},
	{
		name: "TestProcessorVisit", ours: "error creating storage iterator",
		why: "`VisitAll` iterates over the storage and calls `SetValue` without an input record: such a change has no position, so it cannot be " +
			"once. Iteration is refused",
		covered: "none: there is no such operation",
	},
	{name: "TestTopicManagerCreate", why: why0 + ", once the topic exists: it fails on its second run", covered: "`TestTopics_CreatesWhatIsMissingAndThenFindsNoFault`"},
	{name: "TestTopicManager_v11", stock: protocol0, ours: protocol0, why: why0, covered: "the same"},
}

// edit is a change of a test for ours, besides Goka's import.
type edit struct{ file, test, old, new, why string }

const (
	standby = "without `WithHotStandby` and `WithRecoverAhead`: a partition's local state belongs to its owner alone"
	share   = "the same; it then asks for no passive partitions"
)

var edits = []edit{
	{
		"proc_disconnect_test.go", "TestProcessorShutdown_KafkaDisconnect", "			goka.Join(goka.Table(join), new(codec.String)),\n", "",
		"", // it fails for another reason
	},
	{
		"processor_test.go", "TestProcessorSlowStuck", `"panic in callback"`, `"handler panicked"`,
		"the words: \"handler panicked\", not \"panic in callback\"",
	},
	{
		"processor_test.go", "TestRebalance",
		`				goka.Join(goka.Table(joinTable), new(codec.String)),
				goka.Persist(new(codec.String)),
			),
			goka.WithRecoverAhead(),
			goka.WithHotStandby(),
`,
		`				goka.Persist(new(codec.String)),
			),
`,
		standby + ". And without a joined table, which no callback reads",
	},
	{
		"processor_test.go", "TestRebalanceSharePartitions",
		`				goka.Persist(new(codec.Int64)),
			),
			goka.WithRecoverAhead(),
			goka.WithHotStandby(),
`,
		`				goka.Persist(new(codec.Int64)),
			),
`, share,
	},
	{"processor_test.go", "TestRebalanceSharePartitions", "numPartitions/2, p2Passive", "0, p2Passive", share},
	{"processor_test.go", "TestRebalanceSharePartitions", "numPartitions/2, p1Passive", "0, p1Passive", share},
}

// printTable prints the table of the document.
func printTable(out io.Writer) {
	fmt.Fprint(out, "| test | stock | ours | why it cannot, or what was changed | what covers the behaviour here |\n|---|---|---|---|---|\n")
	for _, t := range tests {
		why, ours := t.why, t.ours.word("passes", "cannot")
		for _, e := range edits {
			if e.test == t.name && t.ours == "" {
				why, ours = e.why, "passes, changed"
			}
		}
		if t.stock != "" {
			ours = "fails, as stock"
		}
		fmt.Fprintf(out, "| `%s` | %s | %s | %s | %s |\n", t.name, t.stock.word("passes", "fails"), ours, why, t.covered)
	}
}

func (o outcome) word(passes, fails string) string {
	if o == "" {
		return passes
	}
	return fails
}
