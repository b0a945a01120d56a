package ui_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/ui"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// TestPagesAreRenderedInTurn: pages leave a processor for small requests, and return their turn,
// also those of errors.
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
	if rw.Code != 499 {
		t.Errorf("without a turn, a client that has left: %d", rw.Code)
	}
	late, cancelLate := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancelLate()
	rw = httptest.NewRecorder()
	f.ServeHTTP(rw, httptest.NewRequestWithContext(late, http.MethodGet, "/ui/flags/1", nil))
	if rw.Code != http.StatusServiceUnavailable || rw.Header().Get("Retry-After") == "" {
		t.Errorf("without a turn in time: %d %v", rw.Code, rw.Header())
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

// TestPagesReadInTurn: a page waits for its turn before it reads, a form does not, and the turn
// ends when the page is sent.
func TestPagesReadInTurn(t *testing.T) {
	t.Parallel()
	reads := budget.NewTurns(1)
	f := setup(t, func(*ui.Options) {})
	pages := web.ReadInTurn(reads, f)
	for _, path := range []string{"/ui/", "/ui/flags.csv", "/ui/flags/1", "/ui/flags/99", "/ui/flags/1/traffic"} {
		// It returns its turn: otherwise the next one would wait.
		pages.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	}
	if err := reads.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	ask := func(ctx context.Context, method, path string) *httptest.ResponseRecorder {
		rw, r := httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, method, path, strings.NewReader("id=a"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		pages.ServeHTTP(rw, r)
		return rw
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	for path, method := range map[string]string{"/ui/flags/1": http.MethodGet, "/ui/flags/1/try": http.MethodPost} { // a try reads too
		if rw := ask(gone, method, path); rw.Code != 499 {
			t.Errorf("%s of a client that has left: %d", path, rw.Code)
		}
		if rw := ask(late, method, path); rw.Code != http.StatusServiceUnavailable || rw.Header().Get("Retry-After") == "" {
			t.Errorf("%s without a turn in time: %d %v", path, rw.Code, rw.Header())
		}
	}
	if rw := ask(t.Context(), http.MethodPost, "/ui/flags/1/enabled"); rw.Code == http.StatusServiceUnavailable {
		t.Errorf("a form waits for a turn: %d", rw.Code)
	}
	reads.Release()
	rw := &checkedWriter{ResponseRecorder: httptest.NewRecorder(), check: func() {
		if err := reads.Take(late); err != nil {
			t.Errorf("a page that is being sent has a turn: %v", err)
			return
		}
		reads.Release()
	}}
	pages.ServeHTTP(rw, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ui/flags/1", nil))
	if rw.Code != http.StatusOK {
		t.Errorf("after its turn: %d", rw.Code)
	}
}

// TestNumbersOfTheListHaveNoTurn reads the numbers of the list, which another goroutine does, for
// the race detector.
func TestNumbersOfTheListHaveNoTurn(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	asked := 0
	numbers.block = func(ctx context.Context) *eval.Snapshot {
		for asked++; ctx.Err() == nil && asked < 1000; asked++ {
			budget.Yield(ctx)
		}
		return nil
	}
	rw := httptest.NewRecorder()
	web.ReadInTurn(budget.NewTurns(1), f).ServeHTTP(rw, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ui/", nil))
	if rw.Code != http.StatusOK || asked == 0 {
		t.Errorf("the list: %d, asked %d times", rw.Code, asked)
	}
}

// checkedWriter calls check at each write.
type checkedWriter struct {
	*httptest.ResponseRecorder
	check func()
}

func (w *checkedWriter) Write(p []byte) (int, error) {
	w.check()
	return w.ResponseRecorder.Write(p)
}

// TestLargeAttachmentsOfFormsAreConvertedInTurn saves a form with a large attachment, which waits
// for its turn before anything is saved. A client that leaves meanwhile has saved nothing.
func TestLargeAttachmentsOfFormsAreConvertedInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := budget.NewTurns(1)
		f := setup(t, func(o *ui.Options) { o.Turns = turns })
		form := f.form(t)
		form.Set("v.0.attachment", `{"b":"`+strings.Repeat("x", budget.LargeBytes)+`","a":1}`)
		form.Set("do", "save")
		post := func(ctx context.Context) (status <-chan int) {
			done := make(chan int, 1)
			go func() {
				r := httptest.NewRequestWithContext(ctx, http.MethodPost, targeting, strings.NewReader(form.Encode()))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				rw := httptest.NewRecorder()
				f.ServeHTTP(rw, r)
				done <- rw.Code
			}()
			synctest.Wait()
			return done
		}
		if err := turns.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		leaving, leave := context.WithCancel(t.Context())
		left := post(leaving)
		stays := post(t.Context())
		if before := f.writes; len(left) != 0 || len(stays) != 0 || before != 0 {
			t.Fatalf("the forms do not wait: %d changes", before)
		}
		leave()
		synctest.Wait()
		turns.Release()
		if status := <-left; status != http.StatusServiceUnavailable {
			t.Errorf("the client that left: %d", status)
		}
		if status := <-stays; status != http.StatusSeeOther || f.writes != 1 {
			t.Errorf("the client that stayed: %d, %d changes", status, f.writes)
		}
		if err := turns.Take(t.Context()); err != nil { // all turns were returned
			t.Fatal(err)
		}
	})
}
