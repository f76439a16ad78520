package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// binary is a version of Tidemark.
type binary struct{ name, path string }

func parseBinaries(list string) ([]binary, error) {
	if list == "" {
		return nil, nil
	}
	var out []binary
	for text := range strings.SplitSeq(list, ",") {
		name, path, ok := strings.Cut(text, "=")
		path, err := filepath.Abs(path)
		if !ok || err != nil {
			return nil, fmt.Errorf("-tidemark is NAME=PATH,…, got %q", text)
		}
		out = append(out, binary{name, path})
	}
	return out, nil
}

// buildTidemark builds this tree as `make build` does.
func buildTidemark(ctx context.Context, dir string) (binary, error) {
	b := binary{"Tidemark", filepath.Join(dir, "tidemark")}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.path, "github.com/tidemark/tidemark/cmd/tidemark")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return b, fmt.Errorf("build tidemark, which wants the repository as the working directory: %w\n%s", err, out)
	}
	return b, nil
}

// job is a job at work, and its file.
type job struct {
	name, file string
	brokers    []string
	dir        string
}

func (b *bench) job(name string) (*job, error) {
	j := &job{name: "reads-" + name, brokers: b.kafka, dir: filepath.Join(b.dir, name)}
	j.file = filepath.Join(j.dir, "job.yaml")
	if err := os.MkdirAll(j.dir, 0o755); err != nil {
		return nil, err
	}
	return j, os.WriteFile(j.file, fmt.Appendf(nil, `name: %[1]s
input:
  topic: %[1]s-events
  format: json
  id: "event.id"
  time: "event.time"
totals:
  sum:          {sum: "event.value"}
  least:        {min: "event.value"}
  greatest:     {max: "event.value"}
  failures_10m: {count: true, when: 'event.type == "failed_password"', window: 10m}
flags:
  brute_force: {when: "totals.failures_10m >= 3"}
`, j.name), 0o644)
}

// do runs a verb to its end.
func (j *job) do(ctx context.Context, bin binary, in io.Reader, verb string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, bin.path, append([]string{verb, "--job", j.file, "--brokers", strings.Join(j.brokers, ",")}, args...)...)
	var fault bytes.Buffer
	cmd.Stdin, cmd.Stderr, cmd.Dir = in, &fault, j.dir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("tidemark %s: %w\n%s%s", verb, err, out, fault.Bytes())
	}
	return out, nil
}

// fill produces events and works them off.
func (j *job) fill(ctx context.Context, bin binary, events func(w io.Writer) error) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(events(w)) }()
	if _, err := j.do(ctx, bin, r, "produce", "--create-topics", "--partitions", "4"); err != nil {
		return err
	}
	_, err := j.do(ctx, bin, nil, "run", "--until-caught-up")
	return err
}

// twoEach writes two events for each of n IDs.
func twoEach(n int) func(io.Writer) error {
	return func(to io.Writer) error {
		w, begin := bufio.NewWriterSize(to, 1<<16), time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
		for i := range 2 * n {
			kind := "accepted_password"
			if i%5 == 0 {
				kind = "failed_password"
			}
			fmt.Fprintf(w, `{"id":%q,"type":%q,"time":%q,"value":%d.%02d}`+"\n", idText(i%n), kind,
				begin.Add(time.Duration(i)*10*time.Millisecond).Format(time.RFC3339Nano), i*7919%1000, i%97)
		}
		return w.Flush()
	}
}

func idText(n int) string { return "u-" + strconv.Itoa(10_000_000 + n)[1:] }

// view is `tidemark view` at work.
type view struct {
	*process
	addr string
	took time.Duration   // from the start of the process until it answered
	told map[string]bool // what it said of its progress meanwhile
}

// view starts a view whose local state lies in a directory.
func (j *job) view(ctx context.Context, bin binary, state string) (*view, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p, err := startProcess(bin.name, nil, bin.path, "view", "--job", j.file, "--brokers", strings.Join(j.brokers, ","), "--listen", addr, "--state", state)
	if err != nil {
		return nil, err
	}
	v := &view{process: p, addr: addr, told: map[string]bool{}}
	if err := p.await(ctx, 10*time.Minute, v.ready); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	v.took = time.Since(p.started)
	return v, nil
}

func (v *view) url() string { return "http://" + v.addr }

func (v *view) ready() error {
	resp, err := http.Get(v.url() + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		v.told[string(text)] = true
		return errors.Join(err, errors.New(resp.Status+": "+string(text)))
	}
	return nil
}

// states are what a job knows of its IDs, as it says it: the state of idText(n) at n.
func (j *job) states(ctx context.Context, bin binary, n int) ([]string, error) {
	dump, err := j.do(ctx, bin, nil, "dump")
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, n)
	for line := range strings.Lines(string(dump)) { // in order of the IDs
		var s struct{ ID string }
		if err := json.Unmarshal([]byte(line), &s); err != nil || s.ID != idText(len(out)) {
			return nil, fmt.Errorf("the dump has %.60q where %s was to be: %w", line, idText(len(out)), err)
		}
		out = append(out, strings.TrimSuffix(line, "\n"))
	}
	if len(out) != n {
		return nil, fmt.Errorf("the dump has %d states, want %d", len(out), n)
	}
	return out, nil
}
