package ui_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/ui"
)

// TestPagesAreRenderedInTurn: pages leave a processor for small requests, and return their turn, also those of errors.
func TestPagesAreRenderedInTurn(t *testing.T) {
	t.Parallel()
	turns := budget.NewTurns(1)
	f := setup(t, func(o *ui.Options) { o.Turns = turns })
	paths := map[string]int{"/": 200, "/ui/": 200, "/ui/flags/1": 200, "/ui/flags/99": 404, "/ui/none": 404}
	for path, want := range paths {
		if a := f.ask(t, http.MethodGet, path, nil); a.status != want {
			t.Errorf("%s: %d, want %d", path, a.status, want)
		}
	}
	if err := turns.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	rw := httptest.NewRecorder()
	f.ServeHTTP(rw, httptest.NewRequestWithContext(ctx, http.MethodGet, "/ui/flags/1", nil))
	if rw.Code != http.StatusServiceUnavailable || rw.Header().Get("Retry-After") == "" {
		t.Errorf("without a turn: %d %v", rw.Code, rw.Header())
	}
	done := make(chan int)
	go func() {
		rw := httptest.NewRecorder()
		f.ServeHTTP(rw, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ui/flags/1", nil))
		done <- rw.Code
	}()
	turns.Release()
	if status := <-done; status != http.StatusOK {
		t.Errorf("after its turn: %d", status)
	}
}
