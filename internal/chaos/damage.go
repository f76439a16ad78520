package chaos

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// damage does harm to one file of the local state, chosen by the seed, and says what. Without local state it does nothing.
func (s *slot) damage(seed uint64) (string, error) {
	rng := rand.New(rand.NewPCG(seed, 3))
	var files []string
	err := filepath.WalkDir(s.task.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() != "LOCK" && d.Name() != "LOG" {
			files = append(files, path)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(files) == 0 {
		return "nothing", nil
	}
	if err != nil {
		return "", err
	}
	slices.Sort(files)
	path := files[rng.IntN(len(files))]
	name, err := filepath.Rel(s.task.Dir, path)
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	how := rng.IntN(3)
	if how == 0 || len(data) == 0 {
		return "deleted " + name, os.Remove(path)
	}
	at := rng.IntN(len(data))
	if how == 1 {
		return fmt.Sprintf("cut %s to %d of %d bytes", name, at, len(data)), os.Truncate(path, int64(at))
	}
	bit := rng.IntN(8)
	data[at] ^= 1 << bit
	return fmt.Sprintf("flipped bit %d of byte %d of %d of %s", bit, at, len(data), name), os.WriteFile(path, data, 0o644)
}
