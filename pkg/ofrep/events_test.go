package ofrep_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
)

// stream reads a stream for some time.
func stream(h http.Handler, d time.Duration, headers ...string) string {
	rw, _ := streamFor(h, ofrep.EventsPath, d, headers...)
	return rw.Body.String()
}

func streamFor(h http.Handler, target string, d time.Duration, headers ...string) (*httptest.ResponseRecorder, time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	rw := httptest.NewRecorder()
	start := time.Now()
	h.ServeHTTP(rw, r)
	return rw, time.Since(start)
}

func events(text string) int { return strings.Count(text, "event: message\n") }

func TestAStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := setup(t, "", time.Second, ofrep.Options{})
		time.Sleep(time.Minute) // the flags are not new
		known := revision(h)
		rw, _ := streamFor(h, ofrep.EventsPath, time.Second)
		if want := "retry: 5000\nid: " + known + "\n\n"; rw.Body.String() != want {
			t.Errorf("%q, want %q", rw.Body, want)
		}
		for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"} {
			if got := rw.Header().Get(name); got != want {
				t.Errorf("%s is %q", name, got)
			}
		}
		if got := stream(h, time.Second, "Last-Event-ID", known); events(got) != 0 {
			t.Errorf("known flags: %q", got)
		}
		if got := stream(h, time.Second, "Last-Event-ID", "older"); events(got) != 1 {
			t.Errorf("a change while away: %q", got)
		}

		// Two changes within a second are one event, of the newest flags.
		var text string
		var wg sync.WaitGroup
		wg.Go(func() { text = stream(h, 20*time.Second) })
		time.Sleep(2 * time.Second)
		h.source.set(parse(t, strings.Replace(examples, `"SnapshotID":12,`, `"SnapshotID":13,`, 1)))
		h.cache.Look(t.Context())
		time.Sleep(300 * time.Millisecond)
		h.source.set(parse(t, strings.Replace(examples, `"SnapshotID":12,`, `"SnapshotID":14,`, 1)))
		wg.Wait()
		now := revision(h)
		want := fmt.Sprintf("id: %s\nevent: message\ndata: {\"type\":\"refetchEvaluation\",\"etag\":\"%s\",\"lastModified\":%d}\n\n", now, now, h.cache.State().Since.Unix())
		if events(text) != 1 || !strings.HasSuffix(text, want) {
			t.Errorf("%q, want %q at the end", text, want)
		}
		if got := stream(h, time.Millisecond); events(got) != 1 { // the flags are new, and the client may have older ones
			t.Errorf("new flags: %q", got)
		}
		if got := h.Stats(); got.StreamEvents < 3 || got.Streams != 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestScopesOfStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := setup(t, "", time.Second, ofrep.Options{})
		time.Sleep(time.Minute)
		change := func(document string) map[string]int {
			got := map[string]int{}
			var mu sync.Mutex
			var wg sync.WaitGroup
			for _, query := range []string{"", "?flagTags=web", "?flagTags=checkout", "?flagKeys=old", "?flagTags=web&flagKeys=old"} {
				wg.Go(func() {
					rw, _ := streamFor(h, ofrep.EventsPath+query, 10*time.Second, "Last-Event-ID", revision(h))
					mu.Lock()
					defer mu.Unlock()
					got[query] = events(rw.Body.String())
				})
			}
			time.Sleep(time.Second)
			h.source.set(parse(t, document))
			wg.Wait()
			time.Sleep(time.Minute)
			return got
		}
		if got := change(strings.Replace(examples, `"SnapshotID":98,`, `"SnapshotID":99,`, 1)); fmt.Sprint(got) !=
			"map[:1 ?flagKeys=old:0 ?flagTags=checkout:0 ?flagTags=web:1 ?flagTags=web&flagKeys=old:1]" {
			t.Errorf("a change of new-search: %v", got)
		}
		if got := change(strings.Replace(examples, `"Key":"old"`, `"Key":"older"`, 1)); fmt.Sprint(got) !=
			"map[:1 ?flagKeys=old:1 ?flagTags=checkout:0 ?flagTags=web:1 ?flagTags=web&flagKeys=old:1]" {
			t.Errorf("new-search changed back, old has another key: %v", got)
		}
		if got := change(strings.Replace(examples, `"Key":"old"`, `"Key":"older"`, 1)); got[""] != 0 { // a new version of the same flags
			t.Errorf("no change: %v", got)
		}
	})
}

// TestSilence has ten minutes without a change: comments keep proxies from cutting the connection.
func TestSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := setup(t, "", time.Second, ofrep.Options{})
		time.Sleep(time.Minute)
		rw, took := streamFor(h, ofrep.EventsPath, 10*time.Minute)
		if n := strings.Count(rw.Body.String(), ":\n\n"); n != 23 && n != 24 || took != 10*time.Minute || events(rw.Body.String()) != 0 {
			t.Errorf("%d comments in %s: %q", n, took, rw.Body)
		}
	})
}

// TestTheSpread sees events go out over time, and all of them within it.
func TestTheSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const spread = 5 * time.Second
		h := setup(t, "", time.Second, ofrep.Options{Events: ofrep.Events{Spread: spread}})
		time.Sleep(time.Minute)
		synctest.Wait()
		before := h.Stats().StreamEvents
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() { stream(h, 30*time.Second) })
		}
		time.Sleep(time.Second)
		h.source.set(parse(t, strings.Replace(examples, `"SnapshotID":98,`, `"SnapshotID":99,`, 1)))
		time.Sleep(2*time.Second + spread/2) // refresh and window
		if n := h.Stats().StreamEvents - before; n < 50 || n > 180 {
			t.Errorf("%d of 200 events after half of the spread", n)
		}
		time.Sleep(spread/2 + time.Second)
		if n := h.Stats().StreamEvents - before; n != 200 {
			t.Errorf("%d of 200 events after the spread", n)
		}
		wg.Wait()
	})
}

func TestTheLimitOfStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := setup(t, "", time.Second, ofrep.Options{Events: ofrep.Events{Max: 2}})
		for range 2 {
			go stream(h, time.Minute)
		}
		synctest.Wait()
		rw, _ := streamFor(h, ofrep.EventsPath, time.Second)
		if rw.Code != 503 || rw.Header().Get("Retry-After") < "10" || h.Stats().RefusedByLimit != 1 || h.Stats().Streams != 2 {
			t.Errorf("%d %v %+v", rw.Code, rw.Header(), h.Stats())
		}
		checkShape(t, rw.Code, rw.Body.Bytes())
		time.Sleep(2 * time.Minute)
		if got := stream(h, time.Second); !strings.HasPrefix(got, "retry") {
			t.Errorf("after the others have ended: %q", got)
		}
	})
}

func TestStopEndsStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := setup(t, "", time.Second, ofrep.Options{})
		ended := make(chan time.Duration)
		go func() {
			_, took := streamFor(h, ofrep.EventsPath, time.Hour)
			ended <- took
		}()
		time.Sleep(time.Minute)
		h.Stop()
		h.Stop()
		if took := <-ended; took != time.Minute {
			t.Errorf("ended after %s", took)
		}
		if rw, _ := streamFor(h, ofrep.EventsPath, time.Second); rw.Code != 503 {
			t.Errorf("%d after stop", rw.Code)
		}
	})
}

// TestASlowReader does not read: the server must get rid of it, and its deadlines must not end
// other streams.
func TestASlowReader(t *testing.T) {
	t.Parallel()
	h := setup(t, "", 10*time.Millisecond, ofrep.Options{})
	deadlines := &deadlineWriter{ResponseRecorder: httptest.NewRecorder()}
	ctx, cancel := context.WithCancel(t.Context())
	deadlines.after = cancel
	h.ServeHTTP(deadlines, httptest.NewRequestWithContext(ctx, http.MethodGet, ofrep.EventsPath, nil))
	if deadlines.read != (time.Time{}) || !deadlines.readSet {
		t.Error("the server's deadline for reading stays")
	}
	if left := time.Until(deadlines.write); left > 11*time.Second || left < 5*time.Second {
		t.Errorf("a write may take %s", left)
	}
}

// deadlineWriter notes the deadlines that are set.
type deadlineWriter struct {
	*httptest.ResponseRecorder
	read, write time.Time
	readSet     bool
	after       func()
}

func (w *deadlineWriter) SetReadDeadline(at time.Time) error {
	w.read, w.readSet = at, true
	return nil
}

func (w *deadlineWriter) SetWriteDeadline(at time.Time) error {
	w.write = at
	return nil
}

func (w *deadlineWriter) Write(b []byte) (int, error) {
	w.after()
	return w.ResponseRecorder.Write(b)
}
