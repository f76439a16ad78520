// Package eos is the exactly-once unit of work on Goka's public options: state, outputs and input
// positions of a processor instance change together in one Kafka transaction, or not at all.
//
// It knows nothing of events and rules: records are bytes, values are what the caller's Codec says.
//
// The way of a record: Goka hands a batch to Unit.callback, the Handler reads and writes values
// through Work, the committer cuts what all partitions gathered into one transaction, and only what
// Kafka has committed goes to LevelDB.
package eos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// Handler processes one record of a partition. It is called by one goroutine at a time for each
// partition, in offset order of each topic. An error stops the unit: refusing a record is not an
// error but something the handler emits. The message's bytes may be kept but not changed.
type Handler func(w *Work, msg *sarama.ConsumerMessage) error

// Codec turns values into table records and back. One value may lie in several records: a base
// under its own key, and further ones under keys of the codec's choosing.
type Codec interface {
	// Decode makes the value of key from its base record; read fetches its further records and
	// answers nil where there is none.
	Decode(key string, base []byte, read func(key []byte) ([]byte, error)) (any, error)
	// Encode writes the records of the value that changed since it was last encoded or decoded; a
	// nil value is a tombstone. The bytes may be reused after write returns.
	Encode(key string, value any, write func(key, value []byte)) error
	// MemoryBytes is about how much memory a value holds. The bound of the cache stands on it.
	MemoryBytes(value any) int64
}

// Config of a Unit. Defaults are filled in by New.
type Config struct {
	Kafka    *Kafka
	Names    Names
	Input    string // the input topic; the loop topic comes from Names
	Instance string // a stable slot: client id, and end of the transactional.id
	Digest   string // of the rules; recorded in every position record
	Dir      string // where the LevelDBs of the partitions lie

	Codec      Codec
	NewHandler func(partition int32) Handler

	From   StartFrom // where a new job starts
	Finite bool      // it ends by itself and does not come back soon, so that its end always leaves the group

	PendingBytesMax    int64         // back-pressure: callbacks wait while more than this is uncommitted (default 64 MiB)
	CacheBytesMax      int64         // decoded values kept per partition (default 256 MiB over all partitions owned)
	InflatedBytesMax   int32         // what one compressed record batch may inflate to; a larger one is a fail-stop (default 128 MiB)
	BatchRecordsMax    int           // records that one callback handles under its partition's lock (default 512)
	Linger             time.Duration // wait before a commit when level with the input (default none)
	CatchUpLinger      time.Duration // the same when far behind: fewer, larger commits (default 500 ms)
	CatchUpLag         int64         // records behind at which CatchUpLinger applies (default 20,000)
	SessionTimeout     time.Duration // of the group membership (default 6 s)
	TransactionTimeout time.Duration // after which Kafka aborts what a dead instance left open (default 10 s)
	LocalStateMaxAge   time.Duration // older local state is rebuilt (default 24 h, well under delete.retention.ms)

	Logger   *slog.Logger
	OnCommit func(CommitStats)
	// Trace, if set, is called at each step of a commit and of a takeover; tests crash and freeze there.
	Trace func(step string)
	// Storage, if set, is put around the files of the local state; tests make them fail and slow.
	Storage func(storage.Storage) storage.Storage

	topicsEvery     time.Duration // how often a session looks whether its topics are still the same (default 10 s)
	lastCommits     time.Duration // how long the commits of a session may go on that has ended (default SessionTimeout/2)
	diskBufferBytes int           // a partition's memtable, and its block cache (default 16 MiB)
	weak            weakness
	noteHere        string // where the note of a group member is true, copies of its directory included
}

// weakness switches protections off, for the tests that show what each is for. No other code can.
type weakness struct {
	noGeneration bool // offsets are committed without the member's generation
	noFence      bool // dead owners are left alone
	lateFence    bool // dead owners are left alone until recovery
	noStable     bool // offsets that an open transaction may change are believed
	flushFirst   bool // LevelDB is written before EndTxn
	noSlot       bool // a live instance of the same name is not looked for at the start
	goOn         bool // a session goes on after a commit of unknown outcome
	noCut        bool // a stop waits for every answer
}

// StartFrom says where a job without recorded positions begins in its input.
type StartFrom struct {
	Latest bool
	HasMs  bool  // start at the first record at or after AtMs
	AtMs   int64 // epoch ms
}

// CommitStats describes one finished commit.
type CommitStats struct {
	Partitions, Records, Outputs, Bytes int
	Events                              int64
	Wait, Cut, Send, End, Flush         time.Duration
	Notes                               []any // of Work.Note, for the records that it covers
}

func (c *Config) setDefaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.CatchUpLinger, 500*time.Millisecond)
	set(&c.SessionTimeout, 6*time.Second)
	set(&c.TransactionTimeout, 10*time.Second)
	set(&c.LocalStateMaxAge, 24*time.Hour)
	set(&c.topicsEvery, 10*time.Second)
	set(&c.lastCommits, c.SessionTimeout/2)
	if c.diskBufferBytes == 0 {
		c.diskBufferBytes = diskBufferBytes
	}
	if c.PendingBytesMax == 0 {
		c.PendingBytesMax = 64 << 20
	}
	if c.CacheBytesMax == 0 {
		c.CacheBytesMax = 256 << 20
	}
	if c.InflatedBytesMax == 0 {
		c.InflatedBytesMax = inflatedBytesMax
	}
	if c.BatchRecordsMax == 0 {
		c.BatchRecordsMax = 512
	}
	if c.CatchUpLag == 0 {
		c.CatchUpLag = 20_000
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.OnCommit == nil {
		c.OnCommit = func(CommitStats) {}
	}
	if c.Trace == nil {
		c.Trace = func(string) {}
	}
}

func (c *Config) validate() error {
	switch {
	case c.Kafka == nil || len(c.Kafka.Brokers) == 0:
		return errors.New("eos: no brokers")
	case c.Names.Job == "" || c.Input == "":
		return errors.New("eos: job name and input topic are needed")
	case c.Names.Owns(c.Input):
		return fmt.Errorf("eos: the job would read what it writes itself: %s is a topic of job %s", c.Input, c.Names.Job)
	case c.Instance == "" || c.Dir == "":
		return errors.New("eos: instance and state directory are needed")
	case !ValidInstance(c.Instance):
		return fmt.Errorf("eos: instance %q: want 1 to 200 of A-Z a-z 0-9 . _ -", c.Instance)
	case c.Codec == nil || c.NewHandler == nil:
		return errors.New("eos: codec and handler are needed")
	case min(c.Linger, c.CatchUpLinger) < 0:
		return errors.New("eos: a linger is negative")
	case min(c.SessionTimeout, c.TransactionTimeout, c.LocalStateMaxAge, c.topicsEvery) < time.Millisecond:
		return errors.New("eos: session timeout, transaction timeout and age of local state are a millisecond at least")
	}
	return nil
}

// Unit is the unit of work of one processor instance. Give its Options, Codec and Callback to a Goka
// group graph, and run that; Unit itself is driven by Goka's calls.
type Unit struct {
	cfg     Config
	log     *slog.Logger
	admin   *admin
	slot    *slot  // of the goroutine that is in the group
	links   *links // of everything of sarama's
	batches batchRegistry
	opened  opened

	mu      sync.Mutex // guards the fields below
	disks   map[int32]*ownedDisk
	session *session
	fatal   error
	trouble error
}

// New checks cfg and opens the administrative client. It starts nothing; Close ends it.
func New(cfg Config) (*Unit, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	boundInflation(cfg.InflatedBytesMax)
	u := &Unit{cfg: cfg, log: cfg.Logger, slot: newSlot(cfg.Dir, cfg.Instance), links: newLinks(cfg.Kafka.Dial), disks: map[int32]*ownedDisk{}}
	u.slot.here = cfg.noteHere
	if _, err := u.saramaConfig(); err != nil { // under Goka it would be met at every start again
		return nil, fmt.Errorf("eos: %w", err)
	}
	var err error
	if u.admin, err = newAdmin(cfg.Kafka, cfg.Instance); err != nil {
		return nil, err
	}
	u.batches.init()
	u.opened.ch = make(chan struct{})
	return u, nil
}

// Close ends the local state and the administrative client. Call it after Goka's Run returned.
func (u *Unit) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var errs []error
	for p, d := range u.disks {
		errs = append(errs, d.close())
		delete(u.disks, p)
	}
	errs = append(errs, u.slot.close())
	u.admin.close()
	return errors.Join(errs...)
}

// Err is the error for which the unit stopped for good, nil if it did not: a *FailStop, an error of
// the handler, or ErrInstanceTaken. Goka wraps and stringifies errors, so ask here.
func (u *Unit) Err() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.fatal
}

func (u *Unit) setFatal(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fatal == nil {
		u.fatal = err
	}
}

// Trouble is why the last session failed, nil while one is at work: what the unit is retrying.
func (u *Unit) Trouble() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.trouble
}

func (u *Unit) setTrouble(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.trouble = err
}

// transactionalID of an instance; one instance has one open transaction at most.
func (u *Unit) transactionalID() string { return u.cfg.Names.TransactionalID(u.cfg.Instance) }

// Callback is the Goka callback for the input and for the loop stream.
func (u *Unit) Callback(_ goka.Context, msg any) {
	b, ok := msg.(*batch)
	if !ok {
		panic(fmt.Sprintf("eos: a message of type %T came round the batching claim", msg))
	}
	b.session.process(b)
}

// Work is what a Handler may do while it is called: read and write values of its partition, and emit.
type Work struct{ p *partition }

// Partition that the handler works on.
func (w *Work) Partition() int32 { return w.p.id }

// Get answers the value of key, nil if there is none. The handler may change it in place if it calls
// Put before it returns. An error is fatal to the session.
func (w *Work) Get(key string) (any, error) { return w.p.table.get(key) }

// Put makes value the value of key. The table keeps value; key is cloned.
func (w *Work) Put(key string, value any) { w.p.table.put(key, value) }

// Emit queues an output record; it becomes visible with the commit that covers the record in hand.
func (w *Work) Emit(o Output) { w.p.emit(o) }

// EventTime notes the time, in epoch ms, that answers show for the position of the record in hand.
func (w *Work) EventTime(ms int64) { w.p.eventMs = ms }

// Note hands something to OnCommit, with the commit that covers the record in hand. Where that fails, nobody hears of it.
func (w *Work) Note(note any) { w.p.notes = append(w.p.notes, note) }

// Notes is how many notes wait for the next commit of the partition.
func (w *Work) Notes() int { return len(w.p.notes) }

// Output is a record for an output topic. Partition is explicit; Key and Value may be nil.
type Output struct {
	Topic      string
	Partition  int32
	Key, Value []byte
	Headers    []sarama.RecordHeader
}

// PartitionStatus is the progress of one owned partition.
type PartitionStatus struct {
	Partition  int32
	State      string // "recovering", "running"
	Position   Position
	HighWater  map[string]int64 // the ends of the source topics, as last seen (RefreshEnds)
	Recovered  int64            // table offset reached while recovering
	RecoverEnd int64
	Rebuilt    string // why local state was begun anew, "" if it was continued
}

// Status lists the partitions of the current session, in no order. Empty between sessions.
func (u *Unit) Status() []PartitionStatus {
	u.mu.Lock()
	s := u.session
	u.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.status()
}

// either is a context that ends with the first of two.
func either(a, b context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(a)
	stop := context.AfterFunc(b, cancel)
	return ctx, func() { stop(); cancel() }
}
