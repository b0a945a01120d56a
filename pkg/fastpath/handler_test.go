package fastpath_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/go-openapi/loads"
	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
	"github.com/flagr-datar/flagr-datar/pkg/fastpath"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/pkg/web"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations"
)

// batchSize is the most that a batch may ask for.
const batchSize = 500

// fixture is two servers on the same flags, one with the fast path and one without. They have the
// same clock, make up the same entity ids, and note what they record. It is for one goroutine.
type fixture struct {
	fast, generated side
}

func clock() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 678, time.FixedZone("CET", 3600)) }

type side struct {
	http.Handler
	apiCalls int // of the generated code
	recorded []string
	made     int32 // entity ids
	snapshot *eval.Snapshot
}

func (s *side) Snapshot() *eval.Snapshot { return s.snapshot }

func (s *side) AsyncRecord(r *eval.Result) {
	if !r.Recorded() {
		return
	}
	s.recorded = append(s.recorded, fmt.Sprint(r.FlagID, r.SegmentID, r.VariantID, r.Request.EntityID, r.Timestamp))
}

func setup(t testing.TB, flags []entity.Flag) *fixture {
	t.Helper()
	snapshot := eval.Compile(flags)
	f := &fixture{fast: side{snapshot: snapshot}, generated: side{snapshot: snapshot}}
	compression, err := web.NewGzip()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*side{&f.fast, &f.generated} {
		service := eval.NewService(s, s, eval.Options{
			DebugEnabled: true,
			BatchSize:    batchSize,
			Now:          clock,
			Random:       func() int32 { s.made++; return s.made },
		})
		served := handler.New(handler.Options{Eval: service, Snapshots: s, Logger: slog.New(slog.DiscardHandler)})
		generated := web.NameRoutes("/api/v1", serve(t, served))
		s.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			s.apiCalls++
			generated.ServeHTTP(rw, r)
		})
		if s == &f.fast {
			s.Handler = fastpath.New(fastpath.Options{Evaluator: service, Refuse: served.Refuse, BasePath: "/api/v1", Compression: compression}, s.Handler)
		} else {
			s.Handler = compression.Wrap(s.Handler)
		}
	}
	return f
}

// answer is what a client sees, and Pattern, which those who count requests see.
type answer struct {
	Status      int
	ContentType string
	Encoding    string
	Vary        []string
	Connection  string
	RetryAfter  string
	Body        string // decoded
	Pattern     string
	Recorded    []string
}

// send sends a request both ways and compares. It returns the answer and whether the generated code
// was spared.
func (f *fixture) send(t testing.TB, request func() *http.Request) (answer, bool) {
	t.Helper()
	calls := f.fast.apiCalls
	var answers [2]answer
	for i, s := range []*side{&f.fast, &f.generated} {
		rw, r := httptest.NewRecorder(), request()
		s.ServeHTTP(rw, r)
		header := rw.Header()
		answers[i] = answer{rw.Code, header.Get("Content-Type"), header.Get("Content-Encoding"), header["Vary"], header.Get("Connection"), header.Get("Retry-After"), decoded(t, rw), r.Pattern, s.recorded}
		if length := rw.Header().Get("Content-Length"); length != "" && length != fmt.Sprint(rw.Body.Len()) {
			t.Errorf("Content-Length is %s, of %d", length, rw.Body.Len())
		}
		s.recorded = nil
	}
	if diff := cmp.Diff(answers[1], answers[0]); diff != "" {
		t.Errorf("answers differ (-generated +fast):\n%s", diff)
	}
	return answers[0], f.fast.apiCalls == calls
}

// decoded returns the body of a response as it was before it was compressed.
func decoded(t testing.TB, rw *httptest.ResponseRecorder) string {
	t.Helper()
	if rw.Header().Get("Content-Encoding") == "" {
		return rw.Body.String()
	}
	reader, err := gzip.NewReader(bytes.NewReader(rw.Body.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(reader)
	if err != nil {
		t.Error(err)
	}
	return string(body)
}

// post is send for a JSON body to a path under /api/v1.
func (f *fixture) post(t testing.TB, path, body string) (answer, bool) {
	t.Helper()
	return f.send(t, func() *http.Request {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		return r
	})
}

func goldenFile(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "integration_tests", "testdata", "golden", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func goldenFlags(t testing.TB) []entity.Flag {
	t.Helper()
	flags, _, err := evalcache.ParseDocument(goldenFile(t, "flags.json"))
	if err != nil {
		t.Fatal(err)
	}
	return flags
}

func TestGoldenRequestsTakeTheFastPath(t *testing.T) {
	t.Parallel()
	f := setup(t, goldenFlags(t))
	scanner := bufio.NewScanner(bytes.NewReader(goldenFile(t, "requests.jsonl")))
	n := 0
	for ; scanner.Scan(); n++ {
		line := scanner.Text()
		got, fast := f.post(t, "/evaluation", line)
		if got.Status != http.StatusOK || !fast {
			t.Fatalf("%s: fast is %v, answer %v", line, fast, got)
		}
		if n%10 != 0 {
			continue
		}
		var request map[string]json.RawMessage // and again in a batch
		if err := json.Unmarshal([]byte(line), &request); err != nil {
			t.Fatal(err)
		}
		flag := `"flagIDs":[` + string(request["flagID"]) + `]`
		if key := request["flagKey"]; key != nil {
			flag = `"flagKeys":[` + string(key) + `,"flag-26"]`
		}
		delete(request, "flagID")
		delete(request, "flagKey")
		delete(request, "enableDebug")
		who, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		batch := fmt.Sprintf(`{"entities":[%s, {},%s],%s,"flagTags":["web"]}`, who, who, flag)
		got, fast = f.post(t, "/evaluation/batch", batch)
		if got.Status != http.StatusOK || !fast {
			t.Fatalf("%s: fast is %v, answer %v", batch, fast, got)
		}
	}
	if err := scanner.Err(); err != nil || n != 3000 {
		t.Errorf("%d requests: %v", n, err)
	}
}

// TestCompression checks that each response is compressed once or not at all, like those of the
// generated code.
func TestCompression(t *testing.T) {
	t.Parallel()
	flag := benchmarkFlag()
	long := benchmarkFlag()
	long.ID, long.Key = 2, "long"
	for i := range long.Variants {
		long.Variants[i].Attachment = entity.Attachment(`{"text":"` + strings.Repeat("x", 20_000) + `"}`)
	}
	f := setup(t, []entity.Flag{flag, long})
	one := strings.TrimSuffix(benchmarkEntity, "}") + `,"flagKey":`
	for name, tc := range map[string]struct {
		path, body, encoding string
	}{
		"a short evaluation":         {"/evaluation", one + `"bench"}`, ""},
		"a long evaluation":          {"/evaluation", one + `"long"}`, "gzip"},
		"an evaluation that is odd":  {"/evaluation", one + `"long","odd":1}`, "gzip"},
		"an evaluation that is bad":  {"/evaluation", `{"flagID":"x"}`, ""},
		"a short batch":              {"/evaluation/batch", `{"entities":[` + benchmarkEntity + `],"flagKeys":["bench"]}`, ""},
		"a long batch":               {"/evaluation/batch", `{"entities":[` + benchmarkEntity + `],"flagKeys":["long"]}`, "gzip"},
		"a batch that is odd":        {"/evaluation/batch", `{"entities":[` + benchmarkEntity + `],"flagKeys":["long"],"odd":1}`, "gzip"},
		"a batch that is refused":    {"/evaluation/batch", `{"entities":[` + strings.Repeat(`{},`, batchSize) + `{}],"flagIDs":[1]}`, ""},
		"a request of another kind":  {"/flags", `{}`, ""},
		"a path that does not exist": {"/evaluation/none", `{}`, ""},
	} {
		for _, accepts := range []string{"", "gzip", "br"} {
			got, _ := f.send(t, func() *http.Request {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1"+tc.path, strings.NewReader(tc.body))
				r.Header.Set("Content-Type", "application/json")
				if accepts != "" {
					r.Header.Set("Accept-Encoding", accepts)
				}
				return r
			})
			want := tc.encoding
			if accepts != "gzip" {
				want = ""
			}
			if got.Encoding != want || !slices.Equal(got.Vary, []string{"Accept-Encoding"}) {
				t.Errorf("%s for a client that accepts %q: encoding %q, Vary %q", name, accepts, got.Encoding, got.Vary)
			}
		}
	}
}

// oddFlags have everything that is hard to write in JSON.
func oddFlags() []entity.Flag {
	everyone := func(id uint, constraints ...entity.Constraint) entity.Segment {
		return entity.Segment{Model: entity.Model{ID: id}, RolloutPercent: 100, Constraints: constraints, Distributions: []entity.Distribution{
			{VariantID: 1, Percent: 50}, {VariantID: 2, Percent: 50},
		}}
	}
	variants := func(attachments ...entity.Attachment) (v []entity.Variant) {
		for i, a := range attachments {
			v = append(v, entity.Variant{Model: entity.Model{ID: uint(i + 1)}, Key: fmt.Sprintf("<v>&\"%d\u2028", i), Attachment: a})
		}
		return v
	}
	return []entity.Flag{
		{
			Model: entity.Model{ID: 1}, Key: "on", Enabled: true, DataRecordsEnabled: true, SnapshotID: 7,
			Tags:     []entity.Tag{{Value: "<a>"}, {Value: "b \"c\" \\ \xff"}},
			Variants: variants("", `{"a":["<&>\u2029",null,true],"z":12345678901234567890}`),
			Segments: []entity.Segment{
				everyone(1, entity.Constraint{Property: "age", Operator: "GTE", Value: "18"}, entity.Constraint{Property: "tags", Operator: "CONTAINS", Value: `"vip"`}),
				everyone(2, entity.Constraint{Property: "a.b", Operator: "EQ", Value: `"\\"`}),
				everyone(3, entity.Constraint{Property: "name", Operator: "EQ", Value: `"x\"y"`}),
				everyone(4, entity.Constraint{Property: "ok", Operator: "EQ", Value: `true`}),
			},
		},
		{Model: entity.Model{ID: 2}, Key: "off", Tags: []entity.Tag{{Value: "t"}}},
		{Model: entity.Model{ID: 3}, Key: "empty", Enabled: true, Tags: []entity.Tag{{Value: "t"}, {Value: "u"}}},
		{
			Model: entity.Model{ID: 4}, Enabled: true, EntityType: "device\u0001", Tags: []entity.Tag{{Value: "u"}},
			Variants: variants("{}"), Segments: []entity.Segment{everyone(5)},
		},
	}
}

// plainCases must be answered by the fast path, oddCases by the generated code.
var plainCases = []struct{ path, body string }{
	{"/evaluation", `{}`},
	{"/evaluation", ` { } ` + "\r\n\t"},
	{"/evaluation", `{"flagID":1}`},
	{"/evaluation", `{"flagID":1,"entityID":"","entityType":"","flagKey":""}`},
	{"/evaluation", `{"flagID":99,"flagKey":"<nope>","entityID":"e&","enableDebug":false}`},
	{"/evaluation", `{"flagID":1,"entityID":"e","enableDebug":true,"entityContext":{"age":3,"ok":true}}`},
	{"/evaluation", `{"flagID":2,"entityID":"e","flagTags":["a","日本"],"flagTagsOperator":"ALL"}`},
	{"/evaluation", `{"flagKey":"empty","entityID":"e"}`},
	{"/evaluation", `{"flagKey":"4","entityType":"user","entityContext":null}`},
	{"/evaluation", `{"flagID":1,"entityID":"ünï","entityContext":{}}`},
	{"/evaluation", `{"flagID":1,"entityID":"e","entityContext":{ }}`},
	{"/evaluation", `{"flagID":1,"entityID":"e","entityContext":{"age":18,"tags":["vip"]}}`},
	{"/evaluation", `{"flagID":1,"entityID":"e","entityContext":{"tags": ["x", "vip"], "age": 18.0e0}}`},
	{"/evaluation", `{"flagID":1,"entityID":"e","entityContext":{"a":{"b":"\\","a":[]},"age":1e999,"z":-0,"y":0.10000000000000000001}}`},
	{"/evaluation", `{"flagID":1,"entityID":"e","entityContext":{"a":{"z":{},"b":"\\"}}}`},
	{"/evaluation", `{"flagID":1,"entityID":"e","entityContext":{"name":"x\"y","ok":true}}`},
	{"/evaluation", `{"flagID":1,"entityID":"e","entityContext":{"name":"\u003cx\n\u2028` + "\u2029" + `","ok":false,"n":null}}`},
	{"/evaluation", `{"flagID":1,"entityID":"e","entityContext":{"b":1,"a":2,"name":"` + "\xff" + `","c":[ ],"d":[1,"\ud800"],"":0}}`},
	{"/evaluation", `{"flagID":1,"entityID":"e","entityContext":{"o":{"b":1,"a":1},"p":{"a":1,"a":2},"ok":true}}`},
	{"/evaluation", `{"flagID":1,"entityID":"e","entityContext":{"0":0,"1":1,"2":2,"3":3,"4":4,"5":5,"6":6,"7":7,"8":8,"9":9,"age":20,"ok":true,"tags":["vip"]}}`},
	{"/evaluation/batch", `{"entities":[{}],"flagIDs":[1]}`},
	{"/evaluation/batch", `{"entities":[{"entityID":"a"},{"entityID":"b","entityType":"t","entityContext":{"ok":true}}],"flagIDs":[1,4,4,99],"flagKeys":["on","off","nope"]}`},
	{"/evaluation/batch", `{"entities":[{"entityContext":{"b":1,"ok": true}}],"flagTags":["t","u"],"enableDebug":true}`},
	{"/evaluation/batch", `{"entities":[{"entityContext":null}],"flagTags":["t","u"],"flagTagsOperator":"ALL"}`},
	{"/evaluation/batch", `{"entities":[{"entityID":"a"}]}`},
	{"/evaluation/batch", `{"entities":[{"entityID":"a"}],"flagTags":["none"]}`},
}

var oddCases = []struct{ path, body string }{
	{"/evaluation", ``},
	{"/evaluation", `null`},
	{"/evaluation", `[]`},
	{"/evaluation", `{`},
	{"/evaluation", `{}x`},
	{"/evaluation", `{}{}`},
	{"/evaluation", `{"flagID":1,}`},
	{"/evaluation", `{"flagID":0}`},
	{"/evaluation", `{"flagID":-1}`},
	{"/evaluation", `{"flagID":01}`},
	{"/evaluation", `{"flagID":1.0}`},
	{"/evaluation", `{"flagID":"1"}`},
	{"/evaluation", `{"flagID":9223372036854775807}`},
	{"/evaluation", `{"flagID":9223372036854775808}`},
	{"/evaluation", `{"flagID":1,"flagID":2}`},
	{"/evaluation", `{"flagid":1}`},
	{"/evaluation", `{"flagKey":1}`},
	{"/evaluation", `{"flagKey":null}`},
	{"/evaluation", `{"flagKey":"o\u006e"}`},
	{"/evaluation", `{"flagKey":"` + "\xff" + `"}`},
	{"/evaluation", `{"flagKey":"` + "\n" + `"}`},
	{"/evaluation", `{"entityID":"` + "\u2028" + `"}`},
	{"/evaluation", `{"entityID":"a`},
	{"/evaluation", `{"entityID":"a\`},
	{"/evaluation", `{"unknown":1}`},
	{"/evaluation", `{"enableDebug":"true"}`},
	{"/evaluation", `{"enableDebug":1}`},
	{"/evaluation", `{"flagTagsOperator":"any"}`},
	{"/evaluation", `{"flagTags":[]}`},
	{"/evaluation", `{"flagTags":[1]}`},
	{"/evaluation", `{"flagTags":"a"}`},
	{"/evaluation", `{"entityContext":"text"}`},
	{"/evaluation", `{"entityContext":[{}]}`},
	{"/evaluation", `{"entityContext":{"a":1,"a":2}}`},
	{"/evaluation", `{"entityContext":{"a":tru}}`},
	{"/evaluation", `{"entityContext":{"a":.5}}`},
	{"/evaluation", `{"entityContext":{"a":1.}}`},
	{"/evaluation", `{"entityContext":{"a":1e}}`},
	{"/evaluation", `{"entityContext":{"a":00}}`},
	{"/evaluation", `{"entityContext":{"a":"\x"}}`},
	{"/evaluation", `{"entityContext":{"a":["\x"]}}`},
	{"/evaluation", `{"entityContext":{"\u0061":1}}`},
	{"/evaluation", `{"entityContext":{"` + "\xff" + `":1}}`},
	{"/evaluation", `{"entityContext":{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}}`},
	{"/evaluation/batch", `{}`},
	{"/evaluation/batch", `{"entities":[]}`},
	{"/evaluation/batch", `{"entities":null}`},
	{"/evaluation/batch", `{"entities":[null],"flagIDs":[1]}`},
	{"/evaluation/batch", `{"entities":[{}],"flagIDs":[]}`},
	{"/evaluation/batch", `{"entities":[{}],"flagIDs":[1,0]}`},
	{"/evaluation/batch", `{"entities":[{}],"flagKeys":[""]}`},
	{"/evaluation/batch", `{"entities":[{}],"flagTags":["a",""]}`},
	{"/evaluation/batch", `{"entities":[{"flagID":1}],"flagIDs":[1]}`},
}

func TestPlainRequestsTakeTheFastPath(t *testing.T) {
	t.Parallel()
	f := setup(t, oddFlags())
	for _, test := range plainCases {
		if got, fast := f.post(t, test.path, test.body); !fast || got.Status != http.StatusOK {
			t.Errorf("%s: fast is %v, answer %v", test.body, fast, got)
		}
	}
}

// The generated code takes five times as long for a large batch.
func TestLargeBatchesTakeTheFastPath(t *testing.T) {
	t.Parallel()
	f := setup(t, oddFlags())
	body := `{"entities":[{"entityID":"` + strings.Repeat("e", 2<<20) + `"},{"entityContext":{"text":"` + strings.Repeat("x", 2<<20) + `"}}],"flagKeys":["unknown"]}`
	if got, fast := f.post(t, "/evaluation/batch", body); !fast || got.Status != http.StatusOK {
		t.Errorf("fast is %v, status %d", fast, got.Status)
	}
}

// A batch that is too large is not decoded a second time, which costs more than the first time.
func TestRejectedBatchesTakeTheFastPath(t *testing.T) {
	t.Parallel()
	f := setup(t, oddFlags())
	for name, body := range map[string]string{
		"too many evaluations": `{"entities":[` + strings.Repeat(`{},`, batchSize) + `{}],"flagIDs":[1]}`,
		"too long a response":  `{"entities":[{"entityID":"` + strings.Repeat("e", 900_000) + `"}],"flagKeys":["a"` + keys(100) + `]}`,
	} {
		t.Run(name, func(t *testing.T) {
			if got, fast := f.post(t, "/evaluation/batch", body); !fast || got.Status != http.StatusBadRequest {
				t.Errorf("fast is %v, answer %v", fast, got)
			}
		})
	}
}

// members returns n more members of a JSON object, sorted by name.
func members(n int) string {
	var list strings.Builder
	for i := range n {
		fmt.Fprintf(&list, `,"n%03d":%d`, i, i)
	}
	return list.String()
}

// keys returns n more keys of flags in a JSON list.
func keys(n int) string {
	var list strings.Builder
	for i := range n {
		fmt.Fprintf(&list, `,"unknown-%d"`, i)
	}
	return list.String()
}

// Entities are read in two ways: by the shape of the entity before them, and without it.
func TestEntitiesOfSimilarShapes(t *testing.T) {
	t.Parallel()
	f := setup(t, oddFlags())
	plain := []string{
		`{}`,
		`{"entityID":"a"}`,
		`{"entityID":"a","entityType":"t"}`,
		`{"entityType":"t","entityID":"b"}`,
		`{ "entityID" : "a" , "entityType" : "t" }`,
		`{"entityContext":null}`,
		`{"entityContext":{}}`,
		`{"entityContext":{"age":18}}`,
		`{"entityContext":{"age":19e0}}`,
		`{"entityContext":{"age":"x"}}`,
		`{"entityContext":{"age":"\u003c"}}`,
		`{"entityContext":{"age":[1, 2]}}`,
		`{"entityContext": {"age":18}}`,
		`{"entityContext":{"age": 18}}`,
		`{"entityContext":{"age":18 }}`,
		`{"entityContext":{"agee":18}}`,
		`{"entityContext":{"age":18,"ok":true}}`,
		`{"entityContext":{"ok":true,"age":18}}`,
		`{"entityContext":{"ok":"no","age":20}}`,
		`{"entityContext":{"ok":[{"b":1}],"tags":[1],"age":"\u003c"}}`,
		`{"entityContext": {"ok": false, "age": 20}}`,
		`{"entityContext": {"ok": true, "age": 21}, "entityID": "a"}`,
		`{"entityContext" : { "age" : 22 , "ok" : true } }`,
		`{"entityContext":{"age":18,"ok":false},"entityID":"a"}`,
		`{"entityID":"a","entityContext":{"age":18,"ok":null},"entityType":"t"}`,
		`{"entityID":"a","entityContext":{"age":{"a":1},"tags":["vip"]},"entityType":"t"}`,
		`{"entityID":"b","entityContext":{"age":{"b":1,"a":2},"tags":[]},"entityType":"t"}`,
		`{"entityID":"c","entityContext":{` + strings.Repeat(" ", 20) + `},"entityType":"t"}`,
		`{"entityContext":{"a":0` + members(100) + `}}`,
	}
	odd := []string{
		`null`,
		`{"entityID":1}`,
		`{"entityID":"a\n"}`,
		`{"entityID":"a","entityType":2}`,
		`{"entityID":"a","entityType":"t"`,
		`{"entityID":"a","entityType":"t"}}`,
		`{"entityID":"a","entityID":"b"}`,
		`{"entityID":"a","unknown":"b"}`,
		`{"entityContext":{"age":01}}`,
		`{"entityContext":{"age":18}`,
		`{"entityContext":{"age":18,"age":19}}`,
		`{"entityContext":{"ok":true,"age":18,"ok":true}}`,
		`{"entityContext":{"ok":true,"age":}}`,
		`{"entityContext":{"age":18,}}`,
		`{"entityContext":{"age":tru}}`,
		`{"entityContext":{"age":}}`,
		`{"entityContext":{"age":18},"entityContext":{"age":18}}`,
	}
	for _, first := range plain {
		for i, second := range slices.Concat(plain, odd) {
			body := `{"entities":[` + first + `,` + second + `,` + second + `,` + first + `],"flagIDs":[1]}`
			if got, fast := f.post(t, "/evaluation/batch", body); fast != (i < len(plain)) {
				t.Errorf("%s: fast is %v, answer %v", body, fast, got)
			}
		}
	}
}

// TestMixedBatches has many entities in different forms, whose contexts the fast path writes anew.
func TestMixedBatches(t *testing.T) {
	t.Parallel()
	f := setup(t, oddFlags())
	forms := []string{
		`{"entityContext":{"name":"x%d","age":%d}}`, `{"entityID": "%d", "entityContext": {"tags": [%d], "age": 18}}`, `{"entityContext":{"age":%d,"ok":%d}}`, `{"entityID":"%d","entityContext":{"z":%d}}`,
	}
	for n := range len(forms) + 1 {
		var entities []string
		for i := range batchSize {
			form := forms[(i/(1+n*n*n))%max(n, 1)] // each form for 1, 2, 9, 28 and 65 entities in a row
			entities = append(entities, fmt.Sprintf(form, i, i%40)+strings.Repeat(" ", i%7/6))
		}
		body := `{"entities":[` + strings.Join(entities, ",") + `],"flagIDs":[1]}`
		if got, fast := f.post(t, "/evaluation/batch", body); !fast || got.Status != http.StatusOK {
			t.Errorf("%d forms: fast is %v, answer %.1000v", n, fast, got)
		}
	}
}

func TestOddRequestsTakeTheGeneratedWay(t *testing.T) {
	t.Parallel()
	f := setup(t, oddFlags())
	for _, test := range oddCases {
		if got, fast := f.post(t, test.path, test.body); fast {
			t.Errorf("%s: the fast path answers %v", test.body, got)
		}
	}
}

// Results of requests that took the generated way have contexts of decoded JSON. Recorders encode
// those as well.
func TestDecodedContextsAreWrittenAlike(t *testing.T) {
	t.Parallel()
	f := setup(t, oddFlags())
	for _, body := range []string{
		`{}`,
		`{"flagID":1,"entityID":"e","enableDebug":true,"entityContext":{"b":"<&>","age":20.0,"tags":["vip"],"n":null}}`,
		`{"flagID":1,"entityID":"\"\u2028\ud800","entityType":"\n","entityContext":"text"}`,
		`{"flagID":4,"entityID":"e","entityContext":[1,{"z":1,"a":"\u003c"}],"flagTags":["a",""],"flagTagsOperator":"ANY"}`,
		`{"flagKey":"nope","entityContext":false}`,
	} {
		want, fast := f.post(t, "/evaluation", body)
		decoder := json.NewDecoder(strings.NewReader(body))
		decoder.UseNumber()
		var m models.EvalContext
		if err := decoder.Decode(&m); err != nil {
			t.Fatal(err)
		}
		request := eval.Request{
			FlagID: m.FlagID, FlagKey: m.FlagKey, EntityID: m.EntityID, EntityType: m.EntityType, EntityContext: m.EntityContext,
			EnableDebug: m.EnableDebug, FlagTags: m.FlagTags,
		}
		if m.FlagTagsOperator != nil {
			request.FlagTagsOperator = *m.FlagTagsOperator
		}
		got := f.fast.snapshot.Evaluate(request, clock(), request.EnableDebug).AppendJSON(nil)
		if diff := cmp.Diff(want.Body, string(got)+"\n"); diff != "" {
			t.Errorf("%s, fast %v (-want +got):\n%s", body, fast, diff)
		}
	}
}

// The memory for the beginning of a long body was used by earlier requests, and has any length.
func TestLongBodies(t *testing.T) {
	t.Parallel()
	f := setup(t, oddFlags())
	for _, length := range []int{10_000, 16_384, 16_385, 100_000, 20_000, 300_000, 70_000, 1_000_000, 200_000} {
		body := `{"entities":[{"entityID":"` + strings.Repeat("e", length) + `"}],"flagIDs":[1]}`
		if got, fast := f.post(t, "/evaluation/batch", body); !fast || got.Status != http.StatusOK {
			t.Errorf("%d bytes: fast is %v, answer %v", length, fast, got)
		}
	}
}

// Bodies of more than a megabyte are answered as the generated code does.
func TestLongCases(t *testing.T) {
	t.Parallel()
	f := setup(t, oddFlags())
	space := strings.Repeat(" ", 1<<20)
	for want, cases := range map[bool][]struct{ path, body string }{true: plainCases, false: oddCases} {
		for _, test := range cases {
			if got, fast := f.post(t, test.path, space+test.body); fast != want {
				t.Errorf("%s: fast is %v, answer %v", test.body, fast, got)
			}
		}
	}
}

// TestBatchesReuseMemory measures what the median of batches allocates: far less than its decoded
// entities. It is not parallel, because TotalAlloc includes all goroutines.
func TestBatchesReuseMemory(t *testing.T) {
	f := setup(t, []entity.Flag{benchmarkFlag()})
	const entities, batches = 500, 40
	body := `{"entities":[` + strings.Repeat(benchmarkEntity+",", entities-1) + benchmarkEntity + `],"flagKeys":["unknown"]}`
	serve := func() {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/evaluation/batch", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		f.fast.ServeHTTP(discard{http.Header{}}, r)
	}
	serve()
	allocated := make([]int, batches) // by each: the race detector drops a part of pooled memory
	for i := range allocated {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		serve()
		runtime.ReadMemStats(&after)
		allocated[i] = int(after.TotalAlloc - before.TotalAlloc)
	}
	slices.Sort(allocated)
	if median := allocated[batches/2]; median > 2*len(body) {
		t.Errorf("a batch of %d bytes allocates %d bytes", len(body), median)
	}
}

// TestMemoryOfBatchesThatAreNotPlain measures what is in memory while the API decodes the entities
// again, which takes far more than their text. It is not parallel, because HeapAlloc includes all
// goroutines.
func TestMemoryOfBatchesThatAreNotPlain(t *testing.T) {
	heap := func() int {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int(stats.HeapAlloc)
	}
	during := 0
	h := fastpath.New(fastpath.Options{BasePath: "/api/v1"}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { during = heap() }))
	text := `{"entities":[` + strings.Repeat(`{"entityContext":{"a":1}},`, 100_000) + `{}],"flagIDs":[1],"x":1}`
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/evaluation/batch", strings.NewReader(text))
	r.Header.Set("Content-Type", "application/json")
	before := heap()
	h.ServeHTTP(httptest.NewRecorder(), r)
	if took := during - before; during == 0 || took > len(text)*3/2 {
		t.Errorf("%d bytes are in memory for a body of %d", took, len(text))
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	f := setup(t, oddFlags())
	const body = `{"flagID":4,"entityID":"e"}`
	for _, test := range []struct {
		name string
		edit func(r *http.Request)
		fast bool
	}{
		{"none", func(*http.Request) {}, true},
		{"charset", func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") }, true},
		{"anything accepted", func(r *http.Request) { r.Header.Set("Accept", "*/*") }, true},
		{"query", func(r *http.Request) { r.URL.RawQuery = "json={}" }, true},
		{"GET", func(r *http.Request) { r.Method = http.MethodGet }, false},
		{"other path", func(r *http.Request) { r.URL.Path += "/" }, false},
		{"escaped path", func(r *http.Request) { r.URL.RawPath = "/api/v1/evaluatio%6e" }, false},
		{"no type", func(r *http.Request) { r.Header.Del("Content-Type") }, false},
		{"other type", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, false},
		{"two types", func(r *http.Request) { r.Header.Add("Content-Type", "application/json") }, false},
		{"other charset", func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=latin1") }, false},
		{"unacceptable", func(r *http.Request) { r.Header.Set("Accept", "text/html") }, false},
		{"unknown length", func(r *http.Request) { r.ContentLength = -1 }, false},
		{"no body", func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 }, false},
		{"shorter than announced", func(r *http.Request) { r.ContentLength++ }, false},
		{"broken off", func(r *http.Request) {
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader(body[:5]), iotest.ErrReader(errors.New("reset"))))
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) { // in turn, as the fixture is for one goroutine
			_, fast := f.send(t, func() *http.Request {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/evaluation", strings.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				test.edit(r)
				return r
			})
			if fast != test.fast {
				t.Errorf("fast is %v", fast)
			}
		})
	}
}

// A client that disconnects gets what the generated code answers. The fast path answers if the JSON
// is cut off.
func TestBodiesThatAreCutOff(t *testing.T) {
	t.Parallel()
	f := setup(t, oddFlags())
	long := `{"flagID":4,"entityID":"` + strings.Repeat("e", 40_000) + `"}`
	for _, path := range []string{"/evaluation", "/evaluation/batch"} {
		for _, test := range []struct {
			body string
			fast bool
		}{
			{`{`, true},
			{` {"flagID": `, true},
			{`{"flagID":4,"entityID":"e`, true},
			{`{"unknown":[`, true},
			{long[:20_000], true},
			{long, false},
			{`{"flagID":4}`, false},
			{`{"flagID":4} x`, false},
			{`{x`, false},
			{``, false},
			{`[`, true},
			{`nul`, true},
		} {
			_, fast := f.send(t, func() *http.Request {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1"+path,
					io.MultiReader(strings.NewReader(test.body), iotest.ErrReader(io.ErrUnexpectedEOF)))
				r.Header.Set("Content-Type", "application/json")
				r.ContentLength = 50_000
				return r
			})
			if fast != test.fast {
				t.Errorf("%s, %.30s: fast is %v", path, test.body, fast)
			}
		}
	}
}

// A body that ends because other requests use the memory is not decoded. The generated code answers
// alike.
func TestBodiesWithoutMemory(t *testing.T) {
	t.Parallel()
	f := setup(t, oddFlags())
	for _, path := range []string{"/evaluation", "/evaluation/batch"} {
		for _, read := range []string{``, `{"entities":[{"entityID":"e`, `{"entityContext":{"a":"` + strings.Repeat("x", 300_000)} {
			got, fast := f.send(t, func() *http.Request {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1"+path, io.MultiReader(strings.NewReader(read), iotest.ErrReader(budget.ErrExhausted)))
				r.Header.Set("Content-Type", "application/json")
				r.ContentLength = 500_000
				return r
			})
			if !fast || got.Status != http.StatusServiceUnavailable {
				t.Errorf("%s, %.30s: fast is %v, answer %v", path, read, fast, got)
			}
		}
	}
}

// copier is a recorder that copies the strings of requests, and keeps them against the rules, too.
type copier struct {
	mu           sync.Mutex
	kept, copies []string
}

func (c *copier) AsyncRecord(r *eval.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	texts := []string{r.Request.EntityID}
	if context, ok := r.Request.EntityContext.(*eval.Object); ok {
		texts = append(texts, context.JSON)
	}
	for _, text := range texts {
		c.kept, c.copies = append(c.kept, text), append(c.copies, strings.Clone(text))
	}
}

// Requests reuse memory. Each recorder sees its own request during a call, and nothing of it
// afterward.
func TestMemoryOfBodiesIsReused(t *testing.T) {
	t.Parallel()
	flag := benchmarkFlag()
	flag.DataRecordsEnabled = true
	var c copier
	api := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s is not plain", r.URL) })
	service := eval.NewService(&side{snapshot: eval.Compile([]entity.Flag{flag})}, &c, eval.Options{})
	h := fastpath.New(fastpath.Options{Evaluator: service, BasePath: "/api/v1"}, api)
	const clients, requests = 4, 25
	var group sync.WaitGroup
	var want []string
	for client := range clients {
		for i := range requests {
			id := fmt.Sprintf("%d-%d", client, i)
			want = append(want, "s"+id, fmt.Sprintf(`{"age":%d,"id":"s%s"}`, i, id), "b"+id, fmt.Sprintf(`{"id":"b%s"}`, id), "c"+id)
		}
		group.Go(func() {
			for i := range requests {
				id := fmt.Sprintf("%d-%d", client, i)
				single := fmt.Sprintf(`{"flagKey":"bench","entityID":"s%[1]s","entityContext":{"age":%[2]d,"id":"s%[1]s"}}`, id, i)
				batch := fmt.Sprintf(`{"flagKeys":["bench"],"entities":[{"entityID":"b%[1]s","entityContext":{"id":"b%[1]s"}},{"entityID":"c%[1]s"}]}`, id)
				for path, body := range map[string]string{"/api/v1/evaluation": single, "/api/v1/evaluation/batch": batch} {
					r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
					r.Header.Set("Content-Type", "application/json")
					h.ServeHTTP(httptest.NewRecorder(), r)
				}
			}
		})
	}
	group.Wait()
	slices.Sort(want)
	for i, kept := range c.kept {
		if kept == c.copies[i] {
			t.Errorf("the memory of %s is still there", kept)
		}
	}
	slices.Sort(c.copies)
	if diff := cmp.Diff(want, c.copies); diff != "" {
		t.Errorf("(-want +recorded):\n%s", diff)
	}
}

// parted notes the longest part of a response.
type parted struct {
	*httptest.ResponseRecorder
	longest int
}

func (p *parted) Write(b []byte) (int, error) {
	p.longest = max(p.longest, len(b))
	return p.ResponseRecorder.Write(b)
}

// A response with a long attachment is the same as from the generated code, and a client that reads
// it slowly holds a part.
func TestLongAttachmentsAreSentInParts(t *testing.T) {
	t.Parallel()
	flag := benchmarkFlag()
	flag.Segments = flag.Segments[:1]
	flag.Segments[0].Constraints = nil
	for i := range flag.Variants {
		flag.Variants[i].Attachment = entity.Attachment(`{"text":"` + strings.Repeat("x", 3<<20) + `"}`)
	}
	f := setup(t, []entity.Flag{flag})
	for path, body := range map[string]string{
		"/evaluation":       `{"flagKey":"bench","entityID":"e"}`,
		"/evaluation/batch": `{"flagKeys":["bench"],"entities":[{"entityID":"e"},{"entityID":"f"}]}`,
	} {
		if got, fast := f.post(t, path, body); got.Status != http.StatusOK || !fast {
			t.Errorf("%s: fast is %v, status %d", path, fast, got.Status)
		}
		for name, h := range map[string]http.Handler{"fast": f.fast, "generated": f.generated} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1"+path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			rw := &parted{ResponseRecorder: httptest.NewRecorder()}
			h.ServeHTTP(rw, r)
			text := rw.Body.Bytes()
			if !json.Valid(text) || len(text) < 3<<20 || text[len(text)-1] != '\n' || rw.longest > 2*eval.MaxBatchBuffer {
				t.Errorf("%s, %s: %d bytes, of which %d at once", path, name, len(text), rw.longest)
			}
			if length := rw.Header().Get("Content-Length"); length != "" && length != fmt.Sprint(len(text)) {
				t.Errorf("%s, %s: Content-Length %s of %d bytes", path, name, length, len(text))
			}
		}
	}
}

// serve returns the generated API with a handler.
func serve(t testing.TB, served *handler.Handler) http.Handler {
	t.Helper()
	spec, err := loads.Embedded(restapi.SwaggerJSON, restapi.FlatSwaggerJSON)
	if err != nil {
		t.Fatal(err)
	}
	api := operations.NewFlagrAPI(spec)
	served.Register(api)
	return api.Serve(nil)
}

// Responses to batches that are being sent take memory. Without it, a large batch is refused and
// nothing is evaluated.
func TestMemoryOfBatches(t *testing.T) {
	t.Parallel()
	const total = 1 << 20
	flag := benchmarkFlag()
	flag.DataRecordsEnabled = true
	s := &side{snapshot: eval.Compile([]entity.Flag{flag})}
	service := eval.NewService(s, s, eval.Options{})
	answers := budget.NewMemory(total)
	served := handler.New(handler.Options{Eval: service, Snapshots: s, BatchMemory: answers, Logger: slog.New(slog.DiscardHandler)})
	generated := serve(t, served)
	fast := fastpath.New(fastpath.Options{Evaluator: service, Refuse: served.Refuse, BasePath: "/api/v1", BatchMemory: answers}, generated)
	large := `{"flagKeys":["bench"],"entities":[{"entityID":"e"}` + strings.Repeat(`,{"entityID":"f"}`, 2000) + `]}`
	small := `{"flagKeys":["bench"],"entities":[{"entityID":"e"}]}`
	for name, h := range map[string]http.Handler{"fast": fast, "generated": generated} {
		post := func(body string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/evaluation/batch", strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			rw := httptest.NewRecorder()
			h.ServeHTTP(rw, r)
			return rw
		}
		if rw := post(large); rw.Code != http.StatusOK {
			t.Errorf("%s, with memory: %d %.200s", name, rw.Code, rw.Body)
		}
		if err := answers.Take(total); err != nil { // all was returned
			t.Fatalf("%s: %v", name, err)
		}
		recorded := len(s.recorded)
		if rw := post(large); rw.Code != http.StatusServiceUnavailable || rw.Header().Get("Retry-After") == "" || len(s.recorded) != recorded {
			t.Errorf("%s, without memory: %d, Retry-After %q, %d evaluated", name, rw.Code, rw.Header().Get("Retry-After"), len(s.recorded)-recorded)
		}
		if rw := post(small); rw.Code != http.StatusOK {
			t.Errorf("%s, a small batch: %d", name, rw.Code)
		}
		answers.Release(total)
	}
}

// Batches of many evaluations take turns, also if their bodies are small.
func TestBatchesOfManyEvaluationsTakeTurns(t *testing.T) {
	t.Parallel()
	flags := &side{snapshot: eval.Compile([]entity.Flag{benchmarkFlag()})}
	service := eval.NewService(flags, nil, eval.Options{})
	turns := budget.NewTurns(1)
	served := handler.New(handler.Options{Eval: service, Snapshots: flags, Turns: turns, Logger: slog.New(slog.DiscardHandler)})
	generated := serve(t, served)
	fast := fastpath.New(fastpath.Options{Evaluator: service, Refuse: served.Refuse, BasePath: "/api/v1", Turns: turns}, http.NotFoundHandler())
	entities := func(n int) string { return `"entities":[{"entityID":"e"}` + strings.Repeat(`,{}`, n-1) + `]` }
	ids := `"flagIDs":[1` + strings.Repeat(`,2`, 200) + `]`
	const disconnected = 499
	for name, c := range map[string]struct {
		body string
		want int
	}{
		"few":           {`{"flagKeys":["bench"],` + entities(2) + `}`, http.StatusOK},
		"many entities": {`{"flagKeys":["bench"],` + entities(3000) + `}`, disconnected},
		"many flags":    {`{` + ids + `,` + entities(6) + `}`, disconnected},
		"tags":          {`{"flagTags":["a"],` + entities(1) + `}`, disconnected},
		"debug":         {`{"flagKeys":["bench"],"enableDebug":true,` + entities(1) + `}`, disconnected},
	} {
		for path, h := range map[string]http.Handler{"fast": fast, "generated": generated} {
			if path == "generated" && budget.Weight(c.body) > budget.LargeBytes {
				continue // it waits to be decoded, regardless of its client
			}
			post := func(ctx context.Context) int {
				r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/api/v1/evaluation/batch", strings.NewReader(c.body))
				r.Header.Set("Content-Type", "application/json")
				rw := httptest.NewRecorder()
				h.ServeHTTP(rw, r)
				return rw.Code
			}
			if status := post(t.Context()); status != http.StatusOK || len(c.body) > budget.LargeBytes {
				t.Errorf("%s, %s, %d bytes: %d", path, name, len(c.body), status)
			}
			if err := turns.Take(t.Context()); err != nil { // all were returned
				t.Fatal(err)
			}
			gone, cancel := context.WithCancel(t.Context())
			if c.want != http.StatusOK {
				time.AfterFunc(10*time.Millisecond, cancel)
			}
			if status := post(gone); status != c.want {
				t.Errorf("%s, %s, without a turn: %d, want %d", path, name, status, c.want)
			}
			cancel()
			turns.Release()
		}
	}
}

// TestLongEvaluationsTakeTurns checks which single evaluations wait for a turn although their
// bodies are small.
func TestLongEvaluationsTakeTurns(t *testing.T) {
	t.Parallel()
	turns := budget.NewTurns(1)
	flags := &side{snapshot: eval.Compile([]entity.Flag{benchmarkFlag()})}
	service := eval.NewService(flags, nil, eval.Options{})
	refuse := func(rw http.ResponseWriter, _ *http.Request, _ error) { rw.WriteHeader(http.StatusServiceUnavailable) }
	fast := fastpath.New(fastpath.Options{Evaluator: service, Refuse: refuse, BasePath: "/api/v1", Turns: turns}, http.NotFoundHandler())
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		body  string
		waits bool
	}{
		"plain":       {`{"flagKey":"bench"}`, false},
		"long text":   {`{"flagKey":"bench","entityContext":{"a":"` + strings.Repeat("x", budget.LargeBytes/2) + `"}}`, false},
		"many values": {`{"flagKey":"bench","entityContext":{"a":[1` + strings.Repeat(",1", 5000) + `]}}`, true},
		"debug":       {`{"flagKey":"bench","enableDebug":true}`, true},
	} {
		post := func(ctx context.Context) int {
			r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/api/v1/evaluation", strings.NewReader(c.body))
			r.Header.Set("Content-Type", "application/json")
			rw := httptest.NewRecorder()
			fast.ServeHTTP(rw, r)
			return rw.Code
		}
		if status := post(t.Context()); status != http.StatusOK || len(c.body) > budget.LargeBytes {
			t.Errorf("%s, %d bytes: %d", name, len(c.body), status)
		}
		if err := turns.Take(t.Context()); err != nil { // it was returned
			t.Fatal(err)
		}
		if refused := post(gone) != http.StatusOK; refused != c.waits {
			t.Errorf("%s: waits: %t, want %t", name, refused, c.waits)
		}
		turns.Release()
	}
}

// TestLogsReserveMemory checks that debug logs are refused, before an evaluation, if there is no
// memory for them, and that their memory is returned.
func TestLogsReserveMemory(t *testing.T) {
	t.Parallel()
	f := benchmarkFlag()
	for range 6 {
		f.Segments = append(f.Segments, f.Segments...)
	}
	flags := &side{snapshot: eval.Compile([]entity.Flag{f})}
	service := eval.NewService(flags, nil, eval.Options{DebugEnabled: true})
	for size, want := range map[int64]int{1 << 20: http.StatusOK, 60 << 10: http.StatusServiceUnavailable} {
		memory := budget.NewMemory(size)
		served := handler.New(handler.Options{Eval: service, Snapshots: flags, BatchMemory: memory, Logger: slog.New(slog.DiscardHandler)})
		fast := fastpath.New(fastpath.Options{Evaluator: service, Refuse: served.Refuse, BasePath: "/api/v1", BatchMemory: memory}, http.NotFoundHandler())
		for name, h := range map[string]http.Handler{"fast": fast, "generated": serve(t, served)} {
			post := func(path, body string) int {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/evaluation"+path, strings.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				rw := httptest.NewRecorder()
				h.ServeHTTP(rw, r)
				if rw.Code == http.StatusServiceUnavailable && rw.Header().Get("Retry-After") == "" {
					t.Errorf("%s: no Retry-After", name)
				}
				return rw.Code
			}
			for range 3 { // each returns its memory
				if got := post("", `{"flagKey":"bench","enableDebug":true}`); got != want {
					t.Errorf("%s, %d bytes: %d, want %d", name, size, got, want)
				}
				if got := post("/batch", `{"flagKeys":["bench"],"entities":[{}],"enableDebug":true}`); got != want {
					t.Errorf("%s, %d bytes, batch: %d, want %d", name, size, got, want)
				}
			}
			if got := post("", `{"flagKey":"bench"}`); got != http.StatusOK {
				t.Errorf("%s, without logs: %d", name, got)
			}
		}
		if memory.Take(size) != nil {
			t.Error("memory was not returned")
		}
	}
}

// FuzzLikeGenerated looks for a request that the two ways answer differently.
func FuzzLikeGenerated(f *testing.F) {
	for _, test := range plainCases {
		f.Add(test.path == "/evaluation/batch", test.body)
	}
	for _, test := range oddCases {
		f.Add(test.path == "/evaluation/batch", test.body)
	}
	f.Add(true, `{"entities":[{"entityID":"a","entityContext":{"age":18,"ok":true},"entityType":"t"},{"entityID":"b","entityContext":{"age":"","ok":[]},"entityType":""}],"flagIDs":[1]}`)
	fixture := setup(f, oddFlags())
	f.Fuzz(func(t *testing.T, batch bool, body string) {
		path := "/evaluation"
		if batch {
			path += "/batch"
		}
		fixture.post(t, path, body)
	})
}

// slowReader is a client that reads nothing until it may.
type slowReader struct {
	http.ResponseWriter
	may     <-chan struct{}
	waiting chan<- struct{}
}

func (s slowReader) Write(p []byte) (int, error) {
	s.waiting <- struct{}{}
	<-s.may
	return s.ResponseWriter.Write(p)
}

// Large requests are worked at in turn. Small ones need none, a client that reads slowly has none,
// and one that leaves waits no longer.
func TestLargeRequestsTakeTurns(t *testing.T) {
	t.Parallel()
	api := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s is not plain", r.URL) })
	flag := benchmarkFlag()
	service := eval.NewService(&side{snapshot: eval.Compile([]entity.Flag{flag})}, nil, eval.Options{})
	small := `{"flagKey":"bench","entityID":"e"}`
	large := `{"flagKey":"bench","entityID":"e","entityContext":{"text":"` + strings.Repeat("x", budget.LargeBytes) + `"}}`
	// Its answer is sent in parts.
	batch := `{"flagKeys":["bench"],"entities":[` + strings.Repeat(`{"entityID":"`+strings.Repeat("e", 1000)+`"},`, 900) + `{"entityID":"e"}]}`
	synctest.Test(t, func(t *testing.T) {
		turns := budget.NewTurns(1)
		refuse := func(rw http.ResponseWriter, r *http.Request, err error) {
			if !errors.Is(err, context.Canceled) || r.Pattern != "/api/v1/evaluation" {
				t.Errorf("%s is refused with %v", r.Pattern, err)
			}
			rw.WriteHeader(499)
		}
		h := fastpath.New(fastpath.Options{Evaluator: service, Refuse: refuse, BasePath: "/api/v1", Turns: turns}, api)
		send := func(ctx context.Context, rw http.ResponseWriter, path, body string) <-chan struct{} {
			done := make(chan struct{})
			r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/api/v1"+path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			go func() {
				defer close(done)
				h.ServeHTTP(rw, r)
			}()
			synctest.Wait()
			return done
		}
		ended := func(done <-chan struct{}) bool {
			synctest.Wait()
			select {
			case <-done:
				return true
			default:
				return false
			}
		}

		may, waiting := make(chan struct{}), make(chan struct{}, 100)
		var slow []<-chan struct{}
		for _, request := range [][2]string{{"/evaluation", large}, {"/evaluation/batch", batch}} {
			slow = append(slow, send(t.Context(), slowReader{httptest.NewRecorder(), may, waiting}, request[0], request[1]))
			<-waiting // both at once
		}
		if err := turns.Take(t.Context()); err != nil { // as another large request
			t.Fatal(err)
		}
		if !ended(send(t.Context(), httptest.NewRecorder(), "/evaluation", small)) {
			t.Error("a small request waits for large ones")
		}
		leaving, leave := context.WithCancel(t.Context())
		gone := httptest.NewRecorder()
		left := send(leaving, gone, "/evaluation", large)
		rw := httptest.NewRecorder()
		last := send(t.Context(), rw, "/evaluation", large)
		if ended(left) || ended(last) {
			t.Error("a large request does not wait")
		}
		if leave(); !ended(left) || gone.Code != 499 {
			t.Errorf("a request whose client has left: ended %t, status %d", ended(left), gone.Code)
		}
		if turns.Release(); !ended(last) || rw.Code != http.StatusOK || !strings.Contains(rw.Body.String(), `"flagKey":"bench"`) {
			t.Errorf("the last request: ended %t, %d %.200s", ended(last), rw.Code, rw.Body)
		}
		close(may)
		for _, done := range slow {
			<-done
		}
	})
}

// Clients that disconnect in the middle of their JSON are refused one after the other.
func TestDisconnectedClientsAreDelayed(t *testing.T) {
	t.Parallel()
	const requests = 210
	synctest.Test(t, func(t *testing.T) {
		var refused atomic.Int64
		h := fastpath.New(fastpath.Options{
			BasePath:    "/api/v1",
			Disconnects: budget.NewDisconnects(),
			Refuse:      func(http.ResponseWriter, *http.Request, error) { refused.Add(1) },
		}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("passed to the API") }))
		began := time.Now()
		var group sync.WaitGroup
		for range requests {
			group.Go(func() {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/evaluation", io.MultiReader(strings.NewReader("{"), iotest.ErrReader(io.ErrUnexpectedEOF)))
				r.Header.Set("Content-Type", "application/json")
				r.ContentLength = 1000
				h.ServeHTTP(httptest.NewRecorder(), r)
			})
		}
		group.Wait()
		if took := time.Since(began).Round(time.Millisecond); took != 100*time.Millisecond || refused.Load() != requests {
			t.Errorf("%d refused in %v, want %d in 100 ms", refused.Load(), took, requests)
		}
	})
}
