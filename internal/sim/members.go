package sim

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// current answers the member of a request, or the error code for one who is none of this generation.
func (c *Cluster) current(from *call, group, id string, generation int32) (*group, *groupMember, int16) {
	if code := c.coordinates(from, "group/"+group); code != 0 {
		return nil, nil, code
	}
	g := c.group(group)
	m := g.member(id)
	switch {
	case m == nil:
		return g, nil, kerr.UnknownMemberID.Code
	case generation != g.generation:
		return g, nil, kerr.IllegalGeneration.Code
	}
	m.alive = time.Now()
	return g, m, 0
}

func (c *Cluster) syncGroup(from *call, req *kmsg.SyncGroupRequest, resp *kmsg.SyncGroupResponse) {
	g, m, code := c.current(from, req.Group, req.MemberID, req.Generation)
	if resp.ErrorCode = code; code != 0 {
		return
	}
	if g.state == groupCompleting && m.id == g.leader {
		for _, a := range req.GroupAssignment {
			if to := g.member(a.MemberID); to != nil {
				to.assignment = a.MemberAssignment
			}
		}
		g.state = groupStable
		g.store()
		g.changed.fire()
	}
	attempt := g.attempt
	for g.state == groupCompleting && g.attempt == attempt && !c.closed {
		c.await(&g.changed, time.Now().Add(time.Minute))
	}
	switch {
	case c.groups[req.Group] != g || g.member(m.id) != m:
		resp.ErrorCode = kerr.UnknownMemberID.Code
		if g.lead.broker != from.broker.id {
			resp.ErrorCode = kerr.NotCoordinator.Code
		}
	case g.attempt != attempt || g.state != groupStable:
		resp.ErrorCode = kerr.RebalanceInProgress.Code
	default:
		m.alive = time.Now()
		resp.ProtocolType, resp.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr(g.protocol)
		resp.MemberAssignment = m.assignment
	}
}

func (c *Cluster) heartbeat(from *call, req *kmsg.HeartbeatRequest, resp *kmsg.HeartbeatResponse) {
	g, _, code := c.current(from, req.Group, req.MemberID, req.Generation)
	resp.ErrorCode = code
	if code == 0 && g.state == groupPreparing {
		resp.ErrorCode = kerr.RebalanceInProgress.Code
	}
}

func (c *Cluster) leaveGroup(from *call, req *kmsg.LeaveGroupRequest, resp *kmsg.LeaveGroupResponse) {
	if resp.ErrorCode = c.coordinates(from, "group/"+req.Group); resp.ErrorCode != 0 {
		return
	}
	g := c.group(req.Group)
	if req.Version < 3 {
		m := g.member(req.MemberID)
		if m == nil {
			resp.ErrorCode = kerr.UnknownMemberID.Code
			return
		}
		c.remove(g, m)
		return
	}
	for _, rm := range req.Members {
		out := kmsg.NewLeaveGroupResponseMember()
		out.MemberID = rm.MemberID
		if m := g.member(rm.MemberID); m != nil {
			c.remove(g, m)
		} else {
			out.ErrorCode = kerr.UnknownMemberID.Code
		}
		resp.Members = append(resp.Members, out)
	}
}

func (c *Cluster) describeGroups(from *call, req *kmsg.DescribeGroupsRequest, resp *kmsg.DescribeGroupsResponse) {
	for _, name := range req.Groups {
		out := kmsg.NewDescribeGroupsResponseGroup()
		out.Group, out.State = name, "Dead"
		if out.ErrorCode = c.coordinates(from, "group/"+name); out.ErrorCode == 0 && c.groups[name] != nil {
			g := c.groups[name]
			out.State, out.ProtocolType, out.Protocol = string(g.state), "consumer", g.protocol
			for _, m := range g.members {
				rm := kmsg.NewDescribeGroupsResponseGroupMember()
				rm.MemberID, rm.ClientID, rm.ClientHost = m.id, m.client, "/sim"
				rm.ProtocolMetadata, rm.MemberAssignment = m.metadata(g.protocol), m.assignment
				out.Members = append(out.Members, rm)
			}
		}
		resp.Groups = append(resp.Groups, out)
	}
}
