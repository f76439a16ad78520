package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"time"

	"github.com/redis/go-redis/v9"
)

// startRedis starts a Redis that keeps no files.
func startRedis(ctx context.Context, dir string) (p *process, addr string, err error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, "", errors.New("no redis-server in PATH (Debian: apt-get install redis-server)")
	}
	if addr, err = freeAddr(); err != nil {
		return nil, "", err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, "", err
	}
	p, err = startProcess("Redis", nil, path, "--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", "", "--appendonly", "no")
	if err != nil {
		return nil, "", err
	}
	c := redisClient(addr, 1)
	defer c.Close()
	return p, addr, p.await(ctx, time.Minute, func() error { return c.Ping(ctx).Err() })
}

func redisClient(addr string, connections int) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: addr, PoolSize: connections, MinIdleConns: connections, MaxIdleConns: connections})
}

// fillRedis writes the states.
func fillRedis(ctx context.Context, addr string, states []string) error {
	c := redisClient(addr, 1)
	defer c.Close()
	for first := 0; first < len(states); first += 10_000 {
		_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
			for n := first; n < min(first+10_000, len(states)); n++ {
				p.Set(ctx, idText(n), states[n], 0)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("write to Redis: %w", err)
		}
	}
	return nil
}

// redisCaller asks by GET and MGET. The client has as many connections as there are callers.
type redisCaller struct {
	c      *redis.Client
	states []string
}

func openRedis(addr string, states []string) func(context.Context, int) (*session, error) {
	return func(_ context.Context, callers int) (*session, error) {
		c := redisClient(addr, callers)
		s := &session{close: c.Close}
		for range callers {
			s.callers = append(s.callers, &redisCaller{c, states})
		}
		return s, nil
	}
}

func (r *redisCaller) get(ctx context.Context, id int) error {
	got, err := r.c.Get(ctx, idText(id)).Result()
	if err != nil || got != r.states[id] {
		return wrong(id, got, err)
	}
	return nil
}

func (r *redisCaller) batch(ctx context.Context, ids []int) error {
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = idText(id)
	}
	all, err := r.c.MGet(ctx, keys...).Result()
	if err != nil || len(all) != len(ids) {
		return wrong(ids[0], fmt.Sprintf("%d values", len(all)), err)
	}
	for i, id := range ids {
		if got, ok := all[i].(string); !ok || got != r.states[id] {
			return wrong(id, got, nil)
		}
	}
	return nil
}

// wrong is an answer that is not what it must be.
func wrong(id int, got string, err error) error {
	return errors.Join(fmt.Errorf("%w: %s: got %.200q", errWrong, idText(id), got), err)
}

var errWrong = errors.New("an answer is not what it must be")
