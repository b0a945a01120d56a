package ofrep_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/integration_tests/golden"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
)

const (
	pageSize  = `"value":10.0,"reason":"STATIC","variant":"small","metadata":{"flagID":8,"version":"101","segmentID":11,"variantID":15,"dataRecordsEnabled":true,"attachment":"{\"unit\":\"rows\",\"value\":10}"}}`
	newSearch = `{"key":"new-search","value":true,"reason":"TARGETING_MATCH","variant":"on","metadata":{"flagID":7,"version":"98","segmentID":9,"variantID":12,"dataRecordsEnabled":false}}`
	noKey     = `{"key":"checkout","errorCode":"TARGETING_KEY_MISSING","errorDetails":"flag checkout needs a targetingKey","metadata":{"flagID":42,"version":"117","dataRecordsEnabled":true}}`
	old       = `{"key":"old","reason":"DISABLED","variant":"","metadata":{"flagID":3,"version":"12","dataRecordsEnabled":false}}`
)

func TestOneFlag(t *testing.T) {
	t.Parallel()
	h := setup(t, "", 0, ofrep.Options{})
	for name, tc := range map[string]struct {
		path, body string
		status     int
		want       string
	}{
		"the bucket decides": {"checkout", `{"context":{"targetingKey":"user-1","country":"FR"}}`, 200,
			`{"key":"checkout","value":{},"reason":"SPLIT","variant":"blue","metadata":{"flagID":42,"version":"117","segmentID":23,"variantID":62,"dataRecordsEnabled":true}}`},
		"a constraint decides":          {"new-search", `{"context":{"country":"FR"}}`, 200, newSearch},
		"no segment matches":            {"new-search", `{"context":{"country":"DE"}}`, 200, `{"key":"new-search","reason":"DEFAULT","variant":"","metadata":{"flagID":7,"version":"98","dataRecordsEnabled":false}}`},
		"the same for everybody":        {"page-size", "", 200, `{"key":"page-size",` + pageSize},
		"a flag that is off":            {"old", `{}`, 200, old},
		"an id":                         {"8", `{"context":null}`, 200, `{"key":"8",` + pageSize},
		"no targeting key":              {"checkout", `{"context":{}}`, 400, noKey},
		"a targeting key that is null":  {"checkout", `{"context":{"targetingKey":null}}`, 400, noKey},
		"an empty targeting key":        {"checkout", `{"context":{"targetingKey":""}}`, 400, noKey},
		"an unknown flag":               {"nobody", `{"context":{}}`, 404, `{"key":"nobody","errorCode":"FLAG_NOT_FOUND","errorDetails":"flag nobody does not exist","metadata":{}}`},
		"no key":                        {"", "", 404, `{"key":"","errorCode":"FLAG_NOT_FOUND","errorDetails":"flag  does not exist","metadata":{}}`},
		"an id that is of no flag":      {"99", "", 404, `{"key":"99","errorCode":"FLAG_NOT_FOUND","errorDetails":"flag 99 does not exist","metadata":{}}`},
		"a targeting key of a number":   {"checkout", `{"context":{"targetingKey":7}}`, 400, `{"key":"checkout","errorCode":"INVALID_CONTEXT","errorDetails":"targetingKey must be a string","metadata":{}}`},
		"the same in another spelling":  {"checkout", `{"a":1, "context":{"targetingKey":7}}`, 400, `{"key":"checkout","errorCode":"INVALID_CONTEXT","errorDetails":"targetingKey must be a string","metadata":{}}`},
		"other members are ignored":     {"new-search", `{"x":[1],"context":{"country":"FR"}}`, 200, newSearch},
		"an escaped context":            {"new-search", `{"context":{"countr\u0079":"\u0046R"}}`, 200, newSearch},
		"an entity type that is a list": {"new-search", `{"context":{"entityType":[],"country":"FR"}}`, 200, newSearch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rw := call(h, http.MethodPost, flagPath+tc.path, tc.body)
			if rw.Code != tc.status || rw.Body.String() != tc.want {
				t.Errorf("%d %s\nwant %d %s", rw.Code, rw.Body, tc.status, tc.want)
			}
			if got := rw.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type is %q", got)
			}
			checkShape(t, rw.Code, rw.Body.Bytes())
		})
	}
}

// TestBodies sends bodies to a server that reads most of them without encoding/json, and to one
// that needs a map for the properties that it adds.
func TestBodies(t *testing.T) {
	t.Parallel()
	handlers := map[string]*fixture{"plain": setup(t, "", 0, ofrep.Options{}), "injecting": setup(t, "", 0, ofrep.Options{Inject: nothing})}
	for body, want := range map[string]string{
		" ":                                     "",
		"{}":                                    "",
		`{"context":{}} `:                       "",
		`[]`:                                    "INVALID_CONTEXT",
		`null`:                                  "INVALID_CONTEXT",
		`"x"`:                                   "INVALID_CONTEXT",
		`{"context":[]}`:                        "INVALID_CONTEXT",
		`{"context":"x"}`:                       "INVALID_CONTEXT",
		`{"context":0}`:                         "INVALID_CONTEXT",
		`{"context":{"targetingKey":{}}}`:       "INVALID_CONTEXT",
		`{"context":{}`:                         "PARSE_ERROR",
		`{"context":{}} x`:                      "PARSE_ERROR",
		`{"context":{}}{}`:                      "PARSE_ERROR",
		`x`:                                     "PARSE_ERROR",
		`{"x":1,"context":{},"y":[{}]}`:         "",
		`{"context":{},"x":{"context":[]}}`:     "",
		`{"Context":[]}`:                        "",
		`{"x":1,"x":"\u00e9","context":null}`:   "",
		`{"context":{},"context":[]}`:           "INVALID_CONTEXT",
		`{"context":[],"context":{}}`:           "",
		`{"x":{"targetingKey":1},"context":{}}`: "",
		`{"x":01,"context":{}}`:                 "PARSE_ERROR",
		`{"context":{},"x":"\q"}`:               "PARSE_ERROR",
		`{"context":{},"x":[1,]}`:               "PARSE_ERROR",
		`{"context":{"targetingKey":"a"},"x":"\q"`:               "PARSE_ERROR",
		`{"context":{"a":01}}`:                                   "PARSE_ERROR",
		strings.Repeat("[", 20000):                               "PARSE_ERROR",
		`{"context":{"a":"` + strings.Repeat("x", 1<<20) + `"}}`: "GENERAL",
	} {
		for _, target := range []string{flagsPath, flagPath + "page-size"} {
			for name, h := range handlers {
				status, answer := post(h, target, body)
				checkShape(t, status, []byte(answer))
				got := decode[struct{ ErrorCode string }](t, answer).ErrorCode
				wantStatus := map[string]int{"": 200, "GENERAL": 413}[want]
				if wantStatus == 0 {
					wantStatus = 400
				}
				if got != want || status != wantStatus {
					t.Errorf("%s: %.40s at %s: %d %s, want %d %q", name, body, target, status, answer, wantStatus, want)
				}
			}
		}
	}
}

// nothing adds no property to a context.
func nothing(context any, _ *http.Request) any { return context }

func TestPaths(t *testing.T) {
	t.Parallel()
	h := setup(t, "", 0, ofrep.Options{Events: ofrep.Events{Disabled: true}})
	for _, tc := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", flagPath + "checkout", 405, "POST"},
		{"PUT", flagsPath, 405, "POST"},
		{"GET", "/ofrep/v1/configuration", 404, ""},
		{"GET", ofrep.EventsPath, 404, ""},
		{"POST", "/ofrep/", 404, ""},
		{"POST", "/ofrep/v1/evaluate", 404, ""},
	} {
		rw := call(h, tc.method, tc.path, "")
		if rw.Code != tc.status || rw.Header().Get("Allow") != tc.allow {
			t.Errorf("%s %s: %d, Allow %q", tc.method, tc.path, rw.Code, rw.Header().Get("Allow"))
		}
		checkShape(t, rw.Code, rw.Body.Bytes())
	}
}

// FuzzKeys asks for a flag with each key, with and without escapes for slashes.
func FuzzKeys(f *testing.F) {
	for _, key := range []string{"a/b", "a.b", "..", "a//b", "a:b", "%2F", "é<\"", "a b", "?x"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if key == "" || len(key) > 63 {
			return
		}
		name, err := json.Marshal(key)
		if err != nil || decode[string](t, string(name)) != key { // not UTF-8
			return
		}
		document := fmt.Sprintf(`{"Flags":[{"Key":%s,"Enabled":true,"Variants":[{"Key":"on"}],"Segments":[{"RolloutPercent":100,"Distributions":[{"VariantKey":"on","Percent":100}]}]}]}`, name)
		h := setup(t, document, 0, ofrep.Options{})
		escaped := url.PathEscape(key)
		for _, path := range []string{escaped, strings.ReplaceAll(escaped, "%2F", "/")} {
			status, answer := post(h, flagPath+path, "")
			if status != 200 || decode[struct{ Key string }](t, answer).Key != key {
				t.Errorf("%q at %s: %d %s", key, path, status, answer)
			}
		}
	})
}

func TestTags(t *testing.T) {
	t.Parallel()
	h := setup(t, `{"Flags":[
		{"Key":"fallback","Enabled":true,"Tags":[{"Value":"ofrep:default:off"}],"Variants":[{"Key":"on"},{"Key":"off"}],
		 "Segments":[{"RolloutPercent":0,"Distributions":[{"VariantKey":"on","Percent":100}]}]},
		{"Key":"empty","Enabled":true,"Tags":[{"Value":"ofrep:default:off"}],"Variants":[{"Key":"off"}]},
		{"Key":"broken","Enabled":true,"Tags":[{"Value":"ofrep:integer"}],"Variants":[{"Key":"many"}],
		 "Segments":[{"RolloutPercent":100,"Distributions":[{"VariantKey":"many","Percent":100}]}]}
	]}`, 0, ofrep.Options{FlagSetID: "shop/prod"})
	for key, want := range map[string]string{
		"fallback": `{"key":"fallback","value":false,"reason":"DEFAULT","variant":"off","metadata":{"flagID":1,"dataRecordsEnabled":false,"flagSetId":"shop/prod"}}`,
		"empty":    `{"key":"empty","value":false,"reason":"DEFAULT","variant":"off","metadata":{"flagID":2,"dataRecordsEnabled":false,"flagSetId":"shop/prod"}}`,
		"broken":   `{"key":"broken","errorCode":"PARSE_ERROR","errorDetails":"variant many is not of type integer, which the tag ofrep:integer demands","metadata":{"flagID":3,"segmentID":2,"variantID":4,"dataRecordsEnabled":false,"flagSetId":"shop/prod"}}`,
		"nobody":   `{"key":"nobody","errorCode":"FLAG_NOT_FOUND","errorDetails":"flag nobody does not exist","metadata":{"flagSetId":"shop/prod"}}`,
	} {
		if _, got := post(h, flagPath+key, ""); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

func TestMetadataHasSmallNumbersOnly(t *testing.T) {
	t.Parallel()
	h := setup(t, `{"Flags":[{"ID":2147483648,"Key":"k","Enabled":true,"SnapshotID":2147483648,"Variants":[{"ID":4294967296,"Key":"on","Attachment":{"value":1,"long":"`+
		strings.Repeat("x", 4096)+`"}}],"Segments":[{"ID":2147483647,"RolloutPercent":100,"Distributions":[{"VariantKey":"on","Percent":100}]}]}]}`, 0, ofrep.Options{})
	want := `{"key":"k","value":1,"reason":"STATIC","variant":"on","metadata":{"flagID":"2147483648","version":"2147483648","segmentID":2147483647,"variantID":"4294967296","dataRecordsEnabled":false}}`
	if _, got := post(h, flagPath+"k", ""); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestReasonsOfUniformSegments covers when the bucket decides.
func TestReasonsOfUniformSegments(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		segments  string
		withKey   string // reason
		keyNeeded bool
	}{
		"one variant":               {`[{"RolloutPercent":100,"Distributions":[{"VariantKey":"a","Percent":100}]}]`, "STATIC", false},
		"the other has no share":    {`[{"RolloutPercent":100,"Distributions":[{"VariantKey":"a","Percent":0},{"VariantKey":"b","Percent":100}]}]`, "STATIC", false},
		"nobody":                    {`[{"RolloutPercent":0,"Distributions":[{"VariantKey":"a","Percent":100}]}]`, "DEFAULT", false},
		"a rollout":                 {`[{"RolloutPercent":99,"Distributions":[{"VariantKey":"a","Percent":100}]}]`, "SPLIT", true},
		"two variants":              {`[{"RolloutPercent":100,"Distributions":[{"VariantKey":"a","Percent":1},{"VariantKey":"b","Percent":99}]}]`, "SPLIT", true},
		"the second segment":        {`[{"Constraints":[{"Property":"x","Operator":"EQ","Value":"1"}],"RolloutPercent":50,"Distributions":[{"VariantKey":"a","Percent":100}]},{"Rank":1,"RolloutPercent":100,"Distributions":[{"VariantKey":"a","Percent":100}]}]`, "TARGETING_MATCH", false},
		"constraints and a rollout": {`[{"Constraints":[{"Property":"targetingKey","Operator":"EQ","Value":"\"u\""}],"RolloutPercent":99,"Distributions":[{"VariantKey":"a","Percent":100}]}]`, "SPLIT", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := setup(t, `{"Flags":[{"Key":"k","Enabled":true,"Variants":[{"Key":"a"},{"Key":"b"}],"Segments":`+tc.segments+`}]}`, 0, ofrep.Options{})
			_, answer := post(h, flagPath+"k", `{"context":{"targetingKey":"u"}}`)
			if got := decode[struct{ Reason string }](t, answer).Reason; got != tc.withKey {
				t.Errorf("%s, want %s", answer, tc.withKey)
			}
			_, answer = post(h, flagPath+"k", "")
			if got := decode[struct{ ErrorCode string }](t, answer).ErrorCode; (got == "TARGETING_KEY_MISSING") != tc.keyNeeded {
				t.Errorf("without a key: %s", answer)
			}
		})
	}
}

func TestRecording(t *testing.T) {
	t.Parallel()
	h := setup(t, "", 0, ofrep.Options{})
	const body = `{"context":{"targetingKey":"user-1","country":"FR"}}`
	post(h, flagsPath, body)
	post(h, flagPath+"old", body)
	post(h, flagPath+"checkout", `{}`)
	if got := h.records.all(); got != "" {
		t.Errorf("recorded %s", got)
	}
	post(h, flagPath+"checkout", body)
	if got := h.records.all(); got != "checkout=blue" {
		t.Errorf("recorded %s", got)
	}
	bulk := setup(t, "", 0, ofrep.Options{RecordBulk: true})
	rw := call(bulk, http.MethodPost, flagsPath, body)
	call(bulk, http.MethodPost, flagsPath, body, "If-None-Match", rw.Header().Get("ETag"))
	if got := bulk.records.all(); got != "checkout=blue page-size=small" {
		t.Errorf("recorded %s", got)
	}
	if got := bulk.Stats().BulkFlags; got != 4 {
		t.Errorf("%d flags evaluated", got)
	}
}

type goldenRequest struct {
	FlagID        int64
	FlagKey       string
	EntityID      string
	EntityType    string
	EntityContext map[string]any
}

// TestGoldenEvaluations compares variants and segments with those of POST /evaluation, one by one
// and all at once.
func TestGoldenEvaluations(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile(golden.Path("flags.json"))
	if err != nil {
		t.Fatal(err)
	}
	h := setup(t, string(document), 0, ofrep.Options{})
	requests := golden.Lines[goldenRequest](t, "requests.jsonl")
	compared := 0
	for i, answer := range golden.Lines[struct {
		FlagKey, VariantKey  string
		SegmentID, VariantID json.Number
	}](t, "expected.jsonl") {
		request := requests[i]
		if request.EntityID == "" || request.EntityContext["targetingKey"] != nil || request.EntityContext["entityType"] != nil {
			continue // an id is made up there, and not here
		}
		key := request.FlagKey
		if request.FlagID != 0 {
			key = answer.FlagKey
		}
		if key == "" {
			continue
		}
		context := map[string]any{"targetingKey": request.EntityID}
		if request.EntityType != "" {
			context["entityType"] = request.EntityType
		}
		maps.Copy(context, request.EntityContext)
		body, err := json.Marshal(map[string]any{"context": context})
		if err != nil {
			t.Fatal(err)
		}
		status, text := post(h, flagPath+url.PathEscape(key), string(body))
		checkShape(t, status, []byte(text))
		got := decode[struct {
			Variant, ErrorCode string
			Metadata           struct{ SegmentID, VariantID json.Number }
		}](t, text)
		if got.Variant != answer.VariantKey || got.Metadata.SegmentID != answer.SegmentID || got.Metadata.VariantID != answer.VariantID {
			t.Fatalf("line %d: %s, want %+v", i+1, text, answer)
		}
		compared++
		if compared%10 == 0 { // the same among all flags
			rw := call(h, http.MethodPost, flagsPath, string(body))
			if f, ok := h.cache.Snapshot().Find(key); ok && !strings.Contains(rw.Body.String(), strings.Replace(text, key, f.Source().Key, 1)) {
				t.Fatalf("line %d: %s is not among all flags", i+1, text)
			}
		}
	}
	if compared < 2500 {
		t.Errorf("only %d evaluations compared", compared)
	}
}

func TestAnswersOfAnotherHandlerAreItsOwn(t *testing.T) {
	t.Parallel()
	a := setup(t, "", 0, ofrep.Options{})
	b := ofrep.New(ofrep.Options{Eval: eval.NewService(a.cache, nil, eval.Options{}), States: a.cache, FlagSetID: "other"})
	for range 2 {
		if _, got := post(a, flagPath+"old", ""); got != old {
			t.Error(got)
		}
		if _, got := post(b, flagPath+"old", ""); !strings.Contains(got, `"flagSetId":"other"`) {
			t.Error(got)
		}
	}
}
