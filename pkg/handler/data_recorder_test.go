package handler

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// fakeRecorder notes what is done to it. Close hangs until the context ends if it is told to.
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

// newDatar makes the recorder datar over a store in memory, with a journal in a folder; "" means without one.
func newDatar(t testing.TB, journal string) *DatarRecorder {
	t.Helper()
	engine, err := datar.New(datar.Options{
		Store: &memstore.Store{}, Catalog: datar.StaticCatalog{}, Journal: datar.JournalOptions{Dir: journal}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return NewDatarRecorder(engine, nil)
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
				{FlagID: 1, Timestamp: time.Now()},
				{FlagID: 1, Timestamp: time.Now()},
				{FlagID: 1, Timestamp: time.Now(), RecordSource: eval.SourceExposure},
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
				if got := all.datar.engine.Stats(); got.Stored != 2 {
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
