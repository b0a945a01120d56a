package integration_tests

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/crypto/nacl/secretbox"
)

// kafkaPartitions is the number of partitions of the topic.
const kafkaPartitions = 12

// newKafka starts a broker in this process.
func newKafka(t *testing.T) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(kafkaPartitions, "flagr-records"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// kafkaRecords reads the topic until it has n records, and no further one arrives.
func kafkaRecords(t *testing.T, brokers []string, n int) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics("flagr-records"), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var records []*kgo.Record
	for {
		patience := startDeadline
		if len(records) >= n {
			patience = 300 * time.Millisecond // for unexpected records
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		fetches := client.PollFetches(ctx)
		ended := ctx.Err() != nil
		cancel()
		records = append(records, fetches.Records()...)
		if ended {
			return records
		}
	}
}

// kinesisStream imitates PutRecords of Kinesis. It throttles every tenth record once, so that
// requests fail partly.
type kinesisStream struct {
	*httptest.Server

	mu      sync.Mutex
	seen    map[string]bool
	records []keyedFrame
}

// keyedFrame is the payload of a record and its key, which is empty if the stream has no keys.
type keyedFrame struct{ key, frame string }

func newKinesis(t *testing.T) *kinesisStream {
	t.Helper()
	k := &kinesisStream{seen: map[string]bool{}}
	k.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if r.Header.Get("X-Amz-Target") == "Kinesis_20131202.DescribeStreamSummary" {
			_, _ = io.WriteString(rw, `{"StreamDescriptionSummary":{"StreamName":"flagr-records","StreamStatus":"ACTIVE"}}`)
			return
		}
		var body struct {
			StreamName string
			Records    []struct{ Data, PartitionKey string }
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Header.Get("X-Amz-Target") != "Kinesis_20131202.PutRecords" ||
			body.StreamName != "flagr-records" || len(body.Records) == 0 || len(body.Records) > 500 {
			t.Errorf("request %s with %d records: %v", r.Header.Get("X-Amz-Target"), len(body.Records), err)
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		failed := 0
		results := make([]map[string]string, len(body.Records))
		for i, record := range body.Records {
			if !k.seen[record.Data] {
				k.seen[record.Data] = true
				if len(k.seen)%10 == 0 {
					failed++
					results[i] = map[string]string{"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"}
					continue
				}
			}
			data, err := base64.StdEncoding.DecodeString(record.Data)
			if err != nil {
				t.Error(err)
			}
			k.records = append(k.records, keyedFrame{record.PartitionKey, string(data)})
			results[i] = map[string]string{"SequenceNumber": "1", "ShardId": "shardId-000000000000"}
		}
		if err := json.NewEncoder(rw).Encode(map[string]any{"FailedRecordCount": failed, "Records": results}); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(k.Close)
	return k
}

func newPubSub(t *testing.T) *pstest.Server {
	t.Helper()
	s := pstest.NewServer()
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/flagr-records"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// streams are the three brokers.
type streams struct {
	kafka   *kfake.Cluster
	kinesis *kinesisStream
	pubsub  *pstest.Server
}

func newStreams(t *testing.T) *streams {
	t.Helper()
	return &streams{kafka: newKafka(t), kinesis: newKinesis(t), pubsub: newPubSub(t)}
}

// environ turns on all recorders.
func (s *streams) environ() environ {
	return environ{
		"FLAGR_MIDDLEWARE_VERBOSE_LOGGER_ENABLED": "false",
		"FLAGR_EVAL_LOGGING_ENABLED":              "false",
		"FLAGR_RECORDER_TYPE":                     "kafka,kinesis,pubsub,datar",
		"FLAGR_RECORDER_KAFKA_BROKERS":            strings.Join(s.kafka.ListenAddrs(), ","),
		"FLAGR_RECORDER_KAFKA_FLUSHFREQUENCY":     "20ms",
		"FLAGR_RECORDER_KINESIS_FLUSH_INTERVAL":   "50ms",
		"FLAGR_RECORDER_PUBSUB_PROJECT_ID":        "p",
		"PUBSUB_EMULATOR_HOST":                    s.pubsub.Addr,
		"AWS_ENDPOINT_URL_KINESIS":                s.kinesis.URL,
		"AWS_REGION":                              "eu-central-1",
		"AWS_ACCESS_KEY_ID":                       "test",
		"AWS_SECRET_ACCESS_KEY":                   "test",
	}
}

func (s *streams) inKinesis() []keyedFrame {
	s.kinesis.mu.Lock()
	defer s.kinesis.mu.Unlock()
	return s.kinesis.records
}

func (s *streams) inPubSub() []keyedFrame {
	var frames []keyedFrame
	for _, m := range s.pubsub.Messages() {
		frames = append(frames, keyedFrame{"", string(m.Data)})
	}
	return frames
}

// inKafka also checks that the partitions are those of Flagr's client.
func (s *streams) inKafka(t *testing.T, n int) []keyedFrame {
	t.Helper()
	var frames []keyedFrame
	for _, r := range kafkaRecords(t, s.kafka.ListenAddrs(), n) {
		hash := fnv.New32a()
		_, _ = hash.Write(r.Key)
		want := int32(hash.Sum32()) % kafkaPartitions
		if want = max(want, -want); r.Partition != want {
			t.Errorf("%s is on partition %d, want %d", r.Key, r.Partition, want)
		}
		frames = append(frames, keyedFrame{string(r.Key), string(r.Value)})
	}
	return frames
}

// recorderStatus is an entry of GET /recorders/status.
type recorderStatus struct {
	Name, State                           string
	Recorded, Delivered, Pending, Retried int64
	Dropped                               map[string]int64
}

// recorders returns the status of each streaming recorder by name, and checks that the statistics
// balance.
func recorders(t *testing.T, s *server) map[string]recorderStatus {
	t.Helper()
	byName := map[string]recorderStatus{}
	for _, r := range get[struct{ Recorders []recorderStatus }](t, s, "/recorders/status").Recorders {
		byName[r.Name] = r
		sum := r.Delivered + r.Pending
		for _, n := range r.Dropped {
			sum += n
		}
		if r.Recorded != sum {
			t.Errorf("the statistics of %s do not balance: %+v", r.Name, r)
		}
	}
	return byName
}

// evaluateMany evaluates a flag for the entities from..to, in batches and single requests, and
// returns the responses by entity.
func evaluateMany(t *testing.T, s *server, f flagAnswer, from, to int) map[string]string {
	t.Helper()
	const batch, single = 95, 5
	answers := map[string]string{}
	context := func(i int) object { return object{"n": i, "text": `"quoted" <&> é`} }
	add := func(raw json.RawMessage) {
		var answer struct{ EvalContext struct{ EntityID string } }
		decode(t, raw, &answer)
		var escaped bytes.Buffer
		json.HTMLEscape(&escaped, raw) // as in frames
		answers[answer.EvalContext.EntityID] = escaped.String()
	}
	for i := from; i < to; i += batch + single {
		var entities []object
		for n := range batch {
			entities = append(entities, object{"entityID": fmt.Sprintf("entity-%d", i+n), "entityContext": context(i + n)})
		}
		results := send[struct{ EvaluationResults []json.RawMessage }](t, s, http.MethodPost, "/evaluation/batch",
			object{"flagIDs": []int64{f.ID}, "entities": entities})
		for _, raw := range results.EvaluationResults {
			add(raw)
		}
		for n := range single {
			i := i + batch + n
			add(send[json.RawMessage](t, s, http.MethodPost, "/evaluation",
				object{"flagID": f.ID, "entityID": fmt.Sprintf("entity-%d", i), "entityContext": context(i)}))
		}
	}
	if len(answers) != to-from {
		t.Fatalf("%d responses to %d evaluations", len(answers), to-from)
	}
	return answers
}

// expose reports exposures for the entities from..to.
func expose(t *testing.T, s *server, f flagAnswer, from, to int) {
	t.Helper()
	for i := from; i < to; i += 100 {
		var rows []object
		for n := range 100 {
			rows = append(rows, object{"flagID": f.ID, "entityID": fmt.Sprintf("exposed-%d", i+n), "variantKey": "on"})
		}
		if got := send[object](t, s, http.MethodPost, "/exposures", object{"exposures": rows}); got["loggedCount"] != 100.0 {
			t.Fatalf("exposures: %v", got)
		}
	}
}

// checkFrames checks that a stream has the responses of the API, byte for byte, and the number of
// exposures. Kinesis and Pub/Sub may have records more than once, because records that are not
// confirmed in time on a busy machine are sent again.
func checkFrames(t *testing.T, stream string, frames []keyedFrame, answers map[string]string, exposures int) {
	t.Helper()
	if want := len(answers) + exposures; len(frames) < want || stream == "kafka" && len(frames) > want {
		t.Errorf("%s has %d frames, want %d", stream, len(frames), want)
	}
	evaluated, exposed := map[string]string{}, map[string]bool{}
	for _, f := range frames {
		var frame struct {
			Payload   *string
			Encrypted *bool
		}
		if err := json.Unmarshal([]byte(f.frame), &frame); err != nil || frame.Payload == nil || frame.Encrypted == nil || *frame.Encrypted {
			t.Fatalf("%s has the frame %s: %v", stream, f.frame, err)
		}
		var payload struct {
			RecordSource, VariantKey string
			SegmentID                int64
			EvalContext              struct{ EntityID string }
		}
		decode(t, []byte(*frame.Payload), &payload)
		id := payload.EvalContext.EntityID
		if f.key != "" && f.key != id {
			t.Fatalf("%s has the key %s for %s", stream, f.key, f.frame)
		}
		switch payload.RecordSource {
		case "evaluation":
			evaluated[id] = *frame.Payload
		case "exposure":
			exposed[id] = true
			if payload.SegmentID != 0 || payload.VariantKey != "on" {
				t.Fatalf("%s has the exposure %s", stream, f.frame)
			}
		default:
			t.Fatalf("%s has the frame %s", stream, f.frame)
		}
	}
	if diff := cmp.Diff(answers, evaluated); diff != "" {
		t.Errorf("%s, evaluations (-response +streamed):\n%.2000s", stream, diff)
	}
	if len(exposed) != exposures {
		t.Errorf("%s has exposures of %d entities, want %d", stream, len(exposed), exposures)
	}
}

func TestAllRecordersAtOnce(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		heavy.Lock()
		defer heavy.Unlock()
		const evaluations, exposures = 20_000, 1_000
		all := newStreams(t)
		s := start(t, db, db.fresh(t), all.environ())
		f := newFlag(t, s, "streamed")
		unrecorded := newFlag(t, s, "unrecorded")
		send[any](t, s, http.MethodPut, unrecorded.path(), object{"dataRecordsEnabled": false})
		awaitChanges(t, s)
		evaluate(t, s, unrecorded, "nobody", nil)

		answers := evaluateMany(t, s, f, 0, evaluations/2)
		expose(t, s, f, 0, exposures)
		maps.Copy(answers, evaluateMany(t, s, f, evaluations/2, evaluations))
		for _, name := range []string{"kafka", "kinesis", "pubsub"} {
			poll(t, name+" to have everything", func() bool { return recorders(t, s)[name].Delivered == evaluations+exposures })
			if r := recorders(t, s)[name]; r.State != "working" || r.Pending != 0 || len(r.Dropped) != 0 {
				t.Errorf("%+v", r)
			}
		}
		if r := recorders(t, s)["kinesis"]; r.Retried < evaluations/10 {
			t.Errorf("kinesis retried %d records, although the stream throttles every tenth record", r.Retried)
		}
		if got := counts(t, s, evaluations).total(f.ID); got != evaluations {
			t.Errorf("Datar counts %d, want %d", got, evaluations)
		}
		checkFrames(t, "kafka", all.inKafka(t, evaluations+exposures), answers, exposures)
		checkFrames(t, "kinesis", all.inKinesis(), answers, exposures)
		checkFrames(t, "pubsub", all.inPubSub(), answers, exposures)
	})
}

// The server must deliver the queued records when it stops, regardless of the time that records may
// be gathered.
func TestAStopDeliversWhatIsGathered(t *testing.T) {
	t.Parallel()
	db := databases[0] // the kind of database makes no difference to streams
	all := newStreams(t)
	s := start(t, db, db.fresh(t), all.environ().with(environ{
		"FLAGR_RECORDER_KAFKA_FLUSHFREQUENCY":   "1h",
		"FLAGR_RECORDER_KINESIS_FLUSH_INTERVAL": "1h",
	}))
	f := newFlag(t, s, "streamed")
	awaitChanges(t, s)
	answers := evaluateMany(t, s, f, 0, 100)
	s.stop(t, syscall.SIGTERM)
	checkFrames(t, "kafka", all.inKafka(t, 100), answers, 0)
	checkFrames(t, "kinesis", all.inKinesis(), answers, 0)
	checkFrames(t, "pubsub", all.inPubSub(), answers, 0)
}

// ended matches the last log line of a recorder.
var ended = regexp.MustCompile(`msg="recorder ended" recorder=kafka recorded=(\d+) delivered=(\d+) pending=0 dropped=.*queue_full:(\d+) undelivered:(\d+)`)

func TestKafkaStopsHalfWay(t *testing.T) {
	t.Parallel()
	db := databases[0] // the kind of database makes no difference to streams
	heavy.Lock()
	defer heavy.Unlock()
	const half, queue = 10_000, 3_000
	all := newStreams(t)
	dsn := db.fresh(t)
	// This server must exit with an error, which startIn does not allow.
	s := &server{process: launch(t, t.TempDir(), quick.with(db.environ(dsn)).with(all.environ()).with(environ{"FLAGR_RECORDER_QUEUE_RECORDS": strconv.Itoa(queue)})), client: newClient()}
	s.await(t)
	f := newFlag(t, s, "streamed")
	awaitChanges(t, s)

	// With a small queue, clients must not be faster than the brokers.
	answers := map[string]string{}
	evaluateSlowly := func(from, to int) {
		for i := from; i < to; i += 1000 {
			maps.Copy(answers, evaluateMany(t, s, f, i, i+1000))
			poll(t, "the working streams to follow", func() bool {
				now := recorders(t, s)
				return now["kinesis"].Pending == 0 && now["pubsub"].Pending == 0 && (i >= half || now["kafka"].Pending == 0)
			})
		}
	}
	evaluateSlowly(0, half)
	inKafka := all.inKafka(t, half)
	checkFrames(t, "kafka, before it stops", inKafka, answers, 0)
	all.kafka.Close()
	evaluateSlowly(half, 2*half)

	poll(t, "the outage to be noticed", func() bool { return recorders(t, s)["kafka"].State == "failing" })
	r := recorders(t, s)["kafka"]
	if r.Recorded != 2*half || r.Delivered != half || r.Pending != queue || r.Dropped["queue_full"] != half-queue {
		t.Errorf("kafka: %+v", r)
	}
	checkFrames(t, "kinesis", all.inKinesis(), answers, 0)
	checkFrames(t, "pubsub", all.inPubSub(), answers, 0)
	if got := counts(t, s, 2*half).total(f.ID); got != 2*half {
		t.Errorf("Datar counts %d, want %d", got, 2*half)
	}

	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(t); code != 1 {
		t.Errorf("exit code is %d, want 1: records were lost", code)
	}
	log := s.log.String()
	want := []string{strconv.Itoa(2 * half), strconv.Itoa(half), strconv.Itoa(half - queue), strconv.Itoa(queue)}
	if match := ended.FindStringSubmatch(log); match == nil || !cmp.Equal(match[1:], want) {
		t.Errorf("the log does not end with the losses of kafka, %v:\n%s", want, log)
	}
	if n := strings.Count(log, `keeps trying" recorder=kafka`); n != 1 {
		t.Errorf("the outage is logged %d times:\n%s", n, log)
	}
	if n := len(inKafka); n != half {
		t.Errorf("%d records are missing in kafka, %d were counted as lost", 2*half-n, half)
	}
}

func TestBrokersThatAreDownAtStartDoNotStopTheServer(t *testing.T) {
	t.Parallel()
	db := databases[0] // the kind of database makes no difference to streams
	all := newStreams(t)
	s := start(t, db, db.fresh(t), all.environ().with(environ{
		"FLAGR_RECORDER_KAFKA_BROKERS": "127.0.0.1:1",
		"AWS_ENDPOINT_URL_KINESIS":     "http://127.0.0.1:1",
		"PUBSUB_EMULATOR_HOST":         "127.0.0.1:1",
	}))
	names := []string{"kafka", "kinesis", "pubsub"}
	for _, name := range names { // nothing is recorded
		poll(t, "the outage of "+name+" to be noticed", func() bool { return recorders(t, s)[name].State == "failing" })
		poll(t, "the outage of "+name+" to be logged", func() bool { return strings.Contains(s.log.String(), `keeps trying" recorder=`+name) })
	}
	ready := get[struct {
		Status    string
		Recorders []struct{ Name, Status string }
	}](t, s, "/ready")
	failing := map[string]string{}
	for _, r := range ready.Recorders {
		failing[r.Name] = r.Status
	}
	want := map[string]string{"kafka": "failing", "kinesis": "failing", "pubsub": "failing", "datar": "OK"}
	if diff := cmp.Diff(want, failing); diff != "" || ready.Status != "degraded" {
		t.Errorf("status %s (-want +got):\n%s", ready.Status, diff)
	}
	if got := s.at(t, "/api/v1/health"); got.status != http.StatusOK {
		t.Errorf("health is %s", got)
	}
	for _, name := range names {
		if n := strings.Count(s.log.String(), `keeps trying" recorder=`+name); n != 1 {
			t.Errorf("the outage of %s is logged %d times:\n%s", name, n, s.log)
		}
	}
}

// The server must report reachable brokers as working before it records anything.
func TestBrokersThatAreThereAtStart(t *testing.T) {
	t.Parallel()
	db := databases[0] // the kind of database makes no difference to streams
	s := start(t, db, db.fresh(t), newStreams(t).environ())
	for _, name := range []string{"kafka", "kinesis", "pubsub"} {
		poll(t, name+" to be reached", func() bool { r := recorders(t, s)[name]; return r.State == "working" && r.Recorded == 0 })
	}
}

// Raw JSON is for streams without encryption. Kafka's records are encrypted here, and must not be
// sent as raw JSON.
func TestEncryptedAndRawFrames(t *testing.T) {
	t.Parallel()
	db := databases[0] // the kind of database makes no difference to streams
	all := newStreams(t)
	const key = "a key that is too short"
	s := start(t, db, db.fresh(t), all.environ().with(environ{
		"FLAGR_RECORDER_FRAME_OUTPUT_MODE":    "payload_raw_json",
		"FLAGR_RECORDER_KAFKA_ENCRYPTED":      "true",
		"FLAGR_RECORDER_KAFKA_ENCRYPTION_KEY": key,
	}))
	f := newFlag(t, s, "streamed")
	awaitChanges(t, s)
	answers := evaluateMany(t, s, f, 0, 100)
	s.stop(t, syscall.SIGTERM)

	// Decrypted, with the payload as a string, the frames have the form that checkFrames reads.
	nested := func(payload []byte) string {
		text, err := json.Marshal(string(payload))
		if err != nil {
			t.Fatal(err)
		}
		return `{"payload":` + string(text) + `,"encrypted":false}`
	}
	var opened, raw []keyedFrame
	for _, sealed := range all.inKafka(t, 100) {
		var frame struct {
			Payload   []byte // base64 in JSON
			Encrypted bool
		}
		decode(t, []byte(sealed.frame), &frame)
		var padded [32]byte
		copy(padded[:], key)
		payload, ok := secretbox.Open(nil, frame.Payload[24:], (*[24]byte)(frame.Payload), &padded)
		if !ok || !frame.Encrypted {
			t.Fatalf("cannot decrypt the frame: %s", sealed.frame)
		}
		opened = append(opened, keyedFrame{sealed.key, nested(payload)})
	}
	checkFrames(t, "kafka", opened, answers, 0)
	for _, stream := range [][]keyedFrame{all.inKinesis(), all.inPubSub()} {
		raw = nil
		for _, plain := range stream {
			payload, ok := strings.CutPrefix(strings.TrimSuffix(plain.frame, "}"), `{"payload":`)
			if !ok {
				t.Fatalf("frame is %s", plain.frame)
			}
			raw = append(raw, keyedFrame{plain.key, nested([]byte(payload))})
		}
		checkFrames(t, "a stream in raw JSON", raw, answers, 0)
	}
}
