package integration_tests

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// goldenLines reads one of the recorded files, with one JSON value per line.
func goldenLines[T any](t *testing.T, name string) []T {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "golden", name))
	if err != nil {
		t.Fatal(err)
	}
	var lines []T
	scanner := bufio.NewScanner(bytes.NewReader(text))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var line T
		decode(t, scanner.Bytes(), &line)
		lines = append(lines, line)
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

// TestGoldenWalk plays a recorded walk over the API on an empty database. Of errors only the status counts; where the
// recorded server answered a client's mistake with 500, any 4xx is right.
func TestGoldenWalk(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		s := start(t, db, db.fresh(t), environ{"FLAGR_RECORDER_ENABLED": "false"}) // as when it was recorded
		recorded := goldenLines[struct {
			Answer struct {
				Status int
				Body   any
			}
		}](t, "transcript.jsonl")
		played := 0
		for _, c := range goldenLines[struct {
			M, P, CT string
			B        json.RawMessage
			Raw      *string
			Sleep    float64
		}](t, "calls.jsonl") {
			if c.Sleep > 0 {
				awaitChanges(t, s)
				continue
			}
			want := recorded[played].Answer
			played++
			body := string(c.B)
			if c.Raw != nil {
				body = *c.Raw
			}
			if body == "null" {
				body = ""
			}
			request, err := http.NewRequest(c.M, s.url+c.P, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if body != "" {
				request.Header.Set("Content-Type", cmp.Or(c.CT, "application/json"))
			}
			got, err := s.do(request)
			if err != nil {
				t.Fatal(err)
			}
			call := c.M + " " + c.P
			switch {
			case want.Status == http.StatusInternalServerError:
				if got.status < 400 || got.status > 499 {
					t.Errorf("%s %s: %s, want 4xx", call, body, got)
				}
			case got.status != want.Status:
				t.Errorf("%s %s: %s, want %d", call, body, got, want.Status)
			case got.status < 400:
				var decoded any = ""
				if len(got.body) > 0 {
					decode(t, got.body, &decoded)
				}
				if diff := gocmp.Diff(mask("", want.Body), mask("", decoded)); diff != "" {
					t.Errorf("%s %s (-want +got):\n%s", call, body, diff)
				}
			}
		}
		if played != len(recorded) {
			t.Errorf("played %d calls of %d", played, len(recorded))
		}
	})
}

var (
	// maskedNames are the names of values that differ from run to run.
	maskedNames  = []string{"updatedAt", "createdAt", "timestamp", "UpdatedAt", "CreatedAt", "DeletedAt", "lastEvaluatedAt", "msg"}
	generatedKey = regexp.MustCompile(`^k[0-9a-z]{16}$`)
)

// mask replaces what differs from run to run. The name is that of the value in the object around it.
func mask(name string, value any) any {
	switch v := value.(type) {
	case nil:
		return nil
	case object:
		masked := object{}
		for name, part := range v {
			masked[name] = mask(name, part)
		}
		return masked
	case []any:
		masked := make([]any, len(v))
		for i, part := range v {
			masked[i] = mask(name, part)
		}
		return masked
	}
	text, _ := value.(string)
	switch {
	case slices.Contains(maskedNames, name):
		return "*"
	case generatedKey.MatchString(text):
		return "k*"
	case strings.HasPrefix(text, "randomly_generated_"):
		return "randomly_generated_*"
	}
	return value
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
	requests, expected := goldenLines[json.RawMessage](t, "requests.jsonl"), goldenLines[object](t, "expected.jsonl")
	if len(requests) != 3000 || len(expected) != 3000 {
		t.Fatalf("%d requests and %d answers, want 3000 each", len(requests), len(expected))
	}
	compare := func(door string, i int, got object) {
		t.Helper()
		if diff := gocmp.Diff(expected[i], likeExpected(got)); diff != "" {
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
