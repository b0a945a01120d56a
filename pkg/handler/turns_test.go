package handler_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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

// tried has the flag of a try.
type tried struct {
	insight.Flags
	reading func()
}

func (f tried) AnyFlag(context.Context, int64) (*entity.Flag, error) {
	f.reading()
	return &entity.Flag{Key: "f", Enabled: true}, nil
}

// TestReadsTakeTurns checks that operations that read have a turn while they read, none while they send, and end if the client
// leaves or the time is over before.
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
	api := newAPI(t)
	reading := func() {
		if !hasTurn() {
			t.Error("reads without a turn")
		}
	}
	answers := insight.NewService(insight.Options{Flags: tried{reading: reading}, Now: time.Now})
	handler.New(handler.Options{Logger: slog.New(slog.DiscardHandler), Answers: answers, Store: paged{reading: reading}}).Register(api)
	timeout := time.Minute
	operations := api.Serve(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			handler.Deadline(timeout, budget.NewMemory(budget.AnswerBytes), next).ServeHTTP(rw, r)
		})
	})
	operations = web.ReadInTurn(reads, operations)
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
	const try, entities = "/flags/1/try", `{"entities":[{"entityID":"a"}]}`
	if rw := ask(t.Context(), http.MethodPost, try, entities); rw.Code != http.StatusOK || !strings.Contains(rw.Body.String(), `"entityID":"a"`) {
		t.Errorf("a try: %d %s", rw.Code, rw.Body)
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
	for path, method := range map[string]string{"/flags": http.MethodGet, try: http.MethodPost} {
		if rw := ask(gone, method, path, entities); rw.Code != 499 {
			t.Errorf("%s of a client that has left: %d %s", path, rw.Code, rw.Body)
		}
	}
	timeout = time.Millisecond
	for path, method := range map[string]string{"/flags": http.MethodGet, try: http.MethodPost} {
		if rw := ask(t.Context(), method, path, entities); rw.Code != http.StatusServiceUnavailable || rw.Header().Get("Retry-After") != "1" {
			t.Errorf("%s without a turn in time: %d, Retry-After %q", path, rw.Code, rw.Header().Get("Retry-After"))
		}
	}
}
