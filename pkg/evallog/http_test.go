package evallog_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/evallog"
)

// request is what a receiver saw of one.
type request struct {
	key, body string
	header    http.Header
}

// receiver is a server that keeps requests and answers with what answer says, 200 if it is nil.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	requests []request
	answer   func(w http.ResponseWriter, n int) // n counts requests from 1
}

func newReceiver(t *testing.T, answer func(w http.ResponseWriter, n int)) *receiver {
	t.Helper()
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		unzipped, err := gzip.NewReader(q.Body)
		if err != nil {
			t.Error(err)
			return
		}
		body, err := io.ReadAll(unzipped)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		r.requests = append(r.requests, request{q.Header.Get("Idempotency-Key"), string(body), q.Header})
		n := len(r.requests)
		r.mu.Unlock()
		if r.answer != nil {
			r.answer(w, n)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) seen() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

func newHTTPWriter(t *testing.T, o evallog.HTTPOptions) *evallog.HTTPWriter {
	t.Helper()
	writer, err := evallog.NewHTTPWriter(o)
	if err != nil {
		t.Fatal(err)
	}
	return writer
}

// batchOf has a row for each flag.
func batchOf(flags ...string) evallog.Batch {
	batch := evallog.Batch{Writer: "3f0e8c1a-7a51-4c39-9f0e-0f4b8f6f2a10", Sequence: 3}
	for _, flag := range flags {
		batch.Rows = append(batch.Rows, evallog.Row{Key: on(flag).Key, Count: 1, First: 1, Last: 1})
	}
	return batch
}

func TestTheWireFormat(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	writer := newHTTPWriter(t, evallog.HTTPOptions{URL: r.URL, Header: http.Header{"Authorization": {"Bearer token"}}})
	none := evallog.None()
	batch := evallog.Batch{
		Writer: "3f0e8c1a-7a51-4c39-9f0e-0f4b8f6f2a10", Sequence: 3,
		Context: evallog.Context{Service: "shop", Version: "1.2.3", Env: "prod"},
		Rows: []evallog.Row{
			{Key: evallog.Key{Flag: "checkout", Variant: evallog.Some("on"), Allocation: evallog.Some("10"), TargetingKey: none, ErrorCode: none}, Count: 42, First: 1769000000123, Last: 1769000009870},
			{Key: evallog.Key{Flag: "gone", Variant: none, Allocation: none, TargetingKey: none, ErrorCode: evallog.Some("FLAG_NOT_FOUND")}, Count: 1, First: 1769000001000, Last: 1769000001000},
			{Key: evallog.Key{Flag: "typed", Variant: evallog.Some(""), Allocation: evallog.Some(""), TargetingKey: evallog.Some("alice"), ErrorCode: evallog.Some("TYPE_MISMATCH")}, Count: 2, First: 1, Last: 2, ErrorMessage: `not a "number"`},
		},
	}
	if err := writer.Write(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	const want = `{"context":{"service":"shop","version":"1.2.3","env":"prod"},"flagEvaluations":[` +
		`{"timestamp":1769000000123,"flag":{"key":"checkout"},"variant":{"key":"on"},"allocation":{"key":"10"},"first_evaluation":1769000000123,"last_evaluation":1769000009870,"evaluation_count":42,"runtime_default_used":false},` +
		`{"timestamp":1769000001000,"flag":{"key":"gone"},"first_evaluation":1769000001000,"last_evaluation":1769000001000,"evaluation_count":1,"runtime_default_used":true,"error":{"message":"FLAG_NOT_FOUND"}},` +
		`{"timestamp":1,"flag":{"key":"typed"},"variant":{"key":""},"allocation":{"key":""},"targeting_key":"alice","first_evaluation":1,"last_evaluation":2,"evaluation_count":2,"runtime_default_used":true,"error":{"message":"TYPE_MISMATCH: not a \"number\""}}]}`
	got := r.seen()[0]
	if diff := cmp.Diff(want, got.body); diff != "" {
		t.Error(diff)
	}
	if got.header.Get("Content-Type") != "application/json" || got.header.Get("Authorization") != "Bearer token" {
		t.Errorf("header %v", got.header)
	}
	if want := fmt.Sprintf("%s:%d", batch.Writer, batch.PartSequence(0)); got.key != want {
		t.Errorf("Idempotency-Key %q, want %q", got.key, want)
	}
}

func TestLargeBatchesAreSplitIntoCompleteEnvelopes(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		rows, flagBytes, maxBytes int
		envelopes                 int
	}{
		"fits":                   {1000, 30, 0, 1},
		"more rows than allowed": {1001, 30, 0, 2},
		"more bytes":             {1000, 4000, 0, 4},
		"below 5 MiB":            {1000, 6000, evallog.MaxMaxBytes, 2},
		"one row each":           {10, 600, 1000, 10},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, nil)
			writer := newHTTPWriter(t, evallog.HTTPOptions{URL: r.URL, MaxBytes: c.maxBytes})
			var flags []string
			for i := range c.rows {
				flags = append(flags, fmt.Sprintf("%0*d", c.flagBytes, i))
			}
			for range 2 { // a batch is split alike whenever it is sent
				if err := writer.Write(t.Context(), batchOf(flags...)); err != nil {
					t.Fatal(err)
				}
			}
			limit := c.maxBytes
			if limit == 0 {
				limit = evallog.DefaultMaxBytes
			}
			seen := r.seen()
			if len(seen) != 2*c.envelopes {
				t.Fatalf("%d envelopes, want %d", len(seen)/2, c.envelopes)
			}
			var got []string
			last := int64(0)
			for i, q := range seen[:c.envelopes] {
				if len(q.body) > limit {
					t.Errorf("an envelope has %d bytes", len(q.body))
				}
				if again := seen[c.envelopes+i]; again.key != q.key || again.body != q.body {
					t.Errorf("envelope %d differs when it is sent again", i)
				}
				_, number, _ := strings.Cut(q.key, ":")
				sequence, err := strconv.ParseInt(number, 10, 64)
				if err != nil || sequence <= last || sequence >= batchOf().Sequence*2048+2048 {
					t.Errorf("key %q after number %d", q.key, last)
				}
				last = sequence
				var body struct {
					FlagEvaluations []struct{ Flag struct{ Key string } }
				}
				if err := json.Unmarshal([]byte(q.body), &body); err != nil {
					t.Fatal(err)
				}
				for _, row := range body.FlagEvaluations {
					got = append(got, row.Flag.Key)
				}
			}
			if diff := cmp.Diff(flags, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRaceSevenARowThatFitsNowhereIsIsolated(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	engine := newEngine(t, evallog.Options{Writer: newHTTPWriter(t, evallog.HTTPOptions{URL: r.URL, MaxBytes: 1000})})
	for _, flag := range []string{"before", strings.Repeat("x", 1000), "after"} {
		engine.Record(on(flag))
	}
	flush(t, engine)
	engine.Record(on("later"))
	flush(t, engine)
	stats := engine.Stats()
	checkStats(t, stats, 4)
	if stats.Dropped["too_large"] != 1 || stats.Full != 3 || stats.Pending != 0 || len(r.seen()) != 2 {
		t.Errorf("%d envelopes, %+v", len(r.seen()), stats)
	}
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	retried := []int{408, 429, 500, 502, 503, 504}
	refused := []int{301, 302, 307, 400, 401, 403, 404, 409, 413, 422}
	taken := []int{200, 201, 202, 204}
	for _, status := range slices.Concat(retried, refused, taken) {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, func(w http.ResponseWriter, _ int) {
				w.Header().Set("Location", "/login")
				w.WriteHeader(status)
			})
			err := newHTTPWriter(t, evallog.HTTPOptions{URL: r.URL}).Write(t.Context(), batchOf("a", "b"))
			var refusal *evallog.RefusedError
			switch {
			case slices.Contains(taken, status):
				if err != nil {
					t.Error(err)
				}
			case slices.Contains(retried, status):
				if _, ok := errors.AsType[*evallog.RetryError](err); !ok {
					t.Errorf("got %v", err)
				}
			default:
				reason := evallog.DropReason(fmt.Sprint("http_", status))
				want := []evallog.RefusedRow{{Index: 0, Reason: reason}, {Index: 1, Reason: reason}}
				if !errors.As(err, &refusal) || !cmp.Equal(refusal.Rows, want) {
					t.Errorf("got %v", err)
				}
			}
			if len(r.seen()) != 1 {
				t.Errorf("%d requests", len(r.seen()))
			}
		})
	}
}

func TestTheRetryAfterHeader(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ from, to time.Duration }{
		"7":      {7 * time.Second, 7 * time.Second},
		"-7":     {0, 0},
		"soon":   {0, 0},
		"999999": {time.Hour, time.Hour},
		time.Now().Add(20 * time.Minute).UTC().Format(http.TimeFormat): {15 * time.Minute, 20 * time.Minute},
		"Sun, 06 Nov 1994 08:49:37 GMT":                                {0, 0},
	}
	for value, c := range cases {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, func(w http.ResponseWriter, _ int) {
				w.Header().Set("Retry-After", value)
				w.WriteHeader(http.StatusTooManyRequests)
			})
			var retry *evallog.RetryError
			err := newHTTPWriter(t, evallog.HTTPOptions{URL: r.URL}).Write(t.Context(), batchOf("a"))
			if !errors.As(err, &retry) || retry.After < c.from || retry.After > c.to {
				t.Errorf("got %v, after %v", err, retry)
			}
		})
	}
}

func TestVerdictsOnRows(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, func(w http.ResponseWriter, n int) {
		if n == 1 {
			_, _ = io.WriteString(w, `{"duplicate":false,"acceptedRows":1,"acceptedCount":1,"errors":[
				{"index":1,"code":"FLAG_NOT_FOUND","message":"no"},{"index":0,"code":"SEGMENT_UNKNOWN","message":"counted"},{"index":7,"code":"?"}]}`)
			return
		}
		_, _ = io.WriteString(w, `accepted`)
	})
	// Each envelope has two rows, so the second one's indexes begin anew.
	writer := newHTTPWriter(t, evallog.HTTPOptions{URL: r.URL, MaxBytes: 500})
	err := writer.Write(t.Context(), batchOf("a", "b", "c", "d"))
	var refusal *evallog.RefusedError
	if !errors.As(err, &refusal) || !cmp.Equal(refusal.Rows, []evallog.RefusedRow{{Index: 1, Reason: "FLAG_NOT_FOUND"}}) || len(r.seen()) != 2 {
		t.Errorf("got %v after %d requests", err, len(r.seen()))
	}
}

func TestAnswersThatGetLostAreSentAgain(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, func(w http.ResponseWriter, n int) {
		if n%3 != 0 {
			panic(http.ErrAbortHandler) // the request was read, the answer never comes
		}
	})
	engine := newEngine(t, evallog.Options{Writer: newHTTPWriter(t, evallog.HTTPOptions{URL: r.URL})})
	const batches = 5
	for range batches {
		engine.Record(on("flag"))
		for engine.Flush(t.Context()) != nil {
			continue
		}
	}
	applied := map[string]string{}
	for _, q := range r.seen() {
		if body, known := applied[q.key]; known && body != q.body {
			t.Errorf("key %s came with two bodies", q.key)
		}
		applied[q.key] = q.body
	}
	if len(applied) != batches || len(r.seen()) < 2*batches {
		t.Errorf("%d keys in %d requests, want %d keys", len(applied), len(r.seen()), batches)
	}
	checkStats(t, engine.Stats(), batches)
}

func TestAnUnreachableReceiverIsTriedAgain(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	r.Close()
	err := newHTTPWriter(t, evallog.HTTPOptions{URL: r.URL}).Write(t.Context(), batchOf("a"))
	var refusal *evallog.RefusedError
	if err == nil || errors.As(err, &refusal) {
		t.Errorf("got %v", err)
	}
}

// TestErrorsHaveNoURL checks that the password and the query of the URL do not reach the log with
// an error.
func TestErrorsHaveNoURL(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(nil)
	closed.Close()
	address := strings.TrimPrefix(closed.URL, "http://")
	err := newHTTPWriter(t, evallog.HTTPOptions{URL: "http://ann:s3cret@" + address + "/?token=s3cret"}).Write(t.Context(), batchOf("a"))
	if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), address) {
		t.Errorf("error %v, want one with the address and without the secrets", err)
	}
}

func TestTheWriterEndsWithItsContext(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	r := newReceiver(t, func(http.ResponseWriter, int) { <-release })
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := newHTTPWriter(t, evallog.HTTPOptions{URL: r.URL}).Write(ctx, batchOf("a")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestHTTPOptionsAreChecked(t *testing.T) {
	t.Parallel()
	cases := map[string]evallog.HTTPOptions{
		"no URL":         {},
		"no host":        {URL: "https:///path"},
		"another scheme": {URL: "ftp://host/path"},
		"no URL at all":  {URL: "http://[::1"},
		"negative bytes": {URL: "http://host", MaxBytes: -1},
		"too many bytes": {URL: "http://host", MaxBytes: 5 << 20},
	}
	for name, o := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := evallog.NewHTTPWriter(o); err == nil {
				t.Error("accepted")
			}
		})
	}
}
