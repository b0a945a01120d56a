package chstore_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// lossy forwards requests to ClickHouse, and loses some requests and responses.
type lossy struct {
	target              string
	answers, requests   atomic.Int64 // number of lost ones
	loseAnswer, loseAll float64
}

// ServeHTTP implements http.Handler.
func (l *lossy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	hangUp := func() {
		if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
			_ = conn.Close()
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || rand.Float64() < l.loseAll {
		l.requests.Add(1)
		hangUp()
		return
	}
	request, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+l.target+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		hangUp()
		return
	}
	request.Header = r.Header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		hangUp()
		return
	}
	defer func() { _ = response.Body.Close() }()
	if rand.Float64() < l.loseAnswer {
		l.answers.Add(1)
		hangUp()
		return
	}
	w.WriteHeader(response.StatusCode)
	_, _ = io.Copy(w, response.Body) // the client gets a truncated response
}

// TestLostAnswers loses requests and responses between two engines and ClickHouse. All evaluations
// must be counted once.
func TestLostAnswers(t *testing.T) {
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		address := fresh(t)
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		proxy := &lossy{target: u.Host}
		server := httptest.NewServer(proxy)
		t.Cleanup(server.Close)
		direct := open(t, address)
		u.Host = server.Listener.Addr().String()
		var group sync.WaitGroup
		const engines, rounds, events = 2, 15, 200
		stores := []datar.Store{open(t, u.String()), open(t, u.String())}
		proxy.loseAnswer, proxy.loseAll = 0.3, 0.1
		for _, store := range stores {
			group.Go(func() {
				e, err := datar.New(datar.Options{Store: store, FlushInterval: time.Hour, Server: datar.ServerOptions{Name: "s"}})
				if err != nil {
					t.Error(err)
					return
				}
				for range rounds {
					for i := range events {
						e.Record(datar.Event{FlagID: int64(i%7) + 1, VariantID: int64(i%3) + 1, SegmentID: 1, Outcome: datar.Matched, Time: time.Now()})
					}
					_ = e.Flush(t.Context()) // a failed batch is sent again
				}
				for e.Flush(t.Context()) != nil && t.Context().Err() == nil {
				}
				if s := e.Stats(); s.Stored != rounds*events || s.Pending != 0 {
					t.Errorf("statistics are %+v, want %d stored", s, rounds*events)
				}
				_ = e.Close(t.Context()) // everything is stored, except that this server has ended
			})
		}
		group.Wait()
		if proxy.answers.Load() == 0 || proxy.requests.Load() == 0 {
			t.Errorf("%d answers and %d requests were lost, want some of both", proxy.answers.Load(), proxy.requests.Load())
		}
		wantAll(t, direct, engines*rounds*events)
	})
}

// wantAll compares the sum of the last days.
func wantAll(t *testing.T, s datar.Store, want int64) {
	t.Helper()
	now := datar.HourOf(time.Now())
	totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: now - 48, To: now + 2, GroupBy: datar.ByFlag})
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	for _, total := range totals {
		sum += total.Count
	}
	if sum != want {
		t.Errorf("the sum is %d, want %d", sum, want)
	}
}
