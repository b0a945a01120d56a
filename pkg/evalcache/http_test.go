package evalcache_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
)

// documentServer serves a document that tests change.
type documentServer struct {
	mu       sync.Mutex
	status   int
	document string
	etag     string    // sent and compared unless empty
	modified time.Time // sent and compared unless zero

	requests, unchanged int
	conditions          []string // of the last request
}

func (s *documentServer) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.conditions = append(r.Header.Values("If-None-Match"), r.Header.Values("If-Modified-Since")...)
	if s.etag != "" {
		rw.Header().Set("ETag", s.etag)
	}
	if s.status != 0 {
		rw.WriteHeader(s.status)
		return
	}
	tracked := httptest.NewRecorder()
	http.ServeContent(tracked, r, "", s.modified, strings.NewReader(s.document))
	if s.etag != "" && r.Header.Get("If-None-Match") == s.etag {
		tracked = httptest.NewRecorder()
		tracked.WriteHeader(http.StatusNotModified)
	}
	if tracked.Code == http.StatusNotModified {
		s.unchanged++
	}
	maps.Copy(rw.Header(), tracked.Header())
	rw.WriteHeader(tracked.Code)
	_, _ = rw.Write(tracked.Body.Bytes())
}

// set changes what is served, and waits until that was asked for twice.
func (s *documentServer) set(t *testing.T, change func()) {
	t.Helper()
	s.mu.Lock()
	change()
	asked := s.requests
	s.mu.Unlock()
	s.await(t, func() bool { return s.requests >= asked+2 })
}

func (s *documentServer) await(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		s.mu.Lock()
		ok := done()
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-deadline:
			t.Fatal("timed out")
		case <-tick.C:
		}
	}
}

func flagDocument(keys ...string) string {
	var flags []string
	for _, key := range keys {
		flags = append(flags, fmt.Sprintf(`{"Key":%q,"Enabled":true}`, key))
	}
	return `{"Flags":[` + strings.Join(flags, ",") + `]}`
}

func keysOf(s *eval.Snapshot) string {
	var keys []string
	for _, f := range s.Flags() {
		keys = append(keys, f.Key)
	}
	return strings.Join(keys, " ")
}

func startHTTPCache(t *testing.T, s *documentServer) (*evalcache.Cache, *testlog.Buffer) {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	log := &testlog.Buffer{}
	cache := evalcache.New(evalcache.FromHTTP(server.URL+"/flags.json?token=s3cret", nil), evalcache.Options{
		RefreshInterval: time.Millisecond,
		Logger:          slog.New(slog.NewTextHandler(log, nil)),
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := cache.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := cache.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return cache, log
}

func TestADocumentIsFetchedAgainOnlyWhenItChanged(t *testing.T) {
	t.Parallel()
	then := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		name       string
		offer      func(s *documentServer, version int)
		conditions int // how many the client sends
	}{
		{"nothing offered", func(*documentServer, int) {}, 0},
		{"ETag", func(s *documentServer, version int) { s.etag = fmt.Sprintf(`W/"v%d"`, version) }, 1},
		{"Last-Modified", func(s *documentServer, version int) { s.modified = then.Add(time.Duration(version) * time.Hour) }, 1},
		{"both", func(s *documentServer, version int) {
			s.etag, s.modified = fmt.Sprintf(`"v%d"`, version), then.Add(time.Duration(version)*time.Hour)
		}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := &documentServer{document: flagDocument("a")}
			tc.offer(s, 1)
			cache, _ := startHTTPCache(t, s)
			s.await(t, func() bool { return s.requests >= 5 })
			first := cache.Snapshot()
			s.await(t, func() bool { return s.requests >= 10 })
			if cache.Snapshot() != first {
				t.Error("the same document was loaded twice")
			}
			s.set(t, func() {
				if len(s.conditions) != tc.conditions || (s.unchanged > 0) != (tc.conditions > 0) {
					t.Errorf("conditions are %q, %d of %d requests found nothing new", s.conditions, s.unchanged, s.requests)
				}
				s.document = flagDocument("a", "b")
				tc.offer(s, 2)
			})
			if got := keysOf(cache.Snapshot()); got != "a b" {
				t.Errorf("flags are %q", got)
			}
		})
	}
}

func TestABadDocumentLeavesTheFlagsAndIsReportedOncePerChange(t *testing.T) {
	t.Parallel()
	for _, tags := range []bool{true, false} {
		t.Run(fmt.Sprintf("ETag %t", tags), func(t *testing.T) {
			t.Parallel()
			s := &documentServer{}
			version := 0
			serve := func(document string) {
				s.status, s.document = 0, document
				if version++; tags {
					s.etag = fmt.Sprintf(`"v%d"`, version)
				}
			}
			serve(flagDocument("a"))
			cache, log := startHTTPCache(t, s)
			step := func(name string, change func(), flags string, refused, recovered int) {
				t.Helper()
				s.set(t, change)
				s.set(t, func() {}) // some more requests for the same
				if got := keysOf(cache.Snapshot()); got != flags {
					t.Errorf("%s: flags are %q, want %q", name, got, flags)
				}
				if n := log.Count("flags were not reloaded"); n != refused {
					t.Errorf("%s: reported %d times, want %d", name, n, refused)
				}
				if n := log.Count("flags can be loaded again"); n != recovered {
					t.Errorf("%s: recovered %d times, want %d", name, n, recovered)
				}
			}
			twice := flagDocument("b", "b")
			step("duplicate key", func() { serve(twice) }, "a", 1, 0)
			step("another document with the same mistake", func() { serve(twice + " ") }, "a", 2, 0)
			step("no JSON", func() { serve("<html>") }, "a", 3, 0)
			step("server error", func() { s.status = http.StatusBadGateway }, "a", 4, 0)
			step("a good one", func() { serve(flagDocument("c")) }, "c", 4, 1)
			step("empty", func() { serve("") }, "c", 5, 1)
			step("the good one again", func() { serve(flagDocument("c")) }, "c", 5, 2)
			if log.Count("s3cret") > 0 {
				t.Error("the log has the URL with its token")
			}
			for _, part := range []string{"key is used by flags #1 and #2", "502 Bad Gateway", "invalid character '<'"} {
				if log.Count(part) == 0 {
					t.Errorf("the log does not say %q", part)
				}
			}
		})
	}
}
