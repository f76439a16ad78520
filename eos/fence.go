package eos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// sayEvery is how often a wait says what it waits for.
const sayEvery = 5 * time.Second

// stableOffsets fences the former owners that are no live member, then answers the offsets once no
// open transaction can change them.
func (u *Unit) stableOffsets(ctx context.Context, topics []string, partitions []int32) (map[int32]map[string]groupOffset, error) {
	group := u.cfg.Names.Group()
	for said := time.Now(); ; {
		// What was committed last names the owner, whose open transaction may hide more.
		seen, err := u.admin.fetchOffsets(ctx, group, topics, partitions, false)
		if err != nil {
			return nil, err
		}
		if err := u.fenceDead(ctx, ownersOf(seen)); err != nil {
			return nil, err
		}
		stable, err := u.admin.fetchOffsets(ctx, group, topics, partitions, !u.cfg.weak.noStable)
		if err == nil {
			return stable, nil
		}
		if !errors.Is(err, kerr.UnstableOffsetCommit) {
			return nil, err
		}
		if err := u.fenceDead(ctx, u.openOwners(ctx)); err != nil {
			return nil, err
		}
		if time.Since(said) > sayEvery {
			said = time.Now()
			u.log.Warn("waiting for an open transaction on the group's offsets to end", "group", group)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// fenceAll ends what dead owners, and earlier lives and sessions of this instance, left open, before
// any partition is assigned. No session is open while it is called.
func (u *Unit) fenceAll(ctx context.Context, topics []string) error {
	if err := u.fenceOwner(ctx, u.transactionalID()); err != nil {
		return err
	}
	ends, err := u.admin.ends(ctx, u.cfg.Input)
	if err != nil {
		return err
	}
	var partitions []int32
	for p := range ends {
		partitions = append(partitions, p)
	}
	offsets, err := u.admin.fetchOffsets(ctx, u.cfg.Names.Group(), topics, partitions, false)
	if err != nil {
		return err
	}
	owners := ownersOf(offsets)
	for owner := range u.openOwners(ctx) {
		owners[owner] = true
	}
	return u.fenceDead(ctx, owners)
}

// fencingStrategy is a balance strategy that first fences the owners whom the plan leaves out. The group's
// leader asks for the plan when all members have joined again, so who is missing is out of the group; and
// nobody has fetched offsets yet. Sarama does that before Setup, and where an open transaction hides them it
// tries for a second in vain, and the takeover costs another join (sarama: offset_manager.go,
// fetchInitialOffset).
type fencingStrategy struct {
	sarama.BalanceStrategy
	unit *Unit
}

// Name carries the digest of the rules. A group's members have to agree on a strategy, so the broker itself keeps members
// with other rules out of it, before they get or disturb anything (INCONSISTENT_GROUP_PROTOCOL).
func (f fencingStrategy) Name() string { return f.BalanceStrategy.Name() + " " + f.unit.cfg.Digest }

// fencePatience bounds what the fencing may add to a rebalance when a coordinator is away.
const fencePatience = 2 * time.Second

// Plan is the strategy's own. A failure to fence is no reason to have none: recovery fences again.
func (f fencingStrategy) Plan(members map[string]sarama.ConsumerGroupMemberMetadata, topics map[string][]int32) (sarama.BalanceStrategyPlan, error) {
	if u := f.unit; !u.cfg.weak.lateFence {
		u.fenceMissing(topics)
	}
	return f.BalanceStrategy.Plan(members, topics)
}

func (u *Unit) fenceMissing(topics map[string][]int32) {
	ctx, cancel := context.WithTimeout(context.Background(), fencePatience)
	defer cancel()
	names := slices.Sorted(maps.Keys(topics))
	offsets, err := u.admin.fetchOffsets(ctx, u.cfg.Names.Group(), names, topics[u.cfg.Input], false)
	if err == nil {
		err = u.fenceDead(ctx, ownersOf(offsets))
	}
	if err != nil {
		u.log.Info("fencing dead owners before the plan", "cause", err)
	}
}

// ownersOf are the owners that the offsets name.
func ownersOf(offsets map[int32]map[string]groupOffset) map[string]bool {
	owners := map[string]bool{}
	for _, of := range offsets {
		for _, o := range of {
			if o.known && o.meta.Owner != "" {
				owners[o.meta.Owner] = true
			}
		}
	}
	return owners
}

// openOwners are the owners of the job's open transactions: one that died in its very first commit is
// named by no offset. Brokers that cannot tell (before Kafka 3.0, or without the permission) leave that
// one to the transaction timeout.
func (u *Unit) openOwners(ctx context.Context) map[string]bool {
	owners := map[string]bool{}
	open, err := u.admin.adm.ListTransactions(ctx, nil, []string{"Ongoing"})
	if err != nil {
		u.log.Info("listing open transactions", "cause", err)
	}
	for id, txn := range open {
		lane := strings.LastIndexByte(id, '#')
		if txn.State == "Ongoing" && lane > 0 && strings.HasPrefix(id, u.cfg.Names.TransactionalPrefix()) {
			owners[id[:lane]] = true
		}
	}
	return owners
}

// fenceDead ends the open transactions of those owners that have left the group or were thrown out of
// it: InitProducerId with their transactional.id aborts what is open and bumps the epoch, so that a
// frozen one that thaws is refused. Waiting for the transaction timeout instead takes 10 to 14 s,
// because brokers sweep every 10 s.
func (u *Unit) fenceDead(ctx context.Context, owners map[string]bool) error {
	delete(owners, u.transactionalID())
	if len(owners) == 0 || u.cfg.weak.noFence {
		return nil
	}
	live, err := u.admin.liveInstances(ctx, u.cfg.Names.Group())
	if err != nil {
		return err
	}
	for owner := range owners {
		if live[strings.TrimPrefix(owner, u.cfg.Names.TransactionalPrefix())] {
			continue
		}
		start := time.Now()
		if err := u.fenceOwner(ctx, owner); err != nil {
			return fmt.Errorf("fence the dead owner %q: %w", owner, err)
		}
		u.log.Info("fenced a dead owner", "owner", owner, "took", time.Since(start))
	}
	return nil
}

func (u *Unit) fenceOwner(ctx context.Context, owner string) error {
	for lane := range lanes {
		if err := u.admin.fence(ctx, laneID(owner, lane)); err != nil {
			return err
		}
	}
	return nil
}

// liveInstances are the client ids of the group's members.
func (a *admin) liveInstances(ctx context.Context, group string) (map[string]bool, error) {
	g, err := a.describeGroup(ctx, group)
	if err != nil {
		return nil, err
	}
	live := map[string]bool{}
	for _, m := range g.Members {
		live[m.ClientID] = true
	}
	return live, nil
}

// members are the ids of the group's members of one client id.
func (a *admin) members(ctx context.Context, group, clientID string) ([]string, error) {
	g, err := a.describeGroup(ctx, group)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, m := range g.Members {
		if m.ClientID == clientID {
			ids = append(ids, m.MemberID)
		}
	}
	return ids, nil
}

// describeGroup answers a group without members where there is none.
func (a *admin) describeGroup(ctx context.Context, group string) (kadm.DescribedGroup, error) {
	groups, err := a.adm.DescribeGroups(ctx, group)
	if err != nil {
		return kadm.DescribedGroup{}, fmt.Errorf("describe group %s: %w", group, err)
	}
	g := groups[group]
	if g.Err != nil && !errors.Is(g.Err, kerr.GroupIDNotFound) {
		return g, fmt.Errorf("describe group %s: %w", group, g.Err)
	}
	return g, nil
}

// fence takes over a transactional.id for no other purpose than to end what its holder left open.
func (a *admin) fence(ctx context.Context, transactionalID string) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = &transactionalID, 10_000
	req.ProducerID, req.ProducerEpoch = -1, -1
	return retryConcurrent(ctx, func() error {
		resp, err := req.RequestWith(ctx, a.cl)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
}
