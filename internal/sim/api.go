package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	keyProduce            = 0
	keyFetch              = 1
	keyListOffsets        = 2
	keyMetadata           = 3
	keyOffsetFetch        = 9
	keyFindCoordinator    = 10
	keyJoinGroup          = 11
	keyHeartbeat          = 12
	keyLeaveGroup         = 13
	keySyncGroup          = 14
	keyDescribeGroups     = 15
	keyAPIVersions        = 18
	keyDeleteRecords      = 21
	keyInitProducerID     = 22
	keyAddPartitionsToTxn = 24
	keyAddOffsetsToTxn    = 25
	keyEndTxn             = 26
	keyTxnOffsetCommit    = 28
	keyDescribeConfigs    = 32
	keyListTransactions   = 66
)

// versions are those of Kafka 4.0, as far as topics go by their names.
var versions = map[int16]struct{ min, max int16 }{
	keyProduce: {3, 12}, keyFetch: {4, 12}, keyListOffsets: {1, 8}, keyMetadata: {0, 12}, keyOffsetFetch: {1, 9},
	keyFindCoordinator: {0, 4}, keyJoinGroup: {2, 9}, keyHeartbeat: {0, 4}, keyLeaveGroup: {0, 5}, keySyncGroup: {0, 5},
	keyDescribeGroups: {0, 5}, keyAPIVersions: {0, 4}, keyDeleteRecords: {0, 2}, keyInitProducerID: {0, 5},
	keyAddPartitionsToTxn: {0, 3}, keyAddOffsetsToTxn: {0, 4}, keyEndTxn: {0, 5}, keyTxnOffsetCommit: {0, 5},
	keyDescribeConfigs: {1, 4}, keyListTransactions: {0, 1},
}

// partOfCommit are the requests in which a lost reply leaves a commit in doubt.
var partOfCommit = map[int16]bool{
	keyProduce: true, keyInitProducerID: true, keyAddPartitionsToTxn: true, keyAddOffsetsToTxn: true, keyEndTxn: true,
	keyTxnOffsetCommit: true,
}

// handle answers one request; false closes the connection. The caller holds mu, which is given free while it waits.
func (c *Cluster) handle(from *call, request kmsg.Request, response kmsg.Response) bool {
	switch req := request.(type) {
	case *kmsg.ApiVersionsRequest:
		c.apiVersions(response.(*kmsg.ApiVersionsResponse))
	case *kmsg.MetadataRequest:
		c.metadata(req, response.(*kmsg.MetadataResponse))
	case *kmsg.FindCoordinatorRequest:
		c.findCoordinator(req, response.(*kmsg.FindCoordinatorResponse))
	case *kmsg.ProduceRequest:
		c.produce(from, req, response.(*kmsg.ProduceResponse))
	case *kmsg.FetchRequest:
		c.fetch(from, req, response.(*kmsg.FetchResponse))
	case *kmsg.ListOffsetsRequest:
		c.listOffsets(from, req, response.(*kmsg.ListOffsetsResponse))
	case *kmsg.DeleteRecordsRequest:
		c.deleteRecords(from, req, response.(*kmsg.DeleteRecordsResponse))
	case *kmsg.InitProducerIDRequest:
		c.initProducerID(from, req, response.(*kmsg.InitProducerIDResponse))
	case *kmsg.AddPartitionsToTxnRequest:
		c.addPartitions(from, req, response.(*kmsg.AddPartitionsToTxnResponse))
	case *kmsg.AddOffsetsToTxnRequest:
		c.addOffsets(from, req, response.(*kmsg.AddOffsetsToTxnResponse))
	case *kmsg.TxnOffsetCommitRequest:
		c.txnOffsetCommit(from, req, response.(*kmsg.TxnOffsetCommitResponse))
	case *kmsg.EndTxnRequest:
		c.endTxn(from, req, response.(*kmsg.EndTxnResponse))
	case *kmsg.ListTransactionsRequest:
		c.listTransactions(from, req, response.(*kmsg.ListTransactionsResponse))
	case *kmsg.OffsetFetchRequest:
		c.offsetFetch(from, req, response.(*kmsg.OffsetFetchResponse))
	case *kmsg.DescribeConfigsRequest:
		describeConfigs(req, response.(*kmsg.DescribeConfigsResponse))
	default:
		return c.handleGroup(from, request, response)
	}
	return true
}

func (c *Cluster) handleGroup(from *call, request kmsg.Request, response kmsg.Response) bool {
	switch req := request.(type) {
	case *kmsg.JoinGroupRequest:
		c.joinGroup(from, req, response.(*kmsg.JoinGroupResponse))
	case *kmsg.SyncGroupRequest:
		c.syncGroup(from, req, response.(*kmsg.SyncGroupResponse))
	case *kmsg.HeartbeatRequest:
		c.heartbeat(from, req, response.(*kmsg.HeartbeatResponse))
	case *kmsg.LeaveGroupRequest:
		c.leaveGroup(from, req, response.(*kmsg.LeaveGroupResponse))
	case *kmsg.DescribeGroupsRequest:
		c.describeGroups(from, req, response.(*kmsg.DescribeGroupsResponse))
	default:
		return false
	}
	return true
}

// describeConfigs tells of every broker what clients ask for.
func describeConfigs(req *kmsg.DescribeConfigsRequest, resp *kmsg.DescribeConfigsResponse) {
	for _, of := range req.Resources {
		r := kmsg.NewDescribeConfigsResponseResource()
		r.ResourceType, r.ResourceName = of.ResourceType, of.ResourceName
		delay := kmsg.NewDescribeConfigsResponseResourceConfig()
		delay.Name, delay.Value = "group.initial.rebalance.delay.ms", kmsg.StringPtr(fmt.Sprint(initialDelay.Milliseconds()))
		r.Configs = append(r.Configs, delay)
		resp.Resources = append(resp.Resources, r)
	}
}

// unsupportedAPIVersions names the version to ask in (KIP-511).
func unsupportedAPIVersions() kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = kerr.UnsupportedVersion.Code
	own := kmsg.NewApiVersionsResponseApiKey()
	own.ApiKey, own.MinVersion, own.MaxVersion = keyAPIVersions, versions[keyAPIVersions].min, versions[keyAPIVersions].max
	resp.ApiKeys = append(resp.ApiKeys, own)
	return resp
}

func (c *Cluster) apiVersions(resp *kmsg.ApiVersionsResponse) {
	for key := range int16(100) {
		if v, ok := versions[key]; ok {
			k := kmsg.NewApiVersionsResponseApiKey()
			k.ApiKey, k.MinVersion, k.MaxVersion = key, v.min, v.max
			resp.ApiKeys = append(resp.ApiKeys, k)
		}
	}
	if c.cfg.TransactionsV2 {
		f := kmsg.NewApiVersionsResponseFinalizedFeature()
		f.Name, f.MinVersionLevel, f.MaxVersionLevel = "transaction.version", 0, 2
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, f)
		s := kmsg.NewApiVersionsResponseSupportedFeature()
		s.Name, s.MinVersion, s.MaxVersion = "transaction.version", 0, 2
		resp.SupportedFeatures = append(resp.SupportedFeatures, s)
		resp.FinalizedFeaturesEpoch = 1
	}
}

func (c *Cluster) metadata(req *kmsg.MetadataRequest, resp *kmsg.MetadataResponse) {
	resp.ClusterID, resp.ControllerID = kmsg.StringPtr("sim"), c.live()
	for _, n := range c.brokers {
		if !n.down {
			b := kmsg.NewMetadataResponseBroker()
			b.NodeID, b.Host, b.Port = n.id, n.host(), port
			resp.Brokers = append(resp.Brokers, b)
		}
	}
	var names []string
	for i := range req.Topics {
		if t := req.Topics[i].Topic; t != nil {
			names = append(names, *t)
		} else {
			names = append(names, c.topicOf(req.Topics[i].TopicID))
		}
	}
	if req.Topics == nil || req.Version == 0 && len(names) == 0 {
		names = c.names
	}
	for _, name := range names {
		mt := kmsg.NewMetadataResponseTopic()
		mt.Topic = kmsg.StringPtr(name)
		t := c.topics[name]
		if t == nil {
			mt.ErrorCode = kerr.UnknownTopicOrPartition.Code
			resp.Topics = append(resp.Topics, mt)
			continue
		}
		mt.TopicID = t.id
		for _, p := range t.partitions {
			mp := kmsg.NewMetadataResponseTopicPartition()
			mp.Partition, mp.Leader, mp.LeaderEpoch = p.id, p.lead.broker, p.lead.epoch
			if c.brokers[p.lead.broker].down {
				mp.Leader, mp.ErrorCode = -1, kerr.LeaderNotAvailable.Code
			}
			for _, n := range c.brokers {
				mp.Replicas = append(mp.Replicas, n.id)
			}
			mp.ISR = mp.Replicas
			mt.Partitions = append(mt.Partitions, mp)
		}
		resp.Topics = append(resp.Topics, mt)
	}
}

func (c *Cluster) topicOf(id [16]byte) string {
	for _, name := range c.names {
		if c.topics[name].id == id {
			return name
		}
	}
	return ""
}

// live is a broker that is up.
func (c *Cluster) live() int32 {
	var up []int32
	for _, n := range c.brokers {
		if !n.down {
			up = append(up, n.id)
		}
	}
	return up[c.rng.IntN(len(up))]
}

func (c *Cluster) findCoordinator(req *kmsg.FindCoordinatorRequest, resp *kmsg.FindCoordinatorResponse) {
	kind := "group/"
	if req.CoordinatorType == 1 {
		kind = "txn/"
	}
	keys := req.CoordinatorKeys
	if req.Version < 4 {
		keys = []string{req.CoordinatorKey}
	}
	for _, key := range keys {
		n := c.brokers[c.coordinator(kind+key).broker]
		one := kmsg.NewFindCoordinatorResponseCoordinator()
		one.Key, one.NodeID, one.Host, one.Port = key, n.id, n.host(), port
		if n.down {
			one.NodeID, one.ErrorCode = -1, kerr.CoordinatorNotAvailable.Code
		}
		if req.Version < 4 {
			resp.NodeID, resp.Host, resp.Port, resp.ErrorCode = one.NodeID, one.Host, one.Port, one.ErrorCode
		} else {
			resp.Coordinators = append(resp.Coordinators, one)
		}
	}
}

// coordinator is who coordinates a name.
func (c *Cluster) coordinator(name string) *role {
	r := c.coord[name]
	if r == nil {
		r = &role{broker: c.live()}
		c.coord[name] = r
	}
	return r
}

// coordinates answers the error code with which a broker turns away what it does not coordinate (yet), or 0.
func (c *Cluster) coordinates(from *call, name string) int16 {
	r := c.coordinator(name)
	switch {
	case from != nil && r.broker != from.broker.id:
		return kerr.NotCoordinator.Code
	case time.Now().Before(r.ready) || c.brokers[r.broker].down:
		return kerr.CoordinatorLoadInProgress.Code
	}
	return 0
}

// AddTopic makes a topic with its leaders spread over the brokers.
func (c *Cluster) AddTopic(name string, partitions int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &topic{name: name}
	for i := range t.id {
		t.id[i] = byte(c.rng.Uint32())
	}
	for i := range partitions {
		t.partitions = append(t.partitions, &partition{topic: name, id: i, lead: role{broker: (i + int32(len(c.names))) % c.cfg.Brokers}})
	}
	c.topics[name] = t
	c.names = append(c.names, name)
}

// StopBroker takes a broker down: its connections break, and until their election its roles are nobody's. The last one
// stays up.
func (c *Cluster) StopBroker(id int32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	up := 0
	for _, n := range c.brokers {
		if !n.down {
			up++
		}
	}
	n := c.brokers[id]
	if n.down || up < 2 {
		return false
	}
	n.down = true
	n.cut()
	for _, r := range c.roles() {
		if r.broker == id {
			c.after(time.Duration(50+c.rng.IntN(2000))*time.Millisecond, func() {
				if r.broker == id {
					c.move(r)
				}
			})
		}
	}
	return true
}

// StartBroker brings it back, with no role.
func (c *Cluster) StartBroker(id int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.brokers[id].down = false
}

// MoveRole gives one role, of a partition or a coordinator, to another broker, as a reassignment does.
func (c *Cluster) MoveRole(rng *rand.Rand) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	roles := c.roles()
	i := rng.IntN(len(roles))
	c.move(roles[i])
	return fmt.Sprintf("role %d to broker %d", i, roles[i].broker)
}

func (c *Cluster) roles() []*role {
	var list []*role
	for _, name := range c.names {
		for _, p := range c.topics[name].partitions {
			list = append(list, &p.lead)
		}
	}
	for _, name := range c.coordinated() {
		list = append(list, c.coord[name])
	}
	return list
}

func (c *Cluster) coordinated() []string {
	names := make([]string, 0, len(c.coord))
	for name := range c.coord {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// move elects another holder, which has to load what it takes over.
func (c *Cluster) move(r *role) {
	for was, tries := r.broker, 0; r.broker == was && tries < 10; tries++ {
		r.broker = c.live()
	}
	r.epoch++
	r.ready = time.Now().Add(time.Duration(c.rng.IntN(300)) * time.Millisecond)
	for _, g := range c.groups {
		if g.lead == r {
			g.reload(c)
		}
	}
	c.appended.fire() // those who wait for records ask the new leader
}
