package handler_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/pkg/store"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// paged is a store with two pages of flags.
type paged struct {
	handler.Store
	reading func()
}

func (p paged) Flag(context.Context, int64) (*entity.Flag, error) {
	p.reading()
	return &entity.Flag{}, nil
}

func (p paged) FlagsOrPages(context.Context, store.FlagQuery) ([]entity.Flag, []store.FlagPage, error) {
	return nil, []store.FlagPage{{FirstID: 1, LastID: 1}, {FirstID: 2, LastID: 2}}, nil
}

func (p paged) Flags(context.Context, store.FlagQuery) ([]entity.Flag, error) {
	p.reading()
	return []entity.Flag{{Description: strings.Repeat("x", 100_000)}}, nil
}

func (p paged) UpdateFlag(context.Context, string, int64, store.FlagPatch) (*entity.Flag, error) {
	return &entity.Flag{}, nil
}

// tried has the flag of a try, and a deleted one, 2, of which nothing is forecast after it was
// read.
type tried struct {
	insight.Flags
	reading func()
}

func (f tried) AnyFlag(_ context.Context, id int64) (*entity.Flag, error) {
	f.reading()
	flag := &entity.Flag{Key: "f", Enabled: true}
	flag.DeletedAt.Valid = id == 2
	return flag, nil
}

// unread are counts that are never read.
type unread struct{ insight.Counts }

// readAPI is the API with operations that call reading when they read, in a turn of reads. Large
// drafts are converted in work. timeout is that of each request.
func readAPI(t *testing.T, reads, work budget.Turns, timeout *time.Duration, reading func()) http.Handler {
	t.Helper()
	api := newAPI(t)
	answers := insight.NewService(insight.Options{Flags: tried{reading: reading}, Counts: unread{}, Now: time.Now})
	handler.New(handler.Options{Logger: slog.New(slog.DiscardHandler), Answers: answers, Store: paged{reading: reading}, Turns: work}).Register(api)
	operations := api.Serve(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			handler.Deadline(*timeout, budget.NewMemory(budget.AnswerBytes), next).ServeHTTP(rw, r)
		})
	})
	return web.ReadInTurn(reads, operations)
}

// TestReadsTakeTurns checks that operations that read have a turn while they read, none while they
// send, and end if the client leaves or the time is over before.
func TestReadsTakeTurns(t *testing.T) {
	t.Parallel()
	reads := budget.NewTurns(1)
	late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	hasTurn := func() bool {
		if reads.Take(late) != nil {
			return true
		}
		reads.Release()
		return false
	}
	timeout, read := time.Minute, 0
	operations := readAPI(t, reads, nil, &timeout, func() {
		if read++; !hasTurn() {
			t.Error("reads without a turn")
		}
	})
	ask := func(ctx context.Context, method, path, body string) *httptest.ResponseRecorder {
		rw := handler.ClientWriter{ResponseRecorder: httptest.NewRecorder(), Receive: func([]byte) {
			if method != http.MethodPut && timeout == time.Minute && ctx.Err() == nil && hasTurn() {
				t.Errorf("%s %s: has a turn while the client reads", method, path)
			}
		}}
		r := httptest.NewRequestWithContext(ctx, method, "/api/v1"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		operations.ServeHTTP(rw, r)
		return rw.ResponseRecorder
	}
	for _, path := range []string{"/flags", "/flags/1", "/flags"} {
		if rw := ask(t.Context(), http.MethodGet, path, ""); rw.Code != http.StatusOK || path == "/flags" && rw.Body.Len() < 200_000 {
			t.Errorf("GET %s: %d, %d bytes", path, rw.Code, rw.Body.Len())
		}
	}
	const try, forecast, entities = "/flags/1/try", "/datar/flags/2/forecast", `{"entities":[{"entityID":"a"}],"draft":{}}`
	if rw := ask(t.Context(), http.MethodPost, try, entities); rw.Code != http.StatusOK || !strings.Contains(rw.Body.String(), `"entityID":"a"`) {
		t.Errorf("a try: %d %s", rw.Code, rw.Body)
	}
	before := read
	if rw := ask(t.Context(), http.MethodPost, forecast, `{"draft":{}}`); rw.Code != http.StatusNotFound || read != before+1 {
		t.Errorf("a forecast of a deleted flag: %d %s, read %d times", rw.Code, rw.Body, read-before)
	}
	if hasTurn() {
		t.Error("a turn was not returned")
	}
	if err := reads.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rw := ask(t.Context(), http.MethodPut, "/flags/1", `{"description":"x"}`); rw.Code != http.StatusOK {
		t.Errorf("a change waits for a turn of reads: %d %s", rw.Code, rw.Body)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	all := map[string]string{"/flags": http.MethodGet, try: http.MethodPost, forecast: http.MethodPost}
	for path, method := range all {
		if rw := ask(gone, method, path, entities); rw.Code != 499 {
			t.Errorf("%s of a client that has left: %d %s", path, rw.Code, rw.Body)
		}
	}
	timeout = time.Millisecond
	for path, method := range all {
		if rw := ask(t.Context(), method, path, entities); rw.Code != http.StatusServiceUnavailable || rw.Header().Get("Retry-After") != "1" {
			t.Errorf("%s without a turn in time: %d, Retry-After %q", path, rw.Code, rw.Header().Get("Retry-After"))
		}
	}
}

// TestLargeDraftsAreConvertedBeforeReads checks that a try and a forecast convert a large draft,
// which takes a turn of work, before they take their turn of reads: a draft that is invalid needs
// none, and one that waits for work holds none.
func TestLargeDraftsAreConvertedBeforeReads(t *testing.T) {
	t.Parallel()
	draft := func(begin, end string) string {
		attachment := begin + strings.Repeat("x", budget.LargeBytes) + end
		return `{"entities":[{"entityID":"a"}],"draft":{"variants":[{"key":"v","attachment":` + attachment + `}]}}`
	}
	for path, want := range map[string]int{"/flags/1/try": http.StatusOK, "/datar/flags/2/forecast": http.StatusNotFound} {
		synctest.Test(t, func(t *testing.T) {
			reads, work, timeout, read := budget.NewTurns(1), budget.NewTurns(1), time.Hour, false
			operations := readAPI(t, reads, work, &timeout, func() {
				if read = true; len(reads) != 1 {
					t.Errorf("%s: reads without a turn", path)
				}
				if len(work) != 0 {
					t.Errorf("%s: reads in a turn of work", path)
				}
			})
			ask := func(body string) <-chan int {
				done := make(chan int, 1)
				go func() {
					rw, r := httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1"+path, strings.NewReader(body))
					r.Header.Set("Content-Type", "application/json")
					operations.ServeHTTP(rw, r)
					done <- rw.Code
				}()
				synctest.Wait()
				return done
			}
			take := func(turns budget.Turns) {
				if err := turns.Take(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			take(reads)
			invalid := ask(draft(`["`, `"]`))
			if len(invalid) == 0 || <-invalid != http.StatusBadRequest {
				t.Errorf("%s: an invalid draft waits for a turn of reads", path)
			}
			reads.Release()
			take(work)
			done := ask(draft(`{"a":"`, `"}`)) // its body waits to be decoded
			next := make(chan error, 1)
			go func() { next <- work.Take(t.Context()) }() // after the body, and before the draft
			synctest.Wait()
			work.Release()
			if err := <-next; err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if len(done) != 0 || len(reads) != 0 || read {
				t.Errorf("%s: a draft that waits for work: %d turns of reads, has read: %t", path, len(reads), read)
			}
			work.Release()
			if status := <-done; status != want || !read {
				t.Errorf("%s: %d, want %d; has read: %t", path, status, want, read)
			}
			if len(reads) != 0 || len(work) != 0 {
				t.Errorf("%s: a turn was not returned", path)
			}
		})
	}
}
