package handler_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestAgesFollowTheClockOfTheServer runs a server years ahead of the system clock.
func TestAgesFollowTheClockOfTheServer(t *testing.T) {
	t.Parallel()
	now := time.Date(2091, 1, 2, 3, 4, 5, 0, time.UTC)
	s := setupAt(t, datarOn, func() time.Time { return now })
	ready := must(t, s, http.MethodGet, "/ready", nil)
	flags, _ := ready["evaluation"].(map[string]any)
	if flags["checkedAt"] != "2091-01-02T03:04:05.000Z" || flags["ageSeconds"] != 0.0 {
		t.Errorf("/ready has flags of %v and an age of %v s, want those of the clock", flags["checkedAt"], flags["ageSeconds"])
	}
	must(t, s, http.MethodGet, "/datar/summary", nil) // flushes
	fleet := must(t, s, http.MethodGet, "/datar/fleet", nil)
	for _, server := range fleet["servers"].([]any) {
		if server.(map[string]any)["state"] != "heard" {
			t.Errorf("/datar/fleet has %v, want a server that was just heard of", server)
		}
	}
	page := send(s, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ui/server", nil))
	if page.status != http.StatusOK || !strings.Contains(page.raw, "2091-01-02T03:04:05") || strings.Contains(page.raw, time.Now().UTC().Format("2006-01-02T15")) {
		t.Errorf("/ui/server has status %d and other times than those of the clock:\n%s", page.status, page.raw)
	}
}
