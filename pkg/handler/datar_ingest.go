package handler

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	stderrors "errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	datarapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/datar"
)

const (
	// ndjsonMime is the type of a body with one row of counts a line.
	ndjsonMime = "application/x-ndjson"
	// ingestRetryAfter is how many seconds a sender is asked to wait when the database is away.
	ingestRetryAfter = 10
)

// Ingester takes batches of counts. Its errors match those of package ingest where the request is at fault.
type Ingester interface {
	Ingest(ctx context.Context, batch ingest.Batch) (ingest.Result, error)
}

// PostDatarEvaluations takes counts that were aggregated elsewhere.
func (h *Handler) PostDatarEvaluations(p datarapi.PostDatarEvaluationsParams) middleware.Responder {
	if h.ingester == nil {
		return reply(http.StatusNotImplemented, "counts from elsewhere are not taken: start the server with Datar on, and with FLAGR_RECORDER_DATAR_INGEST_ENABLED=true")
	}
	batch := ingest.Batch{Rows: make([]ingest.Row, len(p.Body.FlagEvaluations))}
	if p.IdempotencyKey != nil {
		batch.Key = *p.IdempotencyKey
	}
	batch.Digest, _ = p.HTTPRequest.Context().Value(digestKey{}).(string)
	for i, row := range p.Body.FlagEvaluations {
		batch.Rows[i] = ingestRow(row)
	}
	result, err := h.ingester.Ingest(p.HTTPRequest.Context(), batch)
	switch {
	case err == nil:
		return datarapi.NewPostDatarEvaluationsOK().WithPayload(ingestModel(result))
	case stderrors.Is(err, ingest.ErrInvalid):
		return reply(http.StatusBadRequest, err.Error())
	case stderrors.Is(err, ingest.ErrTooManyRows):
		return reply(http.StatusRequestEntityTooLarge, err.Error())
	case stderrors.Is(err, ingest.ErrKeyReused):
		return reply(http.StatusConflict, err.Error())
	case stderrors.Is(err, datar.ErrRefused):
		h.logger.Error("a batch of counts is refused by the database", "error", err)
		return reply(http.StatusBadRequest, "the database refuses a row of the batch; nothing of it was counted")
	default:
		h.logger.Error("a batch of counts could not be stored", "error", err)
		return middleware.ResponderFunc(func(rw http.ResponseWriter, producer runtime.Producer) {
			rw.Header().Set("Retry-After", strconv.Itoa(ingestRetryAfter))
			reply(http.StatusServiceUnavailable, "the database is away: nothing was counted, send the batch again").WriteResponse(rw, producer)
		})
	}
}

func ingestRow(m *models.DatarEvaluation) ingest.Row {
	if m == nil {
		return ingest.Row{}
	}
	key := func(k *models.DatarEvaluationKey) string {
		if k == nil {
			return ""
		}
		return k.Key
	}
	return ingest.Row{
		FlagKey: key(m.Flag), VariantKey: key(m.Variant), AllocationKey: key(m.Allocation),
		First: m.FirstEvaluation, Last: m.LastEvaluation, Count: m.EvaluationCount,
	}
}

func ingestModel(r ingest.Result) *models.DatarEvaluationsResult {
	return &models.DatarEvaluationsResult{
		Duplicate:     r.Duplicate,
		AcceptedRows:  int64(r.AcceptedRows),
		AcceptedCount: r.AcceptedCount,
		Errors: mapAll(r.Errors, func(e *ingest.RowError) *models.DatarRowError {
			return &models.DatarRowError{Index: int64(e.Index), Code: string(e.Code), Message: e.Message}
		}),
	}
}

// ndjsonConsumer reads rows of counts, one a line, into a batch. Empty lines are passed over.
func ndjsonConsumer() runtime.Consumer {
	return runtime.ConsumerFunc(func(r io.Reader, into any) error {
		batch, ok := into.(*models.DatarEvaluations)
		if !ok {
			return fmt.Errorf("%s is not accepted here", ndjsonMime)
		}
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, ingest.MaxBytes)
		for number := 1; lines.Scan(); number++ {
			if len(bytes.TrimSpace(lines.Bytes())) == 0 {
				continue
			}
			row := &models.DatarEvaluation{}
			if err := decodeJSON(bytes.NewReader(lines.Bytes()), row); err != nil {
				return fmt.Errorf("line %d: %w", number, err)
			}
			batch.FlagEvaluations = append(batch.FlagEvaluations, row)
		}
		return lines.Err()
	})
}

// SnapshotFlags finds the flags of counts in what the server evaluates.
type SnapshotFlags struct{ Snapshots eval.Source }

// FlagByKey implements ingest.Flags.
func (f SnapshotFlags) FlagByKey(key string) (ingest.Flag, bool) {
	snapshot := f.Snapshots.Snapshot()
	if snapshot == nil || key == "" {
		return ingest.Flag{}, false
	}
	found := snapshot.Flag(0, key)
	if found == nil || found.Key != key { // an id given as a key finds a flag, too, but not here
		return ingest.Flag{}, false
	}
	flag := ingest.Flag{ID: int64(found.ID), RecordsEnabled: found.DataRecordsEnabled, Variants: map[string]int64{}}
	for _, v := range found.Variants {
		flag.Variants[v.Key] = int64(v.ID)
	}
	for _, s := range found.Segments {
		flag.Segments = append(flag.Segments, int64(s.ID))
	}
	return flag, true
}

// digestKey is the key of the body's digest in the context of a request.
type digestKey struct{}

// IngestDoor goes before the API where counts are taken. It gives the operation the paths that SDKs know, reads its
// bodies, which may be compressed, within their limit, and notes their digest.
func IngestDoor(basePath string, api http.Handler) http.Handler {
	operation := basePath + "/datar/evaluations"
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case operation, "/api/v2/flagevaluation", "/api/v2/flagevaluations":
		default:
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
		body, status, err := readIngest(rw, r)
		if err != nil {
			reply(status, err.Error()).WriteResponse(rw, nil)
			return
		}
		digest := sha256.Sum256(body)
		inner = inner.WithContext(context.WithValue(r.Context(), digestKey{}, hex.EncodeToString(digest[:])))
		inner.Body, inner.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		inner.Header.Del("Content-Encoding")
		api.ServeHTTP(rw, inner)
	})
}

// readIngest reads and decompresses a body.
func readIngest(rw http.ResponseWriter, r *http.Request) (body []byte, status int, err error) {
	tooLarge := fmt.Errorf("the request body is larger than %d bytes", ingest.MaxBytes)
	body, err = io.ReadAll(http.MaxBytesReader(rw, r.Body, ingest.MaxBytes))
	if maxBytes := (*http.MaxBytesError)(nil); stderrors.As(err, &maxBytes) {
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	}
	if err != nil {
		return nil, http.StatusBadRequest, stderrors.New("the request body ended early")
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
		body, err = io.ReadAll(io.LimitReader(unzipped, ingest.MaxBytes+1))
	}
	switch {
	case err != nil:
		return nil, http.StatusBadRequest, stderrors.New("the request body is not valid gzip")
	case len(body) > ingest.MaxBytes:
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	}
	return body, 0, nil
}
