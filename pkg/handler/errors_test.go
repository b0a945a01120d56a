package handler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// failing is a store and a Datar in which every flag fails: flag n returns error n.
type failing struct {
	handler.Store
	handler.Datar
	errors []error
}

func (f failing) Flag(_ context.Context, id int64) (*entity.Flag, error) { return nil, f.errors[id-1] }

func (f failing) QueryFlagSummaryBreakdown(_ context.Context, id int64, _ datar.BreakdownQuery) (*datar.FlagBreakdown, error) {
	return nil, f.errors[id-1]
}

// setupFailing serves the API over a failing store and Datar.
func setupFailing(t *testing.T, errs ...error) *server {
	t.Helper()
	log := &testlog.Buffer{}
	api := newAPI(t)
	handler.New(handler.Options{
		Store:  failing{errors: errs},
		Datar:  failing{errors: errs},
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}).Register(api)
	return &server{Handler: api.Serve(nil), log: log}
}

func TestErrorsBecomeStatuses(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		err     error
		status  int
		message string
		logged  bool
	}{
		{"invalid", entity.Invalid("no such thing"), http.StatusBadRequest, "no such thing", false},
		{"not found", entity.NotFound("unable to find it"), http.StatusNotFound, "unable to find it", false},
		{"duplicate key", fmt.Errorf("cannot create: %w", entity.ErrDuplicateKey), http.StatusBadRequest, "cannot create: flag key already exists", false},
		{"bad window", fmt.Errorf("%w: from is late", datar.ErrInvalidQuery), http.StatusBadRequest, "invalid query: from is late", false},
		{"not counted", datar.ErrFlagNotFound, http.StatusNotFound, "flag not found", false},
		{"database", errors.New("pq: password of flagr is s3cret"), http.StatusInternalServerError, "internal error", true},
		{"processors are busy", &insight.UnfinishedError{Work: "3 of 9 entities were evaluated", Err: context.DeadlineExceeded}, http.StatusServiceUnavailable,
			"3 of 9 entities were evaluated within the time limit: send less, or retry later", true},
		{"unreachable database", fmt.Errorf("connect: %w", &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}), http.StatusServiceUnavailable,
			"the database cannot be reached: a change may or may not have been made", true},
		{"broken connection", fmt.Errorf("read flags: %w", io.ErrUnexpectedEOF), http.StatusServiceUnavailable,
			"the database cannot be reached: a change may or may not have been made", true},
		{"database timeout", fmt.Errorf("connect: %w", context.DeadlineExceeded), http.StatusServiceUnavailable,
			"the database did not answer in time: a change may or may not have been made", true},
	}
	var errs []error
	for _, tc := range cases {
		errs = append(errs, tc.err)
	}
	s := setupFailing(t, errs...)
	for i, tc := range cases {
		for path, operation := range map[string]string{"/flags/%d": "getFlag", "/datar/flags/%d/summary": "getDatarFlagSummary"} {
			t.Run(tc.name+" "+operation, func(t *testing.T) { // not parallel, because of their log lines
				before := s.log.String()
				got := call(t, s, http.MethodGet, fmt.Sprintf(path, i+1), nil)
				if diff := cmp.Diff(object{"message": tc.message}, got.body); got.status != tc.status || diff != "" {
					t.Errorf("answer is %d, want %d (-want +got):\n%s", got.status, tc.status, diff)
				}
				log := strings.TrimPrefix(s.log.String(), before)
				if !tc.logged {
					if log != "" {
						t.Errorf("a client's mistake was logged: %s", log)
					}
					return
				}
				if strings.Count(log, "\n") != 1 || !strings.Contains(log, "operation="+operation) || !strings.Contains(log, tc.err.Error()) {
					t.Errorf("log is not one line with operation and cause: %s", log)
				}
			})
		}
	}
}

func TestAClientThatLeavesIsNoServerError(t *testing.T) {
	t.Parallel()
	s := setupFailing(t, fmt.Errorf("query: %w", context.Canceled))
	ctx, leave := context.WithCancel(t.Context())
	leave()
	send(s, httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/v1/flags/1", nil))
	if log := s.log.String(); strings.Contains(log, "level=ERROR") {
		t.Errorf("logged as an error: %s", log)
	}
}

// stuck is a store whose database never responds.
type stuck struct{ handler.Store }

func (stuck) Flag(ctx context.Context, _ int64) (*entity.Flag, error) {
	<-ctx.Done()
	return nil, errors.New("read: the text of a driver")
}

func (stuck) ExportSQLite(ctx context.Context, _ string, _ bool) error {
	if _, bounded := ctx.Deadline(); bounded {
		return errors.New("an export may take long")
	}
	return nil
}

func TestADatabaseThatDoesNotAnswerIsNotAwaitedForEver(t *testing.T) {
	t.Parallel()
	log := &testlog.Buffer{}
	api := newAPI(t)
	handler.New(handler.Options{Store: stuck{}, Snapshots: oneFlag{}, Logger: slog.New(slog.NewTextHandler(log, nil))}).Register(api)
	timeout := time.Millisecond
	bounded := api.Serve(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			handler.Deadline(timeout, budget.NewMemory(budget.AnswerBytes), next).ServeHTTP(rw, r)
		})
	})
	got := call(t, bounded, http.MethodGet, "/flags/1", nil)
	if got.status != http.StatusServiceUnavailable || !strings.Contains(got.raw, "did not answer in time") {
		t.Errorf("answer is %d %s", got.status, got.raw)
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "level=WARN") || !strings.Contains(text, "the text of a driver") {
		t.Errorf("log is not one warning with the cause: %s", text)
	}
	if got := call(t, bounded, http.MethodGet, "/export/sqlite", nil); got.status != http.StatusOK {
		t.Errorf("export: answer is %d %s", got.status, got.raw)
	}
	timeout = 0 // has passed when the export begins
	if got := call(t, bounded, http.MethodGet, "/export/eval_cache/json", nil); got.status != http.StatusOK || !strings.Contains(got.raw, `"Key":"one"`) {
		t.Errorf("export of the flags for evaluation: answer is %d %s", got.status, got.raw)
	}
}

// oneFlag is a source of one flag.
type oneFlag struct{}

func (oneFlag) Snapshot() *eval.Snapshot { return eval.Compile([]entity.Flag{{Key: "one"}}) }

// hungry is a store whose flags take n bytes of shared memory.
type hungry struct {
	handler.Store
	n int64
}

func (h hungry) Flag(ctx context.Context, _ int64) (*entity.Flag, error) {
	return &entity.Flag{}, budget.AtLeast(ctx, h.n)
}

// TestOperationsShareMemory checks that an operation without memory responds with 503, and that an
// operation returns its memory.
func TestOperationsShareMemory(t *testing.T) {
	t.Parallel()
	memory := budget.NewMemory(100)
	api := newAPI(t)
	handler.New(handler.Options{Store: hungry{n: 60}, Logger: slog.New(slog.DiscardHandler)}).Register(api)
	operations := api.Serve(func(next http.Handler) http.Handler { return handler.Deadline(time.Minute, memory, next) })
	get := func() *httptest.ResponseRecorder {
		rw := httptest.NewRecorder()
		operations.ServeHTTP(rw, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/flags/1", nil))
		return rw
	}
	other, release := memory.Share(t.Context())
	if err := budget.AtLeast(other, 50); err != nil {
		t.Fatal(err)
	}
	if rw := get(); rw.Code != http.StatusServiceUnavailable || rw.Header().Get("Retry-After") != "1" {
		t.Errorf("without memory: %d, Retry-After %q", rw.Code, rw.Header().Get("Retry-After"))
	}
	release()
	for range 2 {
		if rw := get(); rw.Code != http.StatusOK {
			t.Errorf("with memory: %d %s", rw.Code, rw.Body)
		}
	}
	if err := memory.Take(100); err != nil {
		t.Errorf("not all memory came back: %v", err)
	}
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	s := setup(t, map[string]string{"FLAGR_EVAL_BATCH_SIZE": "4", "FLAGR_EVAL_GET_MAX_URL_BYTES": "200"})
	id, segment, variant := booleanFlag(t, s, "on", false)
	flag := fmt.Sprintf("/flags/%d", id)
	variants := flag + "/variants"
	distributions := fmt.Sprintf("%s/segments/%d/distributions", flag, segment)

	for _, tc := range []struct {
		name, method, path string
		body               any
		status             int
		message            string // a part of it
	}{
		{"neither true nor false", "GET", "/flags?enabled=maybe", nil, 400, `enabled in query must be true or false: "maybe"`},
		{"neither, at the end", "GET", "/flags?enabled=true&enabled=+true", nil, 400, "enabled in query must be true or false"},
		{"neither in an export", "GET", "/export/sqlite?exclude_snapshots=2", nil, 400, "exclude_snapshots in query"},
		{"true in another way", "GET", "/flags?enabled=YES&deleted=&preload=off", nil, 200, ""},
		{"id beyond 64 bits", "GET", "/flags/9223372036854775808", nil, 422, `flagID in path: "9223372036854775808" is not accepted; want an integer of 64 bits`},
		{"no such flag", "GET", "/flags/9223372036854775807", nil, 404, "unable to find flag 9223372036854775807"},
		{"two documents", "POST", "/flags", `{"description":"a"}{"description":"b"}`, 400, "after the JSON document"},
		{"garbage after the document", "POST", "/flags", `{"description":"a"} x`, 400, "after the JSON document"},
		{"half a document", "POST", "/flags", `{"description":`, 400, "the request body ends in the middle of its JSON"},
		{"attachment is a string", "POST", variants, object{"key": "a", "attachment": "x"}, 400, "attachment must be a JSON object"},
		{"attachment is an array", "POST", variants, object{"key": "a", "attachment": []int{1}}, 400, "it is an array"},
		{"attachment is a number", "PUT", fmt.Sprintf("%s/%d", variants, variant), object{"key": "on", "attachment": 1}, 400, "it is a number"},
		{"attachment is a boolean", "POST", variants, object{"key": "a", "attachment": false}, 400, "it is a boolean"},
		{"null distribution", "PUT", distributions, `{"distributions":[null]}`, 400, "distributions.0 must not be null"},
		{"no distributions", "PUT", distributions, `{"distributions":[]}`, 400, "100"},
		{"null entity", "POST", "/evaluation/batch", `{"entities":[{},null],"flagIDs":[1]}`, 400, "entities.1 must not be null"},
		{"null entity in the query", "GET", `/evaluation/batch?json={"entities":[null],"flagIDs":[1]}`, nil, 400, "entities.0 must not be null"},
		{"batch too large", "POST", "/evaluation/batch", `{"entities":[{},{},{},{},{}],"flagIDs":[1]}`, 400, "4"},
		{"malformed json in the query", "GET", `/evaluation?json={"flagID":}`, nil, 400, "json is not valid evalContext: the text is not valid JSON: invalid character"},
		{"half a json in the query", "GET", `/evaluation?json={`, nil, 400, "json is not valid evalContext: the text ends in the middle of its JSON"},
		{"blank json in the query", "GET", `/evaluation?json=+`, nil, 400, "json is not valid evalContext: the text is empty"},
		{"two jsons in the query", "GET", `/evaluation?json={}{}`, nil, 400, "json is not valid evalContext: the text is not valid JSON: unexpected data"},
		{"schema of the query", "GET", `/evaluation?json={"flagID":-1}`, nil, 400, "flagID must be at least 1, not -1"},
		{"schema of the batch query", "GET", `/evaluation/batch?json={"entities":[]}`, nil, 400, "json is not valid evaluationBatchRequest: entities must have at least 1 item"},
		{"no json", "GET", "/evaluation", nil, 422, "json in query is required"},
		{"query too long", "GET", `/evaluation?json={"entityID":"` + strings.Repeat("x", 200) + `"}`, nil, 400, "more than the 200 allowed"},
		{"not a json body", "POST", "/evaluation", "nope", 400, "invalid character"},
		{"empty body", "POST", "/evaluation", "", 422, "the request body is required"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := call(t, s, tc.method, strings.ReplaceAll(tc.path, `"`, "%22"), tc.body)
			body, _ := got.body.(map[string]any)
			message, _ := body["message"].(string)
			if got.status != tc.status || !strings.Contains(message, tc.message) {
				t.Errorf("answer is %d %s, want %d %q", got.status, got.raw, tc.status, tc.message)
			}
		})
	}
}

// TestRangesOfTypes sends bodies with types that only a client that accepts responses may name.
func TestRangesOfTypes(t *testing.T) {
	t.Parallel()
	s := setup(t, ingesting)
	for _, path := range []string{"/api/v1/flags", "/api/v1/evaluation", "/api/v1/evaluation/batch", "/api/v1/exposures", ingestPath, "/api/v2/flagevaluation"} {
		for _, kind := range []string{"*/*", "application/*"} {
			got := post(t, s, path, "{}", map[string]string{"Content-Type": kind})
			if got.status != http.StatusUnsupportedMediaType || !strings.Contains(got.raw, kind) {
				t.Errorf("%s with %s: %d %s", path, kind, got.status, got.raw)
			}
		}
	}
}

func TestABodyTooLargeIsRefused(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	large := `{"description":"` + strings.Repeat("x", 17<<20) + `"}`
	for name, length := range map[string]int64{"announced": int64(len(large)), "not announced": -1} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/flags", strings.NewReader(large))
			r.Header.Set("Content-Type", "application/json")
			r.ContentLength = length
			if length < 0 {
				r.TransferEncoding = []string{"chunked"}
			}
			if got := send(s, r); got.status != http.StatusRequestEntityTooLarge || !strings.Contains(got.raw, "larger than 16777216 bytes") {
				t.Errorf("answer is %d %.200s", got.status, got.raw)
			}
		})
	}
}
