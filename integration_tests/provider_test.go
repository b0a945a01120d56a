package integration_tests

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/isolated"

	"github.com/flagr-datar/flagr-datar/integration_tests/testaddress"
	"github.com/flagr-datar/flagr-datar/pkg/provider"
)

// TestGoProvider evaluates in 64 goroutines while the server is killed and restarted. The summary
// must count exactly the calls, and the program must get a change of the flag.
func TestGoProvider(t *testing.T) {
	t.Parallel()
	const goroutines, calls, kills = 64, 2000, 3
	db := databases[0]
	// The port stays the same, so that the provider can reconnect.
	host, port, _ := strings.Cut(testaddress.Unused(t), ":")
	s := start(t, db, db.fresh(t), taking().with(environ{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "100ms", "HOST": host, "PORT": port}))
	f := newFlag(t, s, "in-process")
	poll(t, "the export to have the flag", func() bool {
		text := string(s.call(t, "GET", "/export/eval_cache/json?enabled=true", nil).body)
		return strings.Contains(text, `"DataRecordsEnabled":true`)
	})
	p, err := provider.New(provider.Options{
		URL: strings.TrimSuffix(s.url, "/api/v1"), PollInterval: time.Second, CountsInterval: time.Second, SpoolDir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	api := isolated.NewAPI()
	if err := api.SetProviderAndWait(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	client := api.NewClient()
	var callers sync.WaitGroup
	var made atomic.Int64
	for i := range goroutines {
		callers.Go(func() {
			for n := range calls {
				user := openfeature.NewEvaluationContext(fmt.Sprint(i, "-", n), nil)
				if value, err := client.BooleanValue(context.Background(), "in-process", false, user); err != nil || !value {
					t.Errorf("%t, %v", value, err)
					return
				}
				if n%100 == 0 { // an unknown key, such as that of a flag that was deleted too early
					_, _ = client.BooleanValue(context.Background(), "nowhere", false, user)
				}
				made.Add(1)
				if n%20 == 0 { // so that the server is killed during the calls
					time.Sleep(40 * time.Millisecond)
				}
			}
		})
	}
	for n := range int64(kills) {
		poll(t, "more calls", func() bool { return made.Load() >= (n+1)*goroutines*calls/(kills+1) })
		s.kill(t)
		s = s.again(t)
	}
	callers.Wait()
	if err := api.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	const sent, unknown = goroutines * calls, goroutines * calls / 100
	if counts := p.Counts(); counts.Pending != 0 || counts.DroppedTotal() != counts.Dropped["FLAG_NOT_FOUND"] || counts.DroppedTotal() != unknown {
		t.Errorf("%+v", counts)
	}
	if total := counts(t, s, sent).total(f.ID); total != sent {
		t.Errorf("the summary counts %d of %d calls", total, sent)
	}
	// The program's evaluations have outcome and version, like those of the server.
	type outcomes struct {
		Total    int64
		Outcomes []struct {
			Outcome string
			Count   int64
		}
		Segments []struct{ SegmentID, Matched int64 }
	}
	answer := get[outcomes](t, s, fmt.Sprintf("/datar/flags/%d/outcomes", f.ID))
	if len(answer.Outcomes) != 1 || answer.Outcomes[0].Outcome != "matched" || answer.Total != sent || len(answer.Segments) != 1 || answer.Segments[0].Matched != sent {
		t.Errorf("outcomes are %+v, want %d matched in one segment", answer, sent)
	}
	type asked struct {
		Unknown []struct {
			Asked string
			Count int64
		}
	}
	if answer := get[asked](t, s, "/datar/unknown"); len(answer.Unknown) != 1 || answer.Unknown[0].Asked != "nowhere" || answer.Unknown[0].Count != unknown {
		t.Errorf("unknown are %+v, want nowhere %d times", answer, unknown)
	}
	type versions struct{ Lines []struct{ SnapshotID int64 } }
	series := get[versions](t, s, fmt.Sprintf("/datar/flags/%d/series?by=version", f.ID))
	if len(series.Lines) != 1 || series.Lines[0].SnapshotID == 0 {
		t.Errorf("versions are %+v, want one snapshot", series.Lines)
	}
}
