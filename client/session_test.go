package client

import (
	"errors"
	"slices"
	"testing"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// TestSession_GivesUpOnViewsThatDisagree about the number of partitions: it neither asks for ever nor believes what may be older than
// what it wrote.
func TestSession_GivesUpOnViewsThatDisagree(t *testing.T) {
	view, s := mustPlaced(t, 4)
	if _, err := s.Produce(t.Context(), []byte("a")); err != nil {
		t.Fatal(err)
	}
	asked := 0
	view.get = func(req *pb.GetRequest) (*pb.GetResponse, error) {
		asked++
		return &pb.GetResponse{State: &pb.State{Id: req.Id}, AsOf: &pb.AsOf{Partition: (Partition(req.Id, 4) + 1) % 4}}, nil
	}
	view.batch = func(*pb.BatchGetRequest) (*pb.BatchGetResponse, error) {
		asked++
		return &pb.BatchGetResponse{Results: []*pb.Found{{Id: "a"}}, AsOf: []*pb.Freshness{{Partition: (Partition("a", 4) + 1) % 4}}}, nil
	}
	if a, err := s.Get(t.Context(), "a"); !errors.Is(err, ErrNotReady) || a.State != nil || asked != 4 {
		t.Errorf("Get: got %v (%v) after asking %d times, want %v after 4", a.State, err, asked, ErrNotReady)
	}
	asked = 0
	if b, err := s.BatchGet(t.Context(), []string{"a"}); !errors.Is(err, ErrNotReady) || b != nil || asked != 4 {
		t.Errorf("BatchGet: got %v (%v) after asking %d times, want %v after 4", b, err, asked, ErrNotReady)
	}
}

func TestSession_RemembersTheNewest(t *testing.T) {
	for what, test := range map[string]struct{ tokens, want []string }{
		"by offset":                                  {[]string{"1@9.1.A", "1@7.1.A"}, []string{"1@9.1.A"}},
		"of another topic":                           {[]string{"1@9.1.A", "1@3.1.B"}, []string{"1@3.1.B"}},
		"of a later generation":                      {[]string{"1@9.9.A", "1@3.10.B"}, []string{"1@3.10.B"}},
		"not of an earlier one":                      {[]string{"1@3.10.B", "1@9.9.A"}, []string{"1@3.10.B"}},
		"a place, and a token before it":             {[]string{"1@9", "1@3.1.A"}, []string{"1@9"}},
		"a token, and a place before it":             {[]string{"1@9.1.A", "1@3", "0@1"}, []string{"0@1", "1@9.1.A"}},
		"a place between tokens of its topic":        {[]string{"1@1.1.A", "1@9", "1@3.1.A"}, []string{"1@9"}},
		"a place between tokens of different topics": {[]string{"1@1.1.A", "1@9", "1@3.1.B"}, []string{"1@3.1.B"}},
	} {
		s := (&Client{}).Session()
		for _, token := range test.tokens {
			if err := s.Remember(token); err != nil {
				t.Fatal(err)
			}
		}
		if got := s.tokens(func(int32) bool { return true }); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", what, got, test.want)
		}
	}
}
