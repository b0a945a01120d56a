package evallog

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	// DefaultMaxBytes is the default maximum size of an envelope before compression, which is the
	// limit of Datar's endpoint.
	DefaultMaxBytes = 1 << 20
	// MaxMaxBytes is the maximum of HTTPOptions.MaxBytes: envelopes stay below 5 MiB.
	MaxMaxBytes = 5<<20 - 1
	// maxAnswer is how much of a response is read; 1,000 refused rows take less, regardless of
	// their keys.
	maxAnswer = 4 << 20
)

// HTTPOptions configure an HTTPWriter. URL is required.
type HTTPOptions struct {
	// URL is the URL to post envelopes to, such as
	// https://flagr.example.com/api/v1/datar/evaluations.
	URL string
	// Header is sent with every request, such as Authorization.
	Header http.Header
	// Client sends the requests. Redirects are never followed. Nil means a client like
	// http.DefaultClient.
	Client *http.Client
	// MaxBytes is the maximum size of one envelope before compression: 1 to MaxMaxBytes. 0 means
	// DefaultMaxBytes. Do not change it while batches are in a spool.
	MaxBytes int
}

// HTTPWriter posts batches as JSON envelopes, compressed with gzip, to Datar's endpoint or another
// one that accepts them. A batch that is too large for one envelope is sent as several complete
// ones.
//
// Each envelope has an Idempotency-Key of the batch's writer and a number. It is the same at each
// retry, and the numbers of a writer grow, so a receiver only needs to store the greatest.
//
// Network errors and the statuses 408, 429 and 5xx are retried. After other statuses the envelope
// is dropped, with a reason such as http_400. The codes of refused rows become their reasons.
type HTTPWriter struct {
	options HTTPOptions
	client  *http.Client
}

var _ Writer = (*HTTPWriter)(nil)

// NewHTTPWriter returns an HTTPWriter after checking the options.
func NewHTTPWriter(options HTTPOptions) (*HTTPWriter, error) {
	target, err := url.Parse(options.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("evallog: HTTPOptions.URL: %w", err)
	case target.Scheme != "http" && target.Scheme != "https" || target.Host == "":
		return nil, fmt.Errorf("evallog: HTTPOptions.URL is %q, want http://host/path or https://host/path", options.URL)
	case options.MaxBytes < 0 || options.MaxBytes > MaxMaxBytes:
		return nil, fmt.Errorf("evallog: HTTPOptions.MaxBytes is %d, want 1 to %d, or 0 for the default", options.MaxBytes, MaxMaxBytes)
	case options.MaxBytes == 0:
		options.MaxBytes = DefaultMaxBytes
	}
	client := http.Client{}
	if options.Client != nil {
		client = *options.Client
	}
	// The target of a redirect may return 200 to any request, and the counts would be lost.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &HTTPWriter{options: options, client: &client}, nil
}

// wireRow is a row of an envelope.
type wireRow struct {
	Timestamp          int64      `json:"timestamp"`
	Flag               wireKey    `json:"flag"`
	Variant            *wireKey   `json:"variant,omitempty"`
	Allocation         *wireKey   `json:"allocation,omitempty"`
	TargetingKey       string     `json:"targeting_key,omitempty"`
	FirstEvaluation    int64      `json:"first_evaluation"`
	LastEvaluation     int64      `json:"last_evaluation"`
	EvaluationCount    int64      `json:"evaluation_count"`
	RuntimeDefaultUsed bool       `json:"runtime_default_used"`
	Error              *wireError `json:"error,omitempty"`
	Outcome            string     `json:"outcome,omitempty"`
	Version            int64      `json:"version,omitempty"`
	Asked              []string   `json:"asked,omitempty"`
}

type wireKey struct {
	Key string `json:"key"`
}

type wireError struct {
	Message string `json:"message"`
}

func optionalKey(t Text) *wireKey {
	text, ok := t.Get()
	if !ok {
		return nil
	}
	return &wireKey{text}
}

func wireOf(r Row) wireRow {
	w := wireRow{
		Timestamp:          r.First,
		Flag:               wireKey{r.Key.Flag},
		Variant:            optionalKey(r.Key.Variant),
		Allocation:         optionalKey(r.Key.Allocation),
		TargetingKey:       r.Key.TargetingKey.String(),
		FirstEvaluation:    r.First,
		LastEvaluation:     r.Last,
		EvaluationCount:    r.Count,
		RuntimeDefaultUsed: r.Key.RuntimeDefaultUsed(),
		Outcome:            r.Key.Outcome.String(),
		Version:            r.Key.Version,
		Asked:              r.Key.Asked.Names(),
	}
	// The code comes first, because it distinguishes rows.
	switch code, ok := r.Key.ErrorCode.Get(); {
	case ok && r.ErrorMessage != "":
		w.Error = &wireError{code + ": " + r.ErrorMessage}
	case ok:
		w.Error = &wireError{code}
	case r.ErrorMessage != "":
		w.Error = &wireError{r.ErrorMessage}
	}
	return w
}

// envelope is a body and the rows of the batch in it.
type envelope struct {
	body []byte
	rows []int
}

// envelopes divides a batch. It omits and returns rows that are too large for an envelope of their
// own.
func (w *HTTPWriter) envelopes(batch Batch) (all []envelope, tooLarge []RefusedRow, err error) {
	context, err := json.Marshal(batch.Context)
	if err != nil {
		return nil, nil, err
	}
	head := `{"context":` + string(context) + `,"flagEvaluations":[`
	const tail = "]}"
	var open envelope
	finish := func() {
		if len(open.rows) > 0 {
			open.body = append(open.body, tail...)
			all = append(all, open)
		}
		open = envelope{}
	}
	for i, row := range batch.Rows {
		encoded, err := json.Marshal(wireOf(row))
		if err != nil {
			return nil, nil, err
		}
		if len(head)+len(encoded)+len(tail) > w.options.MaxBytes {
			tooLarge = append(tooLarge, RefusedRow{Index: i, Reason: "too_large"})
			continue
		}
		if len(open.rows) == maxRows || len(open.body)+len(",")+len(encoded)+len(tail) > w.options.MaxBytes {
			finish()
		}
		if len(open.rows) == 0 {
			open.body = append(open.body, head...)
		} else {
			open.body = append(open.body, ',')
		}
		open.body = append(open.body, encoded...)
		open.rows = append(open.rows, i)
	}
	finish()
	return all, tooLarge, nil
}

// Write implements Writer.
func (w *HTTPWriter) Write(ctx context.Context, batch Batch) error {
	envelopes, lost, err := w.envelopes(batch)
	if err != nil {
		return RefuseAll(batch, "encoding", err)
	}
	var cause error
	if len(lost) > 0 {
		cause = fmt.Errorf("%d rows do not fit into %d bytes", len(lost), w.options.MaxBytes)
	}
	for part, e := range envelopes {
		refused, err := w.post(ctx, e, fmt.Sprintf("%s:%d", batch.Writer, batch.PartSequence(part)))
		if err != nil && len(refused) == 0 {
			return err // envelopes that were sent are sent again, and the receiver recognizes them
		}
		cause = errors.Join(cause, err)
		lost = append(lost, refused...)
	}
	if len(lost) > 0 {
		return &RefusedError{Rows: lost, Err: cause}
	}
	return nil
}

// post sends one envelope. It returns the lost rows, with the cause if all are lost; or no rows and
// an error if the envelope must be retried.
func (w *HTTPWriter) post(ctx context.Context, e envelope, key string) ([]RefusedRow, error) {
	var body bytes.Buffer
	compressor := gzip.NewWriter(&body)
	if _, err := compressor.Write(e.body); err != nil {
		return nil, err
	}
	if err := compressor.Close(); err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.options.URL, &body)
	if err != nil {
		return nil, err
	}
	maps.Copy(request.Header, w.options.Header)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Content-Encoding", "gzip")
	request.Header.Set("Idempotency-Key", key)
	response, err := w.client.Do(request)
	if err != nil {
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err // without the URL, whose query may have a token
		}
		return nil, err
	}
	defer func() { _ = response.Body.Close() }() // already read
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	switch status := response.StatusCode; {
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status >= 500:
		return nil, &RetryError{After: retryAfter(response.Header.Get("Retry-After"), time.Now()), Err: fmt.Errorf("HTTP status %d", status)}
	case status < 200 || status > 299:
		refused := make([]RefusedRow, len(e.rows))
		for i, row := range e.rows {
			refused[i] = RefusedRow{Index: row, Reason: DropReason("http_" + strconv.Itoa(status))}
		}
		return refused, fmt.Errorf("HTTP status %d: %.200q", status, answer)
	case err != nil:
		return nil, fmt.Errorf("read the response: %w", err)
	}
	return refusedRows(answer, e.rows), nil
}

// refusedRows parses the refused rows of a response, if it has any.
func refusedRows(answer []byte, rows []int) []RefusedRow {
	var verdicts struct {
		Errors []struct {
			Index int    `json:"index"`
			Code  string `json:"code"`
		} `json:"errors"`
	}
	if json.Unmarshal(answer, &verdicts) != nil {
		return nil // another receiver with another response
	}
	var refused []RefusedRow
	for _, v := range verdicts.Errors {
		// A row with an unknown segment is counted without the segment.
		if v.Index >= 0 && v.Index < len(rows) && v.Code != "SEGMENT_UNKNOWN" {
			refused = append(refused, RefusedRow{Index: rows[v.Index], Reason: DropReason(v.Code)})
		}
	}
	return refused
}

// retryAfter parses the two forms of the header, seconds and a date. It returns 0 for anything
// else.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(value, 10, 64); err == nil {
		return time.Duration(max(0, min(seconds, int64(maxRetryAfter/time.Second)))) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}
