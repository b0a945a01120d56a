// Package datarwriter delivers evaluation logs to a Datar store in the same process, with the same
// checks of rows as the HTTP endpoint. The queries of a datar.Engine over that store count the
// delivered evaluations.
package datarwriter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/evallog"
)

// Writer is an evallog.Writer over a Datar store. Each batch is applied once, because the store
// keeps the last sequence number of each writer. Refused rows are dropped with the reasons of
// package ingest, such as FLAG_NOT_FOUND, or REFUSED if the database itself rejects them.
type Writer struct {
	ingester ingest.Ingester
}

var _ evallog.Writer = (*Writer)(nil)

// New returns a Writer to the store, for the known flags.
func New(store ingest.Store, flags ingest.Flags) *Writer {
	quiet := slog.New(slog.DiscardHandler) // the evaluation log reports refused rows
	return &Writer{ingester: ingest.Ingester{Store: store, Flags: flags, Logger: quiet}}
}

// Write implements evallog.Writer.
func (w *Writer) Write(ctx context.Context, batch evallog.Batch) error {
	sent := ingest.Batch{
		Key:  fmt.Sprintf("%s:%d", batch.Writer, batch.PartSequence(0)),
		Rows: make([]ingest.Row, len(batch.Rows)),
	}
	for i, r := range batch.Rows {
		sent.Rows[i] = ingest.Row{
			FlagKey:       r.Key.Flag,
			VariantKey:    r.Key.Variant.String(),
			AllocationKey: r.Key.Allocation.String(),
			First:         r.First,
			Last:          r.Last,
			Count:         r.Count,
			Failed:        r.Key.ErrorCode != evallog.None() || r.ErrorMessage != "",
			Outcome:       r.Key.Outcome.String(),
			Version:       r.Key.Version,
			Asked:         r.Key.Asked.Names(),
		}
	}
	result, err := w.ingester.Ingest(ctx, sent)
	switch {
	case errors.Is(err, ingest.ErrInvalid), errors.Is(err, ingest.ErrTooManyRows):
		return evallog.RefuseAll(batch, "invalid_batch", err)
	case errors.Is(err, datar.ErrRefused): // not because of a single row
		return evallog.RefuseAll(batch, evallog.DropReason(ingest.Refused), err)
	case err != nil:
		return fmt.Errorf("store %d rows: %w", len(batch.Rows), err)
	}
	var refused evallog.RefusedError
	for _, e := range result.Errors {
		if e.Code == ingest.SegmentUnknown { // counted without the segment
			continue
		}
		refused.Rows = append(refused.Rows, evallog.RefusedRow{Index: e.Index, Reason: evallog.DropReason(e.Code)})
		if refused.Err == nil {
			refused.Err = errors.New(e.Message)
		}
	}
	if len(refused.Rows) > 0 {
		return &refused
	}
	return nil
}
