package handler_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
)

// TestAttachmentsAreNotDecoded changes a variant with an attachment of 400,000 numbers, which would
// take 12 MB decoded, and its flag, and measures what that allocates, with the rows, the snapshot
// and the response. It is not parallel, because TotalAlloc includes all goroutines.
func TestAttachmentsAreNotDecoded(t *testing.T) { //nolint:paralleltest // measures allocations
	s := setup(t, map[string]string{"FLAGR_EVALCACHE_REFRESHINTERVAL": "1h"})
	call(t, s, http.MethodPost, "/flags", `{"key":"f","description":"d"}`)
	call(t, s, http.MethodPost, "/flags/1/variants", `{"key":"v"}`)
	attachment := `{"a": [` + strings.Repeat("1,", 400_000) + `1]}`
	stored := strings.Replace(attachment, " ", "", 1)
	for _, tc := range []struct {
		method, path, body string
		most               int // times the length of the attachment
	}{
		{http.MethodPut, "/flags/1/variants/1", `{"key":"v","attachment":` + attachment + `}`, 19},
		{http.MethodPut, "/flags/1/definition", `{"snapshotID":%d,"variants":[{"id":1,"key":"w","attachment":` + attachment + `}]}`, 22},
		{http.MethodGet, "/flags/1", "", 7},
		{http.MethodGet, "/flags/1/definition", "", 7},
	} {
		body := tc.body
		if strings.Contains(body, "%d") {
			snapshot := must(t, s, http.MethodGet, "/flags/1/definition", nil)["snapshotID"].(float64)
			body = fmt.Sprintf(body, int(snapshot))
		}
		r := httptest.NewRequestWithContext(t.Context(), tc.method, "/api/v1"+tc.path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		rw := httptest.NewRecorder()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s.ServeHTTP(rw, r)
		runtime.ReadMemStats(&after)
		took := int(after.TotalAlloc-before.TotalAlloc) / len(attachment)
		t.Logf("%s %s: %d times", tc.method, tc.path, took)
		if rw.Code != http.StatusOK || !strings.Contains(rw.Body.String(), stored) || took > tc.most {
			t.Errorf("%s %s: %d %.100s, took %d times the attachment, want at most %d", tc.method, tc.path, rw.Code, rw.Body, took, tc.most)
		}
	}
}
