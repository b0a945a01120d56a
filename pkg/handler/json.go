package handler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/go-openapi/runtime"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

// jsonConsumer reads request bodies. Unlike go-openapi's consumer, it rejects data after the JSON
// document.
func jsonConsumer(turns budget.Turns) runtime.Consumer {
	return inTurn(turns, func(r io.Reader, into any) error {
		if batch, ok := into.(*models.DatarEvaluations); ok {
			return decodeIngest(r, batch)
		}
		return decodeJSON(r, into)
	})
}

// turnFor waits for the turn of length bytes. If ctx ends before, the error is an
// *insight.UnfinishedError with what was not done.
func (h *Handler) turnFor(ctx context.Context, length int, undone string) (*budget.Turn, error) {
	turn, err := h.turns.TakeFor(ctx, length)
	if err != nil {
		return nil, &insight.UnfinishedError{Work: undone, Err: err}
	}
	return turn, nil
}

// inTurn limits how many bodies that take long are decoded in parallel. It reads a body before it
// waits, because a client may send slowly.
func inTurn(turns budget.Turns, decode runtime.ConsumerFunc) runtime.Consumer {
	return runtime.ConsumerFunc(func(r io.Reader, into any) error {
		body, err := io.ReadAll(r)
		if budget.Weight(body) > budget.LargeBytes {
			// Memory bounds the number of waiting bodies, so the wait is short.
			if err := turns.Take(context.Background()); err != nil {
				return err
			}
			defer turns.Release()
		}
		r = bytes.NewReader(bytes.TrimPrefix(body, []byte(entity.ByteOrderMark)))
		if err != nil {
			r = io.MultiReader(r, brokenOff{err})
		}
		return decode(r, into)
	})
}

// brokenOff is the rest of a body after a read error.
type brokenOff struct{ err error }

func (b brokenOff) Read([]byte) (int, error) { return 0, b.err }

var errMoreJSON = errors.New("unexpected data after the JSON document")

// decodeJSON reads exactly one JSON document. Numbers in free-form values keep their text. The
// error of an empty input is io.EOF.
func decodeJSON(r io.Reader, into any) error {
	decoder := json.NewDecoder(r)
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	switch next, err := decoder.Token(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", errMoreJSON, err)
	default:
		return fmt.Errorf("%w: %v", errMoreJSON, next)
	}
}
