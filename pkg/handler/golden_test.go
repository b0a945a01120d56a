package handler_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// goldenCall is one line of calls.jsonl.
type goldenCall struct {
	Method string          `json:"m"`
	Path   string          `json:"p"`
	Body   json.RawMessage `json:"b"`
	Raw    *string         `json:"raw"`
	Type   string          `json:"ct"`
	Sleep  float64         `json:"sleep"`
}

// TestGoldenWalk plays a walk over the API on an empty database and compares each answer with the recorded one. Where
// the recorded server answered a client's mistake with 500, any 4xx is right; of other errors only the status counts.
func TestGoldenWalk(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	want := goldenLines[struct {
		Answer struct {
			Status int `json:"status"`
			Body   any `json:"body"`
		} `json:"answer"`
	}](t, "transcript.jsonl")

	compared := 0
	for _, c := range goldenLines[goldenCall](t, "calls.jsonl") {
		if c.Sleep > 0 {
			waitForCache(t, s)
			continue
		}
		expected := want[compared].Answer
		compared++
		got := play(t, s, c)
		name := c.Method + " " + c.Path
		switch {
		case expected.Status == http.StatusInternalServerError:
			if got.status < 400 || got.status > 499 {
				t.Errorf("%s %s: status %d, want 4xx: %s", name, c.Body, got.status, got.raw)
			}
		case got.status != expected.Status:
			t.Errorf("%s %s: status %d, want %d: %s", name, c.Body, got.status, expected.Status, got.raw)
		case got.status < 400:
			if diff := cmp.Diff(mask("", expected.Body), mask("", got.body)); diff != "" {
				t.Errorf("%s %s: answer differs (-want +got):\n%s", name, c.Body, diff)
			}
		}
	}
	if compared != len(want) {
		t.Errorf("compared %d answers of %d", compared, len(want))
	}
	if log := s.log.String(); strings.Contains(log, "level=ERROR") {
		t.Errorf("the walk logged errors:\n%s", log)
	}
}

func goldenLines[T any](t *testing.T, name string) []T {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "integration_tests", "testdata", "golden", name))
	if err != nil {
		t.Fatal(err)
	}
	var lines []T
	scanner := bufio.NewScanner(bytes.NewReader(text))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var line T
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		lines = append(lines, line)
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

func play(t *testing.T, s *server, c goldenCall) answer {
	t.Helper()
	body := string(c.Body)
	if c.Raw != nil {
		body = *c.Raw
	}
	if body == "null" {
		body = ""
	}
	r := httptest.NewRequestWithContext(t.Context(), c.Method, "/api/v1"+c.Path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.Type != "" {
		r.Header.Set("Content-Type", c.Type)
	}
	return send(s, r)
}

// waitForCache waits until evaluation uses the newest snapshot of a flag. No flag may have been deleted.
func waitForCache(t *testing.T, s *server) {
	t.Helper()
	newest := must(t, s, http.MethodGet, "/flags/snapshots/max_id", nil)["maxID"]
	wait(t, "the evaluation cache", func() bool {
		flags := must(t, s, http.MethodGet, "/export/eval_cache/json", nil)["Flags"].([]any)
		return slices.ContainsFunc(flags, func(f any) bool { return f.(map[string]any)["SnapshotID"] == newest })
	})
}

var (
	// masked names the values that differ from run to run.
	masked = []string{"updatedAt", "createdAt", "timestamp", "UpdatedAt", "CreatedAt", "DeletedAt", "lastEvaluatedAt", "msg"}

	generatedKey = regexp.MustCompile(`^k[0-9a-z]{16}$`)
)

// mask replaces what differs from run to run; key is the name of the value in the object around it.
func mask(key string, value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, part := range v {
			out[name] = mask(name, part)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, part := range v {
			out[i] = mask(key, part)
		}
		return out
	}
	if slices.Contains(masked, key) && value != nil {
		return "*"
	}
	if text, ok := value.(string); ok {
		switch {
		case generatedKey.MatchString(text):
			return "k*"
		case strings.HasPrefix(text, "randomly_generated_"):
			return "randomly_generated_*"
		}
	}
	return value
}
