package handler_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/integration_tests/golden"
	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
)

func TestGoldenWalk(t *testing.T) {
	t.Parallel()
	for name, walk := range golden.Walks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, nil)
			golden.Walk(t, walk, func(c golden.Call) (int, []byte) {
				r := httptest.NewRequestWithContext(t.Context(), c.Method, "/api/v1"+c.Path, strings.NewReader(c.Body))
				if c.ContentType != "" {
					r.Header.Set("Content-Type", c.ContentType)
				}
				a := send(s, r)
				return a.status, []byte(a.raw)
			})
			if log := s.log.String(); strings.Contains(log, "level=ERROR") {
				t.Errorf("the walk logged errors:\n%s", log)
			}
		})
	}
}

// waitForCache waits until evaluation uses the newest snapshot of a flag. No flag may have been
// deleted.
func waitForCache(t *testing.T, s *server) {
	t.Helper()
	newest := must(t, s, http.MethodGet, "/flags/snapshots/max_id", nil)["maxID"]
	testwait.Until(t, "the evaluation cache", func() bool {
		flags := must(t, s, http.MethodGet, "/export/eval_cache/json", nil)["Flags"].([]any)
		return slices.ContainsFunc(flags, func(f any) bool { return f.(map[string]any)["SnapshotID"] == newest })
	})
}
