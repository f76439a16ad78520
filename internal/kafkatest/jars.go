package kafkatest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrTool means that a program which a real Kafka needs is missing; the message names it and how to get it.
var ErrTool = errors.New("a tool is missing")

// tools finds java, and mvn where the jars have still to be fetched.
func tools(needMaven bool) error {
	if _, err := exec.LookPath("java"); err != nil {
		return fmt.Errorf("%w: java 17 or later (Debian: apt-get install openjdk-17-jre-headless)", ErrTool)
	}
	if _, err := exec.LookPath("mvn"); err != nil && needMaven {
		return fmt.Errorf("%w: mvn, to fetch Kafka's jars (Debian: apt-get install maven)", ErrTool)
	}
	return nil
}

// cache is the folder of one set of jars; another pom gets another folder.
type cache struct{ dir string }

func (c cache) jars() string { return filepath.Join(c.dir, "jars") }

// openCache returns the folder with Kafka's jars and fetches them first if they are not there. Several processes may call it
// at once: one fetches, the others wait for it.
func openCache(ctx context.Context) (cache, error) {
	root, err := moduleRoot()
	if err != nil {
		return cache{}, err
	}
	pom := filepath.Join(root, "deploy", "kafka", "pom.xml")
	src, err := os.ReadFile(pom)
	if err != nil {
		return cache{}, fmt.Errorf("read the list of Kafka's jars: %w", err)
	}
	sum := sha256.Sum256(src)
	c := cache{filepath.Join(root, ".cache", "kafka", hex.EncodeToString(sum[:6]))}
	there, err := exists(c.jars())
	if err != nil {
		return cache{}, err
	}
	if err := tools(!there); err != nil {
		return cache{}, err
	}
	if there {
		return c, nil
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return cache{}, err
	}
	lock, err := lockFile(filepath.Join(c.dir, "lock"))
	if err != nil {
		return cache{}, err
	}
	defer lock.Close()
	if there, err := exists(c.jars()); err != nil || there {
		return c, err
	}
	return c, c.fetch(ctx, pom)
}

// fetch has Maven copy the jars beside their place, then moves them into it: half a set is never seen.
func (c cache) fetch(ctx context.Context, pom string) error {
	part := c.jars() + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	mvn := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+part)
	if out, err := mvn.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch Kafka's jars with mvn: %w\n%s", err, tail(out, 20))
	}
	if err := os.Rename(part, c.jars()); err != nil {
		return fmt.Errorf("put Kafka's jars in place: %w", err)
	}
	return nil
}

// moduleRoot is the nearest folder with a go.mod, from the working directory upwards.
func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		there, err := exists(filepath.Join(dir, "go.mod"))
		if err != nil {
			return "", err
		}
		if there {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod above %s: a real Kafka is started from within the repository", start)
		}
	}
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
