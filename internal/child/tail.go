package child

import "sync"

// Tail keeps the end of what was written to it, such as what a child said before it ended. Its zero value is empty.
type Tail struct {
	mu  sync.Mutex // guards buf
	buf []byte
}

const tailBytes = 4 << 10

// Write never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailBytes; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// Text is the last 4 KiB at most.
func (t *Tail) Text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
