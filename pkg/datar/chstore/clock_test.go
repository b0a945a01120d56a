package chstore_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
)

// withClock returns the connection string of a proxy behind which ClickHouse's clock is ahead by an
// offset. It must be the first to create tables, whose defaults then have this clock, too.
func withClock(t *testing.T, address string, offset time.Duration) string {
	t.Helper()
	u := parse(t, address)
	target := u.Host
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if r.Header.Get("Content-Encoding") == "" {
			body = bytes.ReplaceAll(body, []byte("now()"), fmt.Appendf(nil, "(now() + %d)", int64(offset/time.Second)))
		}
		request, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+target+r.URL.RequestURI(), bytes.NewReader(body))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		request.Header = r.Header
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = response.Body.Close() }() // it has been read to its end
		if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
			w.Header().Set("Date", date.Add(offset).Format(http.TimeFormat))
		}
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body) // the client gets a truncated response
	}))
	t.Cleanup(proxy.Close)
	u.Host = proxy.Listener.Addr().String()
	return u.String()
}

// setClock ends the offset of the clock in defaults of columns. On a cluster, datar_meta is one
// table with a replica on each server, so one statement changes all. ON CLUSTER would run it once
// for each shard, and if one of them never returned, no later statement ON CLUSTER would run.
func setClock(t *testing.T, address string) {
	t.Helper()
	for _, table := range []string{"datar_meta", "datar_builds"} {
		if table == "datar_builds" && onCluster(t, address) {
			continue // clusters have no rollups
		}
		execute(t, address, "ALTER TABLE "+parse(t, address).Path[1:]+"."+table+" MODIFY COLUMN at DateTime DEFAULT now()")
	}
}

// TestClickHouseClockIsWrong counts, builds rollups and reduces days while ClickHouse's clock is a
// year ahead or behind, and after it was set right. Counts do not depend on it, and neither rollups
// nor the retention stop for longer than a day.
func TestClickHouseClockIsWrong(t *testing.T) {
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		for name, offset := range map[string]time.Duration{"ahead": 365 * 24 * time.Hour, "behind": -365 * 24 * time.Hour} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				address := fresh(t)
				wrong := open(t, withClock(t, address, offset))
				wrong.SetBuilds(time.Hour, 0)
				apply(t, wrong, "w", 1, matched(1, firstHour, 5), matched(1, firstHour+6, 6), matched(2, firstHour+5*24, 7))
				maintainAt(t, wrong, firstHour+6, 0)
				wantRolled(t, wrong, 1)
				wantTotal(t, wrong, 1, 11)
				if got := wrong.ClockOffset(); (got - offset).Abs() > 5*time.Second { // a request is compared if it takes at most 2 s
					t.Errorf("the clock is %v ahead, want %v", got, offset)
				}

				right := open(t, address)
				if got := right.ClockOffset(); got.Abs() > 5*time.Second {
					t.Errorf("the clock is %v ahead, want 0", got)
				}
				right.SetBuilds(time.Hour, 0)
				apply(t, right, "late", 1, matched(1, firstHour+1, 100))
				wantRolled(t, right, 0)
				maintainAt(t, right, firstHour+12, 0)
				wantRolled(t, right, 2)
				wantTotal(t, right, 1, 111)

				maintainAt(t, wrong, firstHour+4*24, 48*time.Hour) // reduces the first day
				wantTotal(t, right, 1, 111)
				setClock(t, address)
				right.SetGrace(0, 0)
				for _, day := range []datar.Hour{4, 5} {
					maintainAt(t, right, firstHour+day*24, 48*time.Hour)
					wantTotal(t, right, 1, 111)
				}
				maintainAt(t, right, firstHour+5*24, 48*time.Hour)
				await(t, "the rows of the first day to be dropped", func() bool {
					return strings.TrimSpace(execute(t, address, fmt.Sprintf("SELECT count() FROM datar_counts WHERE day = %d", firstHour/24))) == "0"
				})
				wantTotal(t, right, 1, 111)
				wantTotal(t, right, 2, 7)
			})
		}
	})
}

// TestClockOffset checks the comparison of clocks. Responses have whole seconds.
func TestClockOffset(t *testing.T) {
	t.Parallel()
	c := imitate(t)
	s, err := openHosts(t, c.address())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		date     func(now time.Time) string
		from, to time.Duration
	}{
		"same":    {func(now time.Time) string { return now.UTC().Format(http.TimeFormat) }, 0, 0},
		"ahead":   {func(now time.Time) string { return now.Add(time.Hour).UTC().Format(http.TimeFormat) }, time.Hour - 3*time.Second, time.Hour},
		"behind":  {func(now time.Time) string { return now.Add(-time.Hour).UTC().Format(http.TimeFormat) }, -time.Hour, -time.Hour + 3*time.Second},
		"no time": {func(time.Time) string { return "yesterday" }, 0, 0},
	} {
		s.ForgetClock()
		c.onRequest(func(w http.ResponseWriter, _ string) bool {
			w.Header().Set("Date", test.date(time.Now()))
			return false
		})
		await(t, fmt.Sprintf("a clock that is %s: %v to %v ahead", name, test.from, test.to), func() bool {
			_ = s.Ping(t.Context()) // the imitation returns no row; a slow response is not compared
			got := s.ClockOffset()
			return got >= test.from && got <= test.to
		})
	}
}

func maintainAt(t *testing.T, s *chstore.Store, h datar.Hour, keep time.Duration) {
	t.Helper()
	if err := s.Maintain(t.Context(), h.Time().Add(time.Minute), keep); err != nil {
		t.Fatal(err)
	}
}
