package chaos

import (
	"fmt"
	"io"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

// Config of a run. Brokers, Dir and Name are needed; Defaults gives the rest.
type Config struct {
	Brokers []string
	Name    string // of the job, new for each run
	Dir     string // gets logs, journal and local state
	Subject string // Tidemark or Stock

	// Cluster, of three brokers at least, has its brokers killed too. nil: they are left alone.
	Cluster *kafkatest.Cluster

	Faults     int
	Events     int // produced at least
	Processors int // at first
	// ProcessorsMax, when it is more, has processors come and go for good, between 1 and so many.
	ProcessorsMax int
	Damage        bool // local state gets damaged
	Network       bool // every process reaches the brokers through proxies, and its links get cut, delayed and silent
	Views         int  // views that are asked all the time; they get killed and frozen too
	// So many token reads there must be at least: of what was just acknowledged, by Readers, from any view.
	TokenReads, Readers int
	Watchers            int  // of everything, a prefix, an ID and a flag, so many each; they go from view to view
	Careless            bool // views overlook what a read names, and lose events of a watch over REST: for the controls
	// LoseReplies is the share of the requests of a commit whose answer never arrives.
	LoseReplies float64
	// Only, if it names kinds of faults, leaves the others out.
	Only []string

	Partitions int
	IDs        int
	Rekey      float64       // the share of IDs of which half the events come under a wrong key
	Session    time.Duration // of the consumer group
	Every      time.Duration // the mean time between two faults
	Apart      time.Duration // and the least
	Down       time.Duration // the least time that a killed process stays down
	Settle     bool          // each fault waits until every partition commits again after the one before, and the group is whole
	// Within bounds the gaps in the commits of a partition that follow a kind of fault, Any for every kind that is not named. The
	// views' silence is bounded by ViewsWithin; 0 is no bound.
	Within      map[string]time.Duration
	ViewsWithin time.Duration
	// So many zombie commits and commits with a lost reply there must be at least, or the run has shown nothing.
	ZombiesMin, RepliesLostMin int
	Seed                       uint64    // of events and faults; their timing is the machine's own
	Out                        io.Writer // progress and the log of faults
}

// Any stands for every kind of fault in Within.
const Any = "any"

// Defaults are those of the long run.
func Defaults() Config {
	return Config{
		Subject: Tidemark, Faults: 30, Events: 300_000, Processors: 2, Partitions: 4, IDs: 1000, Rekey: 0.1,
		Session: 3 * time.Second, Every: 8 * time.Second, Seed: 1, Out: io.Discard,
	}
}

func (c *Config) validate() error {
	switch {
	case len(c.Brokers) == 0 || c.Name == "" || c.Dir == "":
		return fmt.Errorf("chaos: brokers, name and directory are needed")
	case c.Subject != Tidemark && c.Subject != Stock:
		return fmt.Errorf("chaos: no subject %q", c.Subject)
	case c.Subject == Stock && (c.Network || c.Views > 0 || c.LoseReplies > 0):
		return fmt.Errorf("chaos: stock Goka has no views, and no dialer for the proxies")
	case c.Views == 0 && (c.Readers > 0 || c.Watchers > 0), (c.TokenReads > 0) != (c.Readers > 0):
		return fmt.Errorf("chaos: readers and watchers need views, and readers a number of reads")
	case c.LoseReplies < 0 || c.LoseReplies >= 1:
		return fmt.Errorf("chaos: the share of lost replies is in [0, 1)")
	case c.Faults < 0 || c.Events < 1 || c.Processors < 1 || c.Partitions < 1 || c.IDs < 1:
		return fmt.Errorf("chaos: numbers must be positive")
	case len(kinds(c)) == 0:
		return fmt.Errorf("chaos: no kind of fault is left of %q", c.Only)
	case c.Events/c.IDs >= 1<<15:
		return fmt.Errorf("chaos: %d events are too many for %d IDs: sums of hashes must stay below 1<<64", c.Events, c.IDs)
	}
	return nil
}

// rate is how many events a second last about as long as the faults.
func (c *Config) rate() int {
	seconds := max(10, (float64(c.Faults)+1)*c.Every.Seconds())
	return max(100, int(float64(c.Events)/seconds))
}
