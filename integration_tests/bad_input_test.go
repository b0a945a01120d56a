package integration_tests

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// spec is the part of the description at /swagger.json that the tests use.
type spec struct {
	BasePath    string
	Paths       map[string]map[string]operation
	Definitions map[string]schema
}

type operation struct {
	OperationID string
	Parameters  []parameter
}

type parameter struct {
	In, Name, Type, Format string
	Required               bool
	Enum                   []string
	Items                  *schema
	Schema                 *schema
}

type schema struct {
	Ref        string `json:"$ref"`
	Type       string
	Format     string
	Enum       []string
	Required   []string
	ReadOnly   bool
	Nullable   bool `json:"x-nullable"`
	MinLength  int
	MinItems   int
	Minimum    *int64
	Maximum    *int64
	Items      *schema
	Properties map[string]schema
}

// badCase is an invalid request, and the response that it must get.
type badCase struct {
	name        string
	operationID string
	method      string
	path        string // under /api/v1
	body        any    // as for call
	contentType string // empty: application/json if there is a body
	header      http.Header
	status      int    // the required status; 0: any 4xx
	tolerated   bool   // 200 is also accepted
	field       string // the field of the body that the message must name; empty if the cause is not a field
}

// validBodies has an accepted body for each type of request.
var validBodies = map[string]object{
	"createFlagRequest":        {"description": "d"},
	"putFlagRequest":           {"description": "d"},
	"duplicateFlagRequest":     {"description": "d"},
	"setFlagEnabledRequest":    {"enabled": true},
	"createTagRequest":         {"value": "web"},
	"createVariantRequest":     {"key": "v"},
	"putVariantRequest":        {"key": "on"},
	"createSegmentRequest":     {"description": "d", "rolloutPercent": 50},
	"putSegmentRequest":        {"description": "d", "rolloutPercent": 50},
	"putSegmentReorderRequest": {"segmentIDs": []int{1}},
	"createConstraintRequest":  {"property": "country", "operator": "EQ", "value": `"FR"`},
	"putDistributionsRequest":  {"distributions": []object{{"variantID": 1, "variantKey": "on", "percent": 100}}},
	"evalContext":              {"flagID": 1, "entityID": "u"},
	"evaluationBatchRequest":   {"flagIDs": []int{1}, "entities": []object{{"entityID": "u"}}},
	"exposuresRequest":         {"exposures": []object{{"flagID": 1, "entityID": "u"}}},
	"datarForecastRequest":     {"draft": object{"segments": []object{}}},
	"flagTryRequest":           {"entities": []object{{"entityID": "u"}}},
	"flagDefinition":           {"snapshotID": 987654},
	"datarEvaluations":         {"flagEvaluations": []object{{"flag": object{"key": "nobody"}, "evaluation_count": 1, "last_evaluation": time.Now().UnixMilli()}}},
}

// TestBadInput sends invalid requests to every operation of the description. Each must get a 4xx
// with a message, must change nothing, and must not crash the server.
func TestBadInput(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		s := start(t, db, db.fresh(t), map[string]string{
			"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar", "FLAGR_RECORDER_DATAR_INGEST_ENABLED": "true",
		})
		f := newFlag(t, s, "victim")
		send[any](t, s, http.MethodPost, f.path()+"/tags", object{"value": "web"})
		send[any](t, s, http.MethodPost, f.path()+"/segments/1/constraints", validBodies["createConstraintRequest"])
		other := newFlag(t, s, "other")
		awaitChanges(t, s)

		cases := append(fromDescription(t, s), handWritten(f, other)...)
		slices.SortStableFunc(cases, func(a, b badCase) int { // the ones that may change something are last
			switch {
			case a.tolerated == b.tolerated:
				return 0
			case b.tolerated:
				return -1
			default:
				return 1
			}
		})
		maxID := func() int64 { return get[struct{ MaxID int64 }](t, s, "/flags/snapshots/max_id").MaxID }
		before := maxID()
		tolerating := false
		for _, c := range cases {
			if c.tolerated && !tolerating {
				tolerating = true
				if after := maxID(); after != before {
					t.Errorf("rejected requests made %d changes", after-before)
				}
			}
			checkBadCase(t, s, c)
		}
		if !tolerating || len(cases) < 500 {
			t.Errorf("only %d cases: the description was not parsed completely", len(cases))
		}
		t.Logf("%d requests", len(cases))
		if got := evaluate(t, s, other, "u", nil); got.VariantID == 0 {
			t.Errorf("after all requests, the evaluation is %+v", got)
		}
	})
}

func checkBadCase(t *testing.T, s *server, c badCase) {
	t.Helper()
	name := c.name + ": " + c.method + " " + shorten(c.path)
	if c.body != nil {
		name += " " + shorten(fmt.Sprint(c.body))
	}
	text, _ := c.body.(string)
	if object, ok := c.body.(object); ok {
		encoded, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		text = string(encoded)
	}
	request, err := http.NewRequest(c.method, s.url+c.path, strings.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	switch {
	case c.contentType != "":
		request.Header.Set("Content-Type", c.contentType)
	case c.body != nil:
		request.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(request.Header, c.header)
	if len(text) > 16<<20 {
		request.Header.Set("Expect", "100-continue") // so that the rejection arrives before the body is sent
	}
	a, err := s.do(request)
	if err != nil {
		t.Fatalf("%s: %v; the log:\n%s", name, err, s.log)
	}
	switch {
	case a.status == http.StatusOK && c.tolerated:
		return
	case a.status == http.StatusOK && c.path == "/datar/evaluations": // the other rows are counted
		checkRefusedRow(t, name, a.body)
		return
	case a.status == http.StatusNotImplemented && strings.HasSuffix(c.path, "/tail"): // it is off
		return
	case a.status < 400 || a.status > 499:
		t.Errorf("%s: %d %s, want 4xx", name, a.status, shorten(string(a.body)))
		return
	case c.status != 0 && a.status != c.status:
		t.Errorf("%s: %d %s, want %d", name, a.status, shorten(string(a.body)), c.status)
	}
	var body struct{ Message string }
	if err := json.Unmarshal(a.body, &body); err != nil || body.Message == "" {
		t.Errorf("%s: %d %s, want a JSON object with a message", name, a.status, shorten(string(a.body)))
	}
	// No field is named if the body is too large, if a time cannot be parsed (its type has no field
	// name), or if a definition is based on another version of the flag (it is not validated
	// further).
	nameless := a.status == http.StatusRequestEntityTooLarge || a.status == http.StatusConflict || strings.Contains(body.Message, "parsing time")
	if !nameless && !strings.Contains(body.Message, c.field) {
		t.Errorf("%s: the message does not name %s: %s", name, c.field, shorten(body.Message))
	}
	if contentType := a.header.Get("Content-Type"); !strings.HasPrefix(contentType, "application/json") {
		t.Errorf("%s: Content-Type %q", name, contentType)
	}
	for _, inner := range []string{"SQLITE_", "SQLSTATE", "sql:", "gorm", "constraint failed", "runtime error", ".go:"} {
		if strings.Contains(body.Message, inner) {
			t.Errorf("%s: the message shows internals of the server: %s", name, shorten(body.Message))
		}
	}
}

// checkRefusedRow checks that no row of a body was counted, and that the response has the reason.
func checkRefusedRow(t *testing.T, name string, body []byte) {
	t.Helper()
	var answer struct {
		AcceptedCount int64
		Errors        []struct{ Code, Message string }
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.AcceptedCount != 0 || len(answer.Errors) == 0 || answer.Errors[0].Message == "" {
		t.Errorf("%s: %s, want a row that is rejected with a reason", name, shorten(string(body)))
	}
}

func shorten(text string) string {
	if len(text) > 200 {
		return text[:200] + "…"
	}
	return text
}

// fromDescription returns cases that each break one parameter or one field of one operation.
func fromDescription(t *testing.T, s *server) []badCase {
	t.Helper()
	response := s.at(t, "/swagger.json")
	var description spec
	decode(t, response.body, &description)

	var cases []badCase
	for _, path := range slices.Sorted(maps.Keys(description.Paths)) { // sorted, so that failures are reproducible
		operations := description.Paths[path]
		ids := path
		for _, name := range []string{"flagID", "segmentID", "variantID", "constraintID", "tagID"} {
			ids = strings.ReplaceAll(ids, "{"+name+"}", "1")
		}
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			o, ok := operations[strings.ToLower(method)]
			if !ok {
				cases = append(cases, badCase{name: "wrong method", method: method, path: ids, body: "{}"})
				continue
			}
			var body *parameter
			for _, p := range o.Parameters {
				if p.In == "body" {
					body = &p
				}
			}
			add := func(name, path string, value any, tolerated bool) {
				cases = append(cases, badCase{name: name, operationID: o.OperationID, method: method, path: path, body: value, tolerated: tolerated})
			}
			var valid any
			if body != nil {
				name := strings.TrimPrefix(body.Schema.Ref, "#/definitions/")
				known, ok := validBodies[name]
				if !ok {
					t.Fatalf("%s: no valid %s is known", o.OperationID, name)
				}
				valid = known
				cases = append(cases, badCase{name: "wrong content type", operationID: o.OperationID, method: method, path: ids, body: valid,
					contentType: "text/plain"})
				add("malformed content type", ids, valid, true)
				cases[len(cases)-1].contentType = "application/json; charset=\x80"
				if body.Required {
					add("no body", ids, nil, false)
				}
				for _, text := range []string{
					"{", "nope", "[]", `"text"`, "5", "true", "\x00", "\xff\xfe", "{\"a\":\"\xff", strings.Repeat("[", 100_000),
					strings.Repeat(`{"entityContext":`, 100_000), strings.Repeat("x", 1<<20),
				} {
					add("malformed body", ids, text, false)
				}
				// encoding/json decodes null as an object without fields.
				add("null body", ids, "null", !body.Required || len(description.Definitions[name].Required) == 0)
				add("two bodies", ids, "{}{}", true)
				add("unknown field", ids, with(known, "unknown", 1), true)
				for _, b := range badFields(description, description.Definitions[name], known) {
					add(b.name, ids, b.body, b.tolerated)
					cases[len(cases)-1].field = b.field
				}
			}
			for _, p := range o.Parameters {
				switch p.In {
				case "path":
					for _, value := range []string{"abc", "99999999999999999999", "1.5", "0x1", "%20", "%00", "%ff", "0", "-1"} {
						add("path "+p.Name, strings.ReplaceAll(path, "{"+p.Name+"}", value), valid, false)
					}
					for _, value := range []string{"987654", "9223372036854775807"} {
						add("unknown "+p.Name, strings.ReplaceAll(path, "{"+p.Name+"}", value), valid, method == http.MethodGet)
					}
				case "query":
					bad, tolerated := badParameters(p)
					for _, value := range bad {
						add("query "+p.Name, ids+"?"+p.Name+"="+value, valid, false)
					}
					for _, value := range tolerated {
						add("query "+p.Name, ids+"?"+p.Name+"="+value, valid, true)
					}
				}
			}
		}
	}
	for i := range cases { // replace the path parameters that are not broken
		for _, name := range []string{"flagID", "segmentID", "variantID", "constraintID", "tagID"} {
			cases[i].path = strings.ReplaceAll(cases[i].path, "{"+name+"}", "1")
		}
	}
	return cases
}

// badParameters returns invalid values of a query parameter, and unusual values that may be
// accepted.
func badParameters(p parameter) (bad, odd []string) {
	odd = []string{"", "%00", "%ff", "'", "%25", strings.Repeat("x", 100_000)}
	kind := p.Type
	if p.Type == "array" {
		kind = p.Items.Type
	}
	switch {
	case kind == "integer":
		bad = []string{"abc", "1.5", "99999999999999999999", "-1", "0x1"}
	case p.Format == "date-time":
		bad = []string{"yesterday", "2026-13-45T00:00:00Z", "99999-01-01T00:00:00Z", "1700000000", "%00"}
	case kind == "boolean":
		bad = []string{"maybe", "5", "%00", "%20true"}
		odd = []string{"", "yes", "OFF"}
	case len(p.Enum) > 0:
		bad = []string{"sideways", "%00", "asc"}
	case p.Name == "json":
		bad = []string{"", "{", "nope", "[]", "5", "%22x%22", "%00", "%ff", strings.Repeat("%5B", 1000), strings.Repeat("x", 10_000)}
		odd = []string{"null"}
	}
	return bad, odd
}

// badField is a body with one invalid field.
type badField struct {
	name      string
	body      object
	tolerated bool
	field     string
}

// badFields returns copies of a valid body that each have one invalid field.
func badFields(description spec, of schema, valid object) []badField {
	var bodies []badField
	for _, name := range of.Required {
		without := with(valid, name, nil)
		delete(without, name)
		bodies = append(bodies, badField{"without " + name, without, false, name})
	}
	for _, name := range slices.Sorted(maps.Keys(of.Properties)) {
		field := of.Properties[name]
		if field.Ref != "" {
			field = description.Definitions[strings.TrimPrefix(field.Ref, "#/definitions/")]
		}
		required := slices.Contains(of.Required, name)
		for _, v := range badValues(field) {
			// A zero in an optional field is the same as a missing field, so its limits do not
			// apply.
			missing := !required && v.value == any(int64(0))
			bodies = append(bodies, badField{"field " + name, with(valid, name, v.value), v.tolerated || missing || field.ReadOnly, name})
		}
		bodies = append(bodies, badField{"null " + name, with(valid, name, nil), !required, name})
		if field.Type != "array" {
			continue
		}
		items := *field.Items
		if items.Ref != "" {
			items = description.Definitions[strings.TrimPrefix(items.Ref, "#/definitions/")]
		}
		bodies = append(bodies, badField{"null in " + name, with(valid, name, []any{nil}), true, name})
		if list, ok := valid[name].([]object); ok {
			bodies = append(bodies, badField{"null beside others in " + name, with(valid, name, []any{list[0], nil}), true, name})
			for _, inner := range badFields(description, items, list[0]) {
				bodies = append(bodies, badField{inner.name + " in " + name, with(valid, name, []any{inner.body}), inner.tolerated, inner.field})
			}
			continue
		}
		for _, v := range badValues(items) {
			bodies = append(bodies, badField{"in " + name, with(valid, name, []any{v.value}), v.tolerated, name})
		}
	}
	return bodies
}

type badValue struct {
	value     any
	tolerated bool
}

// badValues returns invalid values of a field, and unusual values that may be accepted.
func badValues(of schema) []badValue {
	var values []badValue
	refuse := func(all ...any) {
		for _, v := range all {
			values = append(values, badValue{v, false})
		}
	}
	tolerate := func(all ...any) {
		for _, v := range all {
			values = append(values, badValue{v, true})
		}
	}
	switch of.Type {
	case "string":
		refuse(5, true, []any{}, object{})
		if of.MinLength > 0 {
			refuse("")
		}
		if of.Format != "" || len(of.Enum) > 0 {
			refuse("sideways")
		}
		tolerate(strings.Repeat("x", 1<<20), "\x00", json.RawMessage(`"\ud800"`), "<script>'\";--", " ", "%s%d", "😀")
	case "integer":
		refuse("5", true, []any{}, object{}, 1.5, json.RawMessage("99999999999999999999"), json.RawMessage("1e400"))
		if of.Minimum != nil {
			refuse(*of.Minimum-1, -1<<63)
		}
		if of.Maximum != nil {
			refuse(*of.Maximum+1, 1<<31, 1<<40)
		}
		tolerate(1<<62, json.RawMessage("1e3"), -1)
	case "boolean":
		refuse("true", 1, []any{}, object{})
	case "array":
		refuse("x", 5, object{}, true)
		if of.MinItems > 0 {
			refuse([]any{})
		}
	default: // objects of any shape
		tolerate("x", 5, true, []any{1}, object{"": nil, "\x00": strings.Repeat("x", 1<<20)}, json.RawMessage(`{"n":1e999}`))
	}
	return values
}

func with(body object, name string, value any) object {
	changed := object{}
	maps.Copy(changed, body)
	changed[name] = value
	return changed
}

// handWritten returns the cases that do not follow from the types in the description.
func handWritten(f, other flagAnswer) []badCase {
	post, put, del := http.MethodPost, http.MethodPut, http.MethodDelete
	foreign := fmt.Sprint("/segments/", other.Segments[0].ID)
	long := strings.Repeat("x", 64)
	cases := []badCase{
		{name: "unknown path", method: http.MethodGet, path: "/nope"},
		{name: "body over the limit", method: post, path: "/evaluation", body: `{"entityID":"` + strings.Repeat("x", 17<<20) + `"}`},
		{name: "key of another flag", method: post, path: "/flags", body: object{"description": "d", "key": "victim"}},
		{name: "key with a space", method: post, path: "/flags", body: object{"description": "d", "key": "a b"}},
		{name: "key with a letter beyond ASCII", method: post, path: "/flags", body: object{"description": "d", "key": "é"}},
		{name: "key too long", method: post, path: "/flags", body: object{"description": "d", "key": long}},
		{name: "unknown template", method: post, path: "/flags", body: object{"description": "d", "template": "nope"}},
		{name: "key of another flag", method: put, path: f.path(), body: object{"key": "other"}},
		{name: "empty key", method: put, path: f.path(), body: object{"key": ""}},
		{name: "malformed entity type", method: put, path: f.path(), body: object{"entityType": "a b"}},
		{name: "key of another flag", method: post, path: f.path() + "/duplicate", body: object{"key": "other"}},
		{name: "restore of what was never there", method: put, path: "/flags/987654/restore"},
		{name: "malformed tag", method: post, path: f.path() + "/tags", body: object{"value": "a!"}},
		{name: "tag too long", method: post, path: f.path() + "/tags", body: object{"value": long}},
		{name: "malformed variant", method: post, path: f.path() + "/variants", body: object{"key": "a b"}},
		{name: "attachment is a text", method: post, path: f.path() + "/variants", body: object{"key": "v", "attachment": "x"}},
		{name: "attachment is a list", method: post, path: f.path() + "/variants", body: object{"key": "v", "attachment": []int{1}}},
		{name: "attachment is a number", method: put, path: f.path() + "/variants/1", body: object{"key": "on", "attachment": 5}},
		{name: "variant of another flag", method: put, path: fmt.Sprintf("%s/variants/%d", f.path(), other.Variants[0].ID),
			body: object{"key": "x"}},
		{name: "variant of another flag", method: del, path: fmt.Sprintf("%s/variants/%d", f.path(), other.Variants[0].ID)},
		{name: "variant in use", method: del, path: f.path() + "/variants/1"},
		{name: "segment of another flag", method: put, path: f.path() + foreign, body: validBodies["putSegmentRequest"]},
		{name: "segment of another flag", method: del, path: f.path() + foreign},
		{name: "segment of another flag", method: post, path: f.path() + foreign + "/constraints",
			body: validBodies["createConstraintRequest"]},
		{name: "segment of another flag", method: put, path: f.path() + foreign + "/constraints/1",
			body: validBodies["createConstraintRequest"]},
		{name: "segment of another flag", method: del, path: f.path() + foreign + "/constraints/1"},
		{name: "segment of another flag", method: put, path: f.path() + foreign + "/distributions",
			body: validBodies["putDistributionsRequest"]},
		{name: "constraint of another segment", method: put, path: other.path() + foreign + "/constraints/1",
			body: validBodies["createConstraintRequest"]},
		{name: "constraint of another segment", method: del, path: other.path() + foreign + "/constraints/1"},
		{name: "segments of another flag", method: put, path: f.path() + "/segments/reorder",
			body: object{"segmentIDs": []int64{other.Segments[0].ID}}},
		{name: "unknown operator", method: post, path: f.path() + "/segments/1/constraints",
			body: object{"property": "a", "operator": "BETWEEN", "value": "1"}},
		{name: "value without quotes", method: post, path: f.path() + "/segments/1/constraints",
			body: object{"property": "a", "operator": "EQ", "value": "FR"}},
		{name: "pattern that does not compile", method: post, path: f.path() + "/segments/1/constraints",
			body: object{"property": "a", "operator": "EREG", "value": `"("`}, tolerated: true},
		{name: "only blanks", method: post, path: f.path() + "/segments/1/constraints",
			body: object{"property": " ", "operator": "EQ", "value": " "}},
		{name: "condition injected", method: post, path: f.path() + "/segments/1/constraints",
			body: object{"property": "a} == 1) OR ({b", "operator": "EQ", "value": "1"}, tolerated: true},
		{name: "value very deep", method: post, path: f.path() + "/segments/1/constraints",
			body: object{"property": "a", "operator": "IN", "value": strings.Repeat("[", 50_000)}},
		{name: "value in many brackets", method: put, path: f.path() + "/segments/1/constraints/1",
			body: object{"property": "a", "operator": "EQ", "value": strings.Repeat("(", 50_000)}},
		{name: "value that would fill the stack", method: post, path: f.path() + "/segments/1/constraints",
			body: object{"property": "a", "operator": "EQ", "value": strings.Repeat("(", 8<<20)}},
		{name: "pattern of many parts", method: post, path: f.path() + "/segments/1/constraints",
			body: object{"property": "a", "operator": "EREG", "value": `"` + strings.Repeat(".", 1<<20) + `"`}},
		{name: "property of many parts", method: post, path: f.path() + "/segments/1/constraints",
			body: object{"property": strings.Repeat("a.", 1<<19) + "a", "operator": "EQ", "value": "1"}},
		{name: "sum below 100", method: put, path: f.path() + "/segments/1/distributions",
			body: object{"distributions": []object{{"variantID": 1, "variantKey": "on", "percent": 99}}}},
		{name: "sum above 100", method: put, path: f.path() + "/segments/1/distributions",
			body: object{"distributions": []object{
				{"variantID": 1, "variantKey": "on", "percent": 100}, {"variantID": 1, "variantKey": "on", "percent": 100},
			}}},
		{name: "no distributions", method: put, path: f.path() + "/segments/1/distributions", body: object{"distributions": []any{}}},
		{name: "key of another variant", method: put, path: f.path() + "/segments/1/distributions",
			body: object{"distributions": []object{{"variantID": 1, "variantKey": "off", "percent": 100}}}},
		{name: "variant of another flag", method: put, path: f.path() + "/segments/1/distributions",
			body: object{"distributions": []object{{"variantID": other.Variants[0].ID, "variantKey": "on", "percent": 100}}}},
		{name: "unknown way to combine tags", method: post, path: "/evaluation",
			body: object{"flagTags": []string{"web"}, "flagTagsOperator": "SOME"}},
		{name: "null entity", method: post, path: "/evaluation/batch", body: object{"flagIDs": []int{1}, "entities": []any{nil}},
			tolerated: true},
		{name: "no entity", method: post, path: "/evaluation/batch", body: object{"flagIDs": []int{1}, "entities": []any{}}},
		{name: "flag 0", method: post, path: "/evaluation/batch", body: object{"flagIDs": []int{0}, "entities": []object{{}}}},
		{name: "empty key", method: post, path: "/evaluation/batch", body: object{"flagKeys": []string{""}, "entities": []object{{}}}},
		{name: "very deep context", method: post, path: "/evaluation",
			body: `{"flagID":1,"entityContext":` + strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_001)},
	}
	cases = append(cases, badCounts()...)
	for _, query := range []string{
		"limit=0", "limit=-1", "limit=1001", "limit=99999999999", "limit=1e3", "limit=ten", "offset=-1", "offset=99999999999",
		"from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", "from=2999-01-01T00:00:00Z", "to=2000-01-01T00:00:00Z",
		"to=now", "to=2026-01-01T25:00:00Z", "from=2026-02-30T00:00:00Z", "from=%2B5",
	} {
		cases = append(cases, badCase{name: "datar", method: http.MethodGet, path: "/datar/summary?" + query})
		if !strings.Contains(query, "limit") && !strings.Contains(query, "offset") {
			cases = append(cases, badCase{name: "datar", method: http.MethodGet, path: "/datar/flags/1/summary?" + query})
		}
	}
	questions := map[string]string{
		`{"flagID":-1}`:                        "/evaluation",
		`{"flagID":"1"}`:                       "/evaluation",
		`{"flagTagsOperator":"SOME"}`:          "/evaluation",
		`{"flagID":99999999999999999999}`:      "/evaluation",
		`{"flagIDs":[1]}`:                      "/evaluation/batch",
		`{"entities":[],"flagIDs":[1]}`:        "/evaluation/batch",
		`{"entities":[{}],"flagIDs":[0]}`:      "/evaluation/batch",
		`{"entities":[{}],"flagIDs":["one"]}`:  "/evaluation/batch",
		`{"entities":{"0":{}},"flagIDs":[1]}`:  "/evaluation/batch",
		`{"entities":[{"entityID":5}]}`:        "/evaluation/batch",
		`{"entities":[{}],"enableDebug":"no"}`: "/evaluation/batch",
	}
	for _, body := range slices.Sorted(maps.Keys(questions)) {
		path := questions[body]
		cases = append(cases,
			badCase{name: "evaluation", method: http.MethodGet, path: path + "?json=" + url.QueryEscape(body)},
			badCase{name: "evaluation", method: http.MethodPost, path: path, body: body})
	}
	return cases
}

// badCounts are batches of counts that are rejected as a whole. Senders depend on the status.
func badCounts() []badCase {
	const path = "/datar/evaluations"
	batch := validBodies["datarEvaluations"]
	now := time.Now().UnixMilli()
	row := func(last any) object {
		return object{"flag": object{"key": "nobody"}, "evaluation_count": 1, "last_evaluation": last}
	}
	line := fmt.Sprintf(`{"flag":{"key":"nobody"},"evaluation_count":1,"last_evaluation":%d}`, now)
	key := func(keys ...string) http.Header { return http.Header{"Idempotency-Key": keys} }
	lines := "application/x-ndjson"
	cases := []badCase{
		{name: "no body", body: "", field: "flagEvaluations"},
		{name: "blank body", body: " \n", field: "flagEvaluations"},
		{name: "no lines", body: "\n\n", contentType: lines, field: "flagEvaluations"},
		{name: "a list", body: "[]", field: "flagEvaluations"},
		{name: "rows under another name", body: object{"evaluations": batch["flagEvaluations"]}, field: "flagEvaluations"},
		{name: "cut", body: `{"flagEvaluations":[` + line},
		{name: "cut last line", body: line + "\n" + line[:len(line)-1], contentType: lines, field: "line 2"},
		{name: "two rows on a line", body: line + line, contentType: lines, field: "line 1"},
		{name: "huge count", body: strings.Replace(line, `count":1`, `count":1e400`, 1), contentType: lines, field: "evaluation_count"},
		{name: "text for a count", body: strings.Replace(line, `count":1`, `count":"1"`, 1), contentType: lines, field: "evaluation_count"},
		{name: "all rows too old", body: object{"flagEvaluations": []object{row(now - 25*3600*1000), row(-5)}}, field: "last_evaluation"},
		{name: "empty key", body: batch, header: key(""), field: "Idempotency-Key"},
		{name: "blank key", body: batch, header: key("   "), field: "Idempotency-Key"},
		{name: "long key", body: batch, header: key(strings.Repeat("k", 201)), field: "Idempotency-Key"},
		{name: "two keys", body: batch, header: key("a", "b"), field: "Idempotency-Key"},
		{name: "no gzip", body: batch, header: http.Header{"Content-Encoding": {"gzip"}}, field: "gzip"},
		{name: "another encoding", body: batch, header: http.Header{"Content-Encoding": {"br"}}, status: http.StatusUnsupportedMediaType, field: "gzip"},
		{name: "another type", body: batch, contentType: "text/csv", status: http.StatusUnsupportedMediaType, field: lines},
		{name: "too large", body: strings.Repeat(" ", 1<<20) + line, status: http.StatusRequestEntityTooLarge},
		{name: "too many rows", body: strings.Repeat(line+"\n", 1001), contentType: lines, status: http.StatusRequestEntityTooLarge},
	}
	for i := range cases {
		cases[i].method, cases[i].path = http.MethodPost, path
		if cases[i].status == 0 {
			cases[i].status = http.StatusBadRequest
		}
	}
	return cases
}

// TestBodiesAreNotReadAsRequests sends a large body that is rejected at its first byte and contains
// many requests. The server must return one response.
func TestBodiesAreNotReadAsRequests(t *testing.T) {
	t.Parallel()
	db := databases[0] // the test uses no database
	s := start(t, db, db.fresh(t), nil)
	inner := "DELETE /api/v1/flags/1 HTTP/1.1\r\nHost: h\r\n\r\n"
	for _, path := range []string{"/evaluation", "/evaluation/batch", "/flags", "/health", "/nope", "/exposures"} {
		connection, err := net.Dial("tcp", s.address())
		if err != nil {
			t.Fatal(err)
		}
		if err := connection.SetDeadline(time.Now().Add(startDeadline)); err != nil {
			t.Fatal(err)
		}
		body := strings.Repeat(inner, 20_000)
		go func() {
			// This fails once the server has closed the connection.
			_, _ = fmt.Fprintf(connection, "POST /api/v1%s HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"+
				"Content-Length: %d\r\n\r\n%s", path, len(body), body)
		}()
		answers, _ := io.ReadAll(connection) // ends with EOF or with a reset
		if n := strings.Count(string(answers), "HTTP/1.1 "); n > 1 {
			t.Errorf("POST %s: one request got %d answers:\n%s", path, n, answers)
		}
		_ = connection.Close()
	}
}

// TestMessagesNameTheParameter checks that the message names the invalid parameter.
func TestMessagesNameTheParameter(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		s := start(t, db, db.fresh(t), nil)
		newFlag(t, s, "f")
		for query, name := range map[string]string{
			"/datar/summary?limit=0":                                                   "limit",
			"/datar/summary?limit=1001":                                                "limit",
			"/datar/summary?limit=x":                                                   "limit",
			"/datar/summary?offset=-1":                                                 "offset",
			"/datar/summary?from=yesterday":                                            "from",
			"/datar/summary?to=tomorrow":                                               "to",
			"/datar/summary?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z":         "from",
			"/datar/flags/1/summary?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z": "from",
			"/datar/flags/x/summary":                                                   "flagID",
			"/flags?limit=x":                                                           "limit",
			"/flags/1/snapshots?sort=x":                                                "sort",
			"/evaluation":                                                              "json",
			"/evaluation/batch?json=":                                                  "json",
		} {
			a := s.call(t, http.MethodGet, query, nil)
			var body struct{ Message string }
			decode(t, a.body, &body)
			if a.status != http.StatusBadRequest && a.status != http.StatusUnprocessableEntity || !strings.Contains(body.Message, name) {
				t.Errorf("%s: %s, want 400 or 422 with a message that names %s", query, a, name)
			}
		}
		for path, want := range map[string]string{
			"/evaluation?json=%7B":        "json is not valid evalContext",
			"/evaluation/batch?json=%7B":  "json is not valid evaluationBatchRequest",
			"/evaluation/batch?json=%7B7": "json is not valid evaluationBatchRequest",
		} {
			a := s.call(t, http.MethodGet, path, nil)
			var body struct{ Message string }
			decode(t, a.body, &body)
			if a.status != http.StatusBadRequest || !strings.HasPrefix(body.Message, want) {
				t.Errorf("%s: %s, want 400 with a message that begins with %q", path, a, want)
			}
		}
	})
}
