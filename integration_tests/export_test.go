package integration_tests

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSQLiteExport exports flags from each kind of database, and starts a server on each export.
func TestSQLiteExport(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		temporary := t.TempDir()
		s := start(t, db, db.fresh(t), environ{"TMPDIR": temporary})
		flags := []flagAnswer{newFlag(t, s, "first"), newFlag(t, s, "second"), newFlag(t, s, "deleted")}
		blue := newVariant(t, s, flags[0], "blue")
		newSegment(t, s, flags[0], "FR", "blue", blue)
		send[any](t, s, http.MethodPost, flags[0].path()+"/tags", object{"value": "web"})
		send[any](t, s, http.MethodPut, flags[1].path(), object{"entityType": "user", "notes": "it's “quoted” – ünïcode"})
		send[any](t, s, http.MethodDelete, flags[2].path(), nil)

		// Concurrent exports, while flags change.
		exports := make([][]byte, 4)
		var downloads sync.WaitGroup
		for i := range exports {
			downloads.Go(func() {
				a, err := s.try(http.MethodGet, "/export/sqlite", nil)
				if err != nil || a.status != http.StatusOK || a.header.Get("Content-Type") != "application/octet-stream" {
					t.Errorf("export: %v, %d %v", err, a.status, a.header)
				}
				exports[i] = a.body
			})
		}
		for i := range 10 {
			send[any](t, s, http.MethodPut, flags[1].path(), object{"description": fmt.Sprint("change ", i)})
		}
		downloads.Wait()
		exports = append(exports, s.call(t, http.MethodGet, "/export/sqlite", nil).body,
			s.call(t, http.MethodGet, "/export/sqlite?exclude_snapshots=true", nil).body)
		if left, err := filepath.Glob(filepath.Join(temporary, "*")); err != nil || len(left) > 0 {
			t.Errorf("temporary files are left: %v, %v", left, err)
		}

		want := get[[]object](t, s, "/flags?preload=true")
		for i, content := range exports {
			path := filepath.Join(t.TempDir(), "export.sqlite")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			other := start(t, databases[0], path, nil)
			got := get[[]object](t, other, "/flags?preload=true")
			if i < 4 { // exported during the changes
				got[1]["description"], got[1]["updatedAt"] = want[1]["description"], want[1]["updatedAt"]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("export %d: flags (-want +got):\n%s", i, diff)
			}
			if got := evaluate(t, other, flags[0], "u", object{"country": "FR"}); got.VariantID == 0 {
				t.Errorf("export %d: no variant", i)
			}
			history := get[[]object](t, other, "/flags/1/snapshots")
			if last := i == len(exports)-1; (len(history) == 0) != last {
				t.Errorf("export %d has %d snapshots", i, len(history))
			}
			if got := send[flagAnswer](t, other, http.MethodPut, flags[2].path()+"/restore", nil); got.Key != "deleted" {
				t.Errorf("export %d: restored %+v", i, got)
			}
			if got := newFlag(t, other, "new"); got.ID != 4 {
				t.Errorf("export %d: the next flag has id %d, want 4", i, got.ID)
			}
		}
	})
}
