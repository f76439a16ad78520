package chaos

import (
	"fmt"
)

// stockState is the state of an ID as the processor on stock Goka keeps it.
type stockState struct {
	Count, Hash uint64
	Sum, Max    int64
	LastMs      int64
	Hits        []int64
	Busy        bool
}

func (s *stockState) found() *found {
	return &found{
		count: s.Count, sum: cents(s.Sum), hash: fmt.Sprint(s.Hash), max: cents(s.Max), recent: uint64(len(s.Hits)), busy: s.Busy,
	}
}
