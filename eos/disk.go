package eos

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	ldberrors "github.com/syndtr/goleveldb/leveldb/errors"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// Disk is the local state of one table partition in LevelDB: committed records, an index, the next table offset to read
// and the position record. All of a commit goes in one atomic batch, so what is read after any stop is the table as of
// Next, however old that is.
//
// Kafka is the write-ahead log. LevelDB therefore writes no journal of its own and waits for no fsync: a process that is
// killed loses what was in the memtable, the offset with it, and reads that stretch of the table again. Every block that
// is read is checked (StrictAll); what does not check is ErrDamaged, and the next OpenDisk begins anew.
//
// Methods may be called from any goroutine; Close once, after the others.
type Disk struct {
	dir    string
	id     DiskID
	stor   storage.Storage
	db     *leveldb.DB
	why    string
	broken atomic.Pointer[string]

	mu        sync.Mutex // guards the fields below, and the order of writes
	next      int64
	position  *Position
	asOfMs    int64
	flushedAt time.Time
	failed    error
}

// DiskID says what a state directory holds. State of another identity is not ours.
type DiskID struct {
	// TableID is the ID of the table's topic: a topic that was made again has another.
	TableID [16]byte
	// Topic and Partition name the table partition.
	Topic     string
	Partition int32
	// Generation and Digest are the job's.
	Generation uint32
	Digest     string
	// Layout tells what the owner keeps in it: "processor", "view".
	Layout string
}

// DiskOption tunes a Disk.
type DiskOption func(*diskTuning)

type diskTuning struct {
	cacheBytes, writeBufferBytes int
	wrap                         func(storage.Storage) storage.Storage
	// stock opens with LevelDB's defaults, journal and all. It is the control of the tests of damage, which must find
	// that it serves damaged state.
	stock bool
}

// DiskCache sets the size of the block cache; the default is 32 MiB.
func DiskCache(bytes int) DiskOption { return func(t *diskTuning) { t.cacheBytes = bytes } }

// DiskWriteBuffer sets the size of the memtable, which also bounds what an unclean stop has to read again (two of them);
// the default is 32 MiB.
func DiskWriteBuffer(bytes int) DiskOption { return func(t *diskTuning) { t.writeBufferBytes = bytes } }

// DiskStorage puts wrap around the files; tests make them fail and slow.
func DiskStorage(wrap func(storage.Storage) storage.Storage) DiskOption {
	return func(t *diskTuning) { t.wrap = wrap }
}

// diskFormat is the version of the layout on disk. Another one is begun anew: local state is never migrated.
const diskFormat = 1

// flushEvery bounds how much time of a quiet table an unclean stop forgets.
const flushEvery = 10 * time.Minute

// The first byte of a key on disk, so that no ID can collide with what is ours.
const (
	spaceIndex  = 'i'
	spaceMeta   = 'm'
	spaceRecord = 'r'
)

var (
	metaID       = []byte{spaceMeta, 'i'}
	metaNext     = []byte{spaceMeta, 'n'}
	metaPosition = []byte{spaceMeta, 'p'}
	metaAsOf     = []byte{spaceMeta, 't'}
)

// OpenDisk opens the state in dir, or begins it anew where there is none, where it is damaged or belongs to something
// else, and where it is older than maxAge (0: no limit) or dated from the future: Kafka forgets tombstones after
// delete.retention.ms, and state older than that would bring deleted keys back. Rebuilt then says why. A directory that another process holds is
// ErrLocked. Only LevelDB's own files are ever removed.
func OpenDisk(dir string, id DiskID, maxAge time.Duration, now time.Time, options ...DiskOption) (*Disk, error) {
	tuning := diskTuning{cacheBytes: 32 << 20, writeBufferBytes: 32 << 20}
	for _, set := range options {
		set(&tuning)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	files, err := openFiles(dir)
	if err != nil {
		return nil, err
	}
	d := &Disk{dir: dir, id: id, stor: files, flushedAt: time.Now()}
	if tuning.wrap != nil {
		d.stor = tuning.wrap(files)
	}
	if !tuning.stock {
		d.stor = noJournal{d.stor}
	}
	if d.why, err = d.resume(&tuning, maxAge, now); err == nil && d.why != "" {
		err = d.begin(&tuning, now)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open state directory %s: %w", dir, err), files.Close())
	}
	return d, nil
}

// openFiles locks a directory for this process and answers its files.
func openFiles(dir string) (storage.Storage, error) {
	files, err := storage.OpenFile(dir, false)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, storage.ErrLocked) {
		return nil, fmt.Errorf("%w: %s is held by another process; give each its own directory", ErrLocked, dir)
	} else if err != nil {
		return nil, fmt.Errorf("open state directory %s: %w", dir, err)
	}
	return files, nil
}

// resume opens what is there. It answers why that cannot be used, or an error of the environment.
func (d *Disk) resume(tuning *diskTuning, maxAge time.Duration, now time.Time) (why string, err error) {
	marker, err := os.ReadFile(d.markerFile())
	if err == nil {
		return "marked as damaged: " + string(marker), nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	files, err := d.stor.List(storage.TypeAll)
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "no local state yet", nil
	}
	o := tuning.options()
	o.ErrorIfMissing = true
	if d.db, err = openLevelDB(d.stor, o); err != nil {
		if !isDamage(err) {
			return "", err
		}
		return "damaged: " + err.Error(), nil
	}
	why, err = d.load(maxAge, now)
	if why != "" || err != nil {
		// A compaction that began meanwhile may have met damage, and Close would say so; the state is given up anyway.
		_ = d.db.Close()
	}
	return why, err
}

// load reads and judges the records about the state itself.
func (d *Disk) load(maxAge time.Duration, now time.Time) (why string, err error) {
	for _, m := range []struct {
		key      []byte
		use      func([]byte) string
		optional bool
	}{
		{metaID, d.loadID, false},
		{metaNext, func(b []byte) string { return loadInt(b, &d.next) }, false},
		{metaAsOf, func(b []byte) string { return loadInt(b, &d.asOfMs) }, false},
		{metaPosition, d.loadPosition, true},
	} {
		value, err := d.db.Get(m.key, nil)
		switch {
		case errors.Is(err, leveldb.ErrNotFound) && m.optional:
		case errors.Is(err, leveldb.ErrNotFound):
			return fmt.Sprintf("damaged: record %q is missing", m.key), nil
		case err != nil && isDamage(err):
			return "damaged: " + err.Error(), nil
		case err != nil:
			return "", err
		default:
			if why := m.use(value); why != "" {
				return why, nil
			}
		}
	}
	return misdated(time.UnixMilli(d.asOfMs), now, maxAge), nil
}

// misdated says why state as of some time is not continued now; "" where it is. A clock that ran ahead when the state was written
// would keep it young until the others have caught up, however long that takes; a little ahead is what clocks differ by, and makes
// state so much older than maxAge at most.
func misdated(asOf, now time.Time, maxAge time.Duration) string {
	age, ahead := now.Sub(asOf), maxAge/4
	switch {
	case maxAge <= 0:
		return ""
	case age > maxAge:
		return fmt.Sprintf("as of %s, which is older than %s: deletions since then may be gone from the table",
			asOf.UTC().Format(time.RFC3339), maxAge)
	case age < -ahead:
		return fmt.Sprintf("as of %s, which is more than %s ahead of this machine's clock: how old it is cannot be told",
			asOf.UTC().Format(time.RFC3339), ahead)
	}
	return ""
}

// identity is DiskID as it is stored.
type identity struct {
	Format int
	DiskID
}

func (d *Disk) loadID(b []byte) string {
	var found identity
	if err := json.Unmarshal(b, &found); err != nil {
		return "damaged: identity record: " + err.Error()
	}
	if found.Format != diskFormat {
		return fmt.Sprintf("written in format %d, this binary writes %d", found.Format, diskFormat)
	}
	if found.DiskID != d.id {
		return fmt.Sprintf("belongs to another table: %+v, want %+v", found.DiskID, d.id)
	}
	return ""
}

func (d *Disk) loadPosition(b []byte) string {
	p, err := ParsePosition(b)
	if err != nil {
		return "position record: " + err.Error()
	}
	d.position = p
	return ""
}

func loadInt(b []byte, to *int64) string {
	if len(b) != 8 {
		return fmt.Sprintf("damaged: a number of %d bytes", len(b))
	}
	*to = int64(binary.BigEndian.Uint64(b))
	return ""
}

// begin removes what is there and writes an empty state that is as of now: everything will be read later than now.
func (d *Disk) begin(tuning *diskTuning, now time.Time) error {
	d.next, d.position, d.asOfMs = 0, nil, now.UnixMilli()
	if err := removeState(d.dir); err != nil {
		return err
	}
	var err error
	if d.db, err = openLevelDB(d.stor, tuning.options()); err != nil {
		return err
	}
	id, err := json.Marshal(identity{diskFormat, d.id})
	if err == nil {
		var b DiskBatch
		b.ldb.Put(metaID, id)
		err = d.Apply(&b, 0, nil)
	}
	if err == nil {
		err = d.flush()
	}
	if err != nil {
		return errors.Join(err, d.closeDB())
	}
	return nil
}

// Rebuilt says why the state was begun anew when it was opened; empty means that it was continued.
func (d *Disk) Rebuilt() string { return d.why }

// ID is the identity that the state was opened with.
func (d *Disk) ID() DiskID { return d.id }

// Dir is the directory.
func (d *Disk) Dir() string { return d.dir }

// Next is the table offset to read next; 0 when the state is new.
func (d *Disk) Next() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.next
}

// Position is the position record of the last commit in the state; there is none before the first. The caller must not
// change it.
func (d *Disk) Position() (*Position, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.position, d.position != nil
}

// Get gives a record's value, which the caller may keep. It is ErrNotFound where there is none and ErrDamaged where that
// cannot be told.
func (d *Disk) Get(key []byte) ([]byte, error) { return get(d, d.db, key) }

type getter interface {
	Get(key []byte, ro *opt.ReadOptions) ([]byte, error)
}

func get(d *Disk, from getter, key []byte) ([]byte, error) {
	if err := d.damage(); err != nil {
		return nil, err
	}
	value, err := from.Get(append(append(make([]byte, 0, 64), spaceRecord), key...), nil)
	if err != nil {
		return nil, d.judge(err)
	}
	return value, nil
}

// Apply writes a batch together with the next table offset and, where pos is not nil, the position record, atomically;
// pos nil keeps the one that is there. It adds to the batch, which needs a Reset before it is used again. An offset
// below Next is refused. After an error other than that the state has the whole batch or nothing of it.
func (d *Disk) Apply(b *DiskBatch, next int64, pos *Position) error {
	if err := d.damage(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed != nil {
		return d.failed
	}
	if next < d.next {
		return fmt.Errorf("state %s: offset %d is below %d, up to which it has read", d.dir, next, d.next)
	}
	asOfMs := d.asOfMs
	if pos != nil {
		b.ldb.Put(metaPosition, pos.AppendBinary(nil))
		// A commit's deletions are younger than the commit before; a clock that runs ahead must not make state young.
		asOfMs = max(asOfMs, min(pos.CommittedMs, time.Now().UnixMilli()))
	}
	return d.write(b, next, pos, asOfMs)
}

// Touch notes that the state covered everything that its table held at that time, so that it ages from then on.
func (d *Disk) Touch(at time.Time) error {
	if err := d.damage(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed != nil || at.UnixMilli() <= d.asOfMs {
		return d.failed
	}
	return d.write(&DiskBatch{}, d.next, nil, at.UnixMilli())
}

// write ends a batch and writes it. The caller holds mu.
func (d *Disk) write(b *DiskBatch, next int64, pos *Position, asOfMs int64) error {
	b.ldb.Put(metaNext, binary.BigEndian.AppendUint64(nil, uint64(next)))
	b.ldb.Put(metaAsOf, binary.BigEndian.AppendUint64(nil, uint64(asOfMs)))
	if err := d.db.Write(&b.ldb, nil); err != nil {
		return d.judge(err)
	}
	d.next, d.asOfMs = next, asOfMs
	if pos != nil {
		d.position = pos.Clone()
	}
	if time.Since(d.flushedAt) > flushEvery {
		return d.flush()
	}
	return nil
}

// flush writes the memtable to a table file. Opening a transaction does that (goleveldb db_transaction.go), and nothing
// else in its interface does without compacting; where it fails it keeps the write lock, so nothing is written after.
func (d *Disk) flush() error {
	tr, err := d.db.OpenTransaction()
	if err != nil {
		d.failed = d.judge(err)
		return d.failed
	}
	tr.Discard()
	d.flushedAt = time.Now()
	return nil
}

// AsOf is the time at which the state is known to have covered everything that its table held.
func (d *Disk) AsOf() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.UnixMilli(d.asOfMs)
}

// Usable tells whether the state takes writes: no damage was found, and no write was left half done.
func (d *Disk) Usable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed == nil && !d.Damaged()
}

// Damaged tells whether damage was found since the state was opened. It then has to be closed and opened again.
func (d *Disk) Damaged() bool { return d.broken.Load() != nil }

// MarkDamaged makes every later call fail with ErrDamaged, and the next OpenDisk begin anew for that reason. Callers use
// it for damage that only they can see, such as a value that does not decode.
func (d *Disk) MarkDamaged(reason string) {
	if !d.broken.CompareAndSwap(nil, &reason) {
		return
	}
	// Where the marker cannot be written, the damage will be found again as it was found now.
	_ = os.WriteFile(d.markerFile(), []byte(reason), 0o600)
}

const markerName = "DAMAGED"

func (d *Disk) markerFile() string { return filepath.Join(d.dir, markerName) }

func (d *Disk) damage() error {
	if reason := d.broken.Load(); reason != nil {
		return fmt.Errorf("%w: %s: %s", ErrDamaged, d.dir, *reason)
	}
	return nil
}

// judge turns an error of LevelDB into one of ours, and notes damage.
func (d *Disk) judge(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, leveldb.ErrNotFound):
		return ErrNotFound
	case isDamage(err):
		d.MarkDamaged(err.Error())
		return d.damage()
	}
	return fmt.Errorf("state %s: %w", d.dir, err)
}

// isDamage tells damage from trouble that passes (no space, too many open files) and from use after Close.
func isDamage(err error) bool {
	var corrupted *ldberrors.ErrCorrupted
	var inStorage *storage.ErrCorrupted
	return errors.As(err, &corrupted) || errors.As(err, &inStorage) || errors.Is(err, errPanicked) ||
		errors.Is(err, os.ErrNotExist) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EIO)
}

// Close writes what is in memory to disk and gives the directory free.
func (d *Disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	if d.failed == nil && !d.Damaged() {
		err = d.flush()
	}
	return errors.Join(err, d.closeDB(), d.stor.Close())
}

// closeDB ends LevelDB. After a flush that failed, as on a full disk, the write lock is lost (see flush) and DB.Close would wait
// for it for ever; LevelDB's goroutines end all the same.
func (d *Disk) closeDB() error {
	if d.failed != nil {
		go func(db *leveldb.DB) { _ = db.Close() }(d.db)
		return nil
	}
	return d.judge(d.db.Close()) // a compaction may have met damage
}
