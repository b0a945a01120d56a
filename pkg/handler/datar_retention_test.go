package handler_test

import (
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
)

// retentionServer returns a server that keeps details for a week, on 28 November 2026. The flag was
// asked for three times on 18 November, and quiet was not asked for since it was created on
// 29 September. The second server starts when the first has stopped.
func retentionServer(t *testing.T) (s *server, flag, quiet int) {
	t.Helper()
	var clock atomic.Pointer[time.Time]
	set := func(day, month int) {
		clock.Store(new(time.Date(2026, time.Month(month), day, 12, 30, 0, 0, time.UTC)))
	}
	now := func() time.Time { return *clock.Load() }
	environ := maps.Clone(datarOn)
	environ["FLAGR_DB_DBCONNECTIONSTR"] = filepath.Join(t.TempDir(), "flagr.sqlite") + "?_pragma=synchronous(OFF)" // a busy disk takes long
	environ["FLAGR_RECORDER_DATAR_JOURNAL_DIR"] = t.TempDir()
	set(29, 9)
	t.Run("earlier", func(t *testing.T) {
		first := setupAt(t, environ, now)
		flag, _, _ = booleanFlag(t, first, "asked", true)
		quiet, _, _ = booleanFlag(t, first, "quiet", true)
		set(18, 11)
		for range 3 {
			must(t, first, http.MethodPost, "/evaluation", object{"flagID": flag, "entityID": "a"})
		}
		testwait.Until(t, "the evaluations to be stored", func() bool { return must(t, first, http.MethodGet, "/datar/fleet", nil)["stored"] == 3.0 })
		set(28, 11)
	})
	environ["FLAGR_RECORDER_DATAR_RETENTION"] = "168h"
	s = setupAt(t, environ, now)
	testwait.Within(t, 3*time.Minute, "old details to be deleted", func() bool { // a failed attempt is repeated after a minute
		got := call(t, s, http.MethodGet, fmt.Sprintf("/datar/flags/%d/outcomes?from=2026-11-18T00:00:00Z", flag), nil)
		return got.status == http.StatusBadRequest
	})
	return s, flag, quiet
}

// TestDeletionAfterRetention checks that a flag whose requests are known only from totals of days
// is not reported as safe to delete.
func TestDeletionAfterRetention(t *testing.T) {
	t.Parallel()
	s, flag, quiet := retentionServer(t)
	for _, test := range []struct {
		flag                  int
		days                  string
		state, answer, reason string
	}{
		{flag, "30", "active", "no", "Last asked for on 18 November 2026. Details are kept from 19 November 2026 on."},
		{flag, "9", "inactive", "yes", "Last asked for on 18 November 2026, and not in the last 9 days."},
		{quiet, "30", "not_counted", "unknown", "Not asked for since 19 November 2026. Details of earlier days are deleted"},
		{quiet, "9", "never_evaluated", "yes", "Never asked for"},
	} {
		one := must(t, s, http.MethodGet, fmt.Sprintf("/datar/flags/%d/state?days=%s", test.flag, test.days), nil)
		list := must(t, s, http.MethodGet, "/datar/states?days="+test.days, nil)["flags"].([]any)
		i := slices.IndexFunc(list, func(f any) bool { return f.(object)["flagID"] == float64(test.flag) })
		listed := list[i].(object)
		if one["state"] != test.state || one["canDelete"].(object)["answer"] != test.answer || !strings.HasPrefix(one["reason"].(string), test.reason) {
			t.Errorf("flag %d, %s days: %v", test.flag, test.days, one)
		}
		if listed["state"] != test.state || listed["canDelete"] != test.answer || listed["reason"] != one["reason"] {
			t.Errorf("flag %d, %s days, in the list: %v", test.flag, test.days, listed)
		}
		csv := call(t, s, http.MethodGet, "/datar/states?format=csv&days="+test.days, nil).raw
		if !strings.Contains(csv, test.state+",") || !strings.Contains(csv, ","+test.answer+",") {
			t.Errorf("flag %d, %s days, in the table: %s", test.flag, test.days, csv)
		}
	}
}
