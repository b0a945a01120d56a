package datar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ServerOptions identify an engine among the servers that write to the same DetailStore.
type ServerOptions struct {
	// Name is the server's name, such as the name of the host, and stays the same after a restart.
	// Characters other than ASCII letters, digits, '.', '_' and '-' become '-', and it is cut to 63
	// bytes. If it is empty, a random name is used and stored in Journal.Dir if there is one.
	Name string
	// Kind is KindServer if empty.
	Kind ServerKind
}

// maxServerName is the maximum length of ServerRecord.Name, in bytes.
const maxServerName = 63

// CleanServerName converts a name to a valid ServerRecord.Name.
func CleanServerName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}, name[:min(len(name), 4*maxServerName)])
	return name[:min(len(name), maxServerName)]
}

// reporter writes the record of a server to the store, with the batches of arenas. It also writes
// its own batches, with data that is in no arena. Their writer is the run. It requires the flushing
// lock, except for its first four fields, which never change.
type reporter struct {
	name     string
	kind     ServerKind
	run      string
	start    time.Time
	sequence int64
	pending  *report
	// limit is the maximum number of unknown keys in the next batch.
	limit int
	// reported is when the newest record in the store began to be true: its time, or the start of
	// the flush that stored it if that is earlier.
	reported time.Time
	// ended: records are marked as the last one from now on; told: the store has such a record.
	ended, told bool
	refused     bool // it was logged that the store refuses a record
	// base has the statistics at the start of the running flush.
	base Stats
}

func (r *reporter) begin(base Stats) { r.base = base }

// report is a batch, and the readings that it is computed from.
type report struct {
	batch    Batch
	readings []unknownReading
}

// newReporter returns the reporter of an engine that starts now.
func newReporter(o Options) reporter {
	r := reporter{name: CleanServerName(o.Server.Name), kind: o.Server.Kind, run: newWriterID(), start: o.Now(), limit: unknownPerBatch}
	if r.kind == "" {
		r.kind = KindServer
	}
	if r.name == "" {
		r.name = "server-" + r.run[:8]
		if o.Journal.Dir != "" {
			r.name = keptName(filepath.Join(o.Journal.Dir, "datar-"+o.Store.Identity()+".server"), r.name)
		}
	}
	return r
}

// keptName returns the name in a file. If the file does not exist, it writes the given name to it.
// An unusable file is not an error: the next start then has another name.
func keptName(path, name string) string {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		_ = os.WriteFile(path, []byte(name+"\n"), 0o600)
		return name
	}
	if kept := CleanServerName(strings.TrimSpace(string(text))); err == nil && kept != "" {
		return kept
	}
	return name
}

// record returns the record of a batch that stores this many evaluations. With all, nothing
// recorded before the flush started is left to send. It requires the flushing lock.
func (e *Engine) record(started time.Time, evaluations int64, all bool) *ServerRecord {
	r := &e.flushing.reporter
	newest := e.newRecord(r.base)
	record := &newest
	record.Ended = r.ended
	if all {
		record.LastFlush = toMilli(started)
	}
	var dropped int64
	for i, reason := range dropReasons {
		if n := e.drops.counts[i].Load(); n > 0 {
			record.Dropped[string(reason)] = n
			dropped += n
		}
	}
	e.mu.Lock()
	record.Stored = e.mu.stored + evaluations
	e.mu.Unlock()
	// Adding up the pending evaluations takes long. They are those that were recorded when the
	// flush started and are neither stored nor dropped since. Later evaluations are in the next
	// record, unless they are already stored.
	record.Recorded = max(r.base.Recorded, record.Stored+dropped)
	record.Pending = record.Recorded - record.Stored - dropped
	return record
}

// newRecord returns a record without counts.
func (e *Engine) newRecord(s Stats) ServerRecord {
	r := &e.flushing.reporter
	record := ServerRecord{
		Name: r.name, Run: r.run, Kind: r.kind, Start: toMilli(r.start), At: toMilli(e.options.Now()),
		FlushInterval: e.options.FlushInterval, LastFlush: toMilli(s.LastFlush), Adopted: s.Adopted, Dropped: map[string]int64{},
	}
	record.Journal = e.journalRecord()
	if first := e.drops.first.Load(); first != 0 {
		record.FirstDrop, record.LastDrop = time.UnixMilli(first).UTC(), time.UnixMilli(e.drops.last.Load()).UTC()
	}
	return record
}

// journalRecord returns what the record tells about journals.
func (e *Engine) journalRecord() *JournalRecord {
	e.mu.Lock()
	defer e.mu.Unlock()
	inMemory := func(a *arena) bool { return a.journal == nil }
	return &JournalRecord{
		InMemory: e.options.Journal.Dir == "" || e.mu.inMemory || slices.ContainsFunc(e.mu.arenas, inMemory),
		Adopted:  slices.Clone(e.mu.adoptedRuns),
	}
}

// toMilli truncates the time to the precision of a ServerRecord.
func toMilli(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// report sends data that is in no arena: unknown keys, and the server's record if no batch had it
// for a while, so that others know that the server is running. It requires the flushing lock.
func (e *Engine) report(ctx context.Context, started time.Time) error {
	r := &e.flushing.reporter
	for e.details != nil && (r.pending != nil || e.unknown.isPending() || e.isRecordDue(started)) {
		if r.pending == nil {
			e.limitUnknown(ctx)
			rows, readings := e.unknown.begin(r.limit)
			r.sequence++
			r.pending = &report{
				batch:    Batch{Writer: r.run, Sequence: r.sequence, Unknown: rows, Server: e.record(started, 0, true)},
				readings: readings,
			}
		}
		_, err := e.apply(ctx, r.pending.batch)
		rows := len(r.pending.readings)
		switch {
		case err == nil:
			e.unknown.settle(r.pending.readings)
			e.reportedBy(r.pending.batch, started)
			r.limit = min(2*r.limit, unknownPerBatch)
		case !errors.Is(err, ErrRefused):
			if rows == 0 {
				return &recordError{err}
			}
			return fmt.Errorf("store %d keys of unknown flags: %w", rows, err)
		case rows > 1: // one or more of the keys: try half of them, until one is left
			r.limit = rows / 2
			r.sequence--
		case rows == 1:
			e.unknown.refuse(r.pending.readings[0])
			r.sequence--
		default:
			if !r.refused {
				e.options.Logger.Error("datar: the store refused the record of this server", "error", err)
			}
			r.refused, r.told, r.reported, r.sequence = true, true, started, r.sequence-1
		}
		r.pending = nil
	}
	return nil
}

// recordError is why the store did not accept the record of this server, if nothing else had to be
// sent.
type recordError struct{ err error }

func (e *recordError) Error() string { return "store the record of this server: " + e.err.Error() }
func (e *recordError) Unwrap() error { return e.err }

// isRecordDue reports whether the store's record of this server is old, with some tolerance for
// early timers.
func (e *Engine) isRecordDue(started time.Time) bool {
	if e.flushing.reporter.ended {
		return !e.flushing.reporter.told
	}
	return started.Sub(e.flushing.reporter.reported) >= e.options.FlushInterval*3/4
}

// reportedBy records that the store has a batch, sent by a flush that started at the given time.
func (e *Engine) reportedBy(b Batch, started time.Time) {
	if b.Server != nil {
		e.flushing.reporter.reported, e.flushing.reporter.told = earliest(b.Server.At, started), b.Server.Ended
	}
}
