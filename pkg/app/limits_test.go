package app_test

import (
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// TestReadinessFollowsTheDocument spoils and mends the document that the flags come from.
func TestReadinessFollowsTheDocument(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "flags.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const good = `{"Flags":[{"ID":1,"Key":"k","Enabled":true}]}`
	write(good)
	a, _, _ := setup(t, map[string]string{"FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": path, "FLAGR_EVALCACHE_REFRESHINTERVAL": "5ms"})
	h := started(t, a)
	become := func(status, when string) {
		t.Helper()
		testwait.Until(t, status+" "+when, func() bool {
			rw := request(t, h, http.MethodGet, "/api/v1/ready")
			return rw.Code == http.StatusOK && strings.Contains(rw.Body.String(), `"status":"`+status+`"`) &&
				strings.Contains(rw.Body.String(), `"flags":1`)
		})
	}
	become("OK", "with a good document")
	write(`{"Flags":`)
	become("degraded", "with half a document")
	write(good)
	become("OK", "with a good document again")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	become("degraded", "without a document")
}

func TestBodiesOfTheProfilerAreLimited(t *testing.T) {
	t.Parallel()
	a, _, _ := setup(t, nil)
	h := started(t, a)
	for size, want := range map[int]int{100: http.StatusOK, web.MaxPprofBodyBytes + 1: http.StatusRequestEntityTooLarge} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/debug/pprof/symbol", strings.NewReader(strings.Repeat("0", size)))
		rw := httptest.NewRecorder()
		h.ServeHTTP(rw, r)
		if rw.Code != want {
			t.Errorf("%d bytes: %d, want %d", size, rw.Code, want)
		}
	}
}

// TestHistoryPagesGoOnBeyondLargeVersions has versions of which the store reads only some at once.
func TestHistoryPagesGoOnBeyondLargeVersions(t *testing.T) {
	t.Parallel()
	a, _, _ := setup(t, nil)
	h := started(t, a)
	send := func(method, path, body string) {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), method, "/api/v1"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		rw := httptest.NewRecorder()
		if h.ServeHTTP(rw, r); rw.Code != http.StatusOK {
			t.Fatalf("%s %s: %d %s", method, path, rw.Code, rw.Body)
		}
	}
	send(http.MethodPost, "/flags", `{"description":"d","key":"k"}`)
	send(http.MethodPut, "/flags/1", `{"notes":"`+strings.Repeat("x", 3<<20)+`"}`)
	for range 21 {
		send(http.MethodPut, "/flags/1", `{"description":"d"}`)
	}
	for page, versions := range map[string]int{"": 20, "?page=2": 3} {
		rw := request(t, h, http.MethodGet, "/ui/flags/1/history"+page)
		if got := strings.Count(rw.Body.String(), `class="version"`); rw.Code != http.StatusOK || got != versions {
			t.Errorf("page %q shows %d versions with status %d, want %d", page, got, rw.Code, versions)
		}
	}
}

// TestServersStartOnLargePatterns stores thirty patterns of 21 KB by SQL, which would take more
// than 3 GB, and starts on them.
func TestServersStartOnLargePatterns(t *testing.T) {
	t.Parallel()
	a, file, _ := setup(t, nil)
	h := started(t, a)
	send := func(path, body string) {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		rw := httptest.NewRecorder()
		if h.ServeHTTP(rw, r); rw.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, rw.Code, rw.Body)
		}
	}
	send("/flags", `{"description":"d","key":"k"}`)
	send("/flags/1/segments", `{"description":"s","rolloutPercent":100}`)
	for range 30 {
		send("/flags/1/segments/1/constraints", `{"property":"x","operator":"EREG","value":"\"abc\""}`)
	}
	stop(t, a)
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE constraints SET value = ?", `"`+strings.Repeat(`\pL`, 7000)+`"`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	again, _, log := setup(t, map[string]string{"FLAGR_DB_DBCONNECTIONSTR": file + "?_pragma=synchronous(OFF)"})
	h = started(t, again)
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	if memory.HeapAlloc > 400<<20 { // with that of other tests
		t.Errorf("%d MB are in use after the start", memory.HeapAlloc>>20)
	}
	if rw := request(t, h, http.MethodGet, "/api/v1/health"); rw.Code != http.StatusOK {
		t.Errorf("health: %d", rw.Code)
	}
	stop(t, again)
	for id := range 30 {
		if name := fmt.Sprintf("constraint %d never matches", id+1); !strings.Contains(log.String(), name) {
			t.Errorf("the log does not say that %s", name)
		}
	}
}
