package handler_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// sqliteExport downloads a file and returns its path.
func sqliteExport(t *testing.T, s *server, query string) string {
	t.Helper()
	rw := httptest.NewRecorder()
	s.ServeHTTP(rw, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/export/sqlite"+query, nil))
	if rw.Code != http.StatusOK || rw.Header().Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%d %s: %s", rw.Code, rw.Header().Get("Content-Type"), rw.Body)
	}
	path := filepath.Join(t.TempDir(), "export.sqlite")
	if err := os.WriteFile(path, rw.Body.Bytes(), 0o600); err != nil {
		t.Error(err)
	}
	return path
}

// TestAnExportedFileIsADatabase sets the folder of temporary files, so it cannot run in parallel.
func TestAnExportedFileIsADatabase(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	s := setup(t, nil)
	booleanFlag(t, s, "kept", false)
	must(t, s, http.MethodPost, "/flags/1/tags", object{"value": "web"})
	must(t, s, http.MethodPost, "/flags", object{"description": "d", "key": "gone"})
	must(t, s, http.MethodDelete, "/flags/2", nil)

	var exports sync.WaitGroup
	for range 4 {
		exports.Go(func() { sqliteExport(t, s, "") })
	}
	exports.Wait()
	path, bare := sqliteExport(t, s, ""), sqliteExport(t, s, "?exclude_snapshots=true")
	left, err := filepath.Glob(filepath.Join(folder, "flagr-export-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}

	for _, tc := range []struct {
		path      string
		snapshots int
	}{{path, 4}, {bare, 0}} {
		other := setup(t, map[string]string{"FLAGR_DB_DBCONNECTIONSTR": tc.path})
		if got := must(t, other, http.MethodPost, "/evaluation", object{"flagKey": "kept", "entityID": "e"}); got["variantKey"] != "on" {
			t.Errorf("evaluation of the exported flag gives %v", got)
		}
		if got := call(t, other, http.MethodGet, "/flags/1/snapshots", nil).body.([]any); len(got) != tc.snapshots {
			t.Errorf("%d snapshots, want %d", len(got), tc.snapshots)
		}
		if got := call(t, other, http.MethodGet, "/flags?tags=web", nil).body.([]any); len(got) != 1 {
			t.Errorf("%d flags have the tag", len(got))
		}
		if got := must(t, other, http.MethodPut, "/flags/2/restore", nil); got["key"] != "gone" {
			t.Errorf("restored %v", got)
		}
		must(t, other, http.MethodPut, "/flags/1", object{"description": "changed"})
	}
}

// TestAnExportThatFailsSaysSo sets the folder of temporary files, so it cannot run in parallel.
func TestAnExportThatFailsSaysSo(t *testing.T) {
	s := setup(t, nil)
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
	if got := call(t, s, http.MethodGet, "/export/sqlite", nil); got.status != http.StatusInternalServerError || got.raw != `{"message":"internal error"}`+"\n" {
		t.Errorf("answer is %d %s", got.status, got.raw)
	}
}
