package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// network has a proxy on the link of each process to each broker, so that what happens to one link happens to no other. The
// processes dial the proxy of a broker in place of its address (eos.Kafka.Dial); brokers advertise what they are.
type network struct {
	brokers []string
	links   map[link]*toxiproxy.Proxy
}

type link struct{ from, broker string }

func newNetwork(brokers []string) *network {
	return &network{brokers: brokers, links: map[link]*toxiproxy.Proxy{}}
}

// connect opens the links of a process and answers where it reaches each broker.
func (n *network) connect(from string) (via map[string]string, err error) {
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	via = map[string]string{}
	for _, broker := range n.brokers {
		p := toxiproxy.NewProxy(server, from+" to "+broker, "127.0.0.1:0", broker)
		if err := p.Start(); err != nil {
			return nil, fmt.Errorf("proxy from %s to broker %s: %w", from, broker, err)
		}
		n.links[link{from, broker}], via[broker] = p, p.Listen
	}
	return via, nil
}

func (n *network) close() {
	for _, p := range n.links {
		p.Stop()
	}
}

// The ways in which a link suffers, in the words of toxiproxy. A toxic that times out after 0 ms keeps the connection open and
// lets nothing through: the other side is as silent as a machine that has lost its power.
const (
	delayed = `{"name":%[1]q,"type":"latency","stream":%[2]q,"attributes":{"latency":%[3]d,"jitter":%[4]d}}`
	silent  = `{"name":%[1]q,"type":"timeout","stream":%[2]q,"attributes":{"timeout":0}}`
)

const (
	towardsBroker = "upstream"
	fromBroker    = "downstream"
)

// harm does what the fault says to links of a process, and answers what that is and how it is undone.
func (n *network) harm(f fault, from string) (what string, heal func(context.Context) error, err error) {
	broker := n.brokers[f.choice%len(n.brokers)]
	one := []*toxiproxy.Proxy{n.links[link{from, broker}]}
	switch f.kind {
	case kindCut, kindViewCut:
		var all []*toxiproxy.Proxy
		for _, b := range n.brokers {
			all = append(all, n.links[link{from, b}])
		}
		return "every broker", cut(all), nil
	case kindCutLink:
		return "broker " + broker, cut(one), nil
	case kindDelay:
		latency := 50 + int(f.seed%350)
		what = fmt.Sprintf("broker %s, by %d ms each way", broker, latency)
		heal, err = poison(one[0], delayed, []string{towardsBroker, fromBroker}, latency, latency/2)
		return what, heal, err
	default:
		streams := [][]string{{towardsBroker}, {fromBroker}, {towardsBroker, fromBroker}}[f.seed%3]
		heal, err = poison(one[0], silent, streams)
		return fmt.Sprintf("broker %s, %v", broker, streams), heal, err
	}
}

// cut closes the connections of links and refuses new ones.
func cut(links []*toxiproxy.Proxy) (heal func(context.Context) error) {
	for _, p := range links {
		p.Stop()
	}
	return func(context.Context) error {
		var all error
		for _, p := range links {
			all = errors.Join(all, p.Start())
		}
		return all
	}
}

// poison puts a toxic on streams of a link, for the connections that are open and those to come.
func poison(p *toxiproxy.Proxy, toxic string, streams []string, args ...any) (heal func(context.Context) error, err error) {
	for _, stream := range streams {
		text := fmt.Appendf(nil, toxic, slices.Concat([]any{stream, stream}, args)...)
		if !json.Valid(text) {
			return nil, fmt.Errorf("toxic %s", text)
		}
		if _, err := p.Toxics.AddToxicJson(bytes.NewReader(text)); err != nil {
			return nil, fmt.Errorf("toxic %s: %w", text, err)
		}
	}
	return func(ctx context.Context) error {
		var all error
		for _, stream := range streams {
			all = errors.Join(all, p.Toxics.RemoveToxic(ctx, stream))
		}
		return all
	}, nil
}

// doNetwork harms links of a process for as long as the fault lasts.
func (r *run) doNetwork(ctx context.Context, f fault, s *slot) error {
	what, heal, err := r.network.harm(f, s.task.Instance)
	if err != nil {
		return err
	}
	r.say("  %s: %s", s.task.Instance, what)
	if err := pause(ctx, f.lasts); err != nil {
		return nil // the end of the run closes every link
	}
	r.mark(markNetwork)
	r.say("  %s has its network back", s.task.Instance)
	return heal(ctx)
}
