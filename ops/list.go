package ops

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tidemark/tidemark/codecs"
)

// Filter chooses IDs.
type Filter struct {
	Prefix string
	Flag   string // IDs that bear it; "" is all
}

// check refuses a flag that the job does not have.
func (f *Filter) check(s *codecs.Schema) (flag int, err error) {
	if f.Flag == "" {
		return -1, nil
	}
	flag = slices.Index(s.Flags, f.Flag)
	if flag < 0 {
		known := "it has none"
		if len(s.Flags) > 0 {
			known = "it has " + strings.Join(s.Flags, ", ")
		}
		return 0, &Problem{What: fmt.Sprintf("job %s has no flag %q", s.Job, f.Flag), Mend: known}
	}
	return flag, nil
}

// ScanReport is what List and Dump have been through.
type ScanReport struct {
	IDs    int64
	Places []Place
}

// List reads the whole table from Kafka and calls use with each ID of the filter, in byte order.
func (j *Job) List(ctx context.Context, f Filter, tell Progress, use func(id string) error) (*ScanReport, error) {
	return j.scan(ctx, f, tell, func(id string, _ *codecs.State) error { return use(id) })
}

// scan calls use with each ID of the filter and its state, which is good until the next one.
func (j *Job) scan(ctx context.Context, f Filter, tell Progress, use func(id string, st *codecs.State) error) (*ScanReport, error) {
	flag, err := f.check(j.Schema)
	if err != nil {
		return nil, err
	}
	t, err := j.openTable(ctx, nil, func(key []byte) bool { return strings.HasPrefix(string(key), f.Prefix) }, tell)
	if err != nil {
		return nil, err
	}
	report := &ScanReport{Places: t.Places(j.Input)}
	var st codecs.State
	err = t.Each(f.Prefix, func(id string, stored []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := j.decode(id, stored, &st); err != nil {
			return err
		}
		if flag >= 0 && !st.Flags[flag].Raised {
			return nil
		}
		report.IDs++
		return use(id, &st)
	})
	return report, closing(t, err)
}
