// Package deps keeps the module file complete while the packages are being written.
package deps

import (
	_ "cel.dev/cel-go/cel"
	_ "github.com/IBM/sarama"
	_ "github.com/alecthomas/kong"
	_ "github.com/cockroachdb/apd/v3"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/lovoo/goka"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/stretchr/testify/require"
	_ "github.com/syndtr/goleveldb/leveldb"
	_ "github.com/twmb/franz-go/pkg/kadm"
	_ "github.com/twmb/franz-go/pkg/kfake"
	_ "github.com/twmb/franz-go/pkg/kgo"
	_ "github.com/xdg-go/scram"
	_ "go.uber.org/goleak"
	_ "go.yaml.in/yaml/v4"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/term"
	_ "google.golang.org/protobuf/proto"
	_ "pgregory.net/rapid"
)
