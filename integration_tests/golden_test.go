package integration_tests

import (
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/golden"
)

// TestGoldenWalk plays a recorded walk over the API.
func TestGoldenWalk(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		s := start(t, db, db.fresh(t), environ{"FLAGR_RECORDER_ENABLED": "false"}) // as when it was recorded
		golden.Walk(t, func(c golden.Call) (int, []byte) {
			request, err := http.NewRequest(c.Method, s.url+c.Path, strings.NewReader(c.Body))
			if err != nil {
				t.Fatal(err)
			}
			if c.ContentType != "" {
				request.Header.Set("Content-Type", c.ContentType)
			}
			got, err := s.do(request)
			if err != nil {
				t.Fatal(err)
			}
			return got.status, got.body
		}, func() { awaitChanges(t, s) })
	})
}

// TestGoldenEvaluations asks a server on a JSON document 3,000 recorded questions, and some of them again through the
// other doors.
func TestGoldenEvaluations(t *testing.T) {
	t.Parallel()
	document, err := filepath.Abs(filepath.Join("testdata", "golden", "flags.json"))
	if err != nil {
		t.Fatal(err)
	}
	s := startIn(t, t.TempDir(), quick.with(environ{
		"FLAGR_DB_DBDRIVER":        "json_file",
		"FLAGR_DB_DBCONNECTIONSTR": document,
		"FLAGR_RECORDER_ENABLED":   "false",
	}))
	requests, expected := golden.Lines[json.RawMessage](t, "requests.jsonl"), golden.Lines[json.RawMessage](t, "expected.jsonl")
	if len(requests) != 3000 || len(expected) != 3000 {
		t.Fatalf("%d requests and %d answers, want 3000 each", len(requests), len(expected))
	}
	compare := func(door string, i int, got object) {
		t.Helper()
		var want object
		decode(t, expected[i], &want)
		if diff := gocmp.Diff(want, likeExpected(got)); diff != "" {
			t.Errorf("%s, request %d: %s (-want +got):\n%s", door, i+1, requests[i], diff)
		}
	}
	for i, raw := range requests {
		single := string(raw) // as recorded: a number with many digits must arrive with all of them
		compare("POST", i, send[object](t, s, http.MethodPost, "/evaluation", single))
		if i%10 != 0 {
			continue
		}
		compare("GET", i, get[object](t, s, "/evaluation?json="+url.QueryEscape(single)))
		batch := asBatch(t, raw)
		for door, got := range map[string]object{
			"POST batch": send[object](t, s, http.MethodPost, "/evaluation/batch", batch),
			"GET batch":  get[object](t, s, "/evaluation/batch?json="+queryJSON(t, batch)),
		} {
			results := got["evaluationResults"].([]any)
			if len(results) != 1 {
				t.Errorf("%s, request %d: %d results, want 1", door, i+1, len(results))
				continue
			}
			compare(door, i, results[0].(object))
		}
	}
}

// likeExpected keeps of an answer what the recorded ones have.
func likeExpected(got object) object {
	kept := object{"entityType": ""}
	for _, name := range []string{
		"dataRecordsEnabled", "flagID", "flagKey", "flagSnapshotID", "flagTags", "segmentID", "variantAttachment", "variantID", "variantKey",
	} {
		if value, ok := got[name]; ok {
			kept[name] = value
		}
	}
	if entityType, ok := got["evalContext"].(object)["entityType"]; ok {
		kept["entityType"] = entityType
	}
	return kept
}

// asBatch turns the body of a single evaluation into one of a batch that means the same.
func asBatch(t *testing.T, single []byte) object {
	t.Helper()
	var fields map[string]json.RawMessage
	decode(t, single, &fields)
	entity, batch := object{}, object{}
	for name, value := range fields {
		switch name {
		case "flagID":
			batch["flagIDs"] = []any{value}
		case "flagKey":
			batch["flagKeys"] = []any{value}
		case "enableDebug":
			batch[name] = value
		default:
			entity[name] = value
		}
	}
	batch["entities"] = []object{entity}
	return batch
}
