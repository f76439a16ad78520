// Package testdata holds real events, the job files that ask questions of them, and what independent programs answered. The
// tests read the files; the demo carries them along, so that it works without the repository.
package testdata

import "embed"

// Files has a directory for each data set: events.ndjson.gz, job.yaml, oracle.ndjson.gz, README.md and LICENSE.txt.
//
//go:embed */events.ndjson.gz */job.yaml */oracle.ndjson.gz */README.md */LICENSE.txt
var Files embed.FS
