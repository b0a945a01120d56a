package forward_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/forward"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

type flags map[string]ingest.Flag

func (f flags) FlagByKey(key string) (ingest.Flag, bool) {
	flag, ok := f[key]
	return flag, ok
}

// central is a central server: its store, and what it does to requests.
type central struct {
	*httptest.Server
	store    memstore.Store
	status   atomic.Int64 // answered instead of taking the counts, if not 0
	deaf     atomic.Bool  // counts are taken, and the answer is lost
	requests atomic.Int64
	header   atomic.Pointer[http.Header]
}

func newCentral(t *testing.T) *central {
	t.Helper()
	c := &central{}
	in := &ingest.Ingester{Store: &c.store, Flags: flags{
		"checkout":   {ID: 7, RecordsEnabled: true, Variants: map[string]int64{"on": 1, "ö\"\n": 2}, Segments: []int64{10}},
		"flag \n \"": {ID: 8, RecordsEnabled: true},
	}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		c.header.Store(&r.Header)
		if status := c.status.Load(); status != 0 {
			rw.WriteHeader(int(status))
			return
		}
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		var body struct {
			FlagEvaluations []*ingest.Evaluation
			Unknown         []ingest.Unknown
			Sender          *ingest.Sender
		}
		if err := json.NewDecoder(unzipped).Decode(&body); err != nil {
			t.Error(err)
		}
		batch := ingest.Batch{Key: r.Header.Get("Idempotency-Key"), Unknown: body.Unknown, Sender: body.Sender}
		for _, e := range body.FlagEvaluations {
			batch.Rows = append(batch.Rows, e.Row())
		}
		result, err := in.Ingest(r.Context(), batch)
		if errors.Is(err, ingest.ErrTooManyRows) {
			rw.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		if err != nil { // the edge has left
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if c.deaf.Load() {
			panic(http.ErrAbortHandler)
		}
		if err := json.NewEncoder(rw).Encode(result); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *central) sum() (sum int64) {
	for _, row := range c.store.Rows() {
		sum += row.Count
	}
	return sum
}

type noCatalog struct{ datar.Catalog }

// edge starts an engine that forwards to the central server, as a process in the folder would.
func edge(t *testing.T, url, dir string) (*datar.Engine, *forward.Store) {
	t.Helper()
	store, err := forward.New(forward.Options{URL: url, Dir: dir, Header: http.Header{"Authorization": {"Bearer token"}}})
	if err != nil {
		t.Fatal(err)
	}
	engine, err := datar.New(datar.Options{Store: store, Catalog: noCatalog{}, Journal: datar.JournalOptions{Dir: dir, Required: dir != ""}})
	if err != nil {
		t.Fatal(err)
	}
	return engine, store
}

func record(t *testing.T, e *datar.Engine, s *forward.Store, flag, variant string, segment int64, times int) {
	t.Helper()
	flagID, variantID, err := s.Outcome(flag, variant)
	if err != nil {
		t.Fatal(err)
	}
	for range times {
		e.Record(datar.Event{FlagID: flagID, VariantID: variantID, SegmentID: segment, Time: time.Now()})
	}
}

func TestCountsReachTheCentralServer(t *testing.T) {
	t.Parallel()
	c := newCentral(t)
	e, s := edge(t, c.URL, t.TempDir())
	record(t, e, s, "checkout", "on", 10, 3)
	record(t, e, s, "checkout", "ö\"\n", 0, 2)
	record(t, e, s, "checkout", "", 99, 1)
	record(t, e, s, "flag \n \"", "", 0, 5)
	record(t, e, s, "gone", "on", 0, 4)
	if err := e.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, r := range c.store.Rows() {
		got[fmt.Sprintf("%d %d %d", r.FlagID, r.VariantID, r.SegmentID)] = r.Count
	}
	want := map[string]int64{"7 1 10": 3, "7 2 0": 2, "7 0 0": 1, "8 0 0": 5}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the central server has %v, want %v", got, want)
	}
	if s := e.Stats(); s.Recorded != 15 || s.Stored != 11 || s.Dropped[datar.DropRefused] != 4 {
		t.Errorf("%d recorded, %d stored, dropped %v; want 11 of 15 stored, and the flag that is gone refused", s.Recorded, s.Stored, s.Dropped)
	}
	c.deaf.Store(true)
	record(t, e, s, "gone", "on", 0, 4)
	if err := e.Flush(t.Context()); err == nil || e.Stats().Dropped[datar.DropRefused] != 4 {
		t.Errorf("a lost answer: %v, and %v is dropped", err, e.Stats().Dropped)
	}
	c.deaf.Store(false)
	if err := e.Flush(t.Context()); err != nil || e.Stats().Dropped[datar.DropRefused] != 8 || e.Stats().Pending != 0 {
		t.Errorf("after it: %v, and %v is dropped", err, e.Stats().Dropped)
	}
	if h := *c.header.Load(); h.Get("Authorization") != "Bearer token" || !strings.HasSuffix(h.Get("Idempotency-Key"), ":2") {
		t.Errorf("headers are %v", h)
	}
	if _, err := e.QuerySummary(t.Context(), datar.SummaryQuery{}); !errors.Is(err, forward.ErrElsewhere) {
		t.Errorf("a query: %v, want ErrElsewhere", err)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsLostOrCountedTwice(t *testing.T) {
	t.Parallel()
	c := newCentral(t)
	dir := t.TempDir()
	var sent int64
	for i := range 6 {
		e, s := edge(t, c.URL, dir)
		c.status.Store(0)
		c.deaf.Store(false)
		switch i {
		case 1:
			c.status.Store(http.StatusServiceUnavailable)
		case 2:
			c.deaf.Store(true)
		case 3:
			c.status.Store(http.StatusUnauthorized)
		}
		for variant := range 3 {
			record(t, e, s, "checkout", []string{"", "on", "ö\"\n"}[variant], 10, 100+i)
			sent += 100 + int64(i)
		}
		err := e.Flush(t.Context())
		if failing := i >= 1 && i <= 3; (err != nil) != failing {
			t.Errorf("round %d: %v", i, err)
		}
		record(t, e, s, "checkout", "on", 10, 7) // pending when the engine ends
		sent += 7
		hurried, cancel := context.WithCancel(t.Context())
		cancel()
		if e.Close(hurried) == nil {
			t.Error("an engine without time has stored its counts")
		}
	}
	e, _ := edge(t, c.URL, dir)
	if err := e.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.sum(); got != sent {
		t.Errorf("the central server has %d, want %d", got, sent)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The central server takes a batch and its answer is lost; then it is away for ten hours, in which
// the edge is killed now and then. Each count must be on its hour afterward, once.
func TestHoursWithoutTheCentralServer(t *testing.T) {
	t.Parallel()
	const hours, segments = 10, 150
	c := newCentral(t)
	dir := t.TempDir()
	begin := datar.HourOf(time.Now()) - hours
	want := map[datar.Hour]int64{}
	e, s := edge(t, c.URL, dir)
	for hour := begin; hour < begin+hours; hour++ {
		for half := range 2 {
			flagID, variantID, err := s.Outcome("checkout", []string{"on", "ö\"\n"}[half])
			if err != nil {
				t.Fatal(err)
			}
			for segment := range int64(segments) {
				e.Record(datar.Event{FlagID: flagID, VariantID: variantID, SegmentID: segment, Time: hour.Time().Add(time.Duration(segment) * time.Second)})
				want[hour]++
			}
			c.deaf.Store(hour == begin)
			if hour > begin {
				c.status.Store(http.StatusBadGateway)
			}
			if err := e.Flush(t.Context()); err == nil {
				t.Error("a flush succeeded without the central's answer")
			}
		}
		if hour%3 == 0 {
			killed, cancel := context.WithCancel(t.Context())
			cancel()
			if e.Close(killed) == nil {
				t.Error("an engine without time has stored its counts")
			}
			_ = e.Close(t.Context()) // the store may still be at work, and the journals are locked until it has returned
			e, s = edge(t, c.URL, dir)
		}
	}
	c.status.Store(0)
	if err := e.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[datar.Hour]int64{}
	for _, row := range c.store.Rows() {
		got[row.Hour] += row.Count
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counts by hour (-want +got):\n%s", diff)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stats := e.Stats(); stats.Stored != stats.Recorded {
		t.Errorf("%d recorded, %d stored, %d pending, dropped %v", stats.Recorded, stats.Stored, stats.Pending, stats.Dropped)
	}
}

// Something else that answers 200 must not make counts disappear.
func TestAnswersThatAreNoCentres(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"", "{}", "<html>welcome</html>", `{"acceptedRows":2,"errors":[]}`, `{"acceptedRows":1,"errors":[{"code":"FLAG_NOT_FOUND"}]}`,
		`{"acceptedRows":1,"acceptedCount":2,"errors":[]}`, `{"acceptedRows":1,"acceptedCount":-1,"errors":[]}`} {
		c := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, answer) }))
		t.Cleanup(c.Close)
		e, s := edge(t, c.URL, "")
		record(t, e, s, "checkout", "on", 10, 1)
		if err := e.Flush(t.Context()); err == nil || errors.Is(err, datar.ErrRefused) || e.Stats().Pending != 1 {
			t.Errorf("%q: %v, %d pending; want an error, and the count kept", answer, err, e.Stats().Pending)
		}
	}
}

// TestErrorsHaveNoURL checks that the password and the query of the URL do not reach the log with
// an error.
func TestErrorsHaveNoURL(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(nil)
	closed.Close()
	address := strings.TrimPrefix(closed.URL, "http://")
	s, err := forward.New(forward.Options{URL: "http://ann:s3cret@" + address + "/?token=s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 1})
	if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), address) {
		t.Errorf("error %v, want one with the address and without the secrets", err)
	}
}

// A batch that the central server will never take is given up, for which its own word is needed.
func TestBatchesThatAreMalformed(t *testing.T) {
	t.Parallel()
	for answer, refused := range map[string]bool{
		`{"message":"invalid batch"}`:                  true,
		`{"code":602,"message":"in body is required"}`: true,
		"":   false,
		"{}": false,
		"Client sent an HTTP request to an HTTPS server.": false,
		"<html>400 Bad Request</html>":                    false,
	} {
		for _, status := range []int{http.StatusBadRequest, http.StatusUnprocessableEntity} {
			c := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				rw.WriteHeader(status)
				_, _ = io.WriteString(rw, answer)
			}))
			t.Cleanup(c.Close)
			e, s := edge(t, c.URL, "")
			record(t, e, s, "checkout", "on", 10, 1)
			err := e.Flush(t.Context())
			if stats := e.Stats(); refused != (err == nil) || refused != (stats.Dropped[datar.DropRefused] == 1) || refused != (stats.Pending == 0) {
				t.Errorf("%d %q: %v, %d pending, %v dropped; want it refused: %t", status, answer, err, stats.Pending, stats.Dropped, refused)
			}
		}
	}
}

func TestLargeFlushesAreSplit(t *testing.T) {
	t.Parallel()
	c := newCentral(t)
	e, s := edge(t, c.URL, "")
	flagID, variantID, err := s.Outcome("checkout", "on")
	if err != nil {
		t.Fatal(err)
	}
	const segments = 2500
	for i := range int64(segments) {
		e.Record(datar.Event{FlagID: flagID, VariantID: variantID, SegmentID: i + 1, Time: time.Now()})
	}
	if err := e.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.sum() != segments || c.requests.Load() != 3 {
		t.Errorf("the central server has %d after %d requests, want %d after 3", c.sum(), c.requests.Load(), segments)
	}
}

// The central server takes no row of more than 10,000,000, and a busy flag reaches that while the
// central server is away.
func TestLargeCountsAreDivided(t *testing.T) {
	t.Parallel()
	c := newCentral(t)
	_, s := edge(t, c.URL, t.TempDir())
	flagID, variantID, err := s.Outcome("checkout", "on")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	batch := datar.Batch{Writer: "1f0c7d0e-5a52-4d0f-9a3e-6a3a7d1c9b10", Sequence: 1, Rows: []datar.Row{
		{Key: datar.Key{FlagID: flagID, VariantID: variantID, Hour: datar.HourOf(at)}, Count: 3*ingest.MaxCount + 1, First: at.UnixMilli(), Last: at.UnixMilli()},
		{Key: datar.Key{FlagID: flagID, Hour: datar.HourOf(at)}, Count: ingest.MaxCount, First: at.UnixMilli(), Last: at.UnixMilli()},
	}}
	for range 2 { // as after a lost answer
		if refused, err := s.ApplySome(t.Context(), batch); refused != 0 || err != nil {
			t.Fatal(refused, err)
		}
	}
	if got := c.sum(); got != 4*ingest.MaxCount+1 {
		t.Errorf("the central server has %d, want %d", got, 4*ingest.MaxCount+1)
	}
	batch.Sequence, batch.Rows[0].Count = 2, 1000*ingest.MaxCount
	if err := s.Apply(t.Context(), batch); !errors.Is(err, datar.ErrRefused) {
		t.Errorf("a batch of more rows than the central takes: %v, want ErrRefused, so that the engine divides it", err)
	}
}

func TestKeysAreKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	options := forward.Options{URL: "http://central.example", Dir: dir}
	var all []*forward.Store
	for range 3 {
		s, err := forward.New(options)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	var group sync.WaitGroup
	for _, s := range all {
		group.Go(func() {
			for i := range 50 {
				if _, _, err := s.Outcome("flag "+strconv.Itoa(i%20), "variant"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	long := strings.Repeat("x", 100_000)
	if _, _, err := all[0].Outcome(long, ""); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.keys"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], append(content, `"torn`...), 0o600); err != nil {
		t.Fatal(err)
	}
	later, err := forward.New(options)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := later.Outcome("after the torn line", ""); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"flag 7", "after the torn line", long} {
		a, _, _ := later.Outcome(key, "")
		b, _, _ := all[0].Outcome(key, "")
		if a != b || a < 1 {
			t.Errorf("%q has the ids %d and %d", key, a, b)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "central", "ftp://central", "http://", "http://[::1", "://"} {
		if _, err := forward.New(forward.Options{URL: bad}); err == nil {
			t.Errorf("URL %q is accepted", bad)
		}
	}
	a, err := forward.New(forward.Options{URL: "https://user:secret@central.example/flagr/", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	b, err := forward.New(forward.Options{URL: "https://central.example/flagr/api/v1/datar/evaluations"})
	if err != nil {
		t.Fatal(err)
	}
	if a.Identity() != b.Identity() {
		t.Error("the endpoint in full has another identity")
	}
}

// What an edge counts beyond assignments reaches the central server, once, also when answers are
// lost.
func TestDetailsReachTheCentralServer(t *testing.T) {
	t.Parallel()
	c := newCentral(t)
	store, err := forward.New(forward.Options{URL: c.URL})
	if err != nil {
		t.Fatal(err)
	}
	e, err := datar.New(datar.Options{
		Store: store, Catalog: noCatalog{}, Server: datar.ServerOptions{Name: "edge-berlin", Kind: datar.KindEdge},
	})
	if err != nil {
		t.Fatal(err)
	}
	checkout, on, err := store.Outcome("checkout", "on")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	want := map[datar.Key]int64{}
	for i, event := range []datar.Event{
		{VariantID: on, SegmentID: 10, Outcome: datar.Matched, Version: 117, Asked: datar.AskedByTag},
		{SegmentID: 10, Outcome: datar.HeldOut, Version: 117},
		{Outcome: datar.NoMatch, Version: 117, Asked: datar.AskedUnevaluable | datar.AskedWithoutEntityID},
		{Outcome: datar.NoSegments},
		{Outcome: datar.Disabled, Version: 65_535},
		{},
	} {
		event.FlagID, event.Time = checkout, now
		key := datar.Key{FlagID: 7, SegmentID: event.SegmentID, Outcome: event.Outcome, Version: event.Version, Asked: event.Asked}
		if event.VariantID != 0 {
			key.VariantID = 1
		}
		for range i + 1 {
			e.Record(event)
			want[key]++
		}
	}
	e.RecordUnknown("chekout", now)
	e.RecordUnknown("chekout", now)
	c.deaf.Store(true)
	if err := e.Flush(t.Context()); err == nil {
		t.Fatal("a flush succeeded without an answer")
	}
	c.deaf.Store(false)
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	hours := datar.DetailsQuery{
		From: datar.HourOf(now) - 1, To: datar.HourOf(now) + 2,
		GroupBy: datar.GroupFlag | datar.GroupOutcome | datar.GroupVariant | datar.GroupSegment | datar.GroupVersion | datar.GroupAsked,
	}
	rows, err := c.store.Details(t.Context(), hours)
	if err != nil {
		t.Fatal(err)
	}
	got := map[datar.Key]int64{}
	for _, r := range rows {
		got[r.Key] = r.Count
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("details (-want +got):\n%s", diff)
	}
	unknown, err := c.store.Unknown(t.Context(), datar.UnknownQuery{From: hours.From, To: hours.To, Limit: 10})
	if err != nil || len(unknown) != 1 || unknown[0].Asked != "chekout" || unknown[0].Count != 2 {
		t.Errorf("unknown are %+v, %v; want 2 of one text", unknown, err)
	}
	servers, err := c.store.Servers(t.Context())
	if err != nil || len(servers) != 1 || servers[0].Name != "edge-berlin" || servers[0].Kind != datar.KindEdge || !servers[0].Ended || servers[0].Stored != 21 {
		t.Errorf("servers are %+v, %v; want the edge with 21 stored", servers, err)
	}
	if sum := c.sum(); sum != 1+2+3+6 {
		t.Errorf("the events have %d, want 12: what was disabled or has no segments is not among them", sum)
	}
	for _, query := range []func() error{
		func() error { _, err := e.QueryDetails(t.Context(), hours); return err },
		func() error { _, err := e.QueryUnknown(t.Context(), datar.UnknownQuery{Limit: 1}); return err },
		func() error { _, err := e.Fleet(t.Context()); return err },
		func() error { _, err := e.Completeness(t.Context(), now, now); return err },
	} {
		if err := query(); !errors.Is(err, forward.ErrElsewhere) || !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("a query at the edge: %v, want %v, so that it is not tried again", err, forward.ErrElsewhere)
		}
	}
}
