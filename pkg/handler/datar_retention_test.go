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

	"github.com/google/go-cmp/cmp"

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

// TestSeriesAfterRetention checks that totals of UTC days are one line, and that a comparison
// without details does not change the series.
func TestSeriesAfterRetention(t *testing.T) {
	t.Parallel()
	s, flag, _ := retentionServer(t)
	must(t, s, http.MethodPost, "/evaluation", object{"flagID": flag, "entityID": "a"})
	path := fmt.Sprintf("/datar/flags/%d/series?", flag)

	var days object
	var lines []any
	testwait.Until(t, "the evaluation to be in the series", func() bool { // a busy disk may take longer than the response waits
		days = must(t, s, http.MethodGet, path+"by=variant&from=2026-11-17T00:00:00Z", nil)
		lines = days["lines"].([]any)
		if len(lines) != 1 {
			return false
		}
		counts := lines[0].(object)["counts"].([]any)
		return counts[len(counts)-1] == 1.0
	})
	if days["detail"] != "utcDay" || days["by"] != "total" || len(lines) != 1 {
		t.Fatalf("got %v", days)
	}
	line := lines[0].(object)
	counts := line["counts"].([]any)
	if line["name"] != "total" || line["outcome"] != nil || line["variantID"] != nil || counts[1] != 3.0 || counts[len(counts)-1] != 1.0 {
		t.Errorf("got %v", line)
	}
	csv := call(t, s, http.MethodGet, path+"format=csv&from=2026-11-17T00:00:00Z", nil).raw
	if !strings.Contains(csv, "2026-11-18T00:00:00Z,2026-11-19T00:00:00Z,true,total,") {
		t.Errorf("got %s", csv)
	}

	const window = "bucket=hour&from=2026-11-27T00:00:00Z&to=2026-11-28T13:00:00Z"
	alone := must(t, s, http.MethodGet, path+window, nil)
	delete(alone, "complete") // its times go on
	for _, compare := range []string{"2026-11-01T00:00:00Z", "2026-11-18T23:00:00Z"} {
		got := must(t, s, http.MethodGet, path+window+"&compare="+compare, nil)
		missing, _ := got["comparisonMissing"].(string)
		if got["comparison"] != nil || !strings.Contains(missing, "begins at "+compare) || !strings.Contains(missing, "kept from 2026-11-19T00:00:00Z on") {
			t.Errorf("compared with %s: %v, %q", compare, got["comparison"], missing)
		}
		delete(got, "complete")
		delete(got, "comparisonMissing")
		if diff := cmp.Diff(alone, got); diff != "" {
			t.Errorf("compared with %s (-alone +compared):\n%s", compare, diff)
		}
	}
	for _, compare := range []string{"previous", "2026-11-19T00:00:00Z"} {
		got := must(t, s, http.MethodGet, path+window+"&compare="+compare, nil)
		if got["comparison"] == nil || got["comparisonMissing"] != nil || got["detail"] != nil {
			t.Errorf("compared with %s: %v", compare, got)
		}
	}
}

// TestSeriesOfEmptyWindows checks the end of a series without buckets, also of a window before
// 1970, when no hours are counted.
func TestSeriesOfEmptyWindows(t *testing.T) {
	t.Parallel()
	s := setup(t, datarOn)
	flag, _, _ := booleanFlag(t, s, "f", true)
	for window, end := range map[string]string{
		"from=2026-11-28T00:00:00Z&to=2026-11-28T00:00:00Z":                  "2026-11-28T00:00:00Z",
		"from=2026-11-28T00:00:00Z&to=2026-11-28T00:00:00Z&tz=Europe/Berlin": "2026-11-28T01:00:00+01:00",
		"from=1960-01-01T00:00:00Z&to=1965-01-01T00:00:00Z":                  "1970-01-01T00:00:00Z",
	} {
		got := must(t, s, http.MethodGet, fmt.Sprintf("/datar/flags/%d/series?compare=previous&%s", flag, window), nil)
		if got["end"] != end || len(got["starts"].([]any)) != 0 || got["comparison"] != nil {
			t.Errorf("%s: got %v", window, got)
		}
	}
}
