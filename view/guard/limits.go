package guard

import (
	"errors"
	"fmt"
	"time"
)

// Limits are what one client, or all of them, may take. The zero value of a field is its default. A client is a principal;
// for callers who are not asked who they are, it is an address (of IPv6, its /64).
type Limits struct {
	BodyBytesMax int64 // of a request (default and most: 2 MiB)
	URLBytesMax  int   // of a request (default 16 KiB)

	RequestsMax       int // under way at once, of those that read and of those that write, streams apart (default 512)
	ClientRequestsMax int // of one client (default 256; where callers are not told apart, RequestsMax)
	StreamsMax        int // under way at once (default 20,000)

	ClientRate  float64 // requests a second of one client (default 10,000; where callers are not told apart, no limit)
	ClientBurst int     // at once (default: those of a second)
	// ClientFailures is how many wrong tokens a second an address may show (default 10, five times as many at once). Beyond
	// it nothing unknown of that address is looked at.
	ClientFailures float64

	ClientsMax int // that are told apart (default 10,000); further ones are one client together
}

// BodyBytesMost is the largest limit of a request's body: a batch of the longest IDs fits.
const BodyBytesMost = 2 << 20

// fill sets what is not set. Alone says that all callers are one client, as on the loopback interface: then what bounds one
// client bounds all.
func (l *Limits) fill(alone bool) {
	usual := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	if l.BodyBytesMax == 0 {
		l.BodyBytesMax = BodyBytesMost
	}
	usual(&l.URLBytesMax, 16<<10)
	usual(&l.RequestsMax, 512)
	usual(&l.StreamsMax, 20_000)
	usual(&l.ClientsMax, 10_000)
	if l.ClientFailures == 0 {
		l.ClientFailures = 10
	}
	if !alone {
		usual(&l.ClientRequestsMax, min(256, l.RequestsMax))
		if l.ClientRate == 0 {
			l.ClientRate = 10_000
		}
	}
	usual(&l.ClientRequestsMax, l.RequestsMax)
	usual(&l.ClientBurst, max(1, int(l.ClientRate)))
}

func (l *Limits) validate() error {
	for name, value := range map[string]float64{
		"BodyBytesMax": float64(l.BodyBytesMax), "URLBytesMax": float64(l.URLBytesMax), "RequestsMax": float64(l.RequestsMax),
		"ClientRequestsMax": float64(l.ClientRequestsMax), "StreamsMax": float64(l.StreamsMax), "ClientRate": l.ClientRate,
		"ClientBurst": float64(l.ClientBurst), "ClientFailures": l.ClientFailures, "ClientsMax": float64(l.ClientsMax),
	} {
		if value < 0 {
			return fmt.Errorf("%s is negative", name)
		}
	}
	if l.BodyBytesMax > BodyBytesMost {
		return fmt.Errorf("BodyBytesMax is %d; no request that a view answers is larger than %d", l.BodyBytesMax, BodyBytesMost)
	}
	if l.ClientBurst > 0 && l.ClientRate == 0 {
		return errors.New("ClientBurst without ClientRate")
	}
	return nil
}

// after is when one more is allowed at a rate, once nothing is left.
func after(perSecond float64) time.Duration {
	return max(time.Second, time.Duration(float64(time.Second)/perSecond))
}
