package handler_test

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-openapi/loads"
	"github.com/go-openapi/spec"
	"github.com/go-openapi/strfmt"
	"github.com/go-openapi/validate"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi"
)

var datarOn = map[string]string{"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar", "FLAGR_RECORDER_DATAR_TAIL_ENABLED": "true"}

// abFlag creates checkout-button, an enabled, recorded flag. It has the variants blue and green,
// each for half of a segment with constraints.
func abFlag(t *testing.T, s *server) (flagID int) {
	t.Helper()
	f := must(t, s, http.MethodPost, "/flags", object{"description": "d", "key": "checkout-button"})
	flagID = int(f["id"].(float64))
	path := fmt.Sprintf("/flags/%d/definition", flagID)
	d := must(t, s, http.MethodGet, path, nil)
	must(t, s, http.MethodPut, path, object{
		"snapshotID": d["snapshotID"], "enabled": true, "dataRecordsEnabled": true,
		"variants": []object{{"key": "blue"}, {"key": "green"}},
		"segments": []object{{
			"description": "Adults in France", "rolloutPercent": 50,
			"constraints":   []object{{"property": "country", "operator": "EQ", "value": `"FR"`}, {"property": "age", "operator": "GTE", "value": "18"}},
			"distributions": []object{{"variantKey": "blue", "percent": 50}, {"variantKey": "green", "percent": 50}},
		}},
	})
	testwait.Until(t, "the flag to be evaluated", func() bool {
		exported := must(t, s, http.MethodGet, "/export/eval_cache/json?keys=checkout-button", nil)["Flags"].([]any)
		return len(exported) == 1 && len(exported[0].(map[string]any)["Segments"].([]any)) == 1
	})
	return flagID
}

func evaluate(t *testing.T, s *server, n int, context object) {
	t.Helper()
	for i := range n {
		must(t, s, http.MethodPost, "/evaluation", object{"flagKey": "checkout-button", "entityID": fmt.Sprintf("e%d", i), "entityContext": context})
	}
}

// answersOfSpec returns the operations of this file, by path and method.
func answersOfSpec(t *testing.T) map[string]*spec.Operation {
	t.Helper()
	document, err := loads.Embedded(restapi.SwaggerJSON, restapi.FlatSwaggerJSON)
	if err != nil {
		t.Fatal(err)
	}
	expanded, err := document.Expanded()
	if err != nil {
		t.Fatal(err)
	}
	operations := map[string]*spec.Operation{}
	for path, item := range expanded.Spec().Paths.Paths {
		isAnswer := strings.HasPrefix(path, "/datar/flags/") && !strings.HasSuffix(path, "/summary") || path == "/datar/states" || path == "/datar/unknown" || strings.HasSuffix(path, "/try")
		if isAnswer && item.Get != nil {
			operations["GET "+path] = item.Get
		}
		if isAnswer && item.Post != nil {
			operations["POST "+path] = item.Post
		}
	}
	return operations
}

// TestExamplesOfAnswers checks that the examples of swagger.yaml match their schemas, and that
// responses to its example requests do, too.
func TestExamplesOfAnswers(t *testing.T) {
	t.Parallel()
	s := setup(t, datarOn)
	flagID := abFlag(t, s)
	evaluate(t, s, 20, object{"country": "FR", "age": 30})
	operations := answersOfSpec(t)
	if len(operations) < 11 {
		t.Fatalf("only %d operations", len(operations))
	}
	for name, operation := range operations {
		if strings.HasSuffix(name, "/tail") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schema := operation.Responses.StatusCodeResponses[http.StatusOK].Schema
			example := operation.Responses.StatusCodeResponses[http.StatusOK].Examples["application/json"]
			if err := validate.AgainstSchema(schema, example, strfmt.Default); err != nil {
				t.Errorf("example of the answer: %v", err)
			}
			method, path, _ := strings.Cut(name, " ")
			var body any
			for _, p := range operation.Parameters {
				if p.In == "body" {
					if body = p.Schema.Example; body == nil {
						t.Fatal("the request has no example")
					}
				}
				if p.Description == "" {
					t.Errorf("parameter %s has no description", p.Name)
				}
			}
			got := call(t, s, method, strings.ReplaceAll(path, "{flagID}", fmt.Sprint(flagID)), body)
			if got.status != http.StatusOK {
				t.Fatalf("%d: %s", got.status, got.raw)
			}
			if err := validate.AgainstSchema(schema, got.body, strfmt.Default); err != nil {
				t.Errorf("answer: %v\n%s", err, got.raw)
			}
		})
	}
}

// TestAnswersAboutFlagsThatAreCountedAnyway checks flags with records off on a server that counts
// all flags.
func TestAnswersAboutFlagsThatAreCountedAnyway(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{"recorded": "not_counted", "all": "changing"} {
		environ := maps.Clone(datarOn)
		environ["FLAGR_RECORDER_DATAR_FLAGS"] = setting
		s := setup(t, environ)
		id, _, _ := booleanFlag(t, s, "quiet", false)
		must(t, s, http.MethodPost, "/evaluation", object{"flagKey": "quiet", "entityID": "e"})
		state := must(t, s, http.MethodGet, fmt.Sprintf("/datar/flags/%d/state", id), nil)
		holes, _ := state["complete"].(map[string]any)["holes"].([]any)
		if off := len(holes) > 0; state["state"] != want || off != (setting == "recorded") {
			t.Errorf("%s: the state is %v, want %s; holes %v", setting, state["state"], want, holes)
		}
	}
}

func TestAnswersRefuseBadInputByName(t *testing.T) {
	t.Parallel()
	s := setup(t, datarOn)
	id := abFlag(t, s)
	flag := fmt.Sprintf("/datar/flags/%d", id)
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		flag + "/outcomes?format=xml":                                        {400, `format is \"xml\", want json or csv`},
		flag + "/outcomes?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z": {400, "from (2026-02-01T00:00:00Z) must not be after to"},
		flag + "/outcomes?from=yesterday":                                    {422, "is not accepted; want a time such as 2026-01-31T18:00:00Z"},
		flag + "/series?bucket=month":                                        {400, "want hour, day or week"},
		flag + "/series?tz=Mars/Olympus":                                     {400, "want a name of the IANA time zone database"},
		flag + "/series?by=country":                                          {400, "want outcome, variant, segment or version"},
		flag + "/series?compare=yesterday":                                   {400, "want previous, week, or a start in RFC 3339"},
		flag + "/series?bucket=hour&from=2020-01-01T00:00:00Z":               {400, "want week, or a shorter window"},
		flag + "/changes?limit=0":                                            {400, "limit is 0, want 1 to 100"},
		flag + "/changes?offset=-1":                                          {400, "offset is -1, want 0 to"},
		flag + "/state?days=366":                                             {400, "days is 366, want 1 to 365"},
		"/datar/states?state=active,lost":                                    {400, `state is \"lost\", want one of not_counted, new`},
		"/datar/states?canDelete=maybe":                                      {400, "want yes, no or unknown"},
		"/datar/states?sort=name":                                            {400, "want traffic, last, key or updated"},
		"/datar/states?limit=1001":                                           {400, "limit is 1001, want 1 to 1000"},
		"/datar/unknown?limit=x":                                             {422, "is not accepted; want an integer of 64 bits"},
		"/datar/unknown?offset=99999999":                                     {400, "offset is 99999999, want 0 to"},
		"/datar/flags/999/outcomes":                                          {404, "unable to find flag 999"},
		"/datar/flags/999/series":                                            {404, "unable to find flag 999"},
		"/datar/flags/999/changes":                                           {404, "unable to find flag 999"},
		"/datar/flags/999/rollout":                                           {404, "unable to find flag 999"},
		"/datar/flags/999/reasons":                                           {404, "unable to find flag 999"},
		"/datar/flags/999/state":                                             {404, "unable to find flag 999"},
		"/datar/flags/999/tail":                                              {404, "unable to find flag 999"},
		"/datar/flags/0/state":                                               {422, "flagID in path must be at least 1, not 0"},
	} {
		got := call(t, s, http.MethodGet, path, nil)
		if got.status != want.status || !strings.Contains(got.raw, want.text) {
			t.Errorf("%s: %d %s, want %d %s", path, got.status, got.raw, want.status, want.text)
		}
	}
	entities := make([]object, 1001)
	for i := range entities {
		entities[i] = object{"entityID": "e"}
	}
	for name, test := range map[string]struct {
		path string
		body any
		want string
	}{
		"no entities":       {"/flags/1/try", object{"entities": []object{}}, "entities has 0 entries, want 1 to 1000"},
		"too many entities": {"/flags/1/try", object{"entities": entities}, "entities has 1001 entries, want 1 to 1000"},
		"a deep context": {"/flags/1/try", `{"entities":[{},{"entityContext":{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}}]}`,
			"entities.1.entityContext nests more than the 100 levels"},
		"a null entity":  {"/flags/1/try", object{"entities": []any{nil}}, "entities.0 must not be null"},
		"bad draft":      {"/flags/1/try", object{"entities": entities[:1], "draft": object{"segments": []object{{"rolloutPercent": 50, "distributions": []object{{"variantKey": "red", "percent": 90}}}}}}, "percents add up to 90, want 100"},
		"bad constraint": {"/datar/flags/1/forecast", object{"draft": object{"segments": []object{{"rolloutPercent": 5, "constraints": []object{{"property": "x", "operator": "EQ", "value": "FR"}}}}}}, "segments[0].constraints[0].value"},
		"other segment":  {"/datar/flags/1/forecast", object{"draft": object{"segments": []object{{"id": 99, "rolloutPercent": 5}}}}, "segment 99 does not belong to flag 1"},
		"not an object":  {"/datar/flags/1/forecast", "[]", "400"},
	} {
		got := call(t, s, http.MethodPost, test.path, test.body)
		if got.status != http.StatusBadRequest && got.status != http.StatusUnprocessableEntity || test.want != "400" && !strings.Contains(got.raw, test.want) {
			t.Errorf("%s: %d %s, want %s", name, got.status, got.raw, test.want)
		}
	}
}

// TestTriesAreBounded checks that the response to a try is limited before its evaluations, that
// responses share memory, and that results are in the order of the entities.
func TestTriesAreBounded(t *testing.T) {
	t.Parallel()
	s := setup(t, map[string]string{"FLAGR_EVAL_ANSWER_BYTES": "1048576"})
	path := fmt.Sprintf("/flags/%d/try", abFlag(t, s))
	segments := make([]object, 200)
	for i := range segments {
		segments[i] = object{"rolloutPercent": 50, "constraints": []object{{"property": "x", "operator": "EQ", "value": "1"}}}
	}
	entities := make([]object, 1000)
	for i := range entities {
		entities[i] = object{"entityID": fmt.Sprint(i), "entityContext": object{"x": 2}}
	}
	got := call(t, s, http.MethodPost, path, object{"entities": entities, "draft": object{"segments": segments}})
	if got.status != http.StatusBadRequest || !strings.Contains(got.raw, "trial of 1000 entities and 200 segments: the answer would have about") ||
		!strings.Contains(got.raw, "the limit is 1048576 (FLAGR_EVAL_ANSWER_BYTES)") {
		t.Errorf("1,000 entities and 200 segments: %d %s", got.status, got.raw)
	}
	results := must(t, s, http.MethodPost, path, object{"entities": entities[:20], "draft": object{"segments": segments}})["results"].([]any)
	if len(results) != 20 {
		t.Fatalf("%d results, want 20", len(results))
	}
	for i, r := range results {
		if r := r.(map[string]any); r["entityID"] != fmt.Sprint(i) || r["outcome"] != "no_match" || len(r["debug"].([]any)) != 200 {
			t.Errorf("result %d is of %v: %v with %d logs", i, r["entityID"], r["outcome"], len(r["debug"].([]any)))
		}
	}
}

// TestDraftsKeepWhatTheyOmit checks that a draft without segments is the saved flag, and that an
// empty list removes them, for tries and forecasts alike.
func TestDraftsKeepWhatTheyOmit(t *testing.T) {
	t.Parallel()
	s := setup(t, map[string]string{"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar"})
	flagID := abFlag(t, s)
	for draft, want := range map[string]struct {
		outcome  string
		segments int
	}{
		`{}`: {"no_match", 1}, `{"segments":null}`: {"no_match", 1}, `{"enabled":null,"variants":null,"segments":null}`: {"no_match", 1},
		`{"segments":[]}`: {"no_segments", 0},
	} {
		tried := must(t, s, http.MethodPost, fmt.Sprintf("/flags/%d/try", flagID), `{"entities":[{"entityID":"a","entityContext":{"country":"DE"}}],"draft":`+draft+`}`)
		if got := tried["results"].([]any)[0].(map[string]any)["outcome"]; got != want.outcome {
			t.Errorf("try of the draft %s: %v, want %s", draft, got, want.outcome)
		}
		forecast := must(t, s, http.MethodPost, fmt.Sprintf("/datar/flags/%d/forecast", flagID), `{"draft":`+draft+`}`)
		if segments, removed := len(forecast["segments"].([]any)), len(forecast["removed"].([]any)); segments != want.segments || removed != 1-want.segments {
			t.Errorf("forecast of the draft %s: %d segments, %d removed; want %d segments", draft, segments, removed, want.segments)
		}
	}
}

// TestUnknownTagsAreNotCounted checks that only keys and IDs are in the list of what is not found:
// a tag names no flag.
func TestUnknownTagsAreNotCounted(t *testing.T) {
	t.Parallel()
	s := setup(t, map[string]string{"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar"})
	must(t, s, http.MethodPost, "/evaluation/batch", object{"entities": []object{{"entityID": "x"}}, "flagTags": []string{"nope-tag"}, "flagKeys": []string{"nope-key"}, "flagIDs": []int{999}})
	unknown := must(t, s, http.MethodGet, "/datar/unknown", nil)["unknown"].([]any)
	var asked []string
	for _, u := range unknown {
		asked = append(asked, u.(map[string]any)["asked"].(string))
	}
	if slices.Sort(asked); !slices.Equal(asked, []string{"999", "nope-key"}) {
		t.Errorf("counted %q", asked)
	}
}

func TestAnswersWithDatarOff(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	flagID, _, _ := booleanFlag(t, s, "on-off", false)
	operations := answersOfSpec(t)
	for _, name := range slices.Sorted(maps.Keys(operations)) {
		method, path, _ := strings.Cut(name, " ")
		path = strings.ReplaceAll(path, "{flagID}", fmt.Sprint(flagID))
		var body any
		want := http.StatusServiceUnavailable
		switch {
		case strings.HasSuffix(path, "/try"):
			body, want = object{"entities": []object{{"entityID": "e"}}}, http.StatusOK
		case strings.HasSuffix(path, "/changes"):
			want = http.StatusOK
		case method == http.MethodPost:
			body = object{"draft": object{}}
		}
		if got := call(t, s, method, path, body); got.status != want {
			t.Errorf("%s: %d %s, want %d", name, got.status, got.raw, want)
		}
	}
}

// TestTryIsNotCounted checks that Try adds no counts, no metrics and no log lines.
func TestTryIsNotCounted(t *testing.T) {
	t.Parallel()
	s := setup(t, map[string]string{
		"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar", "FLAGR_EVAL_DEBUG_ENABLED": "false",
		"FLAGR_EVAL_LOGGING_ENABLED": "true", "FLAGR_PROMETHEUS_ENABLED": "true", "FLAGR_EVAL_BATCH_SIZE": "3",
	})
	flagID := abFlag(t, s)
	before := s.log.String()
	got := must(t, s, http.MethodPost, fmt.Sprintf("/flags/%d/try", flagID), object{
		"entities": []object{{"entityID": "a", "entityContext": object{"country": "FR", "age": 30}}, {"entityContext": object{"country": "FR", "age": "19"}}},
		"draft":    object{"variants": []object{{"key": "red"}}, "segments": []object{{"rolloutPercent": 100, "constraints": []object{{"property": "age", "operator": "GTE", "value": "18"}}, "distributions": []object{{"variantKey": "red", "percent": 100}}}}},
	})
	results := got["results"].([]any)
	first, second := results[0].(map[string]any), results[1].(map[string]any)
	if first["outcome"] != "matched" || first["variantKey"] != "red" || first["variantID"] != nil || second["outcome"] != "no_match" ||
		!strings.Contains(fmt.Sprint(second["debug"]), "cannot be evaluated") || !strings.HasPrefix(second["entityID"].(string), "randomly_generated_") {
		t.Errorf("got %v", results)
	}
	if a := call(t, s, http.MethodPost, fmt.Sprintf("/flags/%d/try", flagID), object{"entities": make([]object, 4)}); a.status != http.StatusBadRequest {
		t.Errorf("more than a batch: %d %s", a.status, a.raw)
	}
	if status := must(t, s, http.MethodGet, "/datar/status", nil); status["recorded"] != 0.0 {
		t.Errorf("recorded %v", status["recorded"])
	}
	if after := s.log.String(); strings.Contains(after[len(before):], "evaluat") && strings.Contains(after[len(before):], "checkout-button") {
		t.Errorf("logged: %s", after[len(before):])
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	if metrics := send(s, r); metrics.status != http.StatusOK || strings.Contains(metrics.raw, `FlagID="1"`) || strings.Contains(metrics.raw, `flag_id="1"`) {
		t.Errorf("metrics: %d", metrics.status)
	}
}

// TestRolloutOfTheFuture checks a window that begins in the future, in which no version is alive
// yet.
func TestRolloutOfTheFuture(t *testing.T) {
	t.Parallel()
	s := setup(t, datarOn)
	flagID := abFlag(t, s)
	from := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Hour)
	a := call(t, s, http.MethodGet, fmt.Sprintf("/datar/flags/%d/rollout?from=%s&to=%s", flagID, from.Format(time.RFC3339), from.Add(time.Hour).Format(time.RFC3339)), nil)
	var rollout struct {
		From, To time.Time
		Versions []any
	}
	if err := json.Unmarshal([]byte(a.raw), &rollout); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %s: %v", a.status, a.raw, err)
	}
	if !rollout.From.Equal(from) || rollout.To.Before(rollout.From) || len(rollout.Versions) != 0 {
		t.Errorf("from %s to %s, %d versions; want none from %s", rollout.From, rollout.To, len(rollout.Versions), from)
	}
}

func TestAnswersAsCSV(t *testing.T) {
	t.Parallel()
	s := setup(t, datarOn)
	flagID := abFlag(t, s)
	must(t, s, http.MethodPut, fmt.Sprintf("/flags/%d", flagID), object{"description": "=HYPERLINK(\"http://x\")\n,\"quoted\""})
	evaluate(t, s, 20, object{"country": "FR", "age": 30})
	testwait.Until(t, "the description in the list", func() bool {
		return strings.Contains(call(t, s, http.MethodGet, "/datar/states?format=csv", nil).raw, "HYPERLINK")
	})
	for path, columns := range map[string]string{ // a change breaks programs that read them by position
		"/datar/states":  "flagID,flagKey,description,enabled,tags,state,stale,reason,canDelete,total,lastAt,findings,changedAt",
		"/datar/unknown": "asked,count,firstAt,lastAt,deletedFlagID,similar",
		"/datar/summary": "flagID,flagKey,description,enabled,deleted,totalEvalCount,lastEvaluatedAt",
		"/datar/fleet":   "name,kind,state,lastFlushAt,recorded,stored,pending,dropped,text",
		"summary":        "by,variantID,variantName,segmentID,segmentName,date,count",
		"outcomes":       "outcome,segmentID,segmentDescription,variantID,variantKey,count,unevaluable,firstAt,lastAt",
		"reasons":        "segmentID,segmentDescription,constraintID,constraint,stopped,missing,otherType,false,examined,of",
		"series":         "start,end,whole,outcome,name,count",
		"changes":        "snapshotID,at,by,effectiveBy,affects,text,what,segmentID,variantID,constraintID,from,to",
		"rollout":        "snapshotID,from,to,segmentID,rank,rolloutPercent,reach,variantID,variantKey,heldOut,percent,buckets,set,count,got",
	} {
		if !strings.HasPrefix(path, "/") {
			path = fmt.Sprintf("/datar/flags/%d/%s", flagID, path)
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1"+path+"?format=csv", nil)
		rw := httptest.NewRecorder()
		s.ServeHTTP(rw, r)
		if rw.Code != http.StatusOK || !strings.HasPrefix(rw.Header().Get("Content-Type"), "text/csv; charset=utf-8") {
			t.Fatalf("%s: %d %s %s", path, rw.Code, rw.Header(), rw.Body)
		}
		text := rw.Body.String()
		records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
		if err != nil || len(records) < 1 || strings.Count(text, "\r\n") < len(records) {
			t.Fatalf("%s: %v: %q", path, err, text)
		}
		if got := strings.Join(records[0], ","); got != columns {
			t.Errorf("%s has the columns %s, want %s", path, got, columns)
		}
		for _, record := range records {
			for _, cell := range record {
				if cell != "" && strings.ContainsRune("=+-@\t\r\n", rune(cell[0])) {
					t.Errorf("%s: a spreadsheet would run %q", path, cell)
				}
			}
		}
		if (path == "/datar/states" || path == "/datar/summary") && records[1][2] != "'=HYPERLINK(\"http://x\")\n,\"quoted\"" {
			t.Errorf("description is %q", records[1][2])
		}
	}
}

// TestTail checks that the tail shows the results of single entities, without their IDs and
// contexts.
func TestTail(t *testing.T) {
	t.Parallel()
	s := setup(t, datarOn)
	flagID := abFlag(t, s)
	web := httptest.NewServer(s)
	defer web.Close()
	listen := func(ctx context.Context) *bufio.Scanner {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/api/v1/datar/flags/%d/tail", web.URL, flagID), nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("%d %s", response.StatusCode, response.Header)
		}
		lines := bufio.NewScanner(response.Body)
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), ":") {
			t.Fatalf("begins with %q", lines.Text())
		}
		return lines
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	lines, other := listen(ctx), listen(ctx)
	for range 30 { // more than 20 per second, unless the machine is very slow
		for range 10 {
			must(t, s, http.MethodPost, "/evaluation", object{"flagKey": "checkout-button", "entityID": "ada@example.com", "entityContext": object{"country": "FR", "age": 30, "secret": "hush"}})
		}
	}
	read := func(lines *bufio.Scanner) (entity string, text string) {
		skipped := false
		for !skipped && lines.Scan() {
			text += lines.Text() + "\n"
			if _, after, ok := strings.Cut(lines.Text(), `"entity":"`); ok {
				entity, _, _ = strings.Cut(after, `"`)
			}
			skipped = strings.HasPrefix(lines.Text(), "event: skipped")
		}
		return entity, text
	}
	first, text := read(lines)
	second, _ := read(other)
	if first == "" || second == "" || first == second || strings.Contains(text, "ada") || strings.Contains(text, "hush") ||
		!strings.Contains(text, "event: evaluation\ndata: {") || !strings.Contains(text, `"bucket":`) || !strings.Contains(text, `"rolloutPercent":50`) || !strings.Contains(text, "event: skipped") {
		t.Errorf("hashes %q and %q:\n%s", first, second, text)
	}
	cancel()
	testwait.Until(t, "the listeners to be gone", func() bool {
		fresh, end := context.WithTimeout(t.Context(), time.Minute)
		defer end()
		r, err := http.NewRequestWithContext(fresh, http.MethodGet, fmt.Sprintf("%s/api/v1/datar/flags/%d/tail", web.URL, flagID), nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode == http.StatusOK
	})
	off := setup(t, map[string]string{"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar"})
	booleanFlag(t, off, "f", true)
	if a := call(t, off, http.MethodGet, "/datar/flags/1/tail", nil); a.status != http.StatusNotImplemented || !strings.Contains(a.raw, "FLAGR_RECORDER_DATAR_TAIL_ENABLED=true") {
		t.Errorf("switched off: %d %s", a.status, a.raw)
	}
}

// TestEveryAnswerIsComplete expects the member complete in each response with counts, and the hole
// of a flag whose records were off.
func TestEveryAnswerIsComplete(t *testing.T) {
	t.Parallel()
	s := setup(t, datarOn)
	id := abFlag(t, s)
	must(t, s, http.MethodPut, fmt.Sprintf("/flags/%d", id), object{"dataRecordsEnabled": false})
	must(t, s, http.MethodPut, fmt.Sprintf("/flags/%d", id), object{"dataRecordsEnabled": true})
	evaluate(t, s, 3, object{"country": "FR", "age": 20})
	of := fmt.Sprintf("/datar/flags/%d", id)
	for _, request := range []string{
		"GET /datar/summary", "GET /datar/status", "GET " + of + "/summary", "GET " + of + "/outcomes", "GET " + of + "/reasons", "GET " + of + "/series",
		"GET " + of + "/rollout", "GET " + of + "/state", "GET /datar/states", "GET /datar/unknown", "POST " + of + "/forecast",
	} {
		method, path, _ := strings.Cut(request, " ")
		var body any
		if method == http.MethodPost {
			body = object{"draft": object{"segments": []object{}}}
		}
		answer := must(t, s, method, path, body)
		complete, ok := answer["complete"].(map[string]any)
		if !ok || complete["servers"] != 1.0 || complete["silent"] != 0.0 || complete["dropped"] != 0.0 {
			t.Errorf("%s: complete is %v, want one server", request, answer["complete"])
			continue
		}
		upTo, err := time.Parse(time.RFC3339, fmt.Sprint(complete["upTo"]))
		if age := time.Since(upTo); err != nil || age > time.Minute || age < -time.Minute {
			t.Errorf("%s: complete up to %v (%v)", request, complete["upTo"], err)
		}
		var why []any
		for _, hole := range complete["holes"].([]any) {
			why = append(why, hole.(map[string]any)["why"])
		}
		if ofFlag := strings.Contains(path, "/flags/"); ofFlag != slices.Contains(why, any("records_off")) {
			t.Errorf("%s: holes are for %v; want records_off only in answers about the flag", request, why)
		}
	}
}
