package view

import (
	"math/rand/v2"
	"slices"
	"testing"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// TestPlainIDs_AreWhatTheGeneralWayReads compares the short way of reading a batch with the general one.
func TestPlainIDs_AreWhatTheGeneralWayReads(t *testing.T) {
	for sent, plain := range map[string]bool{
		`{"ids":["a"]}`:                              true,
		`{"ids":["a","b c","ä/[x]","}{:,"]}`:         true,
		`{"ids":[""]}`:                               true,
		`{"ids":["a", "b"]}`:                         false,
		`{"ids":["]}`:                                false,
		`{"ids":[]}`:                                 false,
		`{"ids":["a\"]}`:                             false,
		`{"ids":["a\\"]}`:                            false,
		`{"ids":["\"]"]}`:                            false,
		`{"ids":["a"],"at_least":"0@1"}`:             false,
		`{"ids":["a"],"at_least":"0@1","ids":["b"]}`: false,
		"{\"ids\":[\"a\nb\"]}":                       false,
		"{\"ids\":[\"\xff\"]}":                       false,
		`{"wait":"1s","ids":["a"]}`:                  false,
		`{"ids":["a"]}` + `{"ids":["a"]}`:            false,
		`{"ids":["a","wait":"1s","b"]}`:              false,
		`{"ids":["a","b"],"wait":"1s","x":["c"]}`:    false,
	} {
		if got := plainIDs([]byte(sent)) != nil; got != plain {
			t.Errorf("%q is read the short way: %v, want %v", sent, got, plain)
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random, pieces, short := rand.New(rand.NewPCG(seed, 0)), []string{`{"ids":["`, `"]}`, `","`, `a`, `"`, `\`, `]`, `}`, ` `, `,`, ":", "\x00", "ä", "\xe4", `"wait":"1s"`}, 0
	for range 200_000 {
		sent := pieces[0]
		for range random.IntN(6) {
			sent += pieces[random.IntN(len(pieces))]
		}
		if random.IntN(4) > 0 {
			sent += pieces[1]
		}
		ids := plainIDs([]byte(sent))
		if ids == nil {
			continue
		}
		short++
		var req pb.BatchGetRequest
		if err := (jsonCodec{}).Unmarshal([]byte(sent), &req); err != nil || !slices.Equal(ids, req.Ids) || req.Wait != nil {
			t.Fatalf("%q: the short way reads %q, the general way %q: %v", sent, ids, &req, err)
		}
	}
	if short < 1000 {
		t.Errorf("%d were read the short way: too few to show anything", short)
	}
}
