// Package forward lets a Datar engine without a database send its batches to POST
// /datar/evaluations of a central server. A batch keeps the writer and number of the engine, so the
// central server counts it once, even if requests, responses or processes fail on both sides.
//
// It is part of the eval-only server, and may change in any version.
package forward

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

// ErrElsewhere is the error of all queries: the counts are on the central server. It matches
// errors.ErrUnsupported.
var ErrElsewhere error = elsewhereError{}

type elsewhereError struct{}

func (elsewhereError) Error() string {
	return "this server forwards its counts: query the central server"
}

func (elsewhereError) Is(target error) bool { return target == errors.ErrUnsupported }

const (
	// endpoint is appended to a URL that does not end in it.
	endpoint = "/api/v1" + operation
	// operation is the end of the path of every URL.
	operation = "/datar/evaluations"
	// requestTimeout limits one request.
	requestTimeout = 30 * time.Second
	// maxAnswerBytes limits what is read of a response: results for MaxRows rows take less,
	// regardless of their keys.
	maxAnswerBytes = 4 << 20
)

// Options configure a Store. URL is required.
type Options struct {
	// URL is the URL of the central server, such as https://flagr.example.com, or of its endpoint.
	URL string
	// Header is sent with each request, such as an Authorization. It is never logged.
	Header http.Header
	// Dir is the folder of the file with the keys of flags and variants, next to the journals.
	// Empty means in memory only, like the counts.
	Dir string
	// Client sends the requests; nil means a client that follows no redirects.
	Client *http.Client
	// Logger receives a line for each reason for which the central server does not count rows. Nil
	// means no log.
	Logger *slog.Logger
}

// Store is a datar.Store on another server.
type Store struct {
	url      string
	identity string
	header   http.Header
	client   *http.Client
	logger   *slog.Logger
	keys     *keys

	mu struct {
		sync.Mutex
		reported map[ingest.Code]bool // reasons that are logged
	}
}

var (
	_ datar.DetailStore    = (*Store)(nil)
	_ datar.PartialApplier = (*Store)(nil)
)

// New returns a store that sends to the URL. It makes no request, and needs no Close.
func New(o Options) (*Store, error) {
	u, err := url.Parse(o.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, errors.New("forward: Options.URL is not valid, want a URL such as https://flagr.example.com")
	}
	if !strings.HasSuffix(u.Path, operation) {
		u.Path = strings.TrimSuffix(u.Path, "/") + endpoint
	}
	hash := sha256.Sum256([]byte(u.Scheme + "://" + u.Host + u.Path))
	s := &Store{
		url:      u.String(),
		identity: "forward-" + hex.EncodeToString(hash[:16]),
		header:   o.Header,
		client:   o.Client,
		logger:   o.Logger,
	}
	s.mu.reported = map[ingest.Code]bool{}
	if s.client == nil {
		s.client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.keys, err = openKeys(o.Dir, s.identity); err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	return s, nil
}

// Identity implements datar.Store: journals belong to the URL.
func (s *Store) Identity() string { return s.identity }

// MaxRows implements datar.BatchSizer.
func (s *Store) MaxRows() int { return ingest.MaxRows }

// Totals implements datar.Store. Its error is ErrElsewhere.
func (s *Store) Totals(context.Context, datar.TotalsQuery) ([]datar.Total, error) {
	return nil, ErrElsewhere
}

// Details implements datar.DetailStore. Its error is ErrElsewhere.
func (s *Store) Details(context.Context, datar.DetailsQuery) ([]datar.Row, error) {
	return nil, ErrElsewhere
}

// DetailedFrom implements datar.DetailStore. Its error is ErrElsewhere.
func (s *Store) DetailedFrom(context.Context) (datar.Hour, error) { return 0, ErrElsewhere }

// Unknown implements datar.DetailStore. Its error is ErrElsewhere.
func (s *Store) Unknown(context.Context, datar.UnknownQuery) ([]datar.UnknownRow, error) {
	return nil, ErrElsewhere
}

// Servers implements datar.DetailStore. Its error is ErrElsewhere.
func (s *Store) Servers(context.Context) ([]datar.ServerRecord, error) { return nil, ErrElsewhere }

// Outcome returns the IDs under which to record an outcome, because flags and variants have no
// other IDs that stay the same when a flag document changes. The segment is the flag's segment in
// the document; the central server checks whether it exists.
func (s *Store) Outcome(flagKey, variantKey string) (flagID, variantID int64, err error) {
	flagID, err = s.keys.id(flagKey)
	if err == nil && variantKey != "" {
		variantID, err = s.keys.id(variantKey)
	}
	return flagID, variantID, err
}

// envelope is the body of a request.
type envelope struct {
	FlagEvaluations []ingest.Evaluation `json:"flagEvaluations"`
	Unknown         []ingest.Unknown    `json:"unknown,omitempty"`
	Sender          *ingest.Sender      `json:"sender,omitempty"`
}

// Apply implements datar.Store.
func (s *Store) Apply(ctx context.Context, batch datar.Batch) error {
	_, err := s.ApplySome(ctx, batch)
	return err
}

// ApplySome implements datar.PartialApplier. Rows that the central server does not count, such as
// those of an unknown flag, are refused. The error matches datar.ErrRefused if the central server
// can never accept the batch.
func (s *Store) ApplySome(ctx context.Context, batch datar.Batch) (refused int64, err error) {
	body, rows, err := s.encode(batch)
	if err != nil {
		return 0, err
	}
	result, err := s.send(ctx, batch, body)
	if err != nil {
		return 0, err
	}
	judged := result.AcceptedRows
	for _, e := range result.Errors {
		if e.Code != ingest.SegmentUnknown { // such a row is one of the accepted ones
			judged++
		}
	}
	for _, r := range batch.Rows {
		refused += r.Count
	}
	refused -= result.AcceptedCount
	if judged != rows || result.AcceptedCount < 0 || refused < 0 {
		return 0, fmt.Errorf("forward counts: the response covers %d rows of %d and omits %d evaluations: it is not from a central server",
			judged, rows, refused)
	}
	s.report(result.Errors)
	return refused, nil
}

// send sends the request.
func (s *Store) send(ctx context.Context, batch datar.Batch, body []byte) (result ingest.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return result, fmt.Errorf("forward counts: %w", err)
	}
	maps.Copy(request.Header, s.header)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Content-Encoding", "gzip")
	request.Header.Set("Idempotency-Key", batch.Writer+":"+strconv.FormatInt(batch.Sequence, 10))
	response, err := s.client.Do(request)
	if err != nil {
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err // without the URL, whose query may have a token
		}
		return result, fmt.Errorf("forward counts: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	if err != nil {
		return result, fmt.Errorf("forward counts: read the response: %w", err)
	}
	switch status := response.StatusCode; {
	case status == http.StatusOK:
	case status == http.StatusRequestEntityTooLarge,
		(status == http.StatusBadRequest || status == http.StatusUnprocessableEntity) && explained(answer):
		return result, fmt.Errorf("%w: the central server returned %s: %.200s", datar.ErrRefused, response.Status, answer)
	default:
		return result, fmt.Errorf("forward counts: the central server returned %s: %.200s", response.Status, answer)
	}
	if err := json.Unmarshal(answer, &result); err != nil {
		return result, fmt.Errorf("forward counts: the response is not from a central server: %w", err)
	}
	return result, nil
}

// explained reports whether a response is an error of a central server. Another 400, for example
// from a port that requires TLS, must not drop counts.
func explained(answer []byte) bool {
	var body struct {
		Message string `json:"message"`
	}
	return json.Unmarshal(answer, &body) == nil && body.Message != ""
}

// encode returns the body of a batch, and its number of rows. A count that is too large for one
// row, such as that of an hour during an outage of the central server, is divided.
func (s *Store) encode(batch datar.Batch) (encoded []byte, rows int, err error) {
	e := envelope{FlagEvaluations: make([]ingest.Evaluation, 0, len(batch.Rows)), Sender: ingest.NewSender(batch.Server)}
	for _, u := range batch.Unknown {
		row := ingest.Unknown{Asked: u.Asked, First: u.First, Last: u.Last}
		for left := u.Count; left > 0; left -= row.Count {
			row.Count = min(left, ingest.MaxCount)
			e.Unknown = append(e.Unknown, row)
		}
	}
	for _, r := range batch.Rows {
		flag, ok := s.keys.key(r.FlagID)
		if !ok {
			return nil, 0, fmt.Errorf("%w: no flag has the ID %d: was the file of keys next to the journals removed?", datar.ErrRefused, r.FlagID)
		}
		row := ingest.Evaluation{
			Timestamp: r.First, Flag: &ingest.Identifier{Key: flag}, FirstEvaluation: r.First, LastEvaluation: r.Last,
		}
		if r.Outcome != datar.Unattributed {
			row.Outcome, row.Version, row.Asked = r.Outcome.String(), int64(r.Version), ingest.AskedNames(r.Asked)
		}
		if r.VariantID != 0 {
			variant, ok := s.keys.key(r.VariantID)
			if !ok {
				return nil, 0, fmt.Errorf("%w: no variant has the ID %d", datar.ErrRefused, r.VariantID)
			}
			row.Variant = &ingest.Identifier{Key: variant}
		}
		if r.SegmentID != 0 {
			row.Allocation = &ingest.Identifier{Key: strconv.FormatInt(r.SegmentID, 10)}
		}
		for left := r.Count; left > 0; left -= row.EvaluationCount {
			row.EvaluationCount = min(left, ingest.MaxCount)
			e.FlagEvaluations = append(e.FlagEvaluations, row)
		}
	}
	var body bytes.Buffer
	zip := gzip.NewWriter(&body)
	if err := json.NewEncoder(zip).Encode(e); err != nil {
		return nil, 0, fmt.Errorf("encode counts: %w", err)
	}
	if err := zip.Close(); err != nil {
		return nil, 0, fmt.Errorf("compress counts: %w", err)
	}
	return body.Bytes(), len(e.FlagEvaluations), nil
}

// report logs each reason once.
func (s *Store) report(verdicts []ingest.RowError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range verdicts {
		if !s.mu.reported[v.Code] {
			s.mu.reported[v.Code] = true
			s.logger.Warn("the central server rejected or changed some evaluations; further ones of this kind are not logged",
				"code", v.Code, "message", v.Message)
		}
	}
}
