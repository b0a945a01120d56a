package handler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// fakeRecorder records its calls. If configured, Close blocks until the context ends.
type fakeRecorder struct {
	name  string
	calls []string
	hang  bool
	err   error
}

func (f *fakeRecorder) Name() string                { return f.name }
func (f *fakeRecorder) Failing() bool               { return f.err != nil }
func (f *fakeRecorder) Start()                      { f.calls = append(f.calls, "start") }
func (f *fakeRecorder) Flush(context.Context) error { f.calls = append(f.calls, "flush"); return f.err }
func (f *fakeRecorder) Close(ctx context.Context) error {
	f.calls = append(f.calls, "close")
	if f.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return f.err
}

func TestARecorderThatHangsOrFailsDoesNotHoldTheOthersBack(t *testing.T) {
	t.Parallel()
	hangs, fails, works := &fakeRecorder{name: "hangs", hang: true}, &fakeRecorder{name: "fails", err: errors.New("broker is gone")}, &fakeRecorder{}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := together([]DataRecorder{hangs, fails, works}, func(r DataRecorder) error { return r.Close(ctx) })
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, fails.err) || !strings.Contains(err.Error(), "recorder fails: broker is gone") {
		t.Errorf("errors are %v", err)
	}
	if diff := cmp.Diff([]string{"close"}, works.calls); diff != "" {
		t.Errorf("the recorder that works (-want +got):\n%s", diff)
	}
}

// clockedStore is a store whose clock is ahead by an offset.
type clockedStore struct {
	*memstore.Store
	offset time.Duration
}

func (s clockedStore) ClockOffset() time.Duration { return s.offset }

// TestClocksThatDifferAreReported checks that Datar counts on, and is reported as failing from a
// difference of five minutes on.
func TestClocksThatDifferAreReported(t *testing.T) {
	t.Parallel()
	for offset, failing := range map[time.Duration]bool{0: false, time.Minute: false, 5 * time.Minute: true, -2 * time.Hour: true} {
		engine, err := datar.New(datar.Options{Store: clockedStore{&memstore.Store{}, offset}})
		if err != nil {
			t.Fatal(err)
		}
		d := NewDatarRecorder(DatarOptions{Engine: engine})
		if err := d.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := d.Failing(); got != failing {
			t.Errorf("with a clock that is %v ahead, failing is %t, want %t", offset, got, failing)
		}
		body, err := json.Marshal(datarhttp.StatusBody(engine.Stats()))
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`"storeClockOffsetSeconds":%v`, offset.Seconds())
		if got := strings.Contains(string(body), want); got != (offset != 0) {
			t.Errorf("with a clock that is %v ahead, the status is %s", offset, body)
		}
		if err := d.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// newDatar returns a datar recorder over an in-memory store, with a journal in a folder. "" means
// no journal.
func newDatar(t testing.TB, journal string) *DatarRecorder {
	t.Helper()
	engine, err := datar.New(datar.Options{
		Store: &memstore.Store{}, Catalog: datar.StaticCatalog{}, Journal: datar.JournalOptions{Dir: journal}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return NewDatarRecorder(DatarOptions{Engine: engine})
}

func TestTheFanOutReachesEveryRecorder(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		datar   bool
		streams int
		want    []string // names of all
	}{
		{"nothing", false, 0, nil},
		{"datar", true, 0, []string{"datar"}},
		{"streams", false, 2, []string{"0", "1"}},
		{"all", true, 3, []string{"datar", "0", "1", "2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			transports := make([]recorder.Transport, tc.streams)
			for i := range transports {
				transports[i] = &memory{}
			}
			all := streams(recorder.Framing{}, transports...)
			if tc.datar {
				all.datar = newDatar(t, "")
			}
			if all.Empty() != (tc.want == nil) {
				t.Errorf("empty is %v", all.Empty())
			}
			all.Start()
			for _, r := range []*eval.Result{
				{FlagID: 1, Timestamp: time.Now(), DataRecordsEnabled: true, Reason: eval.NoMatch},
				{FlagID: 1, Timestamp: time.Now(), DataRecordsEnabled: true, Reason: eval.Matched, VariantID: 2, SegmentID: 3},
				{FlagID: 1, Timestamp: time.Now(), DataRecordsEnabled: true, RecordSource: eval.SourceExposure},
				{FlagID: 1, Timestamp: time.Now(), DataRecordsEnabled: true, Reason: eval.EntityIDMissing},
				{FlagID: 4, Timestamp: time.Now(), Reason: eval.NoMatch},
			} {
				all.AsyncRecord(r)
			}
			if err := errors.Join(all.Flush(t.Context()), all.Close(t.Context())); err != nil {
				t.Error(err)
			}
			var names []string
			for _, s := range all.Statuses() {
				names = append(names, s.Name)
			}
			if diff := cmp.Diff(tc.want, names); diff != "" {
				t.Errorf("recorders (-want +got):\n%s", diff)
			}
			if tc.datar {
				if got := all.datar.options.Engine.Stats(); got.Stored != 2 {
					t.Errorf("datar stored %d, want the evaluations without the exposure", got.Stored)
				}
			}
			for _, s := range all.Stats() {
				if s.Delivered != 3 {
					t.Errorf("stream %s delivered %d, want 3", s.Name, s.Delivered)
				}
			}
		})
	}
}

func TestSelectedRecorders(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		selected SelectedRecorders
		datar    bool
		streams  []string
	}{
		{SelectedRecorders{Types: []string{"datar", "kafka"}}, false, nil},
		{SelectedRecorders{Enabled: true}, false, nil},
		{SelectedRecorders{Enabled: true, Types: []string{"datar"}}, true, []string{}},
		{SelectedRecorders{Enabled: true, Types: []string{"pubsub", "datar", "kafka"}}, true, []string{"pubsub", "kafka"}},
	} {
		if got := tc.selected.Datar(); got != tc.datar {
			t.Errorf("%+v: datar is %v", tc.selected, got)
		}
		if diff := cmp.Diff(tc.streams, tc.selected.Streams()); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tc.selected, diff)
		}
	}
}

// TestWhatIsRecorded checks that Datar counts every outcome of recorded flags or, if configured, of
// all flags, and requests for flags that do not exist. Streams get the results of recorded flags.
func TestWhatIsRecorded(t *testing.T) {
	t.Parallel()
	off := entity.Flag{Model: entity.Model{ID: 3}, Key: "off", DataRecordsEnabled: true, SnapshotID: 70_000}
	blank := entity.Flag{Model: entity.Model{ID: 4}, Key: "blank", Enabled: true}
	unrecorded := *flags().Flag(2, "")
	unrecorded.ID, unrecorded.Key, unrecorded.DataRecordsEnabled = 5, "unrecorded", false
	for _, all := range []bool{false, true} {
		details := &memstore.Store{}
		engine, err := datar.New(datar.Options{Store: details, Catalog: datar.StaticCatalog{}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		m := &memory{}
		recorders := streams(recorder.Framing{RawJSON: true}, m)
		recorders.datar = NewDatarRecorder(DatarOptions{Engine: engine, AllFlags: all})
		recorders.Start()
		snapshot := flags().With([]entity.Flag{off, blank, unrecorded}, nil)
		now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		service := eval.NewService(&collector{snapshot: snapshot}, recorders, eval.Options{Now: func() time.Time { return now }})
		batch := eval.BatchRequest{
			Entities: []eval.Entity{{EntityID: "fr", EntityContext: map[string]any{"country": "FR"}}, {EntityContext: map[string]any{"country": 1.0}}},
			FlagIDs:  []int64{1, 2, 3, 4, 5, 99}, FlagKeys: []string{"nope"}, FlagTags: []string{"web"},
		}
		if err := service.EvaluateEach(t.Context(), batch, func(*eval.Result) {}); err != nil {
			t.Fatal(err)
		}
		_, _ = service.Evaluate(t.Context(), eval.Request{EntityID: "e"}) // names no flag
		if err := recorders.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		hour := datar.HourOf(now)
		rows, err := details.Details(t.Context(), datar.DetailsQuery{
			From: hour, To: hour + 1,
			GroupBy: datar.GroupFlag | datar.GroupOutcome | datar.GroupVariant | datar.GroupSegment | datar.GroupVersion | datar.GroupAsked,
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range rows {
			got = append(got, fmt.Sprintf("%d %s variant %d segment %d version %d asked %b: %d", r.FlagID, r.Outcome, r.VariantID, r.SegmentID, r.Version, r.Asked, r.Count))
		}
		want := []string{
			"1 matched variant 5 segment 3 version 7 asked 0: 1",
			"1 matched variant 5 segment 3 version 7 asked 1: 1",
			"1 no_match variant 0 segment 0 version 7 asked 110: 1",
			"1 no_match variant 0 segment 0 version 7 asked 111: 1",
			"2 held_out variant 0 segment 9 version 8 asked 0: 1",
			"2 held_out variant 0 segment 9 version 8 asked 10: 1",
			"3 disabled variant 0 segment 0 version 4464 asked 0: 2",
		}
		if all {
			want = append(want,
				"4 no_segments variant 0 segment 0 version 0 asked 0: 2",
				"5 held_out variant 0 segment 9 version 8 asked 0: 1",
				"5 held_out variant 0 segment 9 version 8 asked 10: 1")
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("all flags %v (-want +got):\n%s", all, diff)
		}
		unknown, err := details.Unknown(t.Context(), datar.UnknownQuery{From: hour, To: hour + 1, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		var asked []string
		for _, u := range unknown {
			asked = append(asked, fmt.Sprint(u.Asked, ": ", u.Count))
		}
		slices.Sort(asked)
		if diff := cmp.Diff([]string{"99: 2", "nope: 2"}, asked); diff != "" {
			t.Errorf("unknown (-want +got):\n%s", diff)
		}
		if got := recorders.Stats()[0].Delivered; got != 6 {
			t.Errorf("the stream got %d records, want those of flags 1 and 2", got)
		}
	}
}

// TestBatchesAreCountedInTime checks that no byte of a response leaves before its evaluations are
// counted, and that all are counted when the batch ends, whatever ends it.
func TestBatchesAreCountedInTime(t *testing.T) {
	t.Parallel()
	const entities = 5000 // whose response has several parts
	batch := eval.BatchRequest{FlagIDs: []int64{1, 2}}
	for i := range entities {
		batch.Entities = append(batch.Entities, eval.Entity{EntityID: fmt.Sprint("e", i), EntityContext: map[string]any{"country": "FR"}})
	}
	for name, run := range map[string]func(s *eval.Service, stats func() int64) (evaluated int64){
		"complete": func(s *eval.Service, recorded func() int64) int64 {
			var sent, parts int64
			encoder := eval.NewBatchEncoder(nil, writer(func(p []byte) {
				parts++
				sent += int64(bytes.Count(p, []byte(`"recordSource"`)))
				if got := recorded(); got < sent {
					t.Errorf("%d evaluations are counted when %d are sent", got, sent)
				}
			}))
			if err := s.EvaluateEach(t.Context(), batch, encoder.Add); err != nil || parts < 2 {
				t.Errorf("%d parts: %v", parts, err)
			}
			return 2 * entities
		},
		"canceled": func(s *eval.Service, _ func() int64) (used int64) {
			ctx, cancel := context.WithCancel(t.Context())
			err := s.EvaluateEach(ctx, batch, func(*eval.Result) {
				if used++; used == 100 {
					cancel()
				}
			})
			if !errors.Is(err, context.Canceled) || used == 2*entities {
				t.Errorf("%d results: %v", used, err)
			}
			return used
		},
		"panic": func(s *eval.Service, _ func() int64) (used int64) {
			defer func() { _ = recover() }()
			_ = s.EvaluateEach(t.Context(), batch, func(*eval.Result) {
				if used++; used == 100 {
					panic("use")
				}
			})
			return used
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine, err := datar.New(datar.Options{Store: &memstore.Store{}, Catalog: datar.StaticCatalog{}, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			recorders := NewDataRecorders(NewDatarRecorder(DatarOptions{Engine: engine}), nil, false)
			service := eval.NewService(&collector{snapshot: flags()}, recorders, eval.Options{})
			recorded := func() int64 { return engine.Stats().Recorded }
			if want := run(service, recorded); recorded() != want {
				t.Errorf("%d evaluations are counted, want %d", recorded(), want)
			}
		})
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}
