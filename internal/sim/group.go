package sim

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type groupState string

const (
	groupEmpty      groupState = "Empty"
	groupPreparing  groupState = "PreparingRebalance"
	groupCompleting groupState = "CompletingRebalance"
	groupStable     groupState = "Stable"
)

// group is what its coordinator knows: members, as the classic protocol has them, and offsets.
type group struct {
	name       string
	lead       *role
	state      groupState
	generation int32
	protocol   string
	leader     string
	members    []*groupMember // in the order in which they joined
	invited    map[string]bool
	attempt    int // counts rebalances
	changed    signal
	stored     storedGroup

	offsets map[spot]written
	pending []written
	seq     int64
	epochs  map[int64]int16
}

// storedGroup is what a new coordinator loads: the group as of its last assignment.
type storedGroup struct {
	generation       int32
	protocol, leader string
	members          []groupMember
}

type groupMember struct {
	id, client         string
	session, rebalance time.Duration
	protocols          []kmsg.JoinGroupRequestProtocol
	assignment         []byte
	alive              time.Time // when it was heard of last
	join               *join     // while it waits for the others
}

// join is a JoinGroup that waits for its answer.
type join struct {
	done       bool
	code       int16
	generation int32
	protocol   string
	leader     string
	members    []kmsg.JoinGroupResponseMember
}

func (c *Cluster) group(name string) *group {
	g := c.groups[name]
	if g == nil {
		g = &group{
			name: name, lead: c.coordinator("group/" + name), state: groupEmpty, invited: map[string]bool{},
			offsets: map[spot]written{}, epochs: map[int64]int16{},
		}
		c.groups[name] = g
	}
	return g
}

func (g *group) member(id string) *groupMember {
	for _, m := range g.members {
		if m.id == id {
			return m
		}
	}
	return nil
}

func (m *groupMember) metadata(protocol string) []byte {
	for _, p := range m.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return nil
}

func (c *Cluster) joinGroup(from *call, req *kmsg.JoinGroupRequest, resp *kmsg.JoinGroupResponse) {
	resp.Generation = -1
	if resp.ErrorCode = c.coordinates(from, "group/"+req.Group); resp.ErrorCode != 0 {
		return
	}
	g := c.group(req.Group)
	m := g.member(req.MemberID)
	switch {
	case req.MemberID == "":
		c.memberIDs++
		id := fmt.Sprintf("%s-%06d", from.client, c.memberIDs)
		if req.Version >= 4 {
			g.invited[id] = true
			resp.MemberID, resp.ErrorCode = id, kerr.MemberIDRequired.Code
			return
		}
		m = c.enter(g, id, from.client, req)
	case m == nil && !g.invited[req.MemberID]:
		resp.MemberID, resp.ErrorCode = req.MemberID, kerr.UnknownMemberID.Code
		return
	case m == nil:
		delete(g.invited, req.MemberID)
		m = c.enter(g, req.MemberID, from.client, req)
	}
	resp.MemberID = m.id
	j := c.rejoin(g, m, req)
	for !j.done && !c.closed {
		c.await(&g.changed, time.Now().Add(time.Minute))
	}
	resp.ErrorCode, resp.Generation, resp.Protocol, resp.LeaderID = j.code, j.generation, kmsg.StringPtr(j.protocol), j.leader
	resp.ProtocolType, resp.Members = kmsg.StringPtr("consumer"), j.members
}

// enter makes a new member, whose session is watched from now on.
func (c *Cluster) enter(g *group, id, client string, req *kmsg.JoinGroupRequest) *groupMember {
	m := &groupMember{id: id, client: client, session: time.Duration(req.SessionTimeoutMillis) * time.Millisecond, alive: time.Now()}
	g.members = append(g.members, m)
	c.watch(g, m)
	return m
}

func (c *Cluster) watch(g *group, m *groupMember) {
	c.after(max(m.session-time.Since(m.alive), time.Millisecond), func() {
		switch {
		case !slices.Contains(g.members, m):
		case m.join == nil && time.Since(m.alive) >= m.session && c.coordinates(nil, "group/"+g.name) == 0:
			c.remove(g, m)
		default:
			c.watch(g, m)
		}
	})
}

// rejoin notes that a member is ready for the next generation, or tells it the present one where nothing has changed.
func (c *Cluster) rejoin(g *group, m *groupMember, req *kmsg.JoinGroupRequest) *join {
	same := slices.EqualFunc(m.protocols, req.Protocols, func(a, b kmsg.JoinGroupRequestProtocol) bool {
		return a.Name == b.Name && bytes.Equal(a.Metadata, b.Metadata)
	})
	m.protocols, m.alive = req.Protocols, time.Now()
	m.rebalance = time.Duration(req.RebalanceTimeoutMillis) * time.Millisecond
	if m.join != nil { // its connection broke while it waited
		m.join.done = true
		m.join.code = kerr.RebalanceInProgress.Code
	}
	j := &join{}
	if same && (g.state == groupCompleting || g.state == groupStable && m.id != g.leader) {
		g.answer(j, m)
		return j
	}
	m.join = j
	if g.state == groupPreparing {
		c.tryComplete(g)
	} else {
		c.prepare(g)
	}
	return j
}

// initialDelay is group.initial.rebalance.delay.ms, made short.
const initialDelay = 50 * time.Millisecond

// prepare begins a rebalance: members have until the longest of their timeouts to join again.
func (c *Cluster) prepare(g *group) {
	wait := time.Duration(0)
	if g.state == groupEmpty {
		wait = initialDelay
	}
	fresh := wait > 0
	g.state = groupPreparing
	g.attempt++
	attempt := g.attempt
	for _, m := range g.members {
		if !fresh {
			wait = max(wait, m.rebalance)
		}
	}
	g.changed.fire()
	c.after(wait, func() {
		if g.attempt == attempt && g.state == groupPreparing {
			c.completeJoin(g)
		}
	})
	if !fresh {
		c.tryComplete(g)
	}
}

func (c *Cluster) tryComplete(g *group) {
	if !slices.ContainsFunc(g.members, func(m *groupMember) bool { return m.join == nil }) {
		c.completeJoin(g)
	}
}

// completeJoin begins the next generation with those who are there.
func (c *Cluster) completeJoin(g *group) {
	g.members = slices.DeleteFunc(g.members, func(m *groupMember) bool { return m.join == nil })
	g.generation++
	g.attempt++
	if len(g.members) == 0 {
		g.state, g.leader = groupEmpty, ""
		g.store()
		g.changed.fire()
		return
	}
	g.state = groupCompleting
	if g.member(g.leader) == nil {
		g.leader = g.members[0].id
	}
	g.protocol = g.members[0].protocols[0].Name
	attempt, wait := g.attempt, time.Duration(0)
	for _, m := range g.members {
		g.answer(m.join, m)
		m.join, m.assignment, m.alive = nil, nil, time.Now()
		wait = max(wait, m.rebalance)
	}
	g.changed.fire()
	c.after(wait, func() { // the leader never sent its plan
		if g.attempt == attempt && g.state == groupCompleting {
			if m := g.member(g.leader); m != nil {
				c.remove(g, m)
			}
		}
	})
}

func (g *group) answer(j *join, m *groupMember) {
	*j = join{done: true, generation: g.generation, protocol: g.protocol, leader: g.leader}
	if m.id != g.leader {
		return
	}
	for _, o := range g.members {
		r := kmsg.NewJoinGroupResponseMember()
		r.MemberID, r.ProtocolMetadata = o.id, o.metadata(g.protocol)
		j.members = append(j.members, r)
	}
}

// remove takes a member out of the group.
func (c *Cluster) remove(g *group, m *groupMember) {
	g.members = slices.DeleteFunc(g.members, func(o *groupMember) bool { return o == m })
	if m.join != nil {
		m.join.done, m.join.code = true, kerr.UnknownMemberID.Code
		m.join = nil
	}
	g.changed.fire()
	switch g.state {
	case groupStable, groupCompleting:
		c.prepare(g)
	case groupPreparing:
		c.tryComplete(g)
	}
}

func (g *group) store() {
	g.stored = storedGroup{generation: g.generation, protocol: g.protocol, leader: g.leader}
	for _, m := range g.members {
		g.stored.members = append(g.stored.members, *m)
	}
}

// reload is what happens to a group whose coordinator moves: whoever waits is sent away, and the new coordinator knows
// the group as of its last assignment. A generation that was begun since is forgotten, and its number used again.
func (g *group) reload(c *Cluster) {
	for _, m := range g.members {
		if m.join != nil {
			m.join.done, m.join.code = true, kerr.NotCoordinator.Code
		}
	}
	s := g.stored
	g.generation, g.protocol, g.leader, g.members = s.generation, s.protocol, s.leader, nil
	g.attempt++
	g.state = groupEmpty
	for _, m := range s.members {
		again := m
		again.join, again.alive = nil, g.lead.ready
		g.members = append(g.members, &again)
		c.watch(g, &again)
		g.state = groupStable
	}
	g.changed.fire()
}
