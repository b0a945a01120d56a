package handler

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/go-openapi/runtime"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

// jsonConsumer reads request bodies. Unlike go-openapi's own it refuses a body that goes on after its JSON document.
func jsonConsumer(turns budget.Turns) runtime.Consumer {
	return inTurn(turns, func(r io.Reader, into any) error {
		if batch, ok := into.(*models.DatarEvaluations); ok {
			return decodeIngest(r, batch)
		}
		return decodeJSON(r, into)
	})
}

// inTurn has large bodies decoded in turn. They are read before, since a client may send slowly.
func inTurn(turns budget.Turns, decode runtime.ConsumerFunc) runtime.Consumer {
	return runtime.ConsumerFunc(func(r io.Reader, into any) error {
		body, err := io.ReadAll(r)
		if len(body) > budget.LargeBytes {
			// No more bodies wait than there is memory for, so that the wait is short.
			if err := turns.Take(context.Background()); err != nil {
				return err
			}
			defer turns.Release()
		}
		r = bytes.NewReader(body)
		if err != nil {
			r = io.MultiReader(r, brokenOff{err})
		}
		return decode(r, into)
	})
}

// brokenOff is what is left of a body after an error.
type brokenOff struct{ err error }

func (b brokenOff) Read([]byte) (int, error) { return 0, b.err }

var errMoreJSON = errors.New("unexpected data after the JSON document")

// decodeJSON reads exactly one JSON document; numbers of free-form values keep their text. An empty input is io.EOF.
func decodeJSON(r io.Reader, into any) error {
	decoder := json.NewDecoder(skipMark(r))
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

// skipMark leaves out the byte order mark that some editors and libraries put before a text.
func skipMark(r io.Reader) io.Reader {
	const mark = "\xef\xbb\xbf"
	buffered := bufio.NewReaderSize(r, 16)
	if start, err := buffered.Peek(len(mark)); err == nil && string(start) == mark {
		_, _ = buffered.Discard(len(mark))
	}
	return buffered
}
