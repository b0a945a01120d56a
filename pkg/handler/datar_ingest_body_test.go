package handler_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// stalled is a body that sends a number of bytes, signals that, and then blocks until it is closed.
type stalled struct {
	bytes int
	sent  func()
	cut   chan struct{}
}

func (s *stalled) Read(p []byte) (int, error) {
	if s.bytes == 0 {
		s.sent()
		<-s.cut
		return 0, errors.New("read timeout")
	}
	n := min(len(p), s.bytes)
	s.bytes -= n
	return n, nil
}

// ingestMiddleware returns the middleware over an API that accepts everything.
func ingestMiddleware() http.Handler { return ingestWith(budget.NewTurns(1)) }

func ingestWith(turns budget.Turns) http.Handler {
	return handler.IngestMiddleware("/api/v1", budget.NewMemory(budget.CountsBytes), turns, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
}

func offer(t *testing.T, h http.Handler, body io.Reader, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, ingestPath, body)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	rw := httptest.NewRecorder()
	h.ServeHTTP(rw, r)
	return rw
}

func TestSlowSendersShareMemory(t *testing.T) {
	t.Parallel()
	h := ingestMiddleware()
	const senders, roomFor = 80, 64 // of the largest bodies
	cut := make(chan struct{})
	var done sync.WaitGroup
	answers := make([]*httptest.ResponseRecorder, senders)
	for i := range senders {
		settled := make(chan struct{})
		done.Go(func() {
			signal := sync.OnceFunc(func() { close(settled) })
			answers[i] = offer(t, h, &stalled{bytes: ingest.MaxBytes - 1, sent: signal, cut: cut})
			signal()
		})
		<-settled // it has sent its bytes or was rejected; more senders at the same time would compete for memory
	}
	if got := offer(t, h, strings.NewReader("{}")); got.Code != http.StatusServiceUnavailable || got.Header().Get("Retry-After") != "10" {
		t.Errorf("while memory is used up: %d, Retry-After %q", got.Code, got.Header().Get("Retry-After"))
	}
	close(cut)
	done.Wait()
	statuses := map[int]int{}
	for _, a := range answers {
		statuses[a.Code]++
	}
	if statuses[http.StatusRequestTimeout] != roomFor || statuses[http.StatusServiceUnavailable] != senders-roomFor {
		t.Errorf("statuses %v, want 408 for %d that came too slowly, and 503 for the others", statuses, roomFor)
	}
	for range roomFor + 1 { // all memory is free again, repeatedly
		if got := offer(t, h, strings.NewReader(strings.Repeat("x", ingest.MaxBytes))); got.Code != http.StatusOK {
			t.Fatalf("after that: %d %s", got.Code, got.Body)
		}
	}
}

// TestBodiesOfCountsAreChargedOnce sends so many slow bodies behind the limit for all bodies that a
// second charge would exceed the memory for counts.
func TestBodiesOfCountsAreChargedOnce(t *testing.T) {
	t.Parallel()
	const senders = 80
	h := web.LimitBody(web.MaxBodyBytes, budget.NewMemory(senders*4*ingest.MaxBytes), ingestMiddleware())
	cut := make(chan struct{})
	var ready, done sync.WaitGroup
	ready.Add(senders)
	statuses := make(chan int, senders)
	for range senders {
		done.Go(func() {
			signal := sync.OnceFunc(ready.Done)
			statuses <- offer(t, h, &stalled{bytes: ingest.MaxBytes - 1, sent: signal, cut: cut}).Code
			signal()
		})
	}
	ready.Wait()
	close(cut)
	done.Wait()
	close(statuses)
	for status := range statuses {
		if status != http.StatusRequestTimeout {
			t.Fatalf("a sender is answered %d, want 408 as it came too slowly", status)
		}
	}
}

// TestSendersHoldWhatTheyHaveSent checks that a client that announces much and sends little holds
// little memory.
func TestSendersHoldWhatTheyHaveSent(t *testing.T) {
	t.Parallel()
	h := ingestMiddleware()
	const senders = 1000
	cut := make(chan struct{})
	var ready, done sync.WaitGroup
	ready.Add(senders)
	for range senders {
		done.Go(func() { offer(t, h, &stalled{bytes: 1000, sent: ready.Done, cut: cut}) })
	}
	ready.Wait()
	if got := offer(t, h, strings.NewReader(strings.Repeat("x", ingest.MaxBytes))); got.Code != http.StatusOK {
		t.Errorf("a batch beside %d slow senders: %d %s", senders, got.Code, got.Body)
	}
	close(cut)
	done.Wait()
}

// TestLargeBodiesOfCountsTakeTurns checks that small bodies need no turn, that a slow sender has
// none while it sends nothing, and that a batch is not blamed for the end of its request.
func TestLargeBodiesOfCountsTakeTurns(t *testing.T) {
	t.Parallel()
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if err := errors.Join(lastError(io.WriteString(w, strings.Repeat("x", 100_000))), w.Close()); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		turns := budget.NewTurns(1)
		h := ingestWith(turns)
		cut := make(chan struct{})
		var done sync.WaitGroup
		done.Go(func() { offer(t, h, &stalled{bytes: 100_000, sent: func() {}, cut: cut}) })
		synctest.Wait() // it has sent its bytes
		if err := turns.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := offer(t, h, strings.NewReader(strings.Repeat("x", budget.LargeBytes))); got.Code != http.StatusOK {
			t.Errorf("a small body while another has the turn: %d %s", got.Code, got.Body)
		}
		for name, test := range map[string]struct {
			body   string
			header []string
		}{
			"large": {strings.Repeat("x", 100_000), nil},
			"gzip":  {zipped.String(), []string{"Content-Encoding", "gzip"}},
		} {
			status := 0
			done.Go(func() { status = offer(t, h, strings.NewReader(test.body), test.header...).Code })
			synctest.Wait()
			if status != 0 {
				t.Errorf("%s: answered %d without a turn", name, status)
			}
			turns.Release()
			synctest.Wait()
			if status != http.StatusOK {
				t.Errorf("%s: answered %d after its turn", name, status)
			}
			if err := turns.Take(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx, leave := context.WithCancel(t.Context())
			r := httptest.NewRequestWithContext(ctx, http.MethodPost, ingestPath, strings.NewReader(test.body))
			for i := 0; i < len(test.header); i += 2 {
				r.Header.Set(test.header[i], test.header[i+1])
			}
			rw := httptest.NewRecorder()
			done.Go(func() { h.ServeHTTP(rw, r) })
			synctest.Wait()
			leave()
			synctest.Wait()
			if rw.Code != http.StatusRequestTimeout {
				t.Errorf("%s: a client that left while it waited is answered %d %s", name, rw.Code, rw.Body)
			}
		}
		turns.Release()
		close(cut)
		done.Wait()
	})
}

func lastError(_ int, err error) error { return err }

// endless is an infinite body.
type endless struct{}

const spaces = "                                                                                                    "

func (endless) Read(p []byte) (int, error) {
	return copy(p, spaces), nil
}

func TestBodiesWithoutAnEnd(t *testing.T) {
	t.Parallel()
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	if _, err := io.CopyN(w, endless{}, 32<<20); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var nothing bytes.Buffer
	if err := gzip.NewWriter(&nothing).Close(); err != nil {
		t.Fatal(err)
	}
	empty := strings.Repeat(nothing.String(), ingest.MaxBytes/nothing.Len()) // empty members, one after the other
	for name, test := range map[string]struct {
		body     io.Reader
		encoding string
		status   int
	}{
		"endless":                {endless{}, "", http.StatusRequestEntityTooLarge},
		"endless, as gzip":       {endless{}, "gzip", http.StatusRequestEntityTooLarge},
		"a bomb":                 {&bomb, "gzip", http.StatusRequestEntityTooLarge},
		"thousands of no bodies": {strings.NewReader(empty), "gzip", http.StatusBadRequest},
	} {
		if got := offer(t, ingestMiddleware(), test.body, "Content-Encoding", test.encoding); got.Code != test.status {
			t.Errorf("%s: %d %s, want %d", name, got.Code, got.Body, test.status)
		}
	}
}

// TestTinyRowsAreNotReadBeyondTheLimit sends tiny rows, which would take fifty times their size in
// memory. They must not be decoded beyond the accepted number.
func TestTinyRowsAreNotReadBeyondTheLimit(t *testing.T) {
	t.Parallel()
	s := setup(t, ingesting)
	many := ingest.MaxBytes/3 - 100
	for name, test := range map[string]struct{ body, mime string }{
		"JSON":    {`{"flagEvaluations":[` + strings.Repeat("{},", many) + `{}]}`, "application/json"},
		"numbers": {`{"flagEvaluations":[` + strings.Repeat("0,", ingest.MaxRows) + `0]}`, "application/json"},
		"NDJSON":  {strings.Repeat("{}\n", many), "application/x-ndjson"},
		"later":   {`{"flagEvaluations":[` + strings.Repeat("{},", ingest.MaxRows) + `{}],"flagEvaluations":[]}`, "application/json"},
	} {
		const want = http.StatusRequestEntityTooLarge
		if got := post(t, s, ingestPath, test.body, map[string]string{"Content-Type": test.mime}); got.status != want {
			t.Errorf("%s: %d %.200s, want %d", name, got.status, got.raw, want)
		}
	}
	got := post(t, s, ingestPath, `{"flagEvaluations":[],"context":[[[1]]]}`, nil)
	if got.status != http.StatusOK {
		t.Errorf("no rows: %d %s", got.status, got.raw)
	}
}

// TestKeysThatAreNone checks that invalid idempotency keys are rejected. With an ignored key, a
// batch would count each time that it is sent.
func TestKeysThatAreNone(t *testing.T) {
	t.Parallel()
	s := setup(t, ingesting)
	booleanFlag(t, s, "busy", true)
	body := `{"flagEvaluations":[` + countsRow("busy", 1) + "]}"
	for _, path := range []string{ingestPath, "/api/v2/flagevaluation", "/api/v2/flagevaluations"} {
		for name, test := range map[string]struct {
			keys    []string
			message string
		}{
			"empty":       {[]string{""}, "1 to 200 characters"},
			"blank":       {[]string{" \t"}, "1 to 200 characters"},
			"too long":    {[]string{strings.Repeat("ü", 201)}, "201 characters, want 1 to 200"},
			"two":         {[]string{"a", "b"}, "once"},
			"twice":       {[]string{"a", "a"}, "once"},
			"a first one": {[]string{"", "a"}, "once"},
		} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			r.Header["Idempotency-Key"] = test.keys
			got := send(s, r)
			if got.status != http.StatusBadRequest || !strings.Contains(got.raw, "Idempotency-Key") || !strings.Contains(got.raw, test.message) {
				t.Errorf("%s: %s: %d %s, want 400 that names the header, and %q", path, name, got.status, got.raw, test.message)
			}
		}
		longest := map[string]string{"Idempotency-Key": strings.Repeat("ü", 199) + path[len(path)-1:]}
		if got := post(t, s, path, body, longest); got.status != http.StatusOK {
			t.Errorf("%s: the longest key: %d %s", path, got.status, got.raw)
		}
	}
	for body, want := range map[string]string{
		"": "want JSON with flagEvaluations", "[]": "array, want an object", "5": "number, want an object",
	} {
		if got := post(t, s, ingestPath, body, nil); got.status != http.StatusBadRequest || !strings.Contains(got.raw, want) {
			t.Errorf("the body %q: %d %s, want 400 with %q", body, got.status, got.raw, want)
		}
	}
}

// TestNoPathBypassesTheIngestMiddleware sends paths that the router maps to the operation. All of
// them must pass the limits and the digest.
func TestNoPathBypassesTheIngestMiddleware(t *testing.T) {
	t.Parallel()
	s := setup(t, ingesting)
	large := `{"flagEvaluations":[],"padding":"` + strings.Repeat("x", ingest.MaxBytes) + `"}`
	for _, path := range []string{
		ingestPath + "/", "/api/v1//datar/evaluations", "/api/v1/x/../datar/evaluations", "/api/v1/x%2Fy/../datar/evaluations",
		"/api/v1/datar/evaluation%73", "/api/v2/flagevaluation/", "/api/v2/flagevaluations",
	} {
		if got := post(t, s, path, large, nil); got.status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: a body that is too large: %d %.200s, want 413", path, got.status, got.raw)
		}
		key := map[string]string{"Idempotency-Key": path}
		if got := post(t, s, path, `{"flagEvaluations":[],"padding":""}`, key); got.status != http.StatusOK {
			t.Errorf("%s: %d %.200s", path, got.status, got.raw)
		}
		if got := post(t, s, path, `{"flagEvaluations":[]}`, key); got.status != http.StatusConflict {
			t.Errorf("%s: the key with another body: %d %.200s, want 409", path, got.status, got.raw)
		}
	}
}

// TestRowsOfTheWrongTypeCostThemselves sends each wrong row together with a valid one, as JSON and
// as browsers send it.
func TestRowsOfTheWrongTypeCostThemselves(t *testing.T) {
	t.Parallel()
	s := setup(t, ingesting)
	booleanFlag(t, s, "busy", true)
	good := countsRow("busy", 3)
	good = strings.Replace(good, `"evaluation_count":3`, `"evaluation_count":3.0`, 1)
	for _, bad := range []string{
		`{"variant":"on"}`, `{"allocation":{"key":7}}`, `{"flag":5}`, `{"evaluation_count":"5"}`, `{"evaluation_count":1e400}`,
		`{"evaluation_count":1.5}`, `{"first_evaluation":"now"}`, `5`, `"row"`, `[]`,
	} {
		for name, send := range map[string]func() answer{
			"JSON": func() answer { return post(t, s, ingestPath, `{"flagEvaluations":[`+bad+`,`+good+`]}`, nil) },
			"text": func() answer {
				return post(t, s, "/api/v2/flagevaluation?ddsource=browser", "\xef\xbb\xbf"+bad+"\n"+good, map[string]string{"Content-Type": "text/plain;charset=UTF-8"})
			},
		} {
			got := send()
			if got.status != http.StatusOK || !strings.Contains(got.raw, `"code":"BAD_ROW"`) || !strings.Contains(got.raw, `"index":0`) ||
				strings.Count(got.raw, `"index"`) != 1 || !strings.Contains(got.raw, `"acceptedCount":3`) {
				t.Errorf("%s: %s: %d %s, want BAD_ROW for row 0 alone, and the other row counted", name, bad, got.status, got.raw)
			}
		}
	}
}

// TestUnknownOfTheWrongTypeCostsItself sends wrong rows of unknown keys together with valid ones.
func TestUnknownOfTheWrongTypeCostsItself(t *testing.T) {
	t.Parallel()
	s := setup(t, ingesting)
	booleanFlag(t, s, "busy", true)
	now := time.Now().UnixMilli()
	row := func(count string) string {
		return fmt.Sprintf(`{"asked":"chekout","first":%d,"last":%d,"count":%s}`, now, now, count)
	}
	unknown := []string{`5`, `"row"`, `null`, `{"asked":5,"count":1}`, row(`"7"`), row(`1.5`), row(`1e400`), row(`3.0`), row(`1`)}
	body := `{"flagEvaluations":[` + countsRow("busy", 3) + `],"unknown":[` + strings.Join(unknown, ",") + `]}`
	got := post(t, s, ingestPath, body, map[string]string{"Idempotency-Key": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff:1"})
	if got.status != http.StatusOK || !strings.Contains(got.raw, `"acceptedCount":3`) {
		t.Errorf("%d %s, want the counts to be stored", got.status, got.raw)
	}
	answer := must(t, s, http.MethodGet, "/datar/unknown", nil)
	keys, _ := answer["unknown"].([]any)
	if len(keys) != 1 || keys[0].(object)["asked"] != "chekout" || keys[0].(object)["count"] != 4. {
		t.Errorf("unknown keys are %v, want chekout 4 times", keys)
	}
}
