package handler

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

// TestAnswersShareMemory reserves memory for responses until it is used up.
func TestAnswersShareMemory(t *testing.T) {
	t.Parallel()
	h := New(Options{Logger: slog.New(slog.DiscardHandler)})
	var held []*reservation
	for len(held) < 100 {
		r := h.reservation()
		if err := r.atLeast(8 << 20); err != nil {
			rw := httptest.NewRecorder()
			h.fail(httptest.NewRequest(http.MethodGet, "/", nil), err).WriteResponse(rw, nil)
			if !errors.Is(err, budget.ErrExhausted) || rw.Code != http.StatusServiceUnavailable || rw.Header().Get("Retry-After") != "1" {
				t.Errorf("%v is answered %d, Retry-After %q", err, rw.Code, rw.Header().Get("Retry-After"))
			}
			break
		}
		held = append(held, r)
	}
	if len(held) != 2 {
		t.Errorf("%d answers of 8 MiB fit into memory, want 2", len(held))
	}
	if err := h.reservation().atLeast(freeAnswerBytes); err != nil {
		t.Errorf("a small answer beside them: %v", err)
	}
	for _, r := range held {
		r.release()
	}
	largest := h.reservation()
	if err := largest.atLeast(1 << 40); err != nil {
		t.Errorf("an answer that needs more than there is: %v, want that it takes all", err)
	}
	if err := largest.atLeast(1 << 20); err != nil {
		t.Errorf("less than it has already: %v", err)
	}
	if h.reservation().atLeast(1<<20) == nil {
		t.Error("another one beside it got memory")
	}
	largest.release()
	if err := h.memory.Take(AnswerMemory); err != nil {
		t.Errorf("not all memory came back: %v", err)
	}
}
