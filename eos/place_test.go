package eos

import (
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestPlace_KnownHashes(t *testing.T) {
	// From Kafka's own test of Utils.murmur2.
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
}

func TestPlace_IsWhereFranzGoAndGokaPutIt(t *testing.T) {
	franz := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	hasher := NewHasher()
	rng := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		key := make([]byte, rng.IntN(40))
		for i := range key {
			key[i] = byte(rng.Uint32())
		}
		n := 1 + rng.IntN(100)
		got := Place(key, int32(n))
		if want := franz.Partition(&kgo.Record{Key: key}, n); int(got) != want {
			t.Fatalf("Place(%x, %d) = %d, want %d", key, n, got, want)
		}
		hasher.Reset()
		half := rng.IntN(len(key) + 1)
		hasher.Write(key[:half])
		hasher.Write(key[half:])
		if h := int32(hasher.Sum32()); h < 0 || h%int32(n) != got {
			t.Fatalf("hasher gives %d for %x of %d, want partition %d", h, key, n, got)
		}
	}
}

func TestNames_CarryTheGenerationWhereStateIs(t *testing.T) {
	for gen, want := range map[uint32][]string{
		0: {"ssh-auth", "ssh-auth-table", "ssh-auth-loop", "ssh-auth-flags", "ssh-auth-dead-letters", "ssh-auth/host-1"},
		1: {"ssh-auth", "ssh-auth-table", "ssh-auth-loop", "ssh-auth-flags", "ssh-auth-dead-letters", "ssh-auth/host-1"},
		2: {"ssh-auth.g2", "ssh-auth.g2-table", "ssh-auth.g2-loop", "ssh-auth-flags", "ssh-auth-dead-letters", "ssh-auth.g2/host-1"},
	} {
		n := Names{Job: "ssh-auth", Generation: gen}
		for i, got := range []string{n.Group(), n.Table(), n.Loop(), n.Flags(), n.DeadLetters(), n.TransactionalID("host-1")} {
			if got != want[i] {
				t.Errorf("generation %d: got %q, want %q", gen, got, want[i])
			}
		}
	}
}
