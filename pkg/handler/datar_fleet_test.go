package handler_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
)

func TestFleet(t *testing.T) {
	t.Parallel()
	s := setup(t, map[string]string{
		"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar", "FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "50ms", "HOSTNAME": "pod-7",
	})
	booleanFlag(t, s, "counted", true)
	for range 3 {
		must(t, s, http.MethodPost, "/evaluation", object{"flagKey": "counted", "entityID": "e"})
	}
	var fleet map[string]any
	testwait.Until(t, "the counts to be stored", func() bool {
		fleet = must(t, s, http.MethodGet, "/datar/fleet", nil)
		return fleet["stored"] == 3.0
	})
	server := fleet["servers"].([]any)[0].(map[string]any)
	if at, ok := server["lastFlushAt"].(string); !ok || time.Now().Format("2006") != at[:4] {
		t.Errorf("the last flush was at %v", server["lastFlushAt"])
	}
	delete(server, "lastFlushAt")
	want := map[string]any{
		"recorded": 3.0, "stored": 3.0, "pending": 0.0, "dropped": map[string]any{}, "balanced": true,
		"servers": []any{map[string]any{"name": "pod-7", "kind": "server", "state": "heard", "recorded": 3.0, "stored": 3.0, "pending": 0.0}},
	}
	if diff := cmp.Diff(want, fleet); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// fixedFleet is a fleet that does not change.
type fixedFleet struct{ fleet *datar.Fleet }

func (f fixedFleet) Fleet(context.Context) (*datar.Fleet, error) { return f.fleet, nil }

// TestFleetThatIsNotBalanced checks that the response names the server, the difference and its
// cause.
func TestFleetThatIsNotBalanced(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 14, 0, 0, 0, time.UTC)
	fleet := datar.FleetOf([]datar.ServerRecord{
		{Name: "flagr-0", Run: "1", Kind: datar.KindServer, Start: now, At: now, FlushInterval: time.Minute, Recorded: 9, Stored: 6},
		{Name: "flagr-1", Run: "2", Kind: datar.KindServer, Start: now, At: now.Add(3 * time.Hour), FlushInterval: time.Minute},
	}, now)
	api := newAPI(t)
	handler.New(handler.Options{Fleet: fixedFleet{fleet}, Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler)}).Register(api)
	got := must(t, api.Serve(nil), http.MethodGet, "/datar/fleet", nil)
	want := []any{object{"server": "flagr-0", "kind": "missing", "count": 3.0,
		"text": "flagr-0 recorded 3 evaluations more than it has stored, dropped or pending. Servers write these numbers together, so a row of datar_servers was probably changed or restored by something else."}}
	if diff := cmp.Diff(want, got["unbalanced"]); got["balanced"] != false || diff != "" {
		t.Errorf("balanced is %v; unbalanced (-want +got):\n%s", got["balanced"], diff)
	}
	if text, _ := value(got, "servers.1.text").(string); value(got, "servers.1.state") != "silent" || !strings.HasPrefix(text, "Its clock is or was 3 hours ahead of this server's") {
		t.Errorf("a clock that is ahead: %v", value(got, "servers.1"))
	}
}

func TestFleetWithoutDatar(t *testing.T) {
	t.Parallel()
	if got := call(t, setup(t, nil), http.MethodGet, "/datar/fleet", nil); got.status != http.StatusServiceUnavailable {
		t.Errorf("%d %s", got.status, got.raw)
	}
}
