package chstore_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
)

// TestLagOfReplicas checks that responses are complete up to a time that the delay of replicas
// holds back, that this delay is cached, and not read if tables are not replicated.
func TestLagOfReplicas(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cluster string
		engine  string
		delay   int64
		behind  time.Duration // upTo, before now
		queries int64
	}{
		"a single server":          {"", "ReplacingMergeTree", 90, 0, 0},
		"a table made by hand":     {"", "ReplicatedReplacingMergeTree", 90, 151 * time.Second, 1},
		"a cluster":                {"name", "", 0, 0, 1},
		"a cluster that lags":      {"name", "", 90, 151 * time.Second, 1},
		"a replica without a plan": {"name", "", time.Now().Unix(), time.Hour, 1}, // it has never reached its coordination service
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := imitate(t)
			var queries atomic.Int64
			c.onRequest(func(w http.ResponseWriter, statement string) bool {
				switch {
				case strings.Contains(statement, "SELECT engine FROM"):
					_, _ = fmt.Fprintf(w, `{"data":[["%s"]]}`, test.engine)
				case strings.Contains(statement, "system.replicas"):
					queries.Add(1)
					_, _ = fmt.Fprintf(w, `{"data":[["%d"]]}`, test.delay)
				default:
					return false
				}
				return true
			})
			s, err := chstore.New(t.Context(), chstore.Options{Hosts: []string{c.address()}, Database: "datar", Cluster: test.cluster})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			var now atomic.Pointer[time.Time]
			start := time.Now().Truncate(time.Second)
			now.Store(&start)
			e, err := datar.New(datar.Options{Store: s, Now: func() time.Time { return *now.Load() }})
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			later := start.Add(time.Hour)
			now.Store(&later)
			for range 3 {
				complete, err := e.Completeness(t.Context(), start, later)
				if err != nil {
					t.Fatal(err)
				}
				// The age of the cached delay is added to it.
				if behind := later.Sub(complete.UpTo); behind < test.behind || behind > test.behind+2*time.Second {
					t.Errorf("complete up to %v ago, want %v", behind, test.behind)
				}
			}
			if n, most := queries.Load(), test.queries*(1+int64(time.Since(began)/(2*time.Second))); n < test.queries || n > most {
				t.Errorf("%d queries for the delay, want %d to %d", n, test.queries, most)
			}
			if err := e.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLagThatCannotBeRead checks that responses go on without the delays if the user may not read
// them, which is logged once, and that other errors remain errors.
func TestLagThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status   int
		text     string
		err      string // a part of the error, or empty
		warnings int
	}{
		"no privilege":     {http.StatusForbidden, "Code: 497. DB::Exception: flagr: Not enough privileges", "", 1},
		"an older version": {http.StatusInternalServerError, "Code: 497. DB::Exception: flagr: Not enough privileges", "", 1},
		"another error":    {http.StatusInternalServerError, "Code: 241. DB::Exception: Memory limit exceeded", "Memory limit", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := imitate(t)
			c.onRequest(func(w http.ResponseWriter, statement string) bool {
				if !strings.Contains(statement, "system.replicas") {
					return false
				}
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.text)
				return true
			})
			var log bytes.Buffer
			s, err := chstore.New(t.Context(), chstore.Options{
				Hosts: []string{c.address()}, Database: "datar", Cluster: "name", Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			for range 2 {
				lag, err := s.Lag(t.Context())
				switch {
				case test.err == "" && (lag != 0 || err != nil):
					t.Errorf("got %v, %v; want no lag", lag, err)
				case test.err != "" && (err == nil || !strings.Contains(err.Error(), "system.replicas") || !strings.Contains(err.Error(), test.err)):
					t.Errorf("got %v, want that the delays cannot be read: %s", err, test.err)
				}
				s.ForgetLag()
			}
			if n := strings.Count(log.String(), "GRANT SELECT ON system.replicas TO"); n != test.warnings {
				t.Errorf("%d warnings, want %d: %s", n, test.warnings, log.String())
			}
		})
	}
}
