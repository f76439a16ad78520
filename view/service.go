package view

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

const (
	limitDefault = 100
	limitMax     = 1000
)

// What the service does, in the order of view.proto. Every transport turns what it is sent into the request and what it is
// given into bytes; nothing is decided there.

// generation of the job that the view answers for.
func (v *View) generation() uint32 { return max(v.cfg.Names.Generation, 1) }

func (v *View) one(ctx context.Context, req *pb.GetRequest) (*oneAnswer, error) {
	read, err := readOf(req)
	if err != nil {
		return nil, err
	}
	a := &oneAnswer{schema: v.cfg.Schema, id: req.Id}
	a.asOf, err = v.Get(ctx, req.Id, read, &a.state)
	if err != nil {
		return nil, noneOf(req.Id, &a.asOf, err)
	}
	return a, nil
}

// noneOf is the error of reading an ID; where nothing was found, it says of which and as of when.
func noneOf(id string, asOf *AsOf, err error) error {
	if errors.Is(err, ErrNotFound) {
		return &failure{code: connect.CodeNotFound, message: fmt.Sprintf("no event of ID %s was counted", strconv.QuoteToASCII(id)), asOf: asOf}
	}
	return err
}

func (v *View) batch(ctx context.Context, req *pb.BatchGetRequest) (*batchAnswer, error) {
	read, err := readOf(req)
	if err != nil {
		return nil, err
	}
	states, asOf, err := v.BatchGet(ctx, req.Ids, read)
	if err != nil {
		return nil, err
	}
	return &batchAnswer{v.cfg.Schema, req.Ids, states, asOf}, nil
}

func (v *View) list(ctx context.Context, req *pb.ListRequest) (*pageAnswer, error) {
	read, err := readOf(req)
	if err != nil {
		return nil, err
	}
	if err := checkPrefix(req.Prefix); err != nil {
		return nil, err
	}
	return v.page(ctx, pageToken{Prefix: req.Prefix}, req.PageToken, req.Limit, read)
}

func (v *View) listByFlag(ctx context.Context, req *pb.ListByFlagRequest) (*pageAnswer, error) {
	read, err := readOf(req)
	if err != nil {
		return nil, err
	}
	if req.Flag == "" {
		return nil, v.noFlag("")
	}
	return v.page(ctx, pageToken{Flag: req.Flag}, req.PageToken, req.Limit, read)
}

// page gives the page of a list that begins where a token says.
func (v *View) page(ctx context.Context, list pageToken, begin string, limit *int32, read Read) (*pageAnswer, error) {
	list.Generation = v.generation()
	after, err := list.resume(begin)
	if err != nil {
		return nil, err
	}
	f := Filter{Prefix: list.Prefix, Flag: list.Flag, After: after, Limit: limitDefault}
	if limit != nil {
		if f.Limit = int(*limit); f.Limit < 1 || f.Limit > limitMax {
			return nil, &Invalid{fmt.Sprintf("limit is a number from 1 to %d, got %d", limitMax, f.Limit)}
		}
	}
	a := &pageAnswer{schema: v.cfg.Schema}
	var more bool
	if a.entries, more, a.asOf, err = v.List(ctx, f, read); err != nil {
		return nil, err
	}
	if more {
		list.After = a.entries[len(a.entries)-1].ID
		a.next = list.String()
	}
	return a, nil
}

// reading is what requests of reads have in common.
type reading interface {
	GetAtLeast() string
	GetWait() *durationpb.Duration
	GetMaxAge() *durationpb.Duration
}

func readOf(req reading) (r Read, err error) {
	r.AtLeast = req.GetAtLeast()
	if r.Wait, err = durationOf("wait", req.GetWait()); err != nil {
		return r, err
	}
	r.MaxAge, err = durationOf("max_age", req.GetMaxAge())
	return r, err
}

func durationOf(name string, d *durationpb.Duration) (*time.Duration, error) {
	if d == nil {
		return nil, nil
	}
	if err := d.CheckValid(); err != nil || d.Seconds < 0 || d.Nanos < 0 {
		return nil, &Invalid{name + " is a duration such as 0.5s, not below zero"}
	}
	out := d.AsDuration() // what is too long for it becomes the longest
	return &out, nil
}

func (v *View) status() *pb.StatusResponse {
	st := v.Status()
	out := &pb.StatusResponse{
		Job: v.cfg.Names.Job, Rules: v.cfg.Schema.Digest, Generation: v.generation(), Build: build(),
		Ready: st.Ready, Why: st.Why, Rekeyed: st.Rekeyed,
		Totals: v.cfg.Schema.Totals, Flags: v.cfg.Schema.Flags,
	}
	age, tableAge := NotKnown, NotKnown
	for i := range st.Partitions {
		p := &st.Partitions[i]
		if i == 0 {
			age, tableAge = p.Age, p.TableAge
		}
		age, tableAge = older(age, p.Age), older(tableAge, p.TableAge)
		one := &pb.PartitionStatus{
			AsOf:     &pb.AsOf{Partition: p.Partition, Position: p.Position, Commit: p.Commit},
			Complete: p.Complete, Age: ageOf(p.Age), TableAge: ageOf(p.TableAge), LagRecords: p.LagRecords, InputEnd: p.InputEnd,
			TableNext: p.TableNext, TableTarget: p.TableTarget, Loaded: p.loaded(), Rebuilt: p.Rebuilt,
		}
		if p.TimeMs != 0 {
			one.AsOf.Time = timestamppb.New(time.UnixMilli(p.TimeMs))
		}
		if p.LagRecords > 0 && p.Age != NotKnown {
			one.LagSeconds = math.Ceil(p.Age.Seconds()*1000) / 1000
		}
		out.Partitions = append(out.Partitions, one)
	}
	out.Age, out.TableAge = ageOf(age), ageOf(tableAge)
	return out
}

func ageOf(d time.Duration) *durationpb.Duration {
	if d == NotKnown {
		return nil
	}
	return durationpb.New(shownAge(d))
}
