package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// get measures reads of IDs.
func (b *bench) get(ctx context.Context) (err error) {
	contenders, stop, err := b.contenders(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	all := map[kind]map[string][]figures{}
	for round := range b.rounds {
		for _, k := range kinds {
			for i := range contenders {
				c := &contenders[(i+round)%len(contenders)]
				f, err := b.measure(ctx, c, k, uint64(round*1000))
				if err != nil {
					return errors.Join(errors.New(c.name), err)
				}
				if all[k] == nil {
					all[k] = map[string][]figures{}
				}
				all[k][c.name] = append(all[k][c.name], f)
			}
		}
	}
	for _, k := range kinds {
		b.print(k, contenders, all[k])
	}
	return nil
}

// contenders are the services at work, with the same states in each.
func (b *bench) contenders(ctx context.Context) (out []contender, stop func() error, err error) {
	var stops []func() error
	stop = func() error {
		var errs []error
		for _, s := range slices.Backward(stops) {
			errs = append(errs, s())
		}
		return errors.Join(errs...)
	}
	j, err := b.job("get")
	if err != nil {
		return nil, stop, err
	}
	bin := b.binaries[len(b.binaries)-1]
	began := time.Now()
	if err := j.fill(ctx, bin, twoEach(b.ids)); err != nil {
		return nil, stop, err
	}
	states, err := j.states(ctx, bin, b.ids)
	if err != nil {
		return nil, stop, err
	}
	decoded, err := knownOf(states)
	if err != nil {
		return nil, stop, err
	}
	b.logf("%d IDs are filled (%.1f s); a state is %s", b.ids, time.Since(began).Seconds(), states[0])
	for _, bin := range b.binaries {
		if err := b.restarts(ctx, j, bin, b.ids); err != nil {
			return nil, stop, err
		}
		v, err := j.view(ctx, bin, filepath.Join(j.dir, "view-"+bin.name))
		if err != nil {
			return nil, stop, err
		}
		stops = append(stops, v.stop)
		out = append(out,
			contender{bin.name + ", REST over a bare socket", v.process, openBare(v.url(), states)},
			contender{bin.name + ", REST, fasthttp", v.process, openLean(v.url(), states)},
			contender{bin.name + ", REST, net/http", v.process, openHTTP(v.url(), states)},
			contender{bin.name + ", gRPC", v.process, openGRPC(v.addr, decoded, false)},
			contender{bin.name + ", gRPC, a connection each", v.process, openGRPC(v.addr, decoded, true)},
		)
	}
	r, addr, err := startRedis(ctx, b.dir)
	if err != nil {
		return nil, stop, err
	}
	stops = append(stops, r.stop)
	p, url, err := startPostgres(ctx, b.dir)
	if err != nil {
		return nil, stop, err
	}
	stops = append(stops, p.stop)
	if err := errors.Join(fillRedis(ctx, addr, states), fillPostgres(ctx, url, states)); err != nil {
		return nil, stop, err
	}
	out = append(out, contender{"Redis", r, openRedis(addr, states)}, contender{"Postgres", p, openPostgres(url, states)})
	return slices.DeleteFunc(out, func(c contender) bool { return !b.wants(c.name) }), stop, nil
}

func (b *bench) wants(name string) bool {
	return b.only == "" || slices.ContainsFunc(strings.Split(b.only, "|"), func(part string) bool { return strings.Contains(name, part) })
}
