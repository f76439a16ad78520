package goka

import (
	"fmt"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"

	"github.com/tidemark/tidemark/eos"
)

// valueCodec has one table record for a value, of the test's codec.
type valueCodec struct{ of goka.Codec }

func (c valueCodec) Decode(_ string, base []byte, _ func([]byte) ([]byte, error)) (any, error) {
	return c.of.Decode(base)
}

func (c valueCodec) Encode(key string, value any, write func(key, value []byte)) error {
	if value == nil {
		write([]byte(key), nil)
		return nil
	}
	data, err := c.of.Encode(value)
	if err == nil {
		write([]byte(key), data)
	}
	return err
}

func (valueCodec) MemoryBytes(any) int64 { return 64 }

// callbackContext is Goka's under another name, which leaves Context to the method.
type callbackContext interface{ goka.Context }

// record carries the callback's context over to the unit's work. What it does not define, no test asks for.
type record struct {
	callbackContext
	group Group
	work  *eos.Work
	msg   *sarama.ConsumerMessage
}

// failure is what Fail panics with, as Goka's own does.
type failure struct{ error }

func newHandler(group Group, in input) func(int32) eos.Handler {
	return func(int32) eos.Handler {
		return func(work *eos.Work, msg *sarama.ConsumerMessage) (err error) {
			value, err := in.codec.Decode(msg.Value)
			if err != nil {
				return err
			}
			defer func() {
				switch p := recover().(type) {
				case nil:
				case failure:
					err = p.error
				default:
					panic(p)
				}
			}()
			in.callback(&record{group: group, work: work, msg: msg}, value)
			return nil
		}
	}
}

func (r *record) Topic() Stream    { return Stream(r.msg.Topic) }
func (r *record) Key() string      { return string(r.msg.Key) }
func (r *record) Partition() int32 { return r.msg.Partition }
func (r *record) Offset() int64    { return r.msg.Offset }
func (r *record) Group() Group     { return r.group }

func (r *record) Value() any {
	value, err := r.work.Get(r.Key())
	if err != nil {
		r.Fail(err)
	}
	return value
}

func (r *record) SetValue(value any, _ ...goka.ContextOption) { r.work.Put(r.Key(), value) }
func (r *record) Delete(...goka.ContextOption)                { r.work.Put(r.Key(), nil) }

// Emit fails: no test declares an output.
func (r *record) Emit(topic Stream, _ string, _ any, _ ...goka.ContextOption) {
	r.Fail(fmt.Errorf("%s is no output of the group", topic))
}

func (r *record) Fail(err error) { panic(failure{err}) }
