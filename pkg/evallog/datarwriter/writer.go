// Package datarwriter delivers evaluation logs to a store of Datar in the same process, with the same verdicts on rows
// as the HTTP endpoint. The queries of a datar.Engine over that store count what was delivered.
package datarwriter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/evallog"
)

// Writer is an evallog.Writer over a store of Datar. Each batch is applied once, since the store keeps a ledger of
// writers and their sequences. Rows that are refused are dropped for the reasons of package ingest, such as
// FLAG_NOT_FOUND; a row that the database itself refuses for ever is looked for, and dropped as refused.
type Writer struct {
	ingester ingest.Ingester

	mu sync.Mutex
	// refused has the errors of parts of batches under way that the store refused as a whole. They are not tried again:
	// some of what they were divided into may be applied, and the ledger then knows them, too.
	refused map[string]error
}

var _ evallog.Writer = (*Writer)(nil)

// New returns a writer into the store for the flags that are known.
func New(store ingest.Store, flags ingest.Flags) *Writer {
	return &Writer{ingester: ingest.Ingester{Store: store, Flags: flags}, refused: map[string]error{}}
}

// Write implements evallog.Writer.
func (w *Writer) Write(ctx context.Context, batch evallog.Batch) error {
	rows := make([]ingest.Row, len(batch.Rows))
	for i, r := range batch.Rows {
		rows[i] = ingest.Row{
			FlagKey:       r.Key.Flag,
			VariantKey:    r.Key.Variant.String(),
			AllocationKey: r.Key.Allocation.String(),
			First:         r.First,
			Last:          r.Last,
			Count:         r.Count,
		}
	}
	d := delivery{writer: w, batch: batch}
	if err := d.send(ctx, rows, 0); err != nil {
		return err
	}
	w.mu.Lock()
	for _, part := range d.marked {
		delete(w.refused, part)
	}
	w.mu.Unlock()
	if len(d.refused.Rows) > 0 {
		slices.SortFunc(d.refused.Rows, func(a, b evallog.RefusedRow) int { return a.Index - b.Index })
		return &d.refused
	}
	return nil
}

// delivery is one call of Write.
type delivery struct {
	writer  *Writer
	batch   evallog.Batch
	parts   int      // so far, which numbers them
	marked  []string // in writer.refused
	refused evallog.RefusedError
}

// send applies some of the rows, the first of which has the index offset in the batch.
func (d *delivery) send(ctx context.Context, rows []ingest.Row, offset int) error {
	key := fmt.Sprintf("%s:%d", d.batch.Writer, d.batch.PartSequence(d.parts))
	d.parts++
	w := d.writer
	w.mu.Lock()
	err := w.refused[key]
	w.mu.Unlock()
	var result ingest.Result
	if err == nil {
		result, err = w.ingester.Ingest(ctx, ingest.Batch{Key: key, Rows: rows})
	}
	switch {
	case err == nil:
		for _, e := range result.Errors {
			if e.Code != ingest.SegmentUnknown { // which is counted, without the segment
				d.refuse(offset+e.Index, evallog.DropReason(e.Code), errors.New(e.Message))
			}
		}
		return nil
	case errors.Is(err, datar.ErrRefused): // nothing was applied, because of one row or more
		d.marked = append(d.marked, key)
		w.mu.Lock()
		w.refused[key] = err
		w.mu.Unlock()
		if len(rows) == 1 {
			d.refuse(offset, "refused", err)
			return nil
		}
		half := len(rows) / 2
		if err := d.send(ctx, rows[:half], offset); err != nil {
			return err
		}
		return d.send(ctx, rows[half:], offset+half)
	case errors.Is(err, ingest.ErrInvalid), errors.Is(err, ingest.ErrTooManyRows):
		for i := range rows {
			d.refuse(offset+i, "invalid_batch", err)
		}
		return nil
	default:
		return fmt.Errorf("store %d rows: %w", len(rows), err)
	}
}

// refuse notes a row that is lost, and the first cause.
func (d *delivery) refuse(index int, reason evallog.DropReason, err error) {
	d.refused.Rows = append(d.refused.Rows, evallog.RefusedRow{Index: index, Reason: reason})
	if d.refused.Err == nil {
		d.refused.Err = err
	}
}
