package evalcache_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
)

const (
	firstDocument  = `{"Flags": [{"Key": "first"}]}`
	secondDocument = `{"Flags": [{"Key": "other"}]}`
)

// look reads the version, and the flags if it is not the one before; it returns the key of the
// first flag.
func look(t *testing.T, source evalcache.FlagSource, before string) (version, key string, err error) {
	t.Helper()
	if version, err = source.Version(t.Context()); err != nil || version == before {
		return version, "", err
	}
	flags, err := source.Flags(t.Context())
	if err != nil {
		return version, "", err
	}
	return version, flags[0].Key, nil
}

func TestFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "flags.json")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	source := evalcache.FromFile(path)
	if _, _, err := look(t, source, ""); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("missing file: error %v", err)
	}
	write("")
	if _, _, err := look(t, source, ""); err == nil {
		t.Error("empty file: no error")
	}
	write(firstDocument)
	version, key, err := look(t, source, "")
	if err != nil || key != "first" {
		t.Fatalf("got %q, error %v", key, err)
	}
	write(firstDocument)
	if same, _, err := look(t, source, version); err != nil || same != version {
		t.Errorf("rewritten with the same content: version %q after %q, error %v", same, version, err)
	}
	write(secondDocument[:20])
	if half, _, err := look(t, source, version); err == nil || half == version {
		t.Errorf("half a document: error %v", err)
	}
	write(secondDocument) // as long as the first
	if _, key, err := look(t, source, version); err != nil || key != "other" {
		t.Errorf("got %q, error %v", key, err)
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, header, value, condition string
	}{
		{"entity tag", "ETag", `"1"`, "If-None-Match"},
		{"last modification", "Last-Modified", "Mon, 06 May 2024 12:00:00 GMT", "If-Modified-Since"},
		{"neither", "X-None", "1", "X-None"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var document atomic.Value
			document.Store(firstDocument)
			var notModified atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get(test.condition) == test.value && document.Load() == firstDocument {
					notModified.Add(1)
					w.WriteHeader(http.StatusNotModified)
					return
				}
				if document.Load() == firstDocument {
					w.Header().Set(test.header, test.value)
				}
				_, _ = fmt.Fprint(w, document.Load())
			}))
			defer server.Close()

			source := evalcache.FromHTTP(server.URL, nil)
			version, key, err := look(t, source, "")
			if err != nil || key != "first" {
				t.Fatalf("got %q, error %v", key, err)
			}
			if same, _, err := look(t, source, version); err != nil || same != version {
				t.Errorf("version %q after %q, error %v", same, version, err)
			}
			if want := test.condition != "X-None"; (notModified.Load() == 1) != want {
				t.Errorf("%d answers of not modified", notModified.Load())
			}
			document.Store(secondDocument)
			if _, key, err := look(t, source, version); err != nil || key != "other" {
				t.Errorf("got %q, error %v", key, err)
			}
		})
	}
}

func TestHTTPFailures(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		answer  http.HandlerFunc
		message string
	}{
		{"status", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, firstDocument, http.StatusBadGateway) }, "502"},
		{"not modified, unasked", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }, "304"},
		{"other document", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, `{"message": "sorry"}`) }, `"Flags"`},
		{"page", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, `<html>`) }, "invalid character"},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = fmt.Fprint(w, firstDocument)
		}, "unexpected EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(test.answer)
			defer server.Close()
			if _, _, err := look(t, evalcache.FromHTTP(server.URL, server.Client()), ""); err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("got error %v, want in it %s", err, test.message)
			}
		})
	}
	for _, url := range []string{"http://s3cret[", "http://127.0.0.1:1/s3cret?token=s3cret"} {
		if _, err := evalcache.FromHTTP(url, nil).Version(t.Context()); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("got error %v, want one without the URL", err)
		}
	}
}
