package guard

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"sync/atomic"
)

// files are read again when their bytes change, and then replace what was made of them. Content that cannot be used leaves
// everything as it is, and so does content that two looks have not found the same: somebody may be writing it.
type files[T any] struct {
	what  string // as logs and metrics name it
	paths []string
	parse func(contents [][]byte, before *T) (*T, error)
	taken func(before, after *T) // may be nil

	current atomic.Pointer[T]
	stale   atomic.Bool       // there is newer content that cannot be used
	seen    [sha256.Size]byte // what is in use
	looked  [sha256.Size]byte // what the last look found
	failure string
}

// reload looks at the files. It tells whether there was something new, and what is wrong with it; a fault that stays is told
// once.
func (f *files[T]) reload() (changed bool, err error) {
	contents, err := f.read()
	if err == nil {
		sum := sha256.Sum256(bytes.Join(contents, []byte{0}))
		before := f.current.Load()
		settled := before == nil || sum == f.looked // at the start nobody has anything that half a file could take away
		f.looked = sum
		switch {
		case before != nil && sum == f.seen:
			f.failure = ""
			f.stale.Store(false)
			return false, nil
		case !settled:
			return false, nil
		}
		var next *T
		if next, err = f.parse(contents, before); err == nil {
			f.seen, f.failure = sum, ""
			f.current.Store(next)
			f.stale.Store(false)
			if f.taken != nil {
				f.taken(before, next)
			}
			return true, nil
		}
	}
	f.stale.Store(true)
	if err.Error() == f.failure {
		return false, nil
	}
	f.failure = err.Error()
	return true, fmt.Errorf("%s: %w", f.what, err)
}

func (f *files[T]) read() ([][]byte, error) {
	contents := make([][]byte, len(f.paths))
	for i, path := range f.paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		contents[i] = b
	}
	return contents, nil
}
