package handler

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	stderrors "errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/go-openapi/runtime"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

const (
	// ndjsonMime is the type of a body with one row of counts a line.
	ndjsonMime = "application/x-ndjson"
	// ingestMemory is the most bytes of all batches together that are being read or applied: enough for 64 of the largest
	// at once, or a thousand common ones.
	ingestMemory = 64 << 20
)

// digestKey is the key of the body's digest in the context of a request.
type digestKey struct{}

// IngestMiddleware goes before the API where counts are taken. It gives the operation the paths that SDKs know, reads its
// bodies, which may be compressed, within their limit, and notes their digest.
//
// A client that sends slowly holds no more memory than what it has sent, and all of them no more than ingestMemory, until
// the server's read timeout ends them. Who comes when that is used up is asked to come again.
func IngestMiddleware(basePath string, api http.Handler) http.Handler {
	operation := basePath + "/datar/evaluations"
	memory := budget.NewMemory(ingestMemory)
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !leadsToIngest(r.URL, operation) {
			api.ServeHTTP(rw, r)
			return
		}
		inner := r.Clone(r.Context())
		inner.URL.Path, inner.URL.RawPath = operation, ""
		defer func() { r.Pattern = inner.Pattern }() // for what counts requests by their routes
		if r.Method != http.MethodPost {
			api.ServeHTTP(rw, inner)
			return
		}
		share := share{of: memory}
		defer share.giveBack()
		body, status, err := readIngest(rw, r, &share)
		if err == nil { // after the body, which a client may have to get rid of before it reads an answer
			status, err = http.StatusBadRequest, checkIngest(r.Header, body)
		}
		switch {
		case stderrors.Is(err, errNoMemory):
			rw.Header().Set("Connection", "close") // instead of reading what is left of the body
			later(err.Error()).WriteResponse(rw, nil)
			return
		case err != nil:
			reply(status, err.Error()).WriteResponse(rw, nil)
			return
		}
		digest := sha256.Sum256(body)
		inner = inner.WithContext(context.WithValue(r.Context(), digestKey{}, hex.EncodeToString(digest[:])))
		inner.Body, inner.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		inner.Header.Del("Content-Encoding")
		if inner.URL.Path != r.URL.Path && isPlainText(r.Header) {
			inner.Header.Set("Content-Type", ndjsonMime)
		}
		api.ServeHTTP(rw, inner)
	})
}

// isPlainText reports whether a body is sent as text. SDKs in browsers do so on their own paths, with one row a line, since
// browsers ask no permission for it.
func isPlainText(h http.Header) bool {
	mime, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(mime), "text/plain")
}

// leadsToIngest reports whether the path is one of counts, however it is written: the API's router cleans paths with their
// escapes still in them, and must not reach the operation.
func leadsToIngest(u *url.URL, operation string) bool {
	for _, p := range []string{path.Clean(u.Path), path.Clean(u.EscapedPath())} {
		switch p {
		case operation, "/api/v2/flagevaluation", "/api/v2/flagevaluations":
			return true
		}
	}
	return false
}

// errNoMemory is why a body is not read to its end.
var errNoMemory = stderrors.New("too many batches are being sent at once: nothing of this one was counted, send it again")

// share is what one request has of the memory. It belongs to one goroutine.
type share struct {
	of   *budget.Memory
	took int64
}

func (s *share) take(n int64) error {
	if s == nil {
		return nil
	}
	if s.of.Take(n) != nil {
		return errNoMemory
	}
	s.took += n
	return nil
}

func (s *share) giveBack() { s.of.Release(s.took) }

// checkIngest refuses bodies without anything in them, and what a sender may take for a key and is none: without one its
// batch would count each time that it is sent.
func checkIngest(h http.Header, body []byte) error {
	const name = "Idempotency-Key"
	keys := h.Values(name)
	switch {
	case len(bytes.TrimSpace(body)) == 0:
		return stderrors.New("the request has no body, want JSON with flagEvaluations, or one of its rows on each line")
	case len(keys) == 0:
		return nil
	case len(keys) > 1:
		return fmt.Errorf("%s is there %d times, want it once or not at all", name, len(keys))
	case strings.TrimSpace(keys[0]) == "":
		return fmt.Errorf("%s is empty, want 1 to %d characters; without the header a batch counts each time that it is sent", name, ingest.MaxKeyLength)
	}
	if n := utf8.RuneCountInString(keys[0]); n > ingest.MaxKeyLength {
		return fmt.Errorf("%s has %d characters, want 1 to %d", name, n, ingest.MaxKeyLength)
	}
	return nil
}

// readIngest reads and decompresses a body.
func readIngest(rw http.ResponseWriter, r *http.Request, memory *share) (body []byte, status int, err error) {
	tooLarge := fmt.Errorf("the request body is larger than %d bytes", ingest.MaxBytes)
	sent := memory
	if _, charged := r.Body.(*budget.Body); charged {
		sent = nil // its bytes take from the memory of all bodies
	}
	body, err = readAll(http.MaxBytesReader(rw, r.Body, ingest.MaxBytes), sent)
	if maxBytes := (*http.MaxBytesError)(nil); stderrors.As(err, &maxBytes) {
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	}
	switch {
	case stderrors.Is(err, errNoMemory), stderrors.Is(err, budget.ErrExhausted):
		return nil, 0, errNoMemory
	case stderrors.Is(err, budget.ErrTooManyValues):
		return nil, http.StatusRequestEntityTooLarge, err
	case err != nil: // not the batch's fault, so senders must not take it for refused
		return nil, http.StatusRequestTimeout, stderrors.New("the request body ended early, or did not come in time: nothing was counted, send it again")
	}
	switch encoding := strings.ToLower(r.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
		return body, 0, nil
	case "gzip":
	default:
		return nil, http.StatusUnsupportedMediaType, fmt.Errorf("Content-Encoding %q is not accepted, only gzip is", encoding)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(body))
	if err == nil {
		body, err = readAll(io.LimitReader(unzipped, ingest.MaxBytes+1), memory)
	}
	switch {
	case stderrors.Is(err, errNoMemory):
		return nil, 0, err
	case err != nil:
		return nil, http.StatusBadRequest, stderrors.New("the request body is not valid gzip")
	case len(body) > ingest.MaxBytes:
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	}
	return body, 0, nil
}

// readAll is io.ReadAll that takes memory as what it reads grows, whatever was announced; nil: it takes none.
func readAll(r io.Reader, memory *share) ([]byte, error) {
	const first = 4 << 10
	var body []byte
	for {
		if len(body) == cap(body) {
			more := max(first, cap(body)) // the old half is garbage at once
			if err := memory.take(int64(more)); err != nil {
				return nil, err
			}
			grown := make([]byte, len(body), cap(body)+more)
			copy(grown, body)
			body = grown
		}
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case stderrors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return nil, err
		}
	}
}

// boundedRows are read up to the row after the last that is accepted, so that small rows do not make a small body large in
// memory.
type boundedRows = bounded[ingest.Evaluation]

type bounded[T any] []*T

// UnmarshalJSON implements json.Unmarshaler.
func (b *bounded[T]) UnmarshalJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	*b = nil // of null, as of nothing
	switch start, err := decoder.Token(); {
	case err != nil:
		return err
	case start == nil:
		return nil
	case start != json.Delim('['):
		return stderrors.New("flagEvaluations or unknown is not an array")
	}
	*b = bounded[T]{}
	for decoder.More() {
		var row *T
		if err := decoder.Decode(&row); err != nil {
			if wrong, ok := stderrors.AsType[*json.UnmarshalTypeError](err); ok { // flagEvaluations read such rows themselves
				return fmt.Errorf("unknown: row %d: %q is a JSON %s, want rows that are objects", len(*b), wrong.Field, wrong.Value)
			}
			return fmt.Errorf("row %d: %w", len(*b), err)
		}
		if err := b.add(row); err != nil {
			return err
		}
	}
	return nil
}

func (b *bounded[T]) add(row *T) error {
	if len(*b) == ingest.MaxRows {
		return ingest.ErrTooManyRows
	}
	*b = append(*b, row)
	return nil
}

// decodeIngest reads an envelope of counts. Its context, and all else in it that is not counted, is passed over.
func decodeIngest(r io.Reader, batch *models.DatarEvaluations) error {
	type envelope struct {
		FlagEvaluations boundedRows             `json:"flagEvaluations"`
		Unknown         bounded[ingest.Unknown] `json:"unknown"`
		Sender          *ingest.Sender          `json:"sender"`
	}
	var e envelope
	err := decodeJSON(r, &e)
	if wrong := (*json.UnmarshalTypeError)(nil); stderrors.As(err, &wrong) && wrong.Type == reflect.TypeFor[envelope]() {
		return fmt.Errorf("it is of the type %s, want an object with flagEvaluations", wrong.Value)
	}
	if err != nil {
		return err
	}
	batch.FlagEvaluations, batch.Unknown, batch.Sender = e.FlagEvaluations, e.Unknown, e.Sender
	return nil
}

// ndjsonConsumer reads rows of counts, one a line, into a batch. Empty lines are passed over.
func ndjsonConsumer(turns budget.Turns) runtime.Consumer {
	return inTurn(turns, func(r io.Reader, into any) error {
		batch, ok := into.(*models.DatarEvaluations)
		if !ok {
			return fmt.Errorf("%s is not accepted here", ndjsonMime)
		}
		var rows boundedRows
		lines := bufio.NewScanner(skipMark(r))
		lines.Buffer(nil, ingest.MaxBytes+1)
		for number := 1; lines.Scan(); number++ {
			if len(bytes.TrimSpace(lines.Bytes())) == 0 {
				continue
			}
			row := &ingest.Evaluation{}
			if err := decodeJSON(bytes.NewReader(lines.Bytes()), row); err != nil {
				return fmt.Errorf("line %d: %w", number, err)
			}
			if err := rows.add(row); err != nil {
				return err
			}
		}
		batch.FlagEvaluations = rows
		return lines.Err()
	})
}
