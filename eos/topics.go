package eos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// TopicPlan says what a job's topics must be for its guarantees to hold.
type TopicPlan struct {
	Names Names
	// Input is the input topic.
	Input string
	// Partitions is how many an input that does not exist is created with; 0 leaves its creation to its producers. Where it
	// exists, the table and the loop follow it, and a positive number that differs is a fault.
	Partitions int32
	// Replication is what every topic must have at least; 0 is 3, or the number of brokers where there are fewer, and what has
	// less is then weaker than it could be, but not refused.
	Replication int16
	// InputRetention is what an input is created with; 0 is without end.
	InputRetention time.Duration
	// WatchHorizon is how long every version of an ID stays in the table at least; 0 is one hour.
	WatchHorizon time.Duration
	// LocalStateMaxAge is the age at which local state is dropped; the table must remember deletions longer. 0 is one day.
	LocalStateMaxAge time.Duration
}

// Role is what a topic is for.
type Role string

// The topics of a job.
const (
	RoleInput       Role = "input"
	RoleTable       Role = "table"
	RoleLoop        Role = "loop"
	RoleFlags       Role = "flags"
	RoleDeadLetters Role = "dead letters"
)

// Setting is one setting of a topic, and why it matters.
type Setting struct {
	Key, Value, Why string
	// strict: another value breaks a guarantee, not only a precondition or a comfort.
	strict bool
	// fits tells whether another value will do; nil asks for the same.
	fits func(have string) bool
}

// PlannedTopic is one topic of the plan.
type PlannedTopic struct {
	Role     Role
	Name     string
	Settings []Setting
}

const (
	day = 24 * time.Hour
	// tombstonesFor is how long the table remembers deletions: far longer than local state may live.
	tombstonesFor = 7 * day
	// largeMessageBytes is the limit of the topics that carry the input's records with headers added, compressed in another
	// way: Kafka judges batches as they are stored.
	largeMessageBytes = 16 << 20
	// tableMessageBytes leaves room for the largest state.
	tableMessageBytes = 4 << 20
	// flagMessageBytes is Kafka's own default.
	flagMessageBytes = 1_048_588
)

// messageBytes is the limit of a topic's batches. Brokers refuse a whole batch that is larger, whatever its records are, and
// producers do not make two of it.
func messageBytes(made, least int64, why string) Setting {
	return Setting{
		Key: "max.message.bytes", Value: strconv.FormatInt(made, 10), Why: why, strict: true,
		fits: func(have string) bool { return atLeast(have, least) },
	}
}

// Topics gives the five topics with their settings. Given the cluster's size, replication is how many replicas they have.
func (p *TopicPlan) Topics(replication int16) []PlannedTopic {
	const deletes = "records must neither be merged nor dropped"
	never := Setting{Key: "retention.ms", Value: "-1", Why: "nothing is deleted that was not used"}
	input := never
	input.Why = "verify folds the input again from its start, and so does a job under a new name"
	if p.InputRetention > 0 {
		input.Value = millis(p.InputRetention)
		input.Why = "as asked; verify and a job under a new name can only begin where it begins"
	}
	input.fits = func(have string) bool {
		return have == "-1" || p.InputRetention > 0 && atLeast(have, p.InputRetention.Milliseconds())
	}
	loop := never
	loop.strict, loop.Why = true, "a re-keyed event must not expire before it is counted; processors trim what they have committed"
	loopBytes := Setting{Key: "retention.bytes", Value: "-1", Why: loop.Why, strict: true}
	large := messageBytes(largeMessageBytes, largeMessageBytes, "must carry whatever the input carries, and headers; a commit that does not fit stops the job")
	flagBytes := messageBytes(flagMessageBytes, batchBytes, "must carry a batch; a commit that does not fit stops the job")
	policy := Setting{Key: "cleanup.policy", Value: "delete", Why: deletes, strict: true}
	common := p.common(replication)
	return []PlannedTopic{
		{RoleInput, p.Input, append([]Setting{policy, input}, common...)},
		{RoleTable, p.Names.Table(), append(p.tableSettings(), common...)},
		{RoleLoop, p.Names.Loop(), append([]Setting{policy, loop, loopBytes, large}, common...)},
		{RoleFlags, p.Names.Flags(), append([]Setting{policy, never, flagBytes}, common...)},
		{RoleDeadLetters, p.Names.DeadLetters(), append([]Setting{policy, never, large}, common...)},
	}
}

func (p *TopicPlan) tableSettings() []Setting {
	horizon := orElse(p.WatchHorizon, time.Hour)
	keep := max(tombstonesFor, 4*p.stateMaxAge())
	return []Setting{
		{Key: "cleanup.policy", Value: "compact", Why: "the newest record of every key must stay for ever", strict: true},
		{
			Key: "delete.retention.ms", Value: millis(keep), strict: true,
			Why:  "local state that missed a deletion must be too old to be used before the deletion is forgotten",
			fits: func(have string) bool { return atLeast(have, p.stateMaxAge().Milliseconds()+1) },
		},
		{
			Key: "min.compaction.lag.ms", Value: millis(horizon), Why: "a watch can be resumed that far back",
			fits: func(have string) bool { return atLeast(have, horizon.Milliseconds()) },
		},
		messageBytes(tableMessageBytes, tableMessageBytes/2, "must carry the largest state; a commit that does not fit stops the job"),
		{
			Key: "segment.bytes", Value: strconv.Itoa(256 << 20), Why: "the segment being written is never compacted: smaller ones make recovery shorter",
			fits: func(string) bool { return true },
		},
	}
}

func (p *TopicPlan) common(replication int16) []Setting {
	settings := []Setting{{Key: "unclean.leader.election.enable", Value: "false", Why: "a replica that lags must not become the truth"}}
	if replication >= 3 {
		settings = append(settings, Setting{
			Key: "min.insync.replicas", Value: "2", Why: "what was acknowledged survives the loss of a broker",
			fits: func(have string) bool { return atLeast(have, 2) },
		})
	}
	return settings
}

func (p *TopicPlan) stateMaxAge() time.Duration { return orElse(p.LocalStateMaxAge, day) }

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

func atLeast(have string, want int64) bool {
	n, err := strconv.ParseInt(have, 10, 64)
	return err == nil && n >= want
}

// TopicState is what a topic is.
type TopicState struct {
	PlannedTopic
	// Exists is false for a topic that is not there; the rest is then zero.
	Exists     bool
	ID         [16]byte
	Partitions int32
	// Replication is the least number of replicas of any partition.
	Replication int16
	// Config holds the settings as they are.
	Config map[string]string
}

// TopicFault is one fault of one topic.
type TopicFault struct {
	Role  Role
	Topic string
	Fault string
	// Mend is what to do, a command where there is one.
	Mend string
	// Missing: the topic does not exist.
	Missing bool
	// Breaks tells that a guarantee does not hold with it, or not as it was asked for. Otherwise it weakens what the guarantees are given.
	Breaks bool
}

func (f TopicFault) String() string { return f.Fault + ": " + f.Mend }

// TopicReport is what CheckTopics found.
type TopicReport struct {
	// Topics are in the plan's order.
	Topics []TopicState
	Faults []TopicFault
}

// Topic finds a topic by its role.
func (r *TopicReport) Topic(role Role) *TopicState {
	for i := range r.Topics {
		if r.Topics[i].Role == role {
			return &r.Topics[i]
		}
	}
	return &TopicState{}
}

// Stop gives all faults that break a guarantee as one FailStop, nil if there are none.
func (r *TopicReport) Stop() error { return r.stop(func(f TopicFault) bool { return f.Breaks }) }

// stopBeforeCreating is Stop for a job whose missing topics are still to be created.
func (r *TopicReport) stopBeforeCreating() error {
	return r.stop(func(f TopicFault) bool { return f.Breaks && !f.Missing })
}

func (r *TopicReport) stop(at func(TopicFault) bool) error {
	var faults, mends []string
	for _, f := range r.Faults {
		if at(f) {
			faults, mends = append(faults, f.Fault), append(mends, f.Mend)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return &FailStop{Fault: strings.Join(faults, "; "), Mend: strings.Join(mends, "; ")}
}

// CheckTopics looks at every topic of the plan and reports every fault. Its error means that it could not look.
func CheckTopics(ctx context.Context, adm *kadm.Client, plan *TopicPlan) (*TopicReport, error) {
	replication, err := plan.replication(ctx, adm)
	if err != nil {
		return nil, err
	}
	report := &TopicReport{}
	planned := plan.Topics(replication)
	names := make([]string, len(planned))
	for i, t := range planned {
		names[i] = t.Name
	}
	details, err := adm.ListTopicsWithInternal(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("look at topics: %w", err)
	}
	for _, t := range planned {
		state, err := topicState(ctx, adm, t, details[t.Name])
		if err != nil {
			return nil, err
		}
		report.Topics = append(report.Topics, state)
	}
	input := report.Topics[0]
	for i := range report.Topics {
		report.Faults = append(report.Faults, report.Topics[i].faults(plan, &input, replication)...)
	}
	return report, nil
}

// replication is the plan's, or the default for the cluster's size.
func (p *TopicPlan) replication(ctx context.Context, adm *kadm.Client) (int16, error) {
	if p.Replication > 0 {
		return p.Replication, nil
	}
	brokers, err := adm.ListBrokers(ctx)
	if err != nil {
		return 0, fmt.Errorf("look at brokers: %w", err)
	}
	return int16(min(3, max(1, len(brokers)))), nil
}

func topicState(ctx context.Context, adm *kadm.Client, t PlannedTopic, found kadm.TopicDetail) (TopicState, error) {
	s := TopicState{PlannedTopic: t}
	if found.Topic == "" || errors.Is(found.Err, kerr.UnknownTopicOrPartition) {
		return s, nil
	}
	if found.Err != nil {
		return s, fmt.Errorf("look at topic %s: %w", t.Name, found.Err)
	}
	s.Exists, s.ID, s.Partitions, s.Config = true, found.ID, int32(len(found.Partitions)), map[string]string{}
	for _, p := range found.Partitions {
		if n := int16(len(p.Replicas)); s.Replication == 0 || n < s.Replication {
			s.Replication = n
		}
	}
	configs, err := adm.DescribeTopicConfigs(ctx, t.Name)
	if err == nil {
		_, err = configs.On(t.Name, func(rc *kadm.ResourceConfig) error { return rc.Err })
	}
	if err != nil {
		return s, fmt.Errorf("read the settings of topic %s: %w", t.Name, err)
	}
	for _, rc := range configs {
		for _, c := range rc.Configs {
			s.Config[c.Key] = c.MaybeValue()
		}
	}
	return s, nil
}

func (s *TopicState) faults(plan *TopicPlan, input *TopicState, replication int16) []TopicFault {
	if !s.Exists {
		return []TopicFault{{
			Role: s.Role, Topic: s.Name, Missing: true, Breaks: true,
			Fault: fmt.Sprintf("topic %s (%s) does not exist", s.Name, s.Role), Mend: "create it with `tidemark topics --create`",
		}}
	}
	var faults []TopicFault
	add := func(breaks bool, mend, format string, args ...any) {
		faults = append(faults, TopicFault{Role: s.Role, Topic: s.Name, Breaks: breaks, Mend: mend, Fault: fmt.Sprintf(format, args...)})
	}
	switch {
	case s.Role == RoleInput && plan.Partitions > 0 && s.Partitions != plan.Partitions:
		add(false, "leave --partitions out, or begin with a new topic", "topic %s has %d partitions, not %d", s.Name, s.Partitions, plan.Partitions)
	case (s.Role == RoleTable || s.Role == RoleLoop) && input.Exists && s.Partitions != input.Partitions:
		add(true, "give the job a new name; a table's partitions are those of its input for as long as it lives",
			"topic %s has %d partitions, the input %s has %d", s.Name, s.Partitions, input.Name, input.Partitions)
	case (s.Role == RoleFlags || s.Role == RoleDeadLetters) && s.Partitions < input.Partitions:
		add(true, fmt.Sprintf("kafka-topics --alter --topic %s --partitions %d", s.Name, input.Partitions),
			"topic %s has %d partitions, the input %s has %d, and each writes to the one of its number", s.Name, s.Partitions, input.Name, input.Partitions)
	}
	if s.Replication < replication {
		add(plan.Replication > 0, "reassign its partitions to more brokers (kafka-reassign-partitions), or say a lower --replication",
			"topic %s has replication %d, below %d", s.Name, s.Replication, replication)
	}
	for _, want := range s.Settings {
		have, known := s.Config[want.Key]
		if !known || have == want.Value || want.fits != nil && want.fits(have) {
			continue
		}
		add(want.strict, fmt.Sprintf("kafka-configs --alter --entity-type topics --entity-name %s --add-config %s=%s", s.Name, want.Key, want.Value),
			"topic %s has %s=%s, not %s (%s)", s.Name, want.Key, have, want.Value, want.Why)
	}
	return faults
}

// EnsureTopics creates the topics of the plan that do not exist and answers their names. Processors that do so at once
// do not disturb each other. It changes nothing that exists: CheckTopics says what is wrong with that. An input that it
// may not create is ErrUnknownTopic.
func EnsureTopics(ctx context.Context, adm *kadm.Client, plan *TopicPlan) ([]string, error) {
	replication, err := plan.replication(ctx, adm)
	if err != nil {
		return nil, err
	}
	partitions := plan.Partitions
	report, err := CheckTopics(ctx, adm, plan)
	if err != nil {
		return nil, err
	}
	if input := report.Topic(RoleInput); input.Exists {
		partitions = input.Partitions
	} else if partitions <= 0 {
		return nil, fmt.Errorf("%w: input %s", ErrUnknownTopic, plan.Input)
	}
	var created []string
	for _, t := range report.Topics {
		if t.Exists {
			continue
		}
		settings := map[string]*string{}
		for _, s := range t.Settings {
			settings[s.Key] = &s.Value
		}
		_, err := adm.CreateTopic(ctx, partitions, replication, settings, t.Name)
		switch {
		case errors.Is(err, kerr.TopicAlreadyExists):
		case err != nil:
			return created, fmt.Errorf("create topic %s with %d partitions and replication %d: %w", t.Name, partitions, replication, err)
		default:
			created = append(created, t.Name)
		}
	}
	return created, awaitTopics(ctx, adm, report)
}

// creationMend is what helps against an answer to a creation that trying again does not change; "" for every other error.
func creationMend(err error) string {
	switch {
	case errors.Is(err, kerr.InvalidReplicationFactor):
		return "start as many brokers, or say a lower --replication"
	case errors.Is(err, kerr.PolicyViolation), errors.Is(err, kerr.InvalidConfig), errors.Is(err, kerr.InvalidPartitions):
		return "have the cluster allow the topic as `tidemark topics` prints it, or create it by hand"
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return "`tidemark topics --acls` prints the permissions it takes; or have another user run `tidemark topics --create`"
	}
	return ""
}

// awaitTopics waits until every topic is known: a broker answers a creation before all of them have heard of it.
func awaitTopics(ctx context.Context, adm *kadm.Client, report *TopicReport) error {
	for failures := 1; ; failures++ {
		names := make([]string, len(report.Topics))
		for i, t := range report.Topics {
			names[i] = t.Name
		}
		details, err := adm.ListTopicsWithInternal(ctx, names...)
		if err == nil {
			err = details.Error()
		}
		if err == nil && slices.ContainsFunc(names, func(n string) bool { return !details.Has(n) }) {
			err = kerr.UnknownTopicOrPartition
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for new topics: %w", errors.Join(context.Cause(ctx), err))
		case <-time.After(backoff(failures)):
		}
	}
}

// ACL is one permission that a job needs on a cluster with authorization.
type ACL struct {
	// Resource is "topic", "group" or "transactional-id"; Pattern is "literal" or "prefixed".
	Resource, Pattern, Name string
	Operations              []string
	// For says which verbs need it.
	For string
}

// String gives the options of Kafka's kafka-acls command.
func (a ACL) String() string {
	var b strings.Builder
	for _, op := range a.Operations {
		fmt.Fprintf(&b, "--operation %s ", op)
	}
	fmt.Fprintf(&b, "--%s %s --resource-pattern-type %s", a.Resource, a.Name, a.Pattern)
	return b.String()
}

// ACLs lists what the job needs, and nothing more.
func (p *TopicPlan) ACLs() []ACL {
	topic := func(name, verbs string, operations ...string) ACL {
		return ACL{"topic", "literal", name, operations, verbs}
	}
	acls := []ACL{
		topic(p.Input, "run, verify", "Read", "Describe", "DescribeConfigs"),
		topic(p.Input, "produce, view --ingest", "Write", "Describe", "DescribeConfigs"),
		topic(p.Input, "view", "Describe"),
		topic(p.Names.Table(), "run", "Read", "Write", "Describe", "DescribeConfigs"),
		topic(p.Names.Table(), "view, get, list, dump, verify", "Read", "Describe"),
		topic(p.Names.Loop(), "run", "Read", "Write", "Delete", "Describe", "DescribeConfigs"),
		topic(p.Names.Loop(), "view", "Describe"),
		topic(p.Names.Flags(), "run", "Write", "Describe", "DescribeConfigs"),
		topic(p.Names.DeadLetters(), "run", "Write", "Describe", "DescribeConfigs"),
		{"group", "literal", p.Names.Group(), []string{"Read", "Describe"}, "run"},
		{"transactional-id", "prefixed", p.Names.TransactionalPrefix(), []string{"Write", "Describe"}, "run"},
	}
	for _, t := range p.Topics(1) {
		acls = append(acls, topic(t.Name, "topics --create", "Create", "Describe", "DescribeConfigs"))
	}
	slices.SortStableFunc(acls, func(a, b ACL) int { return cmp.Compare(a.For, b.For) })
	return acls
}
