// Package golden compares servers with recorded responses of Flagr. pkg/handler uses it in process,
// and integration_tests on every database.
package golden

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testpath"
	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
)

// Path returns the path of a recorded file.
func Path(name string) string {
	return testpath.InRepository("integration_tests", "testdata", "golden", name)
}

// Lines reads a recorded file with one JSON value per line. Numbers that are decoded into an
// interface keep their digits.
func Lines[T any](t *testing.T, name string) []T {
	t.Helper()
	text, err := os.ReadFile(Path(name))
	if err != nil {
		t.Fatal(err)
	}
	var lines []T
	scanner := bufio.NewScanner(bytes.NewReader(text))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var line T
		if err := decode(scanner.Bytes(), &line); err != nil {
			t.Fatalf("%s, line %d: %v", name, len(lines)+1, err)
		}
		lines = append(lines, line)
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

func decode(text []byte, value any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return decoder.Decode(value)
}

// Call is a call of a walk, below the base path of the API. Without a body, ContentType is empty
// unless it was sent.
type Call struct{ Method, Path, ContentType, Body string }

// Walks has the names of the recorded walks over the API. Each is a file of calls and a file of
// responses.
func Walks() map[string][2]string {
	return map[string][2]string{
		"chosen": {"calls.jsonl", "transcript.jsonl"},
		"random": {"walk-calls.jsonl", "walk.jsonl"},
	}
}

// Walk replays a recorded walk over the API on an empty database and compares each response with
// the recorded one. Where the recorded server returned 500 for a client's error, any 4xx is
// accepted. For other errors, only the status is compared.
func Walk(t *testing.T, walk [2]string, play func(Call) (status int, body []byte)) {
	t.Helper()
	recorded := Lines[struct {
		Answer struct {
			Status int
			Body   any
		}
	}](t, walk[1])
	played := 0
	for _, line := range Lines[struct {
		M, P, CT string
		B        json.RawMessage
		Raw      *string
		Sleep    float64
	}](t, walk[0]) {
		if line.Sleep > 0 {
			settle(t, play)
			continue
		}
		call := Call{line.M, line.P, line.CT, string(line.B)}
		if line.Raw != nil {
			call.Body = *line.Raw
		}
		if call.Body == "null" {
			call.Body = ""
		}
		if call.Body != "" {
			call.ContentType = cmp.Or(call.ContentType, "application/json")
		}
		want := recorded[played].Answer
		played++
		status, body := play(call)
		switch {
		case want.Status == http.StatusInternalServerError:
			if status < 400 || status > 499 {
				t.Errorf("%+v: %d %s, want 4xx", call, status, body)
			}
		case status != want.Status:
			t.Errorf("%+v: %d %s, want %d", call, status, body, want.Status)
		case status < 400:
			var got any = ""
			if len(body) > 0 {
				if err := decode(body, &got); err != nil {
					t.Errorf("%+v: %s: %v", call, body, err)
				}
			}
			if diff := gocmp.Diff(Mask(want.Body), Mask(got)); diff != "" {
				t.Errorf("%+v (-want +got):\n%s", call, diff)
			}
		}
	}
	if played != len(recorded) {
		t.Errorf("replayed %d calls of %d", played, len(recorded))
	}
}

// settle waits until evaluations use the current flags.
func settle(t *testing.T, play func(Call) (status int, body []byte)) {
	t.Helper()
	get := func(path string, into any) {
		t.Helper()
		if status, body := play(Call{Method: http.MethodGet, Path: path}); status != http.StatusOK || decode(body, into) != nil {
			t.Fatalf("GET %s: %d %s", path, status, body)
		}
	}
	var flags []struct{ ID int }
	get("/flags", &flags)
	newest := make(map[int]int, len(flags)) // from the ID of a flag to the ID of its newest snapshot
	for _, flag := range flags {
		var snapshots []struct{ ID int }
		get(fmt.Sprintf("/flags/%d/snapshots?limit=1", flag.ID), &snapshots)
		newest[flag.ID] = snapshots[0].ID
	}
	testwait.Until(t, "the evaluation cache", func() bool {
		var export struct {
			Flags []struct{ ID, SnapshotID int }
		}
		get("/export/eval_cache/json", &export)
		used := make(map[int]int, len(export.Flags))
		for _, flag := range export.Flags {
			used[flag.ID] = flag.SnapshotID
		}
		return maps.Equal(newest, used)
	})
}

var (
	// maskedNames are the names of values that differ between runs.
	maskedNames  = []string{"updatedAt", "createdAt", "timestamp", "UpdatedAt", "CreatedAt", "DeletedAt", "lastEvaluatedAt", "msg"}
	generatedKey = regexp.MustCompile(`^k[0-9a-z]{16}$`)
)

// Mask returns a copy of decoded JSON without the values that differ between runs.
func Mask(value any) any { return mask("", value) }

// mask gets the name of the value in its object.
func mask(name string, value any) any {
	switch v := value.(type) {
	case nil:
		return nil
	case map[string]any:
		masked := make(map[string]any, len(v))
		for name, part := range v {
			masked[name] = mask(name, part)
		}
		return masked
	case []any:
		masked := make([]any, len(v))
		for i, part := range v {
			masked[i] = mask(name, part)
		}
		if name == "Flags" { // in any order
			slices.SortFunc(masked, func(a, b any) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
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
