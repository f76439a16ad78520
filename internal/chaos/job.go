package chaos

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/tidemark/tidemark/rules"
)

// jobFile is the job of every run. NAME becomes the run's own name.
const jobFile = `name: NAME
input:
  topic: NAME-events
  id: event.id
  time: event.time
  allowed_lateness: 1h
totals:
  sum:    {sum: event.value}
  hash:   {sum: event.hash}
  max:    {max: event.value}
  recent: {count: true, when: event.hit, window: 5s}
flags:
  busy: {when: totals.recent >= 3, clear: totals.recent < 1}
`

const (
	totalSum    = "sum"
	totalHash   = "hash"
	totalMax    = "max"
	totalRecent = "recent"
	flagBusy    = "busy"

	recentMs   = 5_000 // the window of totalRecent, inclusive at both ends
	raiseAt    = 3
	clearBelow = 1
)

func loadJob(name string) (*rules.RuleSet, error) {
	return rules.Load([]byte(strings.ReplaceAll(jobFile, "NAME", name)))
}

// event is one event of a run. value is in hundredths; hash is below 1<<48.
type event struct {
	id     string
	timeMs int64
	value  int64
	hash   uint64
	hit    bool
}

// appendJSON appends the event as the input topic has it.
func (e *event) appendJSON(dst []byte) []byte {
	dst = append(dst, `{"id":"`...)
	dst = append(dst, e.id...)
	dst = append(dst, `","time":`...)
	dst = strconv.AppendInt(dst, e.timeMs, 10)
	dst = append(dst, `,"value":`...)
	dst = append(dst, cents(e.value)...)
	dst = append(dst, `,"hash":`...)
	dst = strconv.AppendUint(dst, e.hash, 10)
	dst = append(dst, `,"hit":`...)
	dst = strconv.AppendBool(dst, e.hit)
	return append(dst, '}')
}

// cents writes hundredths as a decimal without trailing zeros, which is how totals are shown.
func cents(n int64) string {
	var b bytes.Buffer
	if n < 0 {
		b.WriteByte('-')
		n = -n
	}
	b.WriteString(strconv.FormatInt(n/100, 10))
	if n%100 != 0 {
		frac := strconv.FormatInt(100+n%100, 10)[1:]
		b.WriteString("." + strings.TrimRight(frac, "0"))
	}
	return b.String()
}

// hundredths reads what cents wrote.
func hundredths(text string) (int64, error) {
	whole, frac, _ := strings.Cut(text, ".")
	if len(frac) > 2 {
		return 0, fmt.Errorf("value %s is finer than hundredths", text)
	}
	return strconv.ParseInt(whole+frac+"00"[len(frac):], 10, 64)
}
