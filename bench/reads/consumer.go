package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The consumer that Tidemark replaces, as one would write it with care: it takes what a fetch gives, folds it in memory, writes
// each ID that has changed once, with the positions, in one go, and then commits the offsets. It counts at least once.

// consumerArgument makes the program a consumer.
const consumerArgument = "reads-consumer"

// folded is the state of an ID. The window is left out, and so are the flags: there is less to do here than in the job.
type folded struct {
	ID        string `json:"id"`
	Version   uint64 `json:"version,string"`
	Count     uint64 `json:"count,string"`
	FirstTime string `json:"first_time"`
	LastTime  string `json:"last_time"`
	Totals    struct {
		Sum      string `json:"sum"`
		Least    string `json:"least"`
		Greatest string `json:"greatest"`
	} `json:"totals"`

	sum, least, greatest *big.Rat
}

// event is one of the input.
type event struct {
	ID    string
	Time  string
	Value json.Number
}

func (f *folded) add(e *event) error {
	v, ok := new(big.Rat).SetString(e.Value.String())
	if !ok {
		return fmt.Errorf("value %q", e.Value)
	}
	if f.Count == 0 {
		f.ID, f.FirstTime, f.sum, f.least, f.greatest = e.ID, e.Time, new(big.Rat), v, v
	}
	f.Version, f.Count, f.LastTime = f.Version+1, f.Count+1, e.Time
	f.sum.Add(f.sum, v)
	if v.Cmp(f.least) < 0 {
		f.least = v
	}
	if v.Cmp(f.greatest) > 0 {
		f.greatest = v
	}
	f.Totals.Sum, f.Totals.Least, f.Totals.Greatest = f.sum.FloatString(2), f.least.FloatString(2), f.greatest.FloatString(2)
	return nil
}

// changed is what a fetch has changed.
type changed struct {
	states map[string]*folded
	next   map[int32]int64
}

// writer writes what has changed.
type writer func(ctx context.Context, c *changed) error

func runConsumer(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) != 4 {
		return fmt.Errorf("want brokers, job, store and url, got %q", args)
	}
	write, err := map[string]func(context.Context, string) (writer, error){"redis": redisWriter, "postgres": postgresWriter}[args[2]](ctx, args[3])
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(args[0], ",")...), kgo.ConsumeTopics(args[1]+"-events"), kgo.ConsumerGroup(args[1]+"-consumer"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.FetchMinBytes(1))
	if err != nil {
		return err
	}
	defer cl.Close()
	for states := map[string]*folded{}; ; {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		c := &changed{states: map[string]*folded{}, next: map[int32]int64{}}
		var fault error
		fetches.EachRecord(func(r *kgo.Record) {
			var e event
			if err := json.Unmarshal(r.Value, &e); err != nil {
				fault = err
				return
			}
			f := states[e.ID]
			if f == nil {
				f = &folded{}
				states[e.ID] = f
			}
			if err := f.add(&e); err != nil {
				fault = err
			}
			c.states[e.ID], c.next[r.Partition] = f, r.Offset+1
		})
		if fault != nil {
			return fault
		}
		if len(c.states) == 0 {
			continue
		}
		if err := write(ctx, c); err != nil {
			return err
		}
		if err := cl.CommitUncommittedOffsets(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func redisWriter(_ context.Context, addr string) (writer, error) {
	c := redisClient(addr, 1)
	return func(ctx context.Context, changed *changed) error {
		_, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error {
			for id, f := range changed.states {
				text, err := json.Marshal(f)
				if err != nil {
					return err
				}
				p.Set(ctx, id, text, 0)
			}
			for partition, next := range changed.next {
				p.Set(ctx, positionKey(partition), next, 0)
			}
			return nil
		})
		return err
	}, nil
}

func positionKey(partition int32) string { return "position:" + strconv.Itoa(int(partition)) }

func postgresWriter(ctx context.Context, url string) (writer, error) {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, changed *changed) error {
		var ids, states []string
		for id, f := range changed.states {
			text, err := json.Marshal(f)
			if err != nil {
				return err
			}
			ids, states = append(ids, id), append(states, string(text))
		}
		batch := &pgx.Batch{} // one round trip, one transaction
		batch.Queue("INSERT INTO states SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT (id) DO UPDATE SET state = excluded.state", ids, states)
		for partition, next := range changed.next {
			batch.Queue("INSERT INTO positions VALUES ($1, $2) ON CONFLICT (partition) DO UPDATE SET next = excluded.next", partition, next)
		}
		return c.SendBatch(ctx, batch).Close()
	}, nil
}

// redisPipeline is a consumer that writes to Redis.
func (b *bench) redisPipeline(ctx context.Context, j *job) (func(context.Context) ([partitions]int64, error), func() error, error) {
	r, addr, err := startRedis(ctx, j.dir)
	if err != nil {
		return nil, nil, err
	}
	c := redisClient(addr, 1)
	keys := make([]string, partitions)
	for p := range keys {
		keys[p] = positionKey(int32(p))
	}
	return b.consumed(ctx, j, r, "redis", addr, func(ctx context.Context) (next [partitions]int64, err error) {
		all, err := c.MGet(ctx, keys...).Result()
		if err != nil {
			return next, err
		}
		for p := range next {
			if text, ok := all[p].(string); ok {
				if next[p], err = strconv.ParseInt(text, 10, 64); err != nil {
					return next, err
				}
			}
		}
		return next, nil
	})
}

// postgresPipeline is a consumer that writes to Postgres, each batch in one transaction.
func (b *bench) postgresPipeline(ctx context.Context, j *job) (func(context.Context) ([partitions]int64, error), func() error, error) {
	p, url, err := startPostgres(ctx, j.dir)
	if err != nil {
		return nil, nil, err
	}
	c, err := pgx.Connect(ctx, url)
	if err == nil {
		_, err = c.Exec(ctx, "CREATE TABLE states (id text PRIMARY KEY, state text NOT NULL); CREATE TABLE positions (partition int PRIMARY KEY, next bigint NOT NULL)")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w (%w)", err, p.stop())
	}
	return b.consumed(ctx, j, p, "postgres", url, func(ctx context.Context) (next [partitions]int64, err error) {
		rows, err := c.Query(ctx, "SELECT partition, next FROM positions")
		if err != nil {
			return next, err
		}
		var partition int32
		var n int64
		_, err = pgx.ForEachRow(rows, []any{&partition, &n}, func() error { next[partition] = n; return nil })
		return next, err
	})
}

// consumed starts the consumer of a store, and waits until it has written something of each partition.
func (b *bench) consumed(ctx context.Context, j *job, store *process, kind, url string, positions func(context.Context) ([partitions]int64, error)) (func(context.Context) ([partitions]int64, error), func() error, error) {
	p, err := startConsumer(j, kind, url)
	if err != nil {
		return nil, nil, fmt.Errorf("%w (%w)", err, store.stop())
	}
	stop := func() error {
		err := p.stop()
		if err2 := store.stop(); err == nil {
			err = err2
		}
		return err
	}
	err = p.await(ctx, time.Minute, func() error {
		next, err := positions(ctx)
		for _, n := range next {
			if err == nil && n == 0 {
				err = fmt.Errorf("nothing of some partition was written yet: %v", next)
			}
		}
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("%w (%w)", err, stop())
	}
	return positions, stop, nil
}
