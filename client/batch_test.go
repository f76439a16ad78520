package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// TestBatchGet_SplitsAndJoins: many IDs are asked for in several requests, each with the tokens of the partitions that it asks.
func TestBatchGet_SplitsAndJoins(t *testing.T) {
	const partitions = 5
	ids := make([]string, 2345)
	for i := range ids {
		ids[i] = fmt.Sprint("id-", i)
	}
	var (
		mu    sync.Mutex // guards sizes
		sizes []int
	)
	view := &fake{status: &pb.StatusResponse{Partitions: slices.Repeat([]*pb.PartitionStatus{{}}, partitions)}}
	view.batch = func(req *pb.BatchGetRequest) (*pb.BatchGetResponse, error) {
		mu.Lock()
		sizes = append(sizes, len(req.Ids))
		commit := uint64(len(sizes))
		mu.Unlock()
		on := map[string]bool{}
		res := &pb.BatchGetResponse{}
		for _, id := range req.Ids {
			on[fmt.Sprint(Partition(id, partitions))] = true
			found := &pb.Found{Id: id}
			if id != "id-7" {
				found.State = &pb.State{Id: id}
			}
			res.Results = append(res.Results, found)
		}
		for token := range strings.SplitSeq(req.AtLeast, ",") {
			if p, _, _ := strings.Cut(token, "@"); token != "" && !on[p] {
				return nil, refusal(connect.CodeInvalidArgument, 0, &pb.Freshness{})
			}
		}
		for p := range int32(partitions) {
			if on[fmt.Sprint(p)] {
				res.AsOf = append(res.AsOf, &pb.Freshness{Partition: p, Commit: commit})
			}
		}
		return res, nil
	}
	c := mustClient(t, nil, view.serve(t))
	lone := ids[2344] // the last request asks its partition, and so do others
	b, err := c.BatchGet(t.Context(), ids, AtLeast(fmt.Sprintf("%d@1", Partition(lone, partitions)), fmt.Sprintf("%d@2", Partition(ids[0], partitions))))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range b.States {
		if (s == nil) != (i == 7) || s != nil && s.Id != ids[i] {
			t.Fatalf("got %v at %d, want %s", s, i, ids[i])
		}
	}
	slices.Sort(sizes)
	if len(b.States) != len(ids) || !slices.Equal(sizes, []int{345, 1000, 1000}) || len(b.AsOf) != partitions {
		t.Errorf("got %d states of requests for %v as of %d partitions", len(b.States), sizes, len(b.AsOf))
	}
	for i, f := range b.AsOf {
		if f.Partition != int32(i) || f.Commit != 1 || f.Age != NotKnown {
			t.Errorf("got %+v, want the least commit of partition %d and an age that is not known", f, i)
		}
	}
	few := slices.Repeat([]string{lone}, 1001)
	other := (Partition(lone, partitions) + 1) % partitions
	if _, err := c.BatchGet(t.Context(), few, AtLeast(fmt.Sprintf("%d@1", other))); !errors.Is(err, ErrWrongPartition) {
		t.Errorf("a token that no request asks: got %v, want %v", err, ErrWrongPartition)
	}
	if b, err := c.BatchGet(t.Context(), nil); err != nil || len(b.States) != 0 {
		t.Errorf("of no IDs: got %v (%v)", b, err)
	}
}

func TestClient_SpeaksTLS(t *testing.T) {
	s := httptest.NewTLSServer(&fake{get: answers})
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	conf := &tls.Config{RootCAs: roots}
	c := mustClient(t, func(cfg *Config) { cfg.TLS = conf }, s.URL)
	if _, err := c.Get(t.Context(), "a"); err != nil {
		t.Errorf("with the server's authority: %v", err)
	}
	c = mustClient(t, func(cfg *Config) { cfg.AttemptsMax = 1 }, s.URL)
	if _, err := c.Get(t.Context(), "a"); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without: got %v", err)
	}
	if _, err := c.Produce(t.Context(), []byte("1")); !errors.Is(err, ErrUnreachable) { // nothing was sent
		t.Errorf("produce: got %v", err)
	}
}
