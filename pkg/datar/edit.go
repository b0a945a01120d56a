package datar

import (
	"context"
	"errors"
	"fmt"
)

// ErrNoEditing is the error of DeleteFlag and MergeFlag on an engine whose Store is not a
// FlagEditor.
var ErrNoEditing = errors.New("the store does not edit counts of flags")

// FlagEditor is a Store that can delete and move the counts of a flag, with all derived data. Each
// call is atomic.
type FlagEditor interface {
	Store
	// DeleteFlag deletes all counts of a flag.
	DeleteFlag(ctx context.Context, flagID int64) error
	// MergeFlag adds all counts of a flag to those of another flag, and deletes the former.
	// Variants and segments keep their IDs. Unknown times become the start of the hour.
	MergeFlag(ctx context.Context, from, to int64) error
}

// DeleteFlag flushes, and then deletes all counts of a flag from the store. Evaluations that are
// recorded later, or are still pending in other engines, are counted again: stop recording the flag
// first. The error matches ErrNoEditing if the Store is not a FlagEditor, and ErrInvalidQuery if
// the ID is less than 1.
func (e *Engine) DeleteFlag(ctx context.Context, flagID int64) error {
	return e.edit(ctx, []int64{flagID}, func(s FlagEditor) error { return s.DeleteFlag(ctx, flagID) })
}

// MergeFlag flushes, and then adds all counts of a flag to those of another flag; see FlagEditor.
// Evaluations that are recorded later, or are still pending in other engines, are counted for the
// former flag. Errors are the errors of DeleteFlag; the two flags must differ.
func (e *Engine) MergeFlag(ctx context.Context, from, to int64) error {
	if from == to {
		return fmt.Errorf("%w: flag %d cannot be merged into itself", ErrInvalidQuery, from)
	}
	return e.edit(ctx, []int64{from, to}, func(s FlagEditor) error { return s.MergeFlag(ctx, from, to) })
}

// edit runs a change of the store when all counts are stored, and while no flush is running.
func (e *Engine) edit(ctx context.Context, flags []int64, change func(FlagEditor) error) error {
	for _, id := range flags {
		if id < 1 {
			return fmt.Errorf("%w: flag is %d, want 1 or more", ErrInvalidQuery, id)
		}
	}
	store, ok := capability[FlagEditor](e.options.Store)
	if !ok {
		return fmt.Errorf("%w: Options.Store is a %T", ErrNoEditing, e.options.Store)
	}
	if err := e.lockFlushing(ctx); err != nil {
		return err
	}
	defer e.unlockFlushing()
	flushing, cancel := e.untilClosed(ctx)
	defer cancel()
	if err := e.flush(flushing); err != nil {
		return err
	}
	return e.changeStore(store, change)
}

func (e *Engine) changeStore(store FlagEditor, change func(FlagEditor) error) (err error) {
	defer e.recoverStore(&err)
	return change(store)
}
