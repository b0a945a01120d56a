package notification_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/notification"
)

// receiver is a real server that keeps what is posted to it, and answers as its function says.
type receiver struct {
	url    string
	answer func(rw http.ResponseWriter, r *http.Request, call int) // call counts from 1

	mu     sync.Mutex
	bodies []string
	header []http.Header
	hosts  []string
}

func newReceiver(t *testing.T, answer func(rw http.ResponseWriter, r *http.Request, call int)) *receiver {
	t.Helper()
	rc := &receiver{answer: answer}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost {
			t.Errorf("%s, %v", r.Method, err)
		}
		rc.mu.Lock()
		rc.bodies = append(rc.bodies, string(body))
		rc.header = append(rc.header, r.Header)
		rc.hosts = append(rc.hosts, r.Host)
		call := len(rc.bodies)
		rc.mu.Unlock()
		if answer != nil {
			answer(rw, r, call)
		}
	}))
	t.Cleanup(server.Close)
	rc.url = server.URL + "/hook?token=s3cret-in-url"
	return rc
}

// received gives the flag ids of all calls, in their order.
func (rc *receiver) received(t *testing.T) []int {
	t.Helper()
	rc.mu.Lock()
	defer rc.mu.Unlock()
	ids := []int{}
	for _, body := range rc.bodies {
		var m struct {
			FlagID int `json:"flag_id"`
		}
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.FlagID)
	}
	return ids
}

func (rc *receiver) calls() int {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return len(rc.bodies)
}

// setup starts a webhook with short pauses.
func setup(t *testing.T, o notification.Options) (*notification.Webhook, *testlog.Buffer) {
	t.Helper()
	log := &testlog.Buffer{}
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	o.RetryBase, o.RetryMax = time.Millisecond, 4*time.Millisecond
	w := notification.New(o)
	w.Start()
	t.Cleanup(func() { _ = stop(w, time.Minute) })
	return w, log
}

func stop(w *notification.Webhook, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return w.Stop(ctx)
}

func change(flagID uint) entity.Change {
	return entity.Change{
		Operation: entity.OperationUpdate, FlagID: flagID, FlagKey: "a<b", Component: entity.ComponentVariant, ComponentID: 7,
		ComponentKey: "on", User: "ann@example.com", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

func TestWhatIsPosted(t *testing.T) {
	t.Parallel()
	rc := newReceiver(t, nil)
	w, log := setup(t, notification.Options{URL: rc.url, Header: http.Header{
		"Authorization": {"Bearer abc"}, "X-Team": {"a", "b"}, "Host": {"hooks.example.com"},
	}})
	w.Notify(change(1))
	detailed := change(2)
	detailed.Before, detailed.After = []byte(`{"ID":1,"Key":"a"}`), []byte(`{"ID":1,"Key":"b"}`)
	w.Notify(detailed)
	created := change(3)
	created.After = []byte(`{"ID":1}`)
	w.Notify(created)
	if err := stop(w, time.Minute); err != nil {
		t.Fatal(err)
	}

	bare := `{"operation":"update","flag_id":1,"flag_key":"a<b","component_type":"variant","component_id":7,` +
		`"component_key":"on","user":"ann@example.com","timestamp":"2026-01-02T03:04:05Z"`
	with := func(id, more string) string {
		return strings.Replace(bare, `"flag_id":1`, `"flag_id":`+id, 1) + more + "}\n"
	}
	want := []string{
		with("1", ""),
		with("2", `,"pre_value":"{\"ID\":1,\"Key\":\"a\"}","post_value":"{\"ID\":1,\"Key\":\"b\"}",`+
			`"diff":"--- before\n+++ after\n@@ -1,4 +1,4 @@\n {\n   \"ID\": 1,\n-  \"Key\": \"a\"\n+  \"Key\": \"b\"\n }\n"`),
		with("3", `,"post_value":"{\"ID\":1}","diff":"--- before\n+++ after\n@@ -0,0 +1,3 @@\n+{\n+  \"ID\": 1\n+}\n"`),
	}
	if diff := cmp.Diff(want, rc.bodies); diff != "" {
		t.Errorf("bodies (-want +got):\n%s", diff)
	}
	h := rc.header[0]
	if h.Get("Content-Type") != "application/json" || h.Get("Authorization") != "Bearer abc" || !slices.Equal(h["X-Team"], []string{"a", "b"}) {
		t.Errorf("header is %v", h)
	}
	if rc.hosts[0] != "hooks.example.com" {
		t.Errorf("host is %s", rc.hosts[0])
	}
	if got := (notification.Stats{Delivered: 3}); w.Stats() != got || log.String() != "" {
		t.Errorf("stats are %+v, log is %s", w.Stats(), log)
	}
}

func TestWhatIsTriedAgain(t *testing.T) {
	t.Parallel()
	status := func(codes ...int) func(rw http.ResponseWriter, r *http.Request, call int) {
		return func(rw http.ResponseWriter, _ *http.Request, call int) {
			if call <= len(codes) {
				rw.WriteHeader(codes[call-1])
			}
		}
	}
	for _, tc := range []struct {
		name   string
		answer func(rw http.ResponseWriter, r *http.Request, call int)
		ids    []int // of the calls, for the changes 1 and 2, with two retries
		stats  notification.Stats
		log    string
	}{
		{"nothing fails", status(200, 204), []int{1, 2}, notification.Stats{Delivered: 2}, ""},
		{"server errors", status(500, 503), []int{1, 1, 1, 2}, notification.Stats{Delivered: 2}, ""},
		{"too many server errors", status(500, 502, 503), []int{1, 1, 1, 2}, notification.Stats{Delivered: 1, Failed: 1}, "503 Service Unavailable"},
		{"too many requests", status(429), []int{1, 1, 2}, notification.Stats{Delivered: 2}, ""},
		{"a refusal", status(400), []int{1, 2}, notification.Stats{Delivered: 1, Failed: 1}, "400 Bad Request"},
		{"a lost connection", func(_ http.ResponseWriter, _ *http.Request, call int) {
			if call <= 2 {
				panic(http.ErrAbortHandler)
			}
		}, []int{1, 1, 1, 2}, notification.Stats{Delivered: 2}, ""},
		{"a redirect", func(rw http.ResponseWriter, r *http.Request, _ int) {
			http.Redirect(rw, r, "/elsewhere", http.StatusFound)
		}, []int{1, 2}, notification.Stats{Failed: 2}, "redirects are not followed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			rc := newReceiver(t, tc.answer)
			w, log := setup(t, notification.Options{URL: rc.url, MaxRetries: 2})
			w.Notify(change(1))
			w.Notify(change(2))
			if err := stop(w, time.Minute); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tc.ids, rc.received(t)); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if w.Stats() != tc.stats {
				t.Errorf("stats are %+v, want %+v", w.Stats(), tc.stats)
			}
			if tc.log == "" != (log.String() == "") || !strings.Contains(log.String(), tc.log) {
				t.Errorf("log is %q, want %q", log, tc.log)
			}
		})
	}
}

func TestSecretsStayOutOfTheLog(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil { // so that connections are refused
		t.Fatal(err)
	}
	for _, url := range []string{"http://" + address + "/s3cret-path?token=s3cret", "http://user:s3cret@" + address, "http://s3cret\x7f"} {
		w, log := setup(t, notification.Options{URL: url, Header: http.Header{"X-Token": {"s3cret-header"}}, MaxRetries: 1})
		w.Notify(change(1))
		if err := stop(w, time.Minute); err != nil {
			t.Error(err)
		}
		if w.Stats().Failed != 1 || !strings.Contains(log.String(), "notification was not delivered") || strings.Contains(log.String(), "s3cret") {
			t.Errorf("stats are %+v, log is %s", w.Stats(), log)
		}
	}
}

func TestASlowReceiverHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	rc := newReceiver(t, func(http.ResponseWriter, *http.Request, int) { <-release })
	w, log := setup(t, notification.Options{URL: rc.url, QueueSize: 2})
	w.Notify(change(1))
	testwait.Until(t, "the first call", func() bool { return rc.calls() == 1 })
	for id := range uint(5) { // nothing is received before they all are told
		w.Notify(change(id + 2)) // two wait, three are too many
	}
	if got := (notification.Stats{Dropped: 3}); w.Stats() != got {
		t.Errorf("stats are %+v, want %+v", w.Stats(), got)
	}
	if n := strings.Count(log.String(), "too many notifications wait"); n != 3 || !strings.Contains(log.String(), "dropped_so_far=3") {
		t.Errorf("log is %s", log)
	}
	close(release)
	if err := stop(w, time.Minute); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]int{1, 2, 3}, rc.received(t)); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestACallThatTakesTooLongIsTriedAgain(t *testing.T) {
	t.Parallel()
	rc := newReceiver(t, func(_ http.ResponseWriter, r *http.Request, call int) {
		if call == 1 {
			<-r.Context().Done()
		}
	})
	// A busy machine may need the time for others of the calls as well.
	w, _ := setup(t, notification.Options{URL: rc.url, Timeout: 300 * time.Millisecond, MaxRetries: 1000})
	w.Notify(change(1))
	testwait.Until(t, "the delivery", func() bool { return w.Stats().Delivered == 1 })
}

func TestStopKeepsItsDeadline(t *testing.T) {
	t.Parallel()
	rc := newReceiver(t, func(_ http.ResponseWriter, r *http.Request, _ int) { <-r.Context().Done() })
	w, log := setup(t, notification.Options{URL: rc.url, Timeout: time.Hour})
	for id := range uint(3) {
		w.Notify(change(id))
	}
	testwait.Until(t, "the first call", func() bool { return rc.calls() == 1 })
	err := stop(w, 50*time.Millisecond) // if it does not, this takes an hour
	if err == nil || err.Error() != "3 notifications were not delivered" {
		t.Errorf("error is %v", err)
	}
	w.Notify(change(9))
	w.Start()
	if got := (notification.Stats{Dropped: 4}); w.Stats() != got || !strings.Contains(log.String(), "the server is stopping") {
		t.Errorf("stats are %+v, log is %s", w.Stats(), log)
	}
	if err := stop(w, time.Minute); err != nil {
		t.Errorf("the second stop gives %v", err)
	}
}

func TestAWebhookThatWasNeverStartedStops(t *testing.T) {
	t.Parallel()
	w := notification.New(notification.Options{URL: "http://127.0.0.1:1"})
	w.Notify(change(1))
	if err := stop(w, time.Minute); err == nil || w.Stats().Dropped != 1 {
		t.Errorf("error is %v, stats are %+v", err, w.Stats())
	}
}

func TestManyTellAtOnce(t *testing.T) {
	t.Parallel()
	rc := newReceiver(t, nil)
	w, _ := setup(t, notification.Options{URL: rc.url})
	var tellers sync.WaitGroup
	for i := range uint(8) {
		tellers.Go(func() {
			for n := range uint(25) {
				w.Notify(change(100*i + n))
			}
		})
	}
	tellers.Wait()
	if err := stop(w, time.Minute); err != nil {
		t.Fatal(err)
	}
	ids := rc.received(t)
	for i := range 8 { // those of each teller stay in their order
		own := slices.DeleteFunc(slices.Clone(ids), func(id int) bool { return id/100 != i })
		if !slices.IsSorted(own) || len(own) != 25 {
			t.Errorf("of teller %d came %v", i, own)
		}
	}
	if fmt.Sprint(w.Stats()) != "{200 0 0 0}" {
		t.Errorf("stats are %+v", w.Stats())
	}
}
