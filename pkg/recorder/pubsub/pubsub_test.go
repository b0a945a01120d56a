package pubsub

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/flagr-datar/flagr-datar/integration_tests/testaddress"
	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/recordertest"
)

const topicName = "projects/p/topics/flagr-records"

// server starts a Pub/Sub in this process, with the topic.
func server(t *testing.T, opts ...pstest.ServerReactorOption) *pstest.Server {
	t.Helper()
	s := pstest.NewServer(opts...)
	t.Cleanup(func() { _ = s.Close() })
	createTopic(t, s)
	return s
}

func createTopic(t *testing.T, s *pstest.Server) {
	t.Helper()
	if _, err := s.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topicName}); err != nil {
		t.Fatal(err)
	}
}

// fixture is a sink in front of a Pub/Sub transport.
type fixture struct {
	*recorder.Sink
	log testlog.Buffer
}

func setup(t *testing.T, s *pstest.Server, change func(*Options)) *fixture {
	t.Helper()
	return setupAt(t, s.Addr, change)
}

func setupAt(t *testing.T, address string, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{}
	logger := slog.New(slog.NewTextHandler(&f.log, nil))
	o := Options{
		ProjectID:     "p",
		Topic:         "flagr-records",
		ClientOptions: clientOptions(address),
		Logger:        logger,
	}
	if change != nil {
		change(&o)
	}
	transport, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	f.Sink = recordertest.Sink(t, recorder.Options{
		Name:         "pubsub",
		Transport:    transport,
		Health:       recorder.NewHealth(logger),
		BatchRecords: BatchRecords,
		BatchBytes:   BatchBytes,
		Concurrency:  Concurrency,
		Logger:       slog.New(slog.DiscardHandler),
	})
	f.Start()
	return f
}

// clientOptions are those for a server of tests.
func clientOptions(address string) []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(address),
		option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

func (f *fixture) record(lengths ...int) (frames []string) {
	for _, n := range lengths {
		r := recorder.NewRecord("entity", n, &recorder.Framing{}, recordertest.Text(n))
		f.AsyncRecord(r)
		frame, _ := r.Frame()
		frames = append(frames, string(frame))
	}
	slices.Sort(frames)
	return frames
}

func (f *fixture) finish(t *testing.T) recorder.Stats {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	return f.Stats()
}

func published(s *pstest.Server) []string {
	var data []string
	for _, m := range s.Messages() {
		data = append(data, string(m.Data))
	}
	slices.Sort(data)
	return data
}

func TestMessagesAreTheFrames(t *testing.T) {
	t.Parallel()
	s := server(t)
	f := setup(t, s, nil)
	want := f.record(recordertest.UpTo(2500)...)
	if stats := f.finish(t); stats.Delivered != 2500 || len(stats.Dropped) != 0 {
		t.Errorf("%+v", stats)
	}
	if diff := cmp.Diff(want, published(s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, m := range s.Messages() {
		if len(m.Attributes) != 0 || m.OrderingKey != "" {
			t.Fatalf("attributes %v, ordering key %q", m.Attributes, m.OrderingKey)
		}
	}
}

func TestAMessageThatIsTooLargeIsDroppedAlone(t *testing.T) {
	t.Parallel()
	s := server(t)
	f := setup(t, s, nil)
	want := f.record(1, 2)
	f.record(10_000_000)
	want = append(want, f.record(3)...)
	if stats := f.finish(t); stats.Delivered != 3 || stats.Dropped[recorder.TooLarge] != 1 {
		t.Errorf("%+v", stats)
	}
	if diff := cmp.Diff(want, published(s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestATopicThatIsMissingAtFirst(t *testing.T) {
	t.Parallel()
	s := pstest.NewServer()
	t.Cleanup(func() { _ = s.Close() })
	f := setup(t, s, nil)
	want := f.record(1, 2, 3)
	testwait.Until(t, "the missing topic to be noticed", func() bool {
		stats := f.Stats()
		return stats.State == recorder.Failing && strings.Contains(stats.LastError, "NotFound") && stats.Pending == 3
	})
	createTopic(t, s)
	if stats := f.finish(t); stats.Delivered != 3 {
		t.Errorf("%+v", stats)
	}
	if diff := cmp.Diff(want, published(s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAMessageThatIsRefusedIsNotSentAgain(t *testing.T) {
	t.Parallel()
	s := server(t, pstest.WithErrorInjection("Publish", codes.InvalidArgument, "malformed"))
	f := setup(t, s, nil)
	f.record(1, 2)
	if stats := f.finish(t); stats.Dropped[recorder.Rejected] != 2 || stats.Retried != 0 {
		t.Errorf("%+v", stats)
	}
}

// schema refuses a request for the sake of one of its messages, as a topic with a schema does.
type schema struct{ refused string }

func (s schema) React(request any) (handled bool, answer any, err error) {
	for _, m := range request.(*pubsubpb.PublishRequest).Messages {
		if string(m.Data) == s.refused {
			return true, nil, status.Error(codes.InvalidArgument, "not of the schema")
		}
	}
	return false, nil, nil
}

func TestOnlyTheMessageThatIsRefusedIsDropped(t *testing.T) {
	t.Parallel()
	frame, err := recorder.NewRecord("", 0, &recorder.Framing{}, recordertest.Text(5000)).Frame()
	if err != nil {
		t.Fatal(err)
	}
	s := server(t, pstest.ServerReactorOption{FuncName: "Publish", Reactor: schema{string(frame)}})
	f := setup(t, s, nil)
	want := f.record(recordertest.UpTo(300)...)
	f.record(5000)
	want = append(want, f.record(recordertest.UpTo(300)...)...)
	slices.Sort(want)
	if stats := f.finish(t); stats.Delivered != 600 || stats.Dropped[recorder.Rejected] != 1 || stats.Retried != 0 {
		t.Errorf("%+v", stats)
	}
	if diff := cmp.Diff(want, published(s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRequestsKeepTheLimit(t *testing.T) {
	t.Parallel()
	s := server(t)
	f := setup(t, s, nil)
	for range 6 { // what is estimated fits one batch, what is sent does not fit one request
		f.AsyncRecord(recorder.NewRecord("entity", 1, &recorder.Framing{}, recordertest.Text(4_000_000)))
	}
	if stats := f.finish(t); stats.Delivered != 6 || len(stats.Dropped) != 0 || stats.Retried != 0 {
		t.Errorf("%+v", stats)
	}
}

func TestVerboseGivesUpAnAttemptInTime(t *testing.T) {
	t.Parallel()
	s := server(t, pstest.WithErrorInjection("Publish", codes.Unavailable, "not now"))
	f := setup(t, s, func(o *Options) { o.Verbose = true; o.AttemptTimeout = 20 * time.Millisecond })
	f.record(1)
	testwait.Until(t, "a repetition", func() bool { return f.Stats().Retried > 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := f.Close(ctx); err == nil {
		t.Error("no error")
	}
	testwait.Until(t, "the end of the record", func() bool { return f.Stats().Pending == 0 }) // Close leaves a call that does not end soon
	if stats := f.Stats(); stats.Dropped[recorder.Undelivered] != 1 || stats.State != recorder.Failing {
		t.Errorf("%+v", stats)
	}
	if !strings.Contains(f.log.String(), "not published") {
		t.Errorf("log is %s", &f.log)
	}
}

func TestVerboseLogsIDs(t *testing.T) {
	t.Parallel()
	s := server(t)
	f := setup(t, s, func(o *Options) { o.Verbose = true })
	f.record(1)
	f.finish(t)
	if want := "id=" + s.Messages()[0].ID; !strings.Contains(f.log.String(), want) {
		t.Errorf("log lacks %s: %s", want, &f.log)
	}
}

func TestKeyFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tc := range []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "missing.json"), "no such file"},
		{"not JSON", write("text.json", "key"), "not JSON with a type"},
		{"no type", write("object.json", "{}"), "not JSON with a type"},
		{"service account", write("account.json", `{"type":"service_account"}`), ""},
	} {
		_, err := New(Options{ProjectID: "p", Topic: "t", KeyFile: tc.path})
		if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error is %v", tc.name, err)
		}
	}
}

// Credentials that are not there yet must not stop the server: they may come.
func TestACreationOfTheClientThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	f := setup(t, server(t), func(o *Options) { o.ProjectID = "" })
	f.record(1)
	testwait.Until(t, "the failure to be noticed", func() bool {
		stats := f.Stats()
		return stats.State == recorder.Failing && strings.Contains(stats.LastError, "pubsub client") && stats.Retried > 0
	})
}

// answering has a server answer the question for the topic with an error.
func answering(t *testing.T, code codes.Code, message string) *pstest.Server {
	t.Helper()
	return server(t, pstest.WithErrorInjection("GetTopic", code, message))
}

func TestProbe(t *testing.T) {
	t.Parallel()
	missing := pstest.NewServer()
	t.Cleanup(func() { _ = missing.Close() })
	for _, tc := range []struct {
		name   string
		server *pstest.Server
		want   string // in the error; "" if the service can be reached
	}{
		{"there", server(t), ""},
		{"missing", missing, "topic " + topicName + ": rpc error: code = NotFound"},
		{"account may not ask", answering(t, codes.PermissionDenied, "User not authorized to perform this action."), ""},
		{"many servers ask", answering(t, codes.ResourceExhausted, "Quota exceeded"), ""},
		{"imitation without the operation", answering(t, codes.Unimplemented, "unknown method"), ""},
		{"bad credentials", answering(t, codes.Unauthenticated, "invalid credentials"), "Unauthenticated"},
		{"a name that cannot be", answering(t, codes.InvalidArgument, "Invalid resource name"), "InvalidArgument"},
		{"down", answering(t, codes.Unavailable, "try later"), "try later"},
		{"broken", answering(t, codes.Internal, "oops"), "oops"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			transport, err := New(Options{ProjectID: "p", Topic: "flagr-records", ClientOptions: clientOptions(tc.server.Addr), Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = transport.Close() })
			err = transport.Probe(t.Context())
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestAServiceThatIsDownAtStart(t *testing.T) {
	t.Parallel()
	address := testaddress.Unused(t)
	f := setupAt(t, address, nil)
	testwait.Until(t, "the outage to be noticed", func() bool { return f.Stats().State == recorder.Failing })
	first := f.Stats()
	if !strings.Contains(first.LastError, "topic "+topicName) || !strings.Contains(first.LastError, "refused") {
		t.Errorf("error is %s", first.LastError)
	}
	testwait.Until(t, "another try", func() bool { return f.Stats().LastErrorAt.After(first.LastErrorAt) })

	s := pstest.NewServerWithAddress(address)
	t.Cleanup(func() { _ = s.Close() })
	testwait.Until(t, "the missing topic to be noticed", func() bool { return strings.Contains(f.Stats().LastError, "NotFound") })
	if stats := f.Stats(); stats.State != recorder.Failing || f.log.Count("\n") != 1 || f.log.Count("keeps trying") != 1 {
		t.Errorf("%+v\n%s", stats, &f.log)
	}

	createTopic(t, s)
	testwait.Until(t, "the topic to be noticed", func() bool { return f.Stats().State == recorder.Working })
	testwait.Until(t, "the end of the outage in the log", func() bool { return f.log.Count("can reach its broker") == 1 })
	if stats := f.Stats(); f.log.Count("\n") != 2 || stats.Recorded != 0 || !stats.LastDelivery.IsZero() {
		t.Errorf("%+v\n%s", stats, &f.log)
	}
}

// A server that takes connections and says nothing: the probe must be over in its time, and when
// the recorder ends.
func TestAServiceThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	f := setupAt(t, l.Addr().String(), nil)
	testwait.Until(t, "the silence to be noticed", func() bool { return f.Stats().State == recorder.Failing })
	f.finish(t)
}

// Against Google's emulator, see integration_tests/brokers: FLAGR_TEST_PUBSUB is its address.
func TestEmulator(t *testing.T) {
	t.Parallel()
	address := os.Getenv("FLAGR_TEST_PUBSUB")
	if address == "" {
		t.Skip("FLAGR_TEST_PUBSUB names no emulator: run with integration_tests/brokers/pubsub.sh")
	}
	client, err := pubsub.NewClient(t.Context(), "p", clientOptions(address)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	name := fmt.Sprintf("flagr-%d", time.Now().UnixNano())
	topic, subscription := "projects/p/topics/"+name, "projects/p/subscriptions/"+name
	f := setupAt(t, address, func(o *Options) { o.Topic = name })
	testwait.Until(t, "the missing topic to be noticed", func() bool { return strings.Contains(f.Stats().LastError, "NotFound") })
	testwait.Until(t, "the missing topic in the log", func() bool { return f.log.Count("\n") > 0 })
	if stats := f.Stats(); stats.State != recorder.Failing || f.log.Count("\n") != 1 || f.log.Count(topic) == 0 {
		t.Errorf("%+v\n%s", stats, &f.log)
	}
	if _, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the topic to be noticed", func() bool { return f.Stats().State == recorder.Working })
	if _, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: subscription, Topic: topic}); err != nil {
		t.Fatal(err)
	}
	want := f.record(recordertest.UpTo(1000)...)
	f.record(10_000_000)
	if stats := f.finish(t); stats.Delivered != 1000 || stats.Dropped[recorder.TooLarge] != 1 {
		t.Errorf("%+v", stats)
	}
	var mu sync.Mutex
	got := map[string]bool{} // a busy machine may get some twice
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = client.Subscriber(name).Receive(ctx, func(_ context.Context, m *pubsub.Message) {
		mu.Lock()
		defer mu.Unlock()
		if got[string(m.Data)] = true; len(got) == 1000 {
			cancel()
		}
		m.Ack()
	})
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("(-want +got):\n%.2000s", diff)
	}
}
