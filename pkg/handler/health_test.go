package handler_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
)

type noFlags struct{}

func (noFlags) Snapshot() *eval.Snapshot { return eval.Compile(nil) }

func TestHealthAndReadiness(t *testing.T) {
	t.Parallel()
	ago := func(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(-d) } }
	never := func() time.Time { return time.Time{} }
	answers := func(context.Context) error { return nil }
	refuses := func(context.Context) error { return errors.New("password of s3cret refused") }
	hangs := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	yes := func() bool { return true }
	recorders := func(failing bool) func() []handler.RecorderStatus {
		return func() []handler.RecorderStatus {
			return []handler.RecorderStatus{{Name: "kafka", Failing: failing}, {Name: "datar"}}
		}
	}
	for _, tc := range []struct {
		name          string
		healthChecks  handler.HealthChecks
		health, ready int
		contains      []string
	}{
		{"well", handler.HealthChecks{LastCheck: ago(time.Second), MaxAge: time.Minute, Ping: answers, Recorders: recorders(false)}, 200, 200,
			[]string{`"status":"OK"`, `"latencyMilliseconds":`, `"ageSeconds":1.`, `{"name":"kafka","status":"OK"}`}},
		{"without a database", handler.HealthChecks{LastCheck: ago(0)}, 200, 200, []string{`"status":"OK"`, `"database":{"status":"none"}`, `"recorders":[]`}},
		{"not loaded", handler.HealthChecks{LastCheck: never, Ping: answers}, 503, 503, []string{`"status":"starting"`, `"flags":0`}},
		{"stopping", handler.HealthChecks{LastCheck: ago(0), Ping: answers, Stopping: yes}, 200, 503, []string{`"status":"stopping"`}},
		{"old flags", handler.HealthChecks{LastCheck: ago(2 * time.Minute), MaxAge: time.Minute}, 200, 200, []string{`"status":"degraded"`, `"ageSeconds":120.`}},
		{"database refuses", handler.HealthChecks{LastCheck: ago(0), Ping: refuses}, 200, 200, []string{`"status":"degraded"`, `{"status":"unreachable"}`}},
		{"database hangs", handler.HealthChecks{LastCheck: ago(0), Ping: hangs}, 200, 200, []string{`"status":"degraded"`, `{"status":"unreachable"}`}},
		{"a recorder fails", handler.HealthChecks{LastCheck: ago(0), Recorders: recorders(true)}, 200, 200,
			[]string{`"status":"degraded"`, `{"name":"kafka","status":"failing"}`, `{"name":"datar","status":"OK"}`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			api := newAPI(t)
			handler.New(handler.Options{Eval: eval.NewService(noFlags{}, nil, eval.Options{}), Snapshots: noFlags{}, HealthChecks: tc.healthChecks,
				Logger: slog.New(slog.DiscardHandler)}).Register(api)
			h := api.Serve(nil)
			if a := call(t, h, http.MethodGet, "/health", nil); a.status != tc.health {
				t.Errorf("health: %d %s, want %d", a.status, a.raw, tc.health)
			}
			a := call(t, h, http.MethodGet, "/ready", nil)
			if a.status != tc.ready || strings.Contains(a.raw, "s3cret") {
				t.Errorf("ready: %d %s, want %d", a.status, a.raw, tc.ready)
			}
			for _, text := range tc.contains {
				if !strings.Contains(a.raw, text) {
					t.Errorf("ready: %s lacks %s", a.raw, text)
				}
			}
		})
	}
}
