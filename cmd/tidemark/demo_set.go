package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/tidemark/tidemark/rules"
	"github.com/tidemark/tidemark/testdata"
)

// demoSet is a real data set that the program carries.
type demoSet struct {
	name, dir      string
	title, source  string
	ids            string            // what IDs are
	totals         []string          // shown beside an ID
	words          map[string]string // what each flag asks
	label, telling []string          // members of an event: to call its ID by, and to show of it
}

var demoSets = []*demoSet{
	{
		name: "ssh-auth", dir: "ssh_auth", ids: "addresses",
		title:  "three weeks of a public server's SSH log, one ID per client address",
		source: "Elastic, github.com/elastic/examples, Apache License 2.0",
		totals: []string{"sum"},
		words: map[string]string{
			"third_failure_10m":          "three wrong passwords within 10 minutes",
			"ten_attempts_10m":           "ten attempts within 10 minutes, repeated ones counted too",
			"login_after_3_failures_60m": "somebody got in within an hour of three wrong passwords",
		},
		telling: []string{"message"},
	},
	{
		name: "hurdat2-storms", dir: "hurdat2_storms", ids: "storms",
		title:  "all Atlantic tropical cyclones 1851-2025, one ID per storm, wind in knots",
		source: "NOAA National Hurricane Center (HURDAT2), public domain",
		totals: []string{"max"},
		words: map[string]string{
			"hurricane_wind":            "wind of 64 knots or more",
			"hurricane_landfall":        "landfall with 64 knots or more",
			"rapid_intensification_24h": "30 knots more than the least of the 24 hours before",
			"three_landfalls_48h":       "three landfalls within 48 hours",
		},
		label: []string{"name"}, telling: []string{"name", "type", "value", "record_id", "lat", "lon", "min_pres"},
	},
	{
		name: "nab-metrics", dir: "nab_metrics", ids: "series",
		title:  "47 real metrics of servers, machines, traffic and tweets, one ID per series",
		source: "Numenta Anomaly Benchmark, github.com/numenta/NAB, MIT licence",
		totals: []string{"max"},
		words: map[string]string{
			"spike_3x_running_mean": "more than three times the mean of everything before",
			"three_over_90_15m":     "three values of 90 or more within 15 minutes",
			"gap_over_2h":           "more than two hours without a value",
		},
		telling: []string{"value", "anomaly"},
	},
}

// demoSetOf finds a data set by its name or its directory.
func demoSetOf(name string) (*demoSet, error) {
	var known []string
	for _, s := range demoSets {
		if name == s.name || name == s.dir {
			return s, nil
		}
		known = append(known, s.name)
	}
	return nil, usagef("there is no data set %q: there are %s", name, strings.Join(known, ", "))
}

// file reads one of the set's files, unpacked if it is packed.
func (s *demoSet) file(name string) ([]byte, error) {
	b, err := testdata.Files.ReadFile(path.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(name, ".gz") {
		return b, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("unpack %s/%s: %w", s.dir, name, err)
	}
	return io.ReadAll(z)
}

// lines gives the lines of a file of NDJSON.
func (s *demoSet) lines(name string) ([][]byte, error) {
	b, err := s.file(name)
	if err != nil {
		return nil, err
	}
	return bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")), nil
}

func (s *demoSet) rules() (*rules.RuleSet, error) {
	src, err := s.file("job.yaml")
	if err != nil {
		return nil, err
	}
	return rules.Load(src)
}

// oracleEntry is what independent programs say of one ID.
type oracleEntry struct {
	ID      string                `json:"id"`
	Count   int64                 `json:"count"`
	Sum     *string               `json:"sum"`
	Min     *string               `json:"min"`
	Max     *string               `json:"max"`
	FirstMs int64                 `json:"first_ms"`
	LastMs  int64                 `json:"last_ms"`
	Flags   map[string]oracleFlag `json:"flags"`
}

// oracleFlag says which line raised a flag, counted from 0.
type oracleFlag struct {
	Line int64     `json:"line"`
	Time time.Time `json:"time"`
}

func (s *demoSet) oracle() (map[string]*oracleEntry, error) {
	lines, err := s.lines("oracle.ndjson.gz")
	if err != nil {
		return nil, err
	}
	all := make(map[string]*oracleEntry, len(lines))
	for _, line := range lines {
		e := &oracleEntry{}
		if err := json.Unmarshal(line, e); err != nil {
			return nil, fmt.Errorf("oracle of %s: %w", s.name, err)
		}
		all[e.ID] = e
	}
	return all, nil
}
