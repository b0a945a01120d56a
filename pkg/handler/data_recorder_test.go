package handler

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// fakeRecorder notes what is done to it. Close hangs until the context ends if it is told to.
type fakeRecorder struct {
	calls []string
	hang  bool
	err   error
}

func (f *fakeRecorder) AsyncRecord(r *eval.Result)  { f.calls = append(f.calls, "record "+r.FlagKey) }
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

func TestTheFanOutReachesEveryRecorder(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 3} {
		all := &DataRecorders{}
		fakes := make([]*fakeRecorder, n)
		for i := range fakes {
			fakes[i] = &fakeRecorder{}
			all.recorders, all.names = append(all.recorders, fakes[i]), append(all.names, "fake")
		}
		all.Start()
		all.AsyncRecord(&eval.Result{FlagKey: "a"})
		all.AsyncRecord(&eval.Result{FlagKey: "b"})
		if err := errors.Join(all.Flush(t.Context()), all.Close(t.Context())); err != nil {
			t.Error(err)
		}
		for i, f := range fakes {
			if diff := cmp.Diff([]string{"start", "record a", "record b", "flush", "close"}, f.calls); diff != "" {
				t.Errorf("recorder %d of %d (-want +got):\n%s", i, n, diff)
			}
		}
	}
}

func TestARecorderThatHangsOrFailsDoesNotHoldTheOthersBack(t *testing.T) {
	t.Parallel()
	hangs, fails, works := &fakeRecorder{hang: true}, &fakeRecorder{err: errors.New("broker is gone")}, &fakeRecorder{}
	all := &DataRecorders{recorders: []DataRecorder{hangs, fails, works}, names: []string{"hangs", "fails", "works"}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := all.Close(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, fails.err) {
		t.Errorf("errors are %v", err)
	}
	if diff := cmp.Diff([]string{"close"}, works.calls); diff != "" {
		t.Errorf("the recorder that works (-want +got):\n%s", diff)
	}
	if err := all.Flush(t.Context()); !errors.Is(err, fails.err) {
		t.Errorf("flush gives %v", err)
	}
}

// noStore is a datar.Store that nothing is read from or written to.
type noStore struct{ datar.Store }

func TestWhichRecordersAreConstructed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name       string
		enabled    bool
		types      []string
		noDatabase bool
		recorders  int // in all
		datar      int
		log        []string // parts of it, one a line
		err        string
	}{
		{name: "kill switch", types: []string{"datar", "kafka", "kinesis", "pubsub", "nonsense"}},
		{name: "datar", enabled: true, types: []string{"datar"}, recorders: 1, datar: 1},
		{name: "all but kinesis", enabled: true, types: []string{"kafka", "pubsub", "datar"}, recorders: 3, datar: 1},
		{name: "kafka alone", enabled: true, types: []string{"kafka"}, recorders: 1},
		{name: "none", enabled: true},
		{name: "datar without a database", enabled: true, types: []string{"datar"}, noDatabase: true, log: []string{"recorder datar stays off"}},
		{name: "unknown", enabled: true, types: []string{"carrier pigeon"}, err: `recorder "carrier pigeon" is not known`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			opened := 0
			o := RecorderOptions{
				Enabled: tc.enabled,
				Types:   tc.types,
				Catalog: NewCatalog(nil),
				Kafka:   config.Kafka{Brokers: " a:1, :9092,", Topic: "t"},
				PubSub:  config.PubSub{ProjectID: "p", TopicName: "t"},
				Logger:  slog.New(slog.NewTextHandler(&log, nil)),
			}
			if !tc.noDatabase {
				o.DatarStore = func(context.Context) (datar.Store, error) { opened++; return noStore{}, nil }
			}
			all, err := NewDataRecorder(t.Context(), o)
			if tc.err != "" {
				if err == nil || err.Error() != tc.err {
					t.Errorf("error is %v, want %s", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(all.recorders) != tc.recorders || len(all.Stats()) != tc.recorders-tc.datar {
				t.Errorf("%d recorders, %d of them streaming, want %d", len(all.recorders), len(all.Stats()), tc.recorders)
			}
			if opened != tc.datar || (all.Datar() != nil) != (tc.datar > 0) {
				t.Errorf("%d stores opened, want %d", opened, tc.datar)
			}
			lines := strings.Count(log.String(), "\n")
			if lines != len(tc.log) {
				t.Errorf("%d log lines, want %d: %s", lines, len(tc.log), &log)
			}
			for _, part := range tc.log {
				if !strings.Contains(log.String(), part) {
					t.Errorf("log lacks %q: %s", part, &log)
				}
			}
			all.AsyncRecord(&eval.Result{FlagID: 1, Timestamp: time.Now()}) // must not fail, whatever there is
		})
	}
}

func TestNewDataRecorderReportsAStoreThatDoesNotOpen(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk is full")
	_, err := NewDataRecorder(t.Context(), RecorderOptions{
		Enabled:    true,
		Types:      []string{"datar"},
		DatarStore: func(context.Context) (datar.Store, error) { return nil, broken },
		Catalog:    NewCatalog(nil),
		Logger:     slog.New(slog.DiscardHandler),
	})
	if !errors.Is(err, broken) {
		t.Errorf("error is %v", err)
	}
}

func TestATimeThatIsNotKnownIsLeftOut(t *testing.T) {
	t.Parallel()
	encoded, err := json.Marshal(summaryModel([]datar.FlagSummary{
		{FlagID: 1, Total: 2},
		{FlagID: 3, Total: 1, LastEvaluatedAt: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.FixedZone("", 3600))},
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"flags":[{"flagID":1,"totalEvalCount":2},{"flagID":3,"totalEvalCount":1,"lastEvaluatedAt":"2026-01-02T02:04:05.006Z"}]}`
	if string(encoded) != want {
		t.Errorf("summary is %s, want %s", encoded, want)
	}
}
