package pubsub

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/recordertest"
)

// refusals answers requests to publish with an error, while one is set.
type refusals struct{ err atomic.Pointer[status.Status] }

func (r *refusals) React(any) (handled bool, ret any, err error) {
	if s := r.err.Load(); s != nil {
		return true, nil, s.Err()
	}
	return false, nil, nil
}

func TestFaultsThatPass(t *testing.T) {
	t.Parallel()
	refuse := func(code codes.Code) func(*testing.T, *pstest.Server, *refusals) {
		return func(_ *testing.T, _ *pstest.Server, r *refusals) { r.err.Store(status.New(code, "it is so")) }
	}
	allow := func(_ *testing.T, _ *pstest.Server, r *refusals) { r.err.Store(nil) }
	for _, tc := range []struct {
		name       string
		begin, end func(*testing.T, *pstest.Server, *refusals)
		want       string // in the last error
	}{
		{
			name: "the topic is created again", want: "NotFound",
			begin: func(t *testing.T, s *pstest.Server, _ *refusals) {
				if _, err := s.GServer.DeleteTopic(t.Context(), &pubsubpb.DeleteTopicRequest{Topic: topicName}); err != nil {
					t.Fatal(err)
				}
			},
			end: func(t *testing.T, s *pstest.Server, _ *refusals) { createTopic(t, s) },
		},
		{name: "permission taken", begin: refuse(codes.PermissionDenied), end: allow, want: "PermissionDenied"},
		{name: "credentials refused", begin: refuse(codes.Unauthenticated), end: allow, want: "Unauthenticated"},
		{name: "quota used up", begin: refuse(codes.ResourceExhausted), end: allow, want: "ResourceExhausted"},
		{name: "unavailable", begin: refuse(codes.Unavailable), end: allow, want: "Unavailable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := &refusals{}
			s := server(t, pstest.ServerReactorOption{FuncName: "Publish", Reactor: r})
			f := setup(t, s, nil)
			want := f.record(recordertest.UpTo(100)...)
			if err := f.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			var times recordertest.Fault
			times.Begin()
			tc.begin(t, s, r)
			for i := range 100 {
				want = append(want, f.record(100+i)...)
			}
			testwait.Until(t, "the outage to be noticed", func() bool {
				stats := f.Stats()
				return stats.State == recorder.Failing && strings.Contains(stats.LastError, tc.want) && stats.Pending == 100
			})
			times.Noticed()
			tc.end(t, s, r)
			times.End()
			testwait.Until(t, "the end of the outage to be noticed", func() bool { return f.Stats().State == recorder.Working })
			times.Working()
			testwait.Until(t, "all records", func() bool { return f.Stats().Pending == 0 })
			times.Log(t, f.Stats())
			if stats := f.finish(t); stats.State != recorder.Working || stats.Delivered != 200 || len(stats.Dropped) != 0 {
				t.Errorf("%+v", stats)
			}
			slices.Sort(want)
			// On a busy machine an answer may come after the end of its attempt, and its messages
			// again.
			if diff := cmp.Diff(want, slices.Compact(published(s))); diff != "" {
				t.Errorf("(-want +got):\n%.2000s", diff)
			}
			if f.log.Count("cannot deliver, and keeps trying") != 1 || f.log.Count("delivers again") != 1 {
				t.Errorf("want one line for the beginning, and one for the end:\n%s", &f.log)
			}
		})
	}
}

func TestAKeyFileIsReadAgainWhenTheKeyIsRefused(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"type":"service_account"}`)
	transport, err := New(Options{ProjectID: "p", Topic: "flagr-records", KeyFile: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = transport.Close() })
	client, err := pubsub.NewClient(t.Context(), "p", clientOptions(server(t).Addr)...)
	if err != nil {
		t.Fatal(err)
	}
	transport.mu.client = client
	write("not a key any more")
	transport.disconnect(client, status.Error(codes.Unavailable, "down"))
	if got, err := transport.connect(t.Context()); got != client || err != nil {
		t.Errorf("another error than a refusal gives %v, %v", got, err)
	}
	transport.disconnect(client, status.Error(codes.Unauthenticated, "the key is over"))
	if got, err := transport.connect(t.Context()); got != nil || err == nil || !strings.Contains(err.Error(), "is not JSON") {
		t.Errorf("the file was not read again: %v, %v", got, err)
	}
}
