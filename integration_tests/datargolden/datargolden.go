// Package datargolden compares the responses of Datar's endpoints with a golden file. Two packages
// implement the endpoints: pkg/handler for this server, and pkg/datar/datarhttp for other servers.
// Both are compared with the same file.
package datargolden

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testpath"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

// brokenFlag is a flag whose counts cannot be read.
const brokenFlag = 500

// now is the time of all queries.
var now = time.Date(2026, 3, 31, 14, 30, 0, 0, time.UTC)

// Engine answers queries with an engine over fixed counts, and has fixed statistics.
type Engine struct {
	*datar.Engine
	stats datar.Stats
}

// Stats returns the fixed statistics.
func (e Engine) Stats() datar.Stats { return e.stats }

// store is a store that cannot read the counts of one flag.
type store struct{ memstore.Store }

func (s *store) Totals(ctx context.Context, query datar.TotalsQuery) ([]datar.Total, error) {
	if query.FlagID == brokenFlag {
		return nil, errors.New("password of flagr is s3cret")
	}
	return s.Store.Totals(ctx, query)
}

func newEngine(t *testing.T, stats datar.Stats) Engine {
	t.Helper()
	counts := &store{}
	row := func(flag, variant, segment int64, at time.Time, count, ingested int64) datar.Row {
		return datar.Row{
			Key:   datar.Key{FlagID: flag, VariantID: variant, SegmentID: segment, Hour: datar.HourOf(at)},
			Count: count, Ingested: ingested, First: at.UnixMilli(), Last: at.UnixMilli(),
		}
	}
	unknown := row(7, 0, 0, now.AddDate(0, 0, -3), 2, 0) // rows of Flagr have no such time
	unknown.First, unknown.Last = 0, 0
	batch := datar.Batch{Writer: "w", Sequence: 1, Rows: []datar.Row{
		row(1, 11, 21, now.Add(-50*time.Hour), 40, 0),
		row(1, 12, 21, now.Add(-time.Hour+123*time.Millisecond), 50, 0),
		row(1, 0, 0, now.Add(-10*time.Minute), 5, 0),
		row(2, 13, 23, now.Add(-2*time.Hour), 9, 4),
		row(3, 14, 0, now.Add(-3*time.Hour), 9, 9),
		row(4, 15, 25, now.AddDate(0, 0, -20), 70, 0),
		unknown,
	}}
	if err := counts.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	engine, err := datar.New(datar.Options{
		Store: counts,
		Catalog: datar.StaticCatalog{
			1: {Key: "checkout", Description: `the "new" <checkout> & more`, Enabled: true},
			2: {Key: "dark-mode", Deleted: true},
			3: {Key: "search", Enabled: true},
			4: {Key: "old", Description: "last month"},
		},
		Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return Engine{engine, stats}
}

// statistics are the fixed statistics, by their name in the golden file.
func statistics() map[string]datar.Stats {
	busy := datar.Stats{
		Recorded: 125_040, Adopted: 3, Stored: 124_876, Pending: 158, Keys: 42, Writer: "1f0c7d0e-5a52-4d0f-9a3e-6a3a7d1c9b10",
		FlushInterval: time.Minute, Journal: "/var/lib/flagr", OldestPending: now.Add(-time.Second),
		LastFlush: now.Add(-30 * time.Second), LastFlushDuration: 12 * time.Millisecond, Flushes: 7, LostJournals: 1,
		Dropped: dropped(4, 2),
	}
	return map[string]datar.Stats{
		"busy":    busy,
		"fresh":   {FlushInterval: time.Hour, Dropped: dropped(0, 0)},
		"failing": {FlushInterval: 50 * time.Millisecond, Dropped: dropped(0, 0), Recorded: 1, Pending: 1, InMemory: true, LastError: errors.New("password of flagr is s3cret")},
		"late":    {FlushInterval: time.Minute, Dropped: dropped(0, 0), LastError: context.DeadlineExceeded},
	}
}

// dropped has all reasons, like the statistics of an engine.
func dropped(capacity, refused int64) map[datar.DropReason]int64 {
	return map[datar.DropReason]int64{
		datar.DropCapacity: capacity, datar.DropClosed: 0, datar.DropInvalid: 0, datar.DropUnsaved: 0, datar.DropRefused: refused,
	}
}

// requests are sent with the statistics "busy".
var requests = []string{
	"GET /datar/summary",
	"GET /datar/summary?limit=2",
	"GET /datar/summary?limit=2&offset=1",
	"GET /datar/summary?offset=1000",
	"GET /datar/summary?from=2026-03-01T00:00:00Z&to=2026-03-31T14:00:00Z",
	"GET /datar/summary?from=2026-03-31T17:00:00%2B05:30",
	"GET /datar/summary?from=2026-03-31",
	"GET /datar/summary?from=2026-03-29T10:20&to=2026-03-30T00:00:00",
	"GET /datar/summary?from=2026-03-29T10:20Z&to=2026-03-31%2013:00:00",
	"GET /datar/summary?from=2026-03-29T10:20:30.123456Z&to=2026-03-31T13:00:00.500%2B0100",
	"GET /datar/summary?from=&to=&limit=&offset=&other=1",
	"GET /datar/summary?limit=x&limit=1",
	"GET /datar/summary?to=&to=&limit=1&limit=2&from=yesterday",
	"GET /datar/flags/1/summary?from=2026-03-31&from=2026-03-31",
	"GET /datar/summary?other=1&other=2",
	"GET /datar/summary/",
	"GET /datar/flags/1/summary",
	"GET /datar/flags/%31/summary",
	"GET /datar/flags/2/summary",
	"GET /datar/flags/3/summary",
	"GET /datar/flags/4/summary",
	"GET /datar/flags/7/summary?from=2026-03-01T00:00:00Z",
	"GET /datar/flags/1/summary?from=2026-03-31T00:00:00Z",
	"GET /datar/summary?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
	"GET /datar/summary?limit=0",
	"GET /datar/summary?limit=1001",
	"GET /datar/summary?offset=-1",
	"GET /datar/summary?limit=2147483648",
	"GET /datar/summary?limit=1.5",
	"GET /datar/summary?offset=+5",
	"GET /datar/summary?from=yesterday",
	"GET /datar/summary?from=yesterday&limit=x",
	"GET /datar/summary?to=z&limit=x",
	"GET /datar/summary?from=2026-03-31T24:00:00Z",
	"GET /datar/summary?from=2026-03-31T10:00:00+01:00",
	"GET /datar/summary?to=2026-03-31T13:00:00.5%2B0100",
	"GET /datar/summary?to=2026-03-31T13:00:00%2B0100",
	"GET /datar/flags/1/summary?to=1774966200",
	"GET /datar/flags/x/summary?from=y",
	"GET /datar/flags/99999999999999999999/summary",
	"GET /datar/flags/0/summary",
	"GET /datar/flags/-1/summary",
	"GET /datar/flags/99/summary",
	"GET /datar/flags/500/summary",
	"GET /datar/flags/1/",
	"GET /datar/flags//summary",
	"GET /datar/",
	"POST /datar/summary",
	"DELETE /datar/flags/1/summary",
	"HEAD /datar/status",
}

type answer struct {
	Request string          `json:"request"`
	Status  int             `json:"status"`
	Type    string          `json:"type"`
	Allow   string          `json:"allow,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
}

// Check compares a handler's responses with the golden file. serve returns the handler for an
// engine; its endpoints are below prefix. With update, Check writes the file instead.
func Check(t *testing.T, prefix string, serve func(Engine) http.Handler, update bool) {
	t.Helper()
	all := statistics()
	h := serve(newEngine(t, all["busy"]))
	var got []answer
	for _, request := range requests {
		got = append(got, ask(t, h, prefix, request))
	}
	for _, name := range []string{"busy", "fresh", "failing", "late"} {
		a := ask(t, serve(newEngine(t, all[name])), prefix, "GET /datar/status")
		a.Request += " with statistics " + name
		got = append(got, a)
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(got); err != nil {
		t.Fatal(err)
	}
	file := testpath.InRepository("integration_tests", "datargolden", "answers.json")
	if update {
		if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text.String()); diff != "" {
		t.Errorf("responses differ from %s (-want +got):\n%s", file, diff)
	}
}

func ask(t *testing.T, h http.Handler, prefix, request string) answer {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	rw := httptest.NewRecorder()
	h.ServeHTTP(rw, httptest.NewRequestWithContext(t.Context(), method, prefix+path, nil))
	body := bytes.ReplaceAll(bytes.TrimSpace(rw.Body.Bytes()), []byte(prefix+"/datar"), []byte("/datar"))
	if method == http.MethodHead { // a server sends no body, regardless of what the handler writes
		body = nil
	}
	if len(body) > 0 && !json.Valid(body) {
		t.Errorf("%s: the body is not JSON: %s", request, body)
		body = []byte(`"not JSON"`)
	}
	return answer{request, rw.Code, rw.Header().Get("Content-Type"), rw.Header().Get("Allow"), body}
}
