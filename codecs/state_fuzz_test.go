package codecs

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

func FuzzState(f *testing.F) {
	r := rand.New(rand.NewPCG(10, 10))
	for range 20 {
		f.Add(randomState(r).AppendBinary(nil, testSchema))
	}
	f.Add([]byte{})
	f.Add([]byte{8, 2, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var first, second State
		if err := first.UnmarshalBinary(b, testSchema); err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrMalformed) {
				t.Fatalf("%x: %v", b, err)
			}
			return
		}
		once := first.AppendBinary(nil, testSchema)
		if err := second.UnmarshalBinary(once, testSchema); err != nil {
			t.Fatalf("%x is accepted, written again it is not: %x: %v", b, once, err)
		}
		if twice := second.AppendBinary(nil, testSchema); !bytes.Equal(once, twice) {
			t.Fatalf("%x: written\n%x, and again\n%x", b, once, twice)
		}
		first.AppendJSON(nil, "id", testSchema)
	})
}
