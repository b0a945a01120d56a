// Package chstore keeps Datar's counts in ClickHouse. It uses ClickHouse's HTTP interface and only
// the standard library.
//
// ClickHouse has no transactions, so the rows of a batch make it exact. They are either totals of
// counters, of which the greatest wins, or increments under the batch's own number. A batch that is
// sent again, to another replica or after a later one, changes nothing. The part of a batch that
// belongs to one quarter of a day is one insert into one partition, which ClickHouse applies as a
// whole.
//
// The package reads and writes these tables, and otherwise only ClickHouse's own system tables:
//
//   - datar_counts has the rows of all batches.
//   - datar_rollups and datar_builds have sums of these rows.
//   - datar_days has the totals of days that the retention has reduced.
//   - datar_unknown has requests for flags that do not exist.
//   - datar_servers has the statistics of the servers that write.
//   - datar_receipts has the responses to counts that were sent in.
//   - datar_batches has the batches of senders.
//   - datar_meta has the identity of the database.
package chstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

const (
	hoursPerDay = 24
	// startPatience is how long New tries to connect to ClickHouse.
	startPatience = 10 * time.Second
	startDelay    = 250 * time.Millisecond
)

// Store is a datar.DetailStore and a datar.Maintainer in ClickHouse.
type Store struct {
	client   *client
	identity string
	senders  locks // by receipt or writer
	reduced  reducedDays
	builds   builder
	replicas replicas
	// purgeGrace is how long the rows of a reduced day are kept. dropGrace is how long after the
	// purge they can still be read.
	purgeGrace, dropGrace time.Duration
}

var (
	_ datar.CounterStore  = (*Store)(nil)
	_ datar.DetailStore   = (*Store)(nil)
	_ datar.Maintainer    = (*Store)(nil)
	_ datar.LagReporter   = (*Store)(nil)
	_ datar.ClockReporter = (*Store)(nil)
	_ ingest.Store        = (*Store)(nil)
)

// New connects to ClickHouse and creates missing tables. It waits up to 10 s for a host that
// responds. Call Close to close the connections.
func New(ctx context.Context, o Options) (*Store, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("chstore: %w", err)
	}
	return connect(ctx, newClient(o))
}

func connect(ctx context.Context, c *client) (*Store, error) {
	s := &Store{client: c, purgeGrace: 24 * time.Hour, dropGrace: 10 * time.Minute, builds: builder{every: buildEvery, quiet: buildQuiet, most: maxBuilds}}
	begin := time.Now()
	for {
		err := s.prepare(ctx)
		if err == nil {
			return s, nil
		}
		if !isConnection(err) || time.Since(begin) >= startPatience {
			s.Close()
			return nil, fmt.Errorf("chstore: %w", err)
		}
		select {
		case <-ctx.Done():
			s.Close()
			return nil, fmt.Errorf("chstore: %w", err)
		case <-time.After(startDelay):
		}
	}
}

// Close closes idle connections.
func (s *Store) Close() { s.client.http.CloseIdleConnections() }

// Ping returns an error unless ClickHouse responds and the tables exist.
func (s *Store) Ping(ctx context.Context) error {
	if _, err := s.client.query(ctx, "SELECT toInt64(count()) FROM datar_meta WHERE name = ''"); err != nil {
		return fmt.Errorf("chstore: %w", err)
	}
	return nil
}

// Identity implements datar.Store.
func (s *Store) Identity() string { return s.identity }

// source identifies the rows of a batch, in addition to their keys.
type source struct {
	writer   string // a UUID
	sequence int64
}

var uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// writerID returns the UUID of a writer. An engine's name is a UUID. For other names, the UUID is
// derived from the name.
func writerID(name string) string {
	if uuidPattern.MatchString(name) {
		return name
	}
	hash := sha256.Sum256([]byte(name))
	h := hex.EncodeToString(hash[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// dayOf returns the number of the day since 1970 that contains an hour.
func dayOf(h datar.Hour) int32 { return int32(h.DayStart() / hoursPerDay) }

// KeepsCounters implements datar.CounterStore.
func (s *Store) KeepsCounters() {}

// Apply implements datar.Store. It does not reject rows. After an error, some hours of the batch
// may be stored. If the batch is sent again, it counts once.
func (s *Store) Apply(ctx context.Context, batch datar.Batch) error {
	if err := s.add(ctx, source{writerID(batch.Writer), batch.Sequence}, batch); err != nil {
		return fmt.Errorf("chstore: add counts: %w", err)
	}
	return nil
}

// add inserts all parts of a batch. The record of the server is last, because it says that the
// counts are stored.
func (s *Store) add(ctx context.Context, from source, batch datar.Batch) error {
	if err := s.addRows(ctx, from, batch); err != nil {
		return err
	}
	if err := s.addUnknown(ctx, from, batch.Unknown); err != nil {
		return err
	}
	if batch.Server != nil {
		return s.addServer(ctx, batch.Server)
	}
	return nil
}

// addRows inserts the rows of each partition separately, because an insert into one partition is
// applied as a whole.
func (s *Store) addRows(ctx context.Context, from source, batch datar.Batch) error {
	if len(batch.Rows) == 0 {
		return nil
	}
	reduced, err := s.reduced.get(ctx, s)
	if err != nil {
		return err
	}
	spans, late := map[int64]bool{}, map[int32][]datar.Row{}
	for _, r := range batch.Rows {
		if day := dayOf(r.Hour); int64(day) < reduced {
			late[day] = append(late[day], r)
		} else {
			spans[spanOf(r.Hour)] = true
		}
	}
	for _, day := range slices.Sorted(maps.Keys(late)) {
		if err := s.addLate(ctx, from, day, late[day]); err != nil {
			return err
		}
	}
	for _, span := range slices.Sorted(maps.Keys(spans)) {
		if err := s.client.insert(ctx, "datar_counts", countColumns, from.countsOf(span, reduced, batch)); err != nil {
			return err
		}
	}
	return nil
}

const countColumns = "day, hour, flag_id, variant_id, segment_id, outcome, version, asked, writer, counter, sequence, n, ingested, first_ms, last_ms"

// countsOf returns the rows of datar_counts for the part of a batch in a partition, except for
// reduced days. They are the totals of the batch's counters, if it has counters, and otherwise its
// rows.
func (f source) countsOf(span, reduced int64, batch datar.Batch) (b []byte) {
	wanted := func(h datar.Hour) bool { return spanOf(h) == span && int64(dayOf(h)) >= reduced }
	if batch.Counters != nil {
		for _, c := range batch.Counters {
			if wanted(c.Hour) {
				b = f.appendCount(b, c.Number, datar.Row{Key: c.Key, Count: c.Total, First: c.First, Last: c.Last})
			}
		}
		return b
	}
	for _, r := range batch.Rows {
		if wanted(r.Hour) {
			b = f.appendCount(b, f.sequence, r)
		}
	}
	return b
}

func (f source) appendCount(b []byte, counter int64, r datar.Row) []byte {
	b = appendNumber(append(b, '{'), "day", int64(dayOf(r.Hour)))
	b = appendNumber(append(b, ','), "hour", int64(r.Hour))
	b = appendNumber(append(b, ','), "flag_id", r.FlagID)
	b = appendNumber(append(b, ','), "variant_id", r.VariantID)
	b = appendNumber(append(b, ','), "segment_id", r.SegmentID)
	b = appendNumber(append(b, ','), "outcome", int64(r.Outcome))
	b = appendNumber(append(b, ','), "version", int64(r.Version))
	b = appendNumber(append(b, ','), "asked", int64(r.Asked))
	b = f.appendTo(append(b, ','))
	b = appendNumber(append(b, ','), "counter", counter)
	b = appendNumber(append(b, ','), "n", r.Count)
	b = appendNumber(append(b, ','), "ingested", r.Ingested)
	b = appendNumber(append(b, ','), "first_ms", r.First)
	b = appendNumber(append(b, ','), "last_ms", r.Last)
	return append(b, "}\n"...)
}

// appendTo appends the columns writer and sequence.
func (f source) appendTo(b []byte) []byte {
	b = append(b, `"writer":"`...)
	b = append(append(b, f.writer...), `",`...)
	return appendNumber(b, "sequence", f.sequence)
}

func appendNumber(b []byte, column string, n int64) []byte {
	b = append(append(append(b, '"'), column...), `":`...)
	return strconv.AppendInt(b, n, 10)
}

// appendText appends a column with any text.
func appendText(b []byte, column, text string) []byte {
	quoted, _ := json.Marshal(text) // encoding a string never fails
	return append(append(append(append(b, '"'), column...), `":`...), quoted...)
}

func (s *Store) addUnknown(ctx context.Context, from source, rows []datar.UnknownRow) error {
	if len(rows) == 0 {
		return nil
	}
	days := map[int32][]byte{}
	for _, r := range rows {
		day := dayOf(r.Hour)
		b := appendNumber(append(days[day], '{'), "day", int64(day))
		b = appendNumber(append(b, ','), "hour", int64(r.Hour))
		b = appendText(append(b, ','), "asked", r.Asked)
		b = from.appendTo(append(b, ','))
		b = appendNumber(append(b, ','), "n", r.Count)
		b = appendNumber(append(b, ','), "first_ms", r.First)
		b = appendNumber(append(b, ','), "last_ms", r.Last)
		days[day] = append(b, "}\n"...)
	}
	for _, day := range slices.Sorted(maps.Keys(days)) {
		if err := s.client.insert(ctx, "datar_unknown", "day, hour, asked, writer, sequence, n, first_ms, last_ms", days[day]); err != nil {
			return err
		}
	}
	return nil
}

// addServer inserts the record of a server. Queries use the newest one.
func (s *Store) addServer(ctx context.Context, r *datar.ServerRecord) error {
	b, err := appendServer(nil, r)
	if err != nil {
		return err
	}
	return s.client.insert(ctx, "datar_servers", serverColumns, b)
}

const serverColumns = "name, run, at_ms, record"

func appendServer(b []byte, r *datar.ServerRecord) ([]byte, error) {
	record, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode the record of server %q: %w", r.Name, err)
	}
	b = appendText(append(b, '{'), "name", r.Name)
	b = appendText(append(b, ','), "run", r.Run)
	b = appendNumber(append(b, ','), "at_ms", max(0, r.At.UnixMilli()))
	b = appendText(append(b, ','), "record", string(record))
	return append(b, "}\n"...), nil
}

// reducedDays caches the first day that the retention has not reduced.
type reducedDays struct {
	mu struct {
		sync.Mutex
		day  int64
		read time.Time
	}
}

// reducedFresh is how long that day is cached: far less than Store.purgeGrace.
const reducedFresh = 10 * time.Minute

// get returns that day. The value is at most 10 min old.
func (r *reducedDays) get(ctx context.Context, s *Store) (int64, error) {
	r.mu.Lock()
	day, read := r.mu.day, r.mu.read
	r.mu.Unlock()
	if !read.IsZero() && time.Since(read) < reducedFresh {
		return day, nil
	}
	m, err := s.readMarks(ctx)
	return m.reduced, err
}

func (r *reducedDays) set(day int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.day, r.mu.read = max(r.mu.day, day), time.Now()
}
