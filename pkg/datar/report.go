package datar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ServerOptions say how an engine's statistics are found among those of others that write to the same DetailStore.
type ServerOptions struct {
	// Name tells servers apart, such as the host's name, and stays the same when this one starts again. Characters other
	// than ASCII letters, digits, '.', '_' and '-' become '-', and it is cut at 63 bytes. Empty: a random one,
	// which is kept in Journal.Dir if there is one.
	Name string
	// Kind is KindServer if it is empty.
	Kind ServerKind
}

// maxServerName is the most bytes of ServerRecord.Name.
const maxServerName = 63

// CleanServerName returns the name as a ServerRecord may have it.
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

// reporter writes the record of a server into the store, with the batches of arenas; and batches of its own, with what
// no arena has. Their writer is the run. It belongs to whoever holds the flushing lock.
type reporter struct {
	name     string
	kind     ServerKind
	run      string
	start    time.Time
	sequence int64
	pending  *report
	// limit is the most unknown texts of the next batch.
	limit int
	// reported is when the newest record was made that the store has.
	reported time.Time
	// ended: records say that they are the last one from now on; told: the store has one that does.
	ended, told bool
	refused     bool // it was logged that the store refuses a record
	// base are the statistics at the start of the running flush.
	base Stats
}

func (r *reporter) begin(base Stats) { r.base = base }

// report is a batch, and the readings that it brings to the store.
type report struct {
	batch    Batch
	readings []unknownReading
}

// newReporter is for an engine that starts now.
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

// keptName returns the name that is in a file, or the given one, which it writes into the file if there is none. A file that
// cannot be used is not an error: then the next start has another name.
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

// record makes the record of a batch that stores so many evaluations. With all, nothing is left to send of what was
// recorded before the flush started. It runs under the flushing lock.
func (e *Engine) record(started time.Time, evaluations int64, all bool) *ServerRecord {
	r := &e.reporter
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
	// To add up what is pending takes long. It is what was recorded when the flush started and became of nothing since; what
	// was recorded later is left to the next record, unless it is stored already.
	record.Recorded = max(r.base.Recorded, record.Stored+dropped)
	record.Pending = record.Recorded - record.Stored - dropped
	return record
}

// newRecord makes a record without counts.
func (e *Engine) newRecord(s Stats) ServerRecord {
	r := &e.reporter
	record := ServerRecord{
		Name: r.name, Run: r.run, Kind: r.kind, Start: toMilli(r.start), At: toMilli(e.options.Now()),
		FlushInterval: e.options.FlushInterval, LastFlush: toMilli(s.LastFlush), Adopted: s.Adopted, Dropped: map[string]int64{},
	}
	if first := e.drops.first.Load(); first != 0 {
		record.FirstDrop, record.LastDrop = time.UnixMilli(first).UTC(), time.UnixMilli(e.drops.last.Load()).UTC()
	}
	return record
}

// toMilli is the time as a ServerRecord has it.
func toMilli(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// report sends what no arena has: unknown texts, and the record of the server if no batch has brought it for a while, so
// that others know that it lives. It runs under the flushing lock.
func (e *Engine) report(ctx context.Context, started time.Time) error {
	r := &e.reporter
	for e.details != nil && (r.pending != nil || e.unknown.isPending() || e.isRecordDue(started)) {
		if r.pending == nil {
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
			e.reportedBy(r.pending.batch)
			r.limit = min(2*r.limit, unknownPerBatch)
		case !errors.Is(err, ErrRefused):
			if rows == 0 {
				return &recordError{err}
			}
			return fmt.Errorf("store %d keys of unknown flags: %w", rows, err)
		case rows > 1: // one of the texts, or more: half of them, until it is alone
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

// recordError is the reason why the store has not taken the record of this server, when nothing else had to be sent.
type recordError struct{ err error }

func (e *recordError) Error() string { return "store the record of this server: " + e.err.Error() }
func (e *recordError) Unwrap() error { return e.err }

// isRecordDue reports whether the store's record of this server is old, with some room for timers that are early.
func (e *Engine) isRecordDue(started time.Time) bool {
	if e.reporter.ended {
		return !e.reporter.told
	}
	return started.Sub(e.reporter.reported) >= e.options.FlushInterval*3/4
}

// reportedBy takes note that the store has a batch.
func (e *Engine) reportedBy(b Batch) {
	if b.Server != nil {
		e.reporter.reported, e.reporter.told = b.Server.At, b.Server.Ended
	}
}
