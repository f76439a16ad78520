//go:build !unix

package broker

import (
	"errors"
	"os"
)

// lockDir refuses: without a lock that goes with its process, two brokers could write the same files.
func lockDir(string) (*os.File, error) {
	return nil, errors.New("broker: the embedded broker needs a system with flock(2), such as Linux or macOS")
}
