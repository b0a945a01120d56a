package integration_tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// object is a JSON object in a request or a response.
type object = map[string]any

// answer is a response, with its complete body.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// call sends a request to a path under /api/v1. It sends a string unchanged and any other body as
// JSON. A nil body is omitted.
func (s *server) call(t *testing.T, method, path string, body any) answer {
	t.Helper()
	a, err := s.try(method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v; the log:\n%s", method, path, err, s.log)
	}
	return a
}

// try is call for servers that may be down, and for goroutines: it returns errors.
func (s *server) try(method, path string, body any) (answer, error) {
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			return answer{}, err
		}
		reader = bytes.NewReader(encoded)
	}
	request, err := http.NewRequest(method, s.url+path, reader)
	if err != nil {
		return answer{}, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	return s.do(request)
}

// do sends a request and reads the complete response.
func (s *server) do(request *http.Request) (answer, error) {
	response, err := s.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, body}, errors.Join(err, response.Body.Close())
}

// send is call for requests that must succeed. It decodes the response, which may be empty if T is
// any.
func send[T any](t *testing.T, s *server, method, path string, body any) T {
	t.Helper()
	var decoded T
	a := s.call(t, method, path, body)
	if a.status != http.StatusOK {
		t.Fatalf("%s %s: %s; the log:\n%s", method, path, a, s.log)
	}
	if len(a.body) > 0 {
		decode(t, a.body, &decoded)
	}
	return decoded
}

func get[T any](t *testing.T, s *server, path string) T {
	t.Helper()
	return send[T](t, s, http.MethodGet, path, nil)
}

func decode(t *testing.T, body []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
}

// queryJSON encodes the body of an evaluation for the query of a GET request.
func queryJSON(t *testing.T, body object) string {
	t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return url.QueryEscape(string(encoded))
}

// flagAnswer is the part of a flag that the tests use.
type flagAnswer struct {
	ID                 int64
	Key                string
	Description        string
	Enabled            bool
	DataRecordsEnabled bool
	Notes              string
	UpdatedAt          string
	Segments           []struct{ ID int64 }
	Variants           []struct {
		ID  int64
		Key string
	}
}

// path is the path of the flag under /api/v1.
func (f flagAnswer) path() string { return fmt.Sprintf("/flags/%d", f.ID) }

// evaluation is the part of an evaluation response that the tests use.
type evaluation struct {
	FlagID    int64
	SegmentID int64
	VariantID int64
	Timestamp string
}

// summary is the response of GET /datar/summary.
type summary struct {
	Flags []summaryFlag
}

type summaryFlag struct {
	FlagID          int64
	FlagKey         string
	Enabled         bool
	Description     string
	TotalEvalCount  int64
	LastEvaluatedAt time.Time
}

// total is the number of evaluations of one flag.
func (s summary) total(flagID int64) int64 {
	for _, f := range s.Flags {
		if f.FlagID == flagID {
			return f.TotalEvalCount
		}
	}
	return 0
}

// sum is the number of evaluations of all flags.
func (s summary) sum() int64 {
	var sum int64
	for _, f := range s.Flags {
		sum += f.TotalEvalCount
	}
	return sum
}

// breakdown is the response of GET /datar/flags/{flagID}/summary.
type breakdown struct {
	FlagID           int64
	TrafficByVariant []struct{ VariantID, Count int64 }
	TrafficBySegment []struct{ SegmentID, Count int64 }
	TrafficByDay     []struct {
		Date  string
		Count int64
	}
}

// counts returns all evaluations that the server has counted. A query flushes at most once a
// second, so counts polls until the sum is at least acknowledged, and returns the last summary.
func counts(t *testing.T, s *server, acknowledged int64) summary {
	t.Helper()
	var latest summary
	poll(t, fmt.Sprintf("%d evaluations to be counted", acknowledged), func() bool {
		latest = get[summary](t, s, "/datar/summary?limit=1000")
		return latest.sum() >= acknowledged
	})
	return latest
}

// newFlag creates an enabled flag whose evaluations are counted. It assigns its one variant, "on",
// to every entity.
func newFlag(t *testing.T, s *server, key string) flagAnswer {
	t.Helper()
	f := send[flagAnswer](t, s, http.MethodPost, "/flags",
		object{"description": "made by a test", "key": key, "template": "simple_boolean_flag"})
	send[any](t, s, http.MethodPut, f.path(), object{"dataRecordsEnabled": true})
	send[any](t, s, http.MethodPut, f.path()+"/enabled", object{"enabled": true})
	return f
}

// newVariant adds a variant to a flag and returns its ID.
func newVariant(t *testing.T, s *server, f flagAnswer, key string) int64 {
	t.Helper()
	return send[struct{ ID int64 }](t, s, http.MethodPost, f.path()+"/variants", object{"key": key}).ID
}

// newSegment adds a segment that assigns one variant to the entities from a country, and returns
// its ID.
func newSegment(t *testing.T, s *server, f flagAnswer, country, variantKey string, variantID int64) int64 {
	t.Helper()
	segment := send[struct{ ID int64 }](t, s, http.MethodPost, f.path()+"/segments",
		object{"description": "from " + country, "rolloutPercent": 100}).ID
	path := fmt.Sprintf("%s/segments/%d", f.path(), segment)
	send[any](t, s, http.MethodPost, path+"/constraints",
		object{"property": "country", "operator": "EQ", "value": `"` + country + `"`})
	send[any](t, s, http.MethodPut, path+"/distributions",
		object{"distributions": []object{{"variantID": variantID, "variantKey": variantKey, "percent": 100}}})
	return segment
}

// awaitChanges waits until evaluations use the newest change, which must not be the deletion of a
// flag.
func awaitChanges(t *testing.T, s *server) {
	t.Helper()
	newest := get[struct{ MaxID int64 }](t, s, "/flags/snapshots/max_id").MaxID
	poll(t, "evaluation to use the newest flags", func() bool {
		for _, f := range get[struct{ Flags []struct{ SnapshotID int64 } }](t, s, "/export/eval_cache/json").Flags {
			if f.SnapshotID == newest {
				return true
			}
		}
		return false
	})
}

// evaluate evaluates a flag for one entity.
func evaluate(t *testing.T, s *server, f flagAnswer, entityID string, context object) evaluation {
	t.Helper()
	return send[evaluation](t, s, http.MethodPost, "/evaluation",
		object{"flagID": f.ID, "entityID": entityID, "entityContext": context})
}

// at sends a GET request to a path outside /api/v1.
func (s *server) at(t *testing.T, path string) answer {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, strings.TrimSuffix(s.url, "/api/v1")+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.do(request)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
