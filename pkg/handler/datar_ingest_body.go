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
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-openapi/runtime"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

// ndjsonMime is the media type of a body with one row of counts per line.
const ndjsonMime = "application/x-ndjson"

// ingestOperation is the path of the operation below the API's base path.
const ingestOperation = "/datar/evaluations"

// sdkPaths returns the further paths to which SDKs send counts.
func sdkPaths() []string { return []string{"/api/v2/flagevaluation", "/api/v2/flagevaluations"} }

// IngestPaths returns the paths, or the ends of paths, to which clients send counts.
func IngestPaths() []string { return append(sdkPaths(), ingestOperation) }

// digestKey is the context key of the body's digest.
type digestKey struct{}

// IngestMiddleware wraps the API for requests that send counts. It routes the paths that SDKs use
// to the operation, reads and decompresses the body within its limit, and stores the body's digest
// in the context.
//
// A client that sends slowly holds only the memory of what it has sent. All clients together hold
// at most memory, until the server's read timeout ends their requests. While the memory is used up,
// further clients are told to retry. Large bodies grow in turns, because a thousand clients may
// send at the same time.
//
// The paths are those of IngestPaths.
func IngestMiddleware(basePath string, memory *budget.Memory, turns budget.Turns, api http.Handler) http.Handler {
	operation := basePath + ingestOperation
	paths := append(sdkPaths(), operation)
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !leadsToIngest(r.URL, paths) {
			api.ServeHTTP(rw, r)
			return
		}
		inner := r.Clone(r.Context())
		inner.URL.Path, inner.URL.RawPath = operation, ""
		defer func() { r.Pattern = inner.Pattern }() // for metrics, which count requests by route
		if r.Method != http.MethodPost {
			api.ServeHTTP(rw, inner)
			return
		}
		share := share{of: memory}
		defer share.giveBack()
		body, status, err := readIngest(rw, r, turns, &share)
		if err == nil { // after the body: a client may have to send all of it before it reads a response
			status, err = http.StatusBadRequest, checkIngest(r.Header, body)
		}
		switch {
		case stderrors.Is(err, errNoMemory):
			rw.Header().Set("Connection", "close") // so that the rest of the body is not read
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

// isPlainText reports whether a body is sent as text. SDKs in browsers do so on their own paths,
// with one row per line, because browsers send text without a preflight request.
func isPlainText(h http.Header) bool {
	mime, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(mime), "text/plain")
}

// leadsToIngest reports whether a URL leads to one of the paths, in whatever form it is written.
// The API's router cleans escaped paths, so the escaped form is checked, too. Otherwise a request
// could bypass this middleware.
func leadsToIngest(u *url.URL, paths []string) bool {
	return slices.Contains(paths, path.Clean(u.Path)) || slices.Contains(paths, path.Clean(u.EscapedPath()))
}

// Errors of a body that was not read to its end.
var (
	errNoMemory = stderrors.New("too many batches are being sent at once: nothing of this one was counted, send it again")
	errCutOff   = stderrors.New("the request body ended early, or did not come in time: nothing was counted, send it again")
)

// share is the part of the memory that one request holds. It belongs to one goroutine.
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

// checkIngest rejects an empty body and an invalid idempotency key. A batch without a valid key
// would count each time that it is sent.
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
func readIngest(rw http.ResponseWriter, r *http.Request, turns budget.Turns, memory *share) (body []byte, status int, err error) {
	tooLarge := fmt.Errorf("the request body is larger than %d bytes", ingest.MaxBytes)
	sent := memory
	if _, charged := r.Body.(*budget.Body); charged {
		sent = nil // its bytes take from the memory of all bodies
	}
	body, err = readAll(r.Context(), http.MaxBytesReader(rw, r.Body, ingest.MaxBytes), r.ContentLength, turns, sent)
	if maxBytes := (*http.MaxBytesError)(nil); stderrors.As(err, &maxBytes) {
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	}
	switch {
	case stderrors.Is(err, errNoMemory), stderrors.Is(err, budget.ErrExhausted):
		return nil, 0, errNoMemory
	case stderrors.Is(err, budget.ErrTooManyValues):
		return nil, http.StatusRequestEntityTooLarge, err
	case err != nil: // not the batch's fault, so senders must not treat it as rejected
		return nil, http.StatusRequestTimeout, errCutOff
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
		body, err = readAll(r.Context(), io.LimitReader(unzipped, ingest.MaxBytes+1), -1, turns, memory)
	}
	switch {
	case stderrors.Is(err, errNoMemory):
		return nil, 0, err
	case r.Context().Err() != nil:
		return nil, http.StatusRequestTimeout, errCutOff
	case err != nil:
		return nil, http.StatusBadRequest, stderrors.New("the request body is not valid gzip")
	case len(body) > ingest.MaxBytes:
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	}
	return body, 0, nil
}

// readAll reads all of r, and reserves memory as the data grows, up to four times of what has
// arrived, whatever length was announced. A negative length is unknown. A body that becomes large
// waits for its turn to grow. It is not read during the turn, because the client may be slow. A nil
// memory reserves nothing.
func readAll(ctx context.Context, r io.Reader, length int64, turns budget.Turns, memory *share) ([]byte, error) {
	if length < 0 || length > ingest.MaxBytes {
		length = ingest.MaxBytes + 1
	}
	return budget.ReadGrowing(r, int(length), func(body []byte, size int) ([]byte, error) {
		if err := memory.take(int64(size - len(body))); err != nil { // the old buffer can be collected at once
			return nil, err
		}
		if size > budget.LargeBytes+bytes.MinRead {
			if err := turns.Take(ctx); err != nil {
				return nil, err
			}
			defer turns.Release()
		}
		return append(make([]byte, 0, size), body...), nil
	})
}

// boundedRows is decoded up to the first row beyond the limit, so that a small body with many small
// rows does not take much memory.
type boundedRows = bounded[ingest.Evaluation]

type bounded[T any] []*T

// UnmarshalJSON implements json.Unmarshaler.
func (b *bounded[T]) UnmarshalJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	*b = nil // for null, as for a missing list
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
		if err := decoder.Decode(&row); err != nil { // never about types: rows decode themselves
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

// decodeIngest reads an envelope of counts. It skips the context and all other fields that are not
// counted.
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

// ndjsonConsumer reads rows of counts, one per line, into a batch. It skips empty lines.
func ndjsonConsumer(turns budget.Turns) runtime.Consumer {
	return inTurn(turns, func(r io.Reader, into any) error {
		batch, ok := into.(*models.DatarEvaluations)
		if !ok {
			return fmt.Errorf("%s is not accepted here", ndjsonMime)
		}
		var rows boundedRows
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, ingest.MaxBytes+1)
		for number := 1; lines.Scan(); number++ {
			line := bytes.TrimPrefix(lines.Bytes(), []byte(entity.ByteOrderMark)) // also in the middle, where files were joined
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			row := &ingest.Evaluation{}
			if err := decodeJSON(bytes.NewReader(line), row); err != nil {
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
