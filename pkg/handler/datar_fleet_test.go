package handler_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
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

func TestFleetWithoutDatar(t *testing.T) {
	t.Parallel()
	if got := call(t, setup(t, nil), http.MethodGet, "/datar/fleet", nil); got.status != http.StatusServiceUnavailable {
		t.Errorf("%d %s", got.status, got.raw)
	}
}
