package handler

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/nacl/secretbox"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/fastpath"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// memory is a transport that keeps the frames that arrive. While down is set, no frames arrive.
type memory struct {
	mu     sync.Mutex
	frames map[string][]string // by key
	down   bool
	hang   bool
}

func (m *memory) Send(ctx context.Context, batch []*recorder.Record) []error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.hang {
		<-ctx.Done()
	}
	if m.down || m.hang {
		return recorder.FailAll(len(batch), errors.New("down"))
	}
	for _, r := range batch {
		frame, err := r.Frame()
		if err != nil {
			return recorder.FailAll(len(batch), err)
		}
		if m.frames == nil {
			m.frames = map[string][]string{}
		}
		m.frames[r.Key()] = append(m.frames[r.Key()], string(frame))
	}
	return nil
}

func (m *memory) Close() error { return nil }

// streams returns DataRecorders with streaming recorders over these transports.
func streams(framing recorder.Framing, transports ...recorder.Transport) *DataRecorders {
	return streamsOf(framing, recorder.Options{BatchRecords: 10_000, BatchBytes: 8 << 20}, transports...)
}

func streamsOf(framing recorder.Framing, o recorder.Options, transports ...recorder.Transport) *DataRecorders {
	o.Logger = slog.New(slog.DiscardHandler)
	var streams []*StreamRecorder
	for i, transport := range transports {
		o.Name, o.Transport, o.Health = fmt.Sprint(i), transport, recorder.NewHealth(o.Logger)
		streams = append(streams, newStreamRecorder(QueueOptions{Bytes: o.MaxBytes}, o))
	}
	return NewDataRecorders(nil, streams, framing.RawJSON)
}

// collector is a source of flags that also keeps recorded results.
type collector struct {
	snapshot *eval.Snapshot
	recorded []*eval.Result
}

func (c *collector) Snapshot() *eval.Snapshot { return c.snapshot }
func (c *collector) AsyncRecord(r *eval.Result) {
	if r.Recorded() {
		c.recorded = append(c.recorded, new(*r))
	}
}

// kinds is the number of results.
const kinds = 7

// flags returns two flags with recorded evaluations.
func flags() *eval.Snapshot {
	variants := []entity.Variant{
		{Model: entity.Model{ID: 5}, Key: "on", Attachment: `{"color":"#fff","n":1.0,"text":"<&>\" é"}`},
		{Model: entity.Model{ID: 6}, Key: "off"},
	}
	segment := func(id, variant, rollout uint, constraints ...entity.Constraint) entity.Segment {
		return entity.Segment{
			Model: entity.Model{ID: id}, Rank: id, RolloutPercent: rollout, Constraints: constraints,
			Distributions: []entity.Distribution{{VariantID: variant, VariantKey: variants[variant-5].Key, Percent: 100}},
		}
	}
	return eval.Compile([]entity.Flag{
		{
			Model: entity.Model{ID: 1}, Key: "flag", SnapshotID: 7, Enabled: true, DataRecordsEnabled: true, Variants: variants,
			Tags: []entity.Tag{{Value: "web"}, {Value: "i o s"}},
			Segments: []entity.Segment{
				segment(3, 5, 100, entity.Constraint{Property: "country", Operator: "EQ", Value: `"FR"`}),
				segment(4, 6, 100, entity.Constraint{Property: "country", Operator: "EQ", Value: `"DE"`}),
			},
		},
		{
			Model: entity.Model{ID: 2}, Key: strings.Repeat("k", 63), SnapshotID: 8, Enabled: true, DataRecordsEnabled: true, EntityType: "user",
			Variants: variants, Segments: []entity.Segment{segment(9, 5, 0)},
		},
	})
}

// results returns results of every recorded kind, each for another entity.
func results(t testing.TB) []*eval.Result {
	t.Helper()
	c := &collector{snapshot: flags()}
	at := time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)
	service := eval.NewService(c, c, eval.Options{DebugEnabled: true, Now: func() time.Time { return at }})
	nested := map[string]any{
		"country": "FR", "age": json.Number("30"), "ratio": json.Number("1.50"), "big": json.Number("12345678901234567890"),
		"list": []any{"a", json.Number("1"), nil, true, map[string]any{}}, "text": "<&> \"quoted\" \\ 日本語 \u2028 \x00\n", "empty": "",
	}
	for _, r := range []eval.Request{
		{FlagID: 1, EntityID: "matched", EntityType: "user", EntityContext: nested, EnableDebug: true, FlagTags: []string{"t"}, FlagTagsOperator: "ANY"},
		{FlagKey: "flag", EntityID: "no attachment", EntityContext: map[string]any{"country": "DE"}},
		{FlagKey: "flag", EntityID: "no match", EntityContext: "not an object"},
		{FlagKey: "flag", EntityID: "text", EntityContext: &eval.Object{JSON: `{"a":"\"1\"","b":[1,2]}`}},
		{FlagID: 2, EntityID: strings.Repeat("not rolled out", 200)},
	} {
		_, _ = service.Evaluate(t.Context(), r)
	}
	exposures := []eval.Exposure{{FlagID: 1, EntityID: "exposure"}, {FlagKey: "flag", VariantID: 5, EntityID: "exposure of a variant", EntityContext: nested}}
	if n, refused, err := service.Expose(t.Context(), exposures); n != len(exposures) || err != nil {
		t.Fatal(refused, err)
	}
	if len(c.recorded) != kinds {
		t.Fatalf("%d results", len(c.recorded))
	}
	return c.recorded
}

// TestFramesAreThoseOfEncodingJSON compares Flagr's frames with the output of encoding/json for the
// generated model and these structures.
func TestFramesAreThoseOfEncodingJSON(t *testing.T) {
	t.Parallel()
	type text struct {
		Payload   string `json:"payload"`
		Encrypted bool   `json:"encrypted"`
	}
	type raw struct {
		Payload json.RawMessage `json:"payload"`
	}
	key := recorder.NewKey("a key")
	for name, tc := range map[string]struct {
		framing recorder.Framing
		sealed  bool
		want    func(payload []byte) any
	}{
		"text":                {recorder.Framing{}, false, func(p []byte) any { return text{Payload: string(p)} }},
		"raw JSON":            {recorder.Framing{RawJSON: true}, false, func(p []byte) any { return raw{p} }},
		"sealed":              {recorder.Framing{Sealed: true, Key: key}, true, nil},
		"sealed, raw JSON":    {recorder.Framing{Sealed: true, Key: key, RawJSON: true}, true, nil},
		"sealed only, no key": {recorder.Framing{Sealed: true, NoPlain: true}, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, r := range results(t) {
				payload, err := json.Marshal(evalResultModel(r))
				if err != nil {
					t.Fatal(err)
				}
				record := newRecord(r, &tc.framing)
				if !tc.sealed {
					want, err := json.Marshal(tc.want(payload))
					if err != nil {
						t.Fatal(err)
					}
					got, err := record.Frame()
					if diff := cmp.Diff(string(want), string(got)); diff != "" || err != nil {
						t.Errorf("%v (-want +got):\n%s", err, diff)
					}
					continue
				}
				got, err := record.SealedFrame()
				if err != nil {
					t.Fatal(err)
				}
				var frame text
				if err := json.Unmarshal(got, &frame); err != nil {
					t.Fatal(err)
				}
				again, err := json.Marshal(text{frame.Payload, true})
				if diff := cmp.Diff(string(again), string(got)); diff != "" || err != nil {
					t.Errorf("%v (-want +got):\n%s", err, diff)
				}
				box, err := base64.StdEncoding.DecodeString(frame.Payload)
				if err != nil || len(box) < 24 {
					t.Fatalf("payload is %s: %v", frame.Payload, err)
				}
				opened, ok := secretbox.Open(nil, box[24:], (*[24]byte)(box), &tc.framing.Key)
				if diff := cmp.Diff(string(payload), string(opened)); diff != "" || !ok {
					t.Errorf("opened %v (-want +got):\n%s", ok, diff)
				}
			}
		})
	}
}

// TestRecordsStayAsTheyWereRecorded reuses the memory of requests before their records are encoded,
// as the server does.
func TestRecordsStayAsTheyWereRecorded(t *testing.T) {
	t.Parallel()
	m := &memory{}
	all := streams(recorder.Framing{RawJSON: true}, m)
	service := eval.NewService(&collector{snapshot: flags()}, all, eval.Options{})
	h := fastpath.New(fastpath.Options{Evaluator: service}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request is not plain") }))
	answers := map[string]string{}
	for i := range 20 {
		body := fmt.Sprintf(`{"flagID":1,"entityID":"single-%[1]d","entityContext":{"country":"FR","i":%[1]d}}`, i)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/evaluation", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		rw := httptest.NewRecorder()
		h.ServeHTTP(rw, r)
		answers[fmt.Sprint("single-", i)] = strings.TrimSuffix(rw.Body.String(), "\n")

		body = fmt.Sprintf(`{"flagIDs":[1],"entities":[{"entityID":"first-%[1]d","entityContext":{"i":%[1]d}},{"entityID":"second-%[1]d"}]}`, i)
		r = httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/evaluation/batch", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		rw = httptest.NewRecorder()
		h.ServeHTTP(rw, r)
		var batch struct{ EvaluationResults []json.RawMessage }
		if err := json.Unmarshal(rw.Body.Bytes(), &batch); err != nil || len(batch.EvaluationResults) != 2 {
			t.Fatal(rw.Body, err)
		}
		answers[fmt.Sprint("first-", i)], answers[fmt.Sprint("second-", i)] = string(batch.EvaluationResults[0]), string(batch.EvaluationResults[1])
	}
	all.Start()
	if err := all.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(m.frames) != len(answers) {
		t.Errorf("%d records of %d evaluations", len(m.frames), len(answers))
	}
	for id, answer := range answers {
		answer = string(escapeHTML([]byte(answer)))
		if got := m.frames[id]; len(got) != 1 || got[0] != `{"payload":`+answer+`}` {
			t.Errorf("the record of %s is %q, the answer was %s", id, got, answer)
		}
	}
}

// TestRecordSizeCoversTheFrame checks that the estimate of a record's size is close, because the
// queue relies on it.
func TestRecordSizeCoversTheFrame(t *testing.T) {
	t.Parallel()
	for _, r := range results(t) {
		frame, err := newRecord(r, &recorder.Framing{}).Frame()
		if err != nil {
			t.Fatal(err)
		}
		if size := recordSize(r); size < len(frame) || size > 4*len(frame)+recordBytes {
			t.Errorf("size of %s is %d, its frame has %d bytes", r.Request.EntityID, size, len(frame))
		}
	}
}

func TestOneStreamThatIsDownOrHangsDoesNotHoldTheOthersBack(t *testing.T) {
	t.Parallel()
	works, down, hangs := &memory{}, &memory{down: true}, &memory{hang: true}
	all := streams(recorder.Framing{}, works, down, hangs)
	all.Start()
	for _, r := range slices.Repeat(results(t), 100) {
		all.AsyncRecord(r)
	}
	testwait.Until(t, "the stream that works", func() bool { return all.Stats()[0].Delivered == 100*kinds })
	testwait.Until(t, "the stream that is down", func() bool { return all.Statuses()[1].Failing })
	if all.Statuses()[0].Failing {
		t.Error("the stream that works is said to fail")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := all.Close(ctx)
	if err == nil || strings.Contains(err.Error(), "recorder 0") || !strings.Contains(err.Error(), "recorder 1: 700 records") || !strings.Contains(err.Error(), "recorder 2: 700 records") {
		t.Errorf("error is %v", err)
	}
	for i, want := range []uint64{0, 100 * kinds, 100 * kinds} {
		testwait.Until(t, "the end of all records", func() bool { return all.Stats()[i].Pending == 0 })
		if got := all.Stats()[i].Dropped[recorder.Undelivered]; got != want {
			t.Errorf("stream %d has dropped %d, want %d", i, got, want)
		}
	}
}

func TestDrainFlushesEachByItself(t *testing.T) {
	t.Parallel()
	works, hangs := &memory{}, &memory{hang: true}
	all := streams(recorder.Framing{}, works, hangs)
	all.Start()
	ctx, cancel := context.WithCancel(t.Context())
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		all.Drain(ctx, time.Millisecond)
	}()
	for i := range uint64(5) { // each must be delivered although the other recorder's flush never ends
		all.AsyncRecord(results(t)[0])
		testwait.Until(t, "the record to arrive", func() bool { return all.Stats()[0].Delivered == i+1 })
	}
	cancel()
	<-drained
	_ = all.Close(ctx) // it hangs, as intended
}

func TestFramesAreBuiltForThoseWhoAskOnly(t *testing.T) {
	t.Parallel()
	key := recorder.NewKey("k")
	plain, sealed := &StreamRecorder{}, &StreamRecorder{encryptionKey: &key}
	for _, tc := range []struct {
		streams         []*StreamRecorder
		noPlain, sealed bool
	}{
		{nil, true, false},
		{[]*StreamRecorder{plain}, false, false},
		{[]*StreamRecorder{sealed}, true, true},
		{[]*StreamRecorder{sealed, plain}, false, true},
		{[]*StreamRecorder{plain, plain}, false, false},
	} {
		f := NewDataRecorders(nil, tc.streams, false).framing
		if f.NoPlain != tc.noPlain || f.Sealed != tc.sealed || (f.Key == key) != tc.sealed {
			t.Errorf("%v: %+v", tc.streams, f)
		}
	}
}

// TestAFullQueueTakesAboutWhatItSays checks that the memory of a full queue is close to its limit,
// before and after records are encoded.
func TestAFullQueueTakesAboutWhatItSays(t *testing.T) {
	const bound = 16 << 20
	for _, tc := range []struct {
		name       string
		transports []recorder.Transport
	}{
		{"not encoded", []recorder.Transport{&memory{hang: true}}},
		{"encoded by another", []recorder.Transport{&memory{hang: true}, &nothing{}}},
	} {
		all := streamsOf(recorder.Framing{}, recorder.Options{BatchRecords: 100, BatchBytes: 8 << 20, MaxBytes: bound}, tc.transports...)
		service := eval.NewService(&collector{snapshot: flags()}, all, eval.Options{})
		before := heap()
		all.Start()
		for i := range 40_000 {
			_, _ = service.Evaluate(t.Context(), eval.Request{FlagID: 1, EntityID: fmt.Sprintf("user-%d", i), EntityContext: map[string]any{
				"country": fmt.Sprintf("FR%d", i), "age": json.Number(fmt.Sprint(i)), "tags": []any{fmt.Sprint(i), "b"}, "nested": map[string]any{"a": fmt.Sprint(i)},
			}})
		}
		for _, r := range all.streams[1:] { // their memory does not belong to the first one
			if err := r.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		}
		grown := heap() - before
		stats := all.Stats()[0]
		if stats.PendingBytes < bound*9/10 || stats.Dropped[recorder.QueueFull] == 0 {
			t.Errorf("%s: the queue is not full: %+v", tc.name, stats)
		}
		t.Logf("%s: %d records say %d bytes, and take %d", tc.name, stats.Pending, stats.PendingBytes, grown)
		if grown > bound*5/4 {
			t.Errorf("%s: %d records take %d bytes, the bound is %d", tc.name, stats.Pending, grown, bound)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = all.Close(ctx)
		runtime.KeepAlive(all)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkFanOut measures the additional cost of recording in the request's goroutine, and of
// encoding outside it.
func BenchmarkFanOut(b *testing.B) {
	r := results(b)[1]
	for _, tc := range []struct {
		name       string
		transports []recorder.Transport
	}{
		{"none", nil},
		{"one dead", []recorder.Transport{&memory{down: true}}},
		{"three dead", []recorder.Transport{&memory{down: true}, &memory{down: true}, &memory{down: true}}},
	} {
		b.Run("record/"+tc.name, func(b *testing.B) {
			all := streams(recorder.Framing{}, tc.transports...)
			all.Start()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					all.AsyncRecord(r)
				}
			})
			ctx, cancel := context.WithCancel(b.Context())
			cancel()
			_ = all.Close(ctx)
		})
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := newRecord(r, &recorder.Framing{}).Frame(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// nothing is a transport that accepts everything and builds frames like a real one.
type nothing struct{ memory }

func (*nothing) Send(_ context.Context, batch []*recorder.Record) []error {
	for _, r := range batch {
		if _, err := r.Frame(); err != nil {
			return recorder.FailAll(len(batch), err)
		}
	}
	return nil
}

// TestRecordsDoNotKeepConvertedContexts measures the memory of records that wait in a queue, which
// counts recordSize of each. Lists take 20 times the memory of their text once they are converted.
// It is not parallel, because HeapAlloc includes all goroutines.
func TestRecordsDoNotKeepConvertedContexts(t *testing.T) {
	const records, text = 50, 40_000
	list := "[" + strings.Repeat("1,", text/2) + "1]"
	snapshot := eval.Compile([]entity.Flag{{Model: entity.Model{ID: 1}, Enabled: true, Segments: []entity.Segment{{
		Model: entity.Model{ID: 1}, Constraints: []entity.Constraint{{Property: "x", Operator: "CONTAINS", Value: "2"}},
	}}}})
	inUse := func() int64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	before, counted := inUse(), int64(0)
	var queue []*recorder.Record
	for range records {
		var result eval.Result
		x := strings.Clone(list)
		context := &eval.Object{JSON: `{"x":` + x + `}`, Members: []eval.Member{{Name: "x", Value: x}}}
		snapshot.EvaluateInto(eval.Request{FlagID: 1, EntityID: "e", EntityContext: context}, time.Time{}, false, &result)
		queue = append(queue, newRecord(&result, &recorder.Framing{}))
		counted += int64(recordSize(&result))
	}
	if used := inUse() - before; used > counted+counted/4 {
		t.Errorf("%d records take %d bytes, and %d are counted", len(queue), used, counted)
	}
	runtime.KeepAlive(queue)
}

// TestRecordsKeepNothingOfRequests overwrites the memory of a request's strings, as the next
// request does.
func TestRecordsKeepNothingOfRequests(t *testing.T) {
	t.Parallel()
	body := []byte(`entity,user,flag,tag,ANY,{"country":"FR","name":"<n>"}`)
	texts := strings.SplitN(unsafe.String(&body[0], len(body)), ",", 6)
	tags := []string{texts[3]}
	object := &eval.Object{JSON: texts[5], Members: []eval.Member{{Name: texts[5][2:9], Value: texts[5][11:15]}, {Name: texts[5][17:21], Value: texts[5][23:28]}}}
	var records []*recorder.Record
	var want []string
	service := eval.NewService(&collector{snapshot: flags()}, recorderFunc(func(r *eval.Result) {
		want = append(want, string(escapeHTML(r.AppendJSON(nil))))
		records = append(records, newRecord(r, &recorder.Framing{RawJSON: true}))
	}), eval.Options{DebugEnabled: true})
	for _, debug := range []bool{false, true} {
		result, err := service.Evaluate(t.Context(), eval.Request{
			EntityID: texts[0], EntityType: texts[1], FlagKey: texts[2], FlagTags: tags, FlagTagsOperator: texts[4], EntityContext: object, EnableDebug: debug,
		})
		if err != nil || result.Reason != eval.Matched {
			t.Fatalf("%v, %v", result, err)
		}
	}
	clear(body)
	clear(tags)
	*object = eval.Object{}
	for i, record := range records {
		got, err := record.Frame()
		if diff := cmp.Diff(`{"payload":`+want[i]+`}`, string(got)); diff != "" || err != nil || record.Key() != "entity" {
			t.Errorf("key %q, %v (-want +got):\n%s", record.Key(), err, diff)
		}
	}
	if len(records) != 2 {
		t.Errorf("%d records", len(records))
	}
}

type recorderFunc func(*eval.Result)

func (f recorderFunc) AsyncRecord(r *eval.Result) { f(r) }
