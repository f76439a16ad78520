package main

import (
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/ingest"
)

// ingestFlags are those of the verbs that serve a view.
type ingestFlags struct {
	Ingest            bool   `group:"ingest" help:"Let the view take events: POST /v1/events and the RPC Produce write them into the job's input topic. Whoever can ask the view can then also make it count."`
	IngestInflightMib int64  `name:"ingest-inflight-mib" group:"ingest" default:"64" placeholder:"N" help:"The most that is on its way to Kafka for all callers together, in MiB (64). What comes on top is refused with 429."`
	IngestKey         string `group:"ingest" placeholder:"MEMBER" help:"For a job whose ID is the record's key: the member of an event that is to be the key, such as user.id."`
}

// ingest makes what takes the events; nil where none are taken.
func (f *ingestFlags) ingest(conn *connection, registry *prometheus.Registry, log *slog.Logger) (*ingest.Ingest, error) {
	if !f.Ingest {
		if f.IngestKey != "" {
			return nil, usagef("--ingest-key is for a view that takes events: say --ingest too")
		}
		return nil, nil
	}
	if f.IngestInflightMib < 1 || f.IngestInflightMib > 1<<20 {
		return nil, usagef("--ingest-inflight-mib %d: want 1 to 1048576", f.IngestInflightMib)
	}
	id := conn.rules.Job().Input.ID
	switch {
	case id == "" && f.IngestKey == "":
		return nil, usagef("the job's ID is the record's key, and an event that comes over HTTP has none: say --ingest-key MEMBER, such as --ingest-key user.id")
	case id != "" && f.IngestKey != "":
		return nil, usagef("--ingest-key is for a job whose ID is the record's key; in this one it is %s", id)
	}
	cfg := ingest.Config{
		Kafka: conn.kafka, Names: conn.job.Names, Rules: conn.rules, InflightBytesMax: f.IngestInflightMib << 20, Metrics: registry, Logger: log,
	}
	if f.IngestKey != "" {
		cfg.Key = codecs.Path(strings.Split(f.IngestKey, "."))
	}
	return ingest.New(cfg)
}
