package integration_tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/golden"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// TestGoldenWalk replays the recorded walks over the API. They were recorded on SQLite, which
// compares with case, so a MySQL database gets such a collation, too.
func TestGoldenWalk(t *testing.T) {
	for name, walk := range golden.Walks() {
		t.Run(name, func(t *testing.T) {
			onEachDatabase(t, func(t *testing.T, db database) { playWalk(t, db, walk) })
		})
	}
}

func playWalk(t *testing.T, db database, walk [2]string) {
	t.Helper()
	dsn := db.fresh(t)
	if db.driver == "mysql" {
		if _, err := db.open(t, dsn).ExecContext(t.Context(), "ALTER DATABASE COLLATE utf8mb4_bin"); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, db, dsn, environ{"FLAGR_RECORDER_ENABLED": "false"}) // as in the recording
	golden.Walk(t, walk, func(c golden.Call) (int, []byte) {
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
	})
}

// TestGoldenConstraints creates the recorded constraints. The recorded server rejected some of
// them. It evaluates the others, from a document, on the recorded contexts.
func TestGoldenConstraints(t *testing.T) {
	t.Parallel()
	constraints, contexts := golden.Constraints(t)
	db := databaseOf(testdb.SQLite())
	s := start(t, db, db.fresh(t), nil)
	f := newFlag(t, s, "f")
	created := send[object](t, s, http.MethodPost, f.path()+"/segments", object{"description": "s", "rolloutPercent": 100})
	path := fmt.Sprintf("%s/segments/%v/constraints", f.path(), created["id"])
	var flags []any
	for i, c := range constraints {
		a := s.call(t, http.MethodPost, path, object{"property": c.Constraint.Property, "operator": c.Constraint.Operator, "value": c.Constraint.Value})
		if a.status != c.Status {
			t.Errorf("%+v: %s, want %d", c.Constraint, a, c.Status)
		}
		flags = append(flags, object{
			"ID": i + 1, "Key": fmt.Sprintf("case_%d", i), "Enabled": true, "Variants": []any{object{"Key": "on"}},
			"Segments": []any{object{
				"RolloutPercent": 100, "Constraints": []any{c.Constraint}, "Distributions": []any{object{"VariantKey": "on", "Percent": 100}},
			}},
		})
		if c.Status != http.StatusOK {
			flags[i].(object)["Segments"] = []any{}
		}
	}
	document := filepath.Join(t.TempDir(), "flags.json")
	if text, err := json.Marshal(object{"Flags": flags}); err != nil || os.WriteFile(document, text, 0o600) != nil {
		t.Fatal("cannot write the document", err)
	}
	edge := startIn(t, t.TempDir(), quick.with(environ{"FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": document}))
	entities := make([]any, len(contexts))
	for i, context := range contexts {
		entities[i] = object{"entityContext": context}
	}
	for i, c := range constraints {
		if c.Status != http.StatusOK {
			continue
		}
		type results struct{ EvaluationResults []struct{ VariantKey string } }
		var got strings.Builder
		for _, r := range send[results](t, edge, http.MethodPost, "/evaluation/batch", object{"entities": entities, "flagIDs": []int{i + 1}}).EvaluationResults {
			got.WriteByte("01"[len(r.VariantKey)/len("on")])
		}
		if got.String() != c.Matched {
			t.Errorf("%+v:\n got %s\nwant %s", c.Constraint, got.String(), c.Matched)
		}
	}
}

// TestGoldenEvaluations sends 3,000 recorded evaluations to a server on a JSON document, and some
// of them through the other evaluation endpoints, too.
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
		t.Fatalf("%d requests and %d responses, want 3000 each", len(requests), len(expected))
	}
	compare := func(endpoint string, i int, got object) {
		t.Helper()
		var want object
		decode(t, expected[i], &want)
		if diff := gocmp.Diff(want, likeExpected(got)); diff != "" {
			t.Errorf("%s, request %d: %s (-want +got):\n%s", endpoint, i+1, requests[i], diff)
		}
	}
	for i, raw := range requests {
		single := string(raw) // unchanged, so that long numbers keep all digits
		compare("POST", i, send[object](t, s, http.MethodPost, "/evaluation", single))
		if i%10 != 0 {
			continue
		}
		compare("GET", i, get[object](t, s, "/evaluation?json="+url.QueryEscape(single)))
		batch := asBatch(t, raw)
		for endpoint, got := range map[string]object{
			"POST batch": send[object](t, s, http.MethodPost, "/evaluation/batch", batch),
			"GET batch":  get[object](t, s, "/evaluation/batch?json="+queryJSON(t, batch)),
		} {
			results := got["evaluationResults"].([]any)
			if len(results) != 1 {
				t.Errorf("%s, request %d: %d results, want 1", endpoint, i+1, len(results))
				continue
			}
			compare(endpoint, i, results[0].(object))
		}
	}
}

// likeExpected returns the members of a response that the recorded responses have.
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

// asBatch converts the body of a single evaluation to the equivalent body of a batch.
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
