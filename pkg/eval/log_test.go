package eval_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

func TestTheLogOfEvaluationsIsBounded(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)
	at := func(flagID int64, reason eval.Reason, moment time.Time) *eval.Result {
		return &eval.Result{FlagID: flagID, Reason: reason, Timestamp: moment}
	}
	for _, tc := range []struct {
		name      string
		perSecond int
		results   []*eval.Result
		want      int
	}{
		{"within the limit", 2, []*eval.Result{at(1, eval.Matched, noon), at(1, eval.NoMatch, noon)}, 2},
		{"beyond it", 2, []*eval.Result{at(1, eval.Matched, noon), at(1, eval.Matched, noon), at(1, eval.Matched, noon.Add(999*time.Millisecond))}, 2},
		{"in the next second", 1, []*eval.Result{at(1, eval.Matched, noon), at(1, eval.Matched, noon.Add(time.Second)), at(1, eval.Matched, noon)}, 2},
		{"each flag by itself", 1, []*eval.Result{at(1, eval.Matched, noon), at(2, eval.Matched, noon), at(2, eval.FlagDisabled, noon)}, 2},
		{
			"flags 256 apart", 1,
			[]*eval.Result{at(1, eval.Matched, noon), at(257, eval.Matched, noon), at(1, eval.Matched, noon), at(257, eval.Matched, noon)}, 2,
		},
		{"unknown flags together", 1, []*eval.Result{at(8, eval.FlagNotFound, noon), at(9, eval.FlagNotFound, noon)}, 1},
		{"nothing at all", 0, []*eval.Result{at(1, eval.Matched, noon)}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			log := eval.NewLog(slog.New(slog.NewTextHandler(&b, nil)), tc.perSecond)
			for _, r := range tc.results {
				log.Observe(r)
			}
			if got := strings.Count(b.String(), "msg=evaluation"); got != tc.want {
				t.Errorf("%d lines, want %d:\n%s", got, tc.want, &b)
			}
		})
	}
}

// TestWindowsCountSeconds includes seconds that 32 bits cannot hold.
func TestWindowsCountSeconds(t *testing.T) {
	t.Parallel()
	for _, start := range []int64{0, 1, 1<<31 - 2, 1 << 31, 1<<32 - 2, 1 << 32, 253_402_300_790} {
		var w eval.Window
		for _, step := range []struct {
			name   string
			second int64
			want   bool
		}{
			{"first", start, true}, {"second", start, true}, {"beyond the limit", start, false},
			{"in the next second", start + 1, true}, {"late", start, false}, {"after the late one", start + 1, true}, {"beyond the limit again", start + 1, false},
			{"much later", start + 1<<30, true},
		} {
			if got := w.Take(step.second, 2); got != step.want {
				t.Errorf("%s, from second %d on: %v, want %v", step.name, start, got, step.want)
			}
		}
	}
}

// TestWindowsFollowTheClock sets the clock back. Up to 60 s can be events that were late.
func TestWindowsFollowTheClock(t *testing.T) {
	t.Parallel()
	for _, start := range []int64{1 << 20, 1<<31 + 10, 1<<32 + 10} {
		for _, tc := range []struct {
			back int64
			want bool
		}{{1, false}, {60, false}, {61, true}, {3600, true}, {1 << 19, true}} {
			var w eval.Window
			w.Take(start, 1)
			if got := w.Take(start-tc.back, 1); got != tc.want {
				t.Errorf("%d s before second %d: %v, want %v", tc.back, start, got, tc.want)
			}
			if w.Take(start-tc.back, 1) {
				t.Errorf("the second event %d s before second %d is within the limit of 1", tc.back, start)
			}
			if got := w.Take(start-tc.back+1, 1); got != tc.want {
				t.Errorf("a second after %d s before second %d: %v, want %v", tc.back, start, got, tc.want)
			}
		}
	}
}

func TestTheLogOfEvaluationsSaysWhatWasDecided(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log := eval.NewLog(slog.New(slog.NewTextHandler(&b, nil)), 1)
	log.Observe(&eval.Result{
		Request: eval.Request{EntityID: "e 1", EntityType: "user", EntityContext: map[string]any{"mail": "private"}},
		FlagID:  7, FlagKey: "k", FlagSnapshotID: 8, SegmentID: 9, VariantID: 10, VariantKey: "on", Reason: eval.Matched, Timestamp: time.Now(),
	})
	_, got, _ := strings.Cut(b.String(), "level=")
	want := `INFO msg=evaluation flag_id=7 flag_key=k flag_snapshot_id=8 entity_id="e 1" entity_type=user segment_id=9 variant_id=10 variant_key=on`
	if strings.TrimSpace(got) != want {
		t.Errorf("line is %s, want %s", got, want)
	}
}

func TestTheLogOfEvaluationsIsExactUnderLoad(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log := eval.NewLog(slog.New(slog.NewTextHandler(&b, nil)), 100)
	noon := time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for i := range 3000 {
				log.Observe(&eval.Result{FlagID: 1, Reason: eval.Matched, Timestamp: noon.Add(time.Duration(i/1000) * time.Second)})
			}
		})
	}
	work.Wait()
	// Goroutines that are late find their second gone, so there may be fewer.
	if got := strings.Count(b.String(), "\n"); got > 300 || got < 100 {
		t.Errorf("%d lines, want 300 at most", got)
	}
}

func BenchmarkLogBeyondItsLimit(b *testing.B) {
	log := eval.NewLog(slog.New(slog.DiscardHandler), 1)
	r := &eval.Result{FlagID: 12345, Reason: eval.Matched, Timestamp: time.Now()}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			log.Observe(r)
		}
	})
}
