package integration_tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestNotifications sends webhooks to a receiver that sometimes fails. All changes must arrive in
// order, the last ones while the server stops.
func TestNotifications(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		var (
			mu        sync.Mutex
			calls     int
			confirmed []string
		)
		receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			calls++
			switch {
			case r.Header.Get("Authorization") != "Bearer s3cret":
				t.Errorf("header is %v", r.Header)
			case calls%3 == 1:
				rw.WriteHeader(http.StatusServiceUnavailable)
				return
			case calls%3 == 2:
				panic(http.ErrAbortHandler)
			}
			var m struct {
				Operation     string `json:"operation"`
				ComponentType string `json:"component_type"`
				ComponentKey  string `json:"component_key"`
				User          string `json:"user"`
				PostValue     string `json:"post_value"`
				Diff          string `json:"diff"`
			}
			if err := json.NewDecoder(r.Body).Decode(&m); err != nil || m.PostValue == "" || !strings.HasPrefix(m.Diff, "--- before\n+++ after\n@@ ") {
				t.Errorf("%v in %+v", err, m)
			}
			confirmed = append(confirmed, fmt.Sprint(m.Operation, " ", m.ComponentType, " ", m.ComponentKey, " by ", m.User))
		}))
		t.Cleanup(receiver.Close)
		s := start(t, db, db.fresh(t), environ{
			"FLAGR_NOTIFICATION_WEBHOOK_ENABLED":       "true",
			"FLAGR_NOTIFICATION_WEBHOOK_URL":           receiver.URL + "/hook?token=s3cret",
			"FLAGR_NOTIFICATION_WEBHOOK_HEADERS":       "Authorization: Bearer s3cret",
			"FLAGR_NOTIFICATION_DETAILED_DIFF_ENABLED": "true",
			"FLAGR_NOTIFICATION_RETRY_BASE":            "1ms",
			"FLAGR_HEADER_AUTH_ENABLED":                "true",
		})
		change := func(method, path, body string) {
			t.Helper()
			request, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("X-Email", "ann")
			if a, err := s.do(request); err != nil || a.status != http.StatusOK {
				t.Fatalf("%s %s: %v, %s", method, path, err, a)
			}
		}
		want := []string{}
		change(http.MethodPost, "/flags", `{"description":"d","key":"told"}`)
		want = append(want, "create flag told by ann")
		for i := range 10 {
			change(http.MethodPost, "/flags/1/variants", fmt.Sprintf(`{"key":"v%d"}`, i))
			want = append(want, fmt.Sprintf("create variant v%d by ann", i))
		}
		change(http.MethodDelete, "/flags/1", "")
		change(http.MethodPut, "/flags/1/restore", "")
		want = append(want, "delete flag told by ann", "restore flag told by ann")
		s.stop(t, syscall.SIGTERM)

		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff(want, confirmed); diff != "" {
			t.Errorf("notifications (-want +got):\n%s", diff)
		}
		if log := s.log.String(); strings.Contains(log, "s3cret") || strings.Contains(log, "notification") {
			t.Errorf("the log:\n%s", log)
		}
	})
}
