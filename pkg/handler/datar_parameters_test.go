package handler_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-openapi/loads"
	"github.com/go-openapi/spec"

	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi"
)

// datarOperation is an operation with the tag datar in the description of the API.
type datarOperation struct {
	*spec.Operation
	method, path string
}

// datarOperations returns all operations of Datar, in the order of their IDs.
func datarOperations(t *testing.T) (list []datarOperation) {
	t.Helper()
	document, err := loads.Embedded(restapi.SwaggerJSON, restapi.FlatSwaggerJSON)
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range document.Spec().Paths.Paths {
		for method, o := range map[string]*spec.Operation{http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put, http.MethodDelete: item.Delete} {
			if o != nil && slices.Contains(o.Tags, "datar") {
				list = append(list, datarOperation{o, method, path})
			}
		}
	}
	slices.SortFunc(list, func(a, b datarOperation) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// unusable returns invalid values of a parameter by its type, and, for strings with a meaning, by
// its name.
func unusable(t *testing.T, p *spec.Parameter) []string {
	t.Helper()
	switch {
	case p.Type == "integer":
		return []string{"x", "1.5", "-1", "99999999999999999999", "0x10"}
	case p.Type == "boolean":
		return []string{"maybe", "2"}
	case p.Format == "date-time":
		return []string{"yesterday", "1774966200", "2026-02-30T00:00:00Z", "2026-03-31T24:00:00Z"}
	case p.Name == "q" || p.Name == "tags":
		return nil // any text
	}
	values, ok := map[string][]string{
		"format": {"xml", "CSV", "json,csv"}, "bucket": {"month", "Hour"}, "tz": {"Mars/Olympus", "../../etc/passwd", "+02:00"},
		"by": {"country", "tag"}, "compare": {"yesterday", "2026-02-30T00:00:00Z", "9999-01-01T00:00:00Z"}, "canDelete": {"maybe", "YES"},
		"sort": {"name", "-key"}, "state": {"lost", "active,lost", "Active"},
	}[p.Name]
	if !ok {
		t.Fatalf("the test has no invalid value of the parameter %s", p.Name)
	}
	return values
}

// TestEachParameterOfDatarIsRefusedByName sends invalid values of each parameter in the description
// of the API. The message names the parameter and what is accepted.
func TestEachParameterOfDatarIsRefusedByName(t *testing.T) {
	t.Parallel()
	s := setup(t, datarOn)
	id := fmt.Sprint(abFlag(t, s))
	names := map[string]bool{}
	for _, o := range datarOperations(t) {
		for i := range o.Parameters {
			p := &o.Parameters[i]
			if p.In != "path" && p.In != "query" {
				continue // TestBadInput has bodies and headers
			}
			names[p.Name] = true
			for _, value := range unusable(t, p) {
				path := strings.ReplaceAll(o.path, "{flagID}", id) + "?" + url.Values{p.Name: {value}}.Encode()
				if p.In == "path" {
					path = strings.ReplaceAll(o.path, "{"+p.Name+"}", value)
					if value == "-1" && p.Minimum == nil {
						continue // like any other ID that does not exist
					}
				}
				got := call(t, s, o.method, path, map[string]any{"postFlagTry": `{"entities":[{}]}`, "postDatarFlagForecast": `{"draft":{}}`}[o.ID])
				message, _ := got.body.(map[string]any)["message"].(string)
				named := strings.HasPrefix(strings.TrimPrefix(message, "invalid query: "), p.Name)
				if got.status != http.StatusBadRequest && got.status != http.StatusUnprocessableEntity || !named ||
					!strings.Contains(message, "want ") && !strings.Contains(message, "must be ") {
					t.Errorf("%s: %s: %d %s", o.ID, path, got.status, got.raw)
				}
			}
		}
	}
	if want := []string{"bucket", "by", "canDelete", "compare", "days", "enabled", "flagID", "format", "from", "limit", "offset", "q", "sort", "stale", "state", "tags", "to", "tz"}; !slices.Equal(slices.Sorted(maps.Keys(names)), want) {
		t.Errorf("parameters are %v, want %v", slices.Sorted(maps.Keys(names)), want)
	}
}

// TestParametersOfDatarAreGivenOnce sends each parameter in the query twice, with valid values.
func TestParametersOfDatarAreGivenOnce(t *testing.T) {
	t.Parallel()
	s := setup(t, datarOn)
	id := fmt.Sprint(abFlag(t, s))
	valid := map[string]string{
		"format": "csv", "bucket": "day", "tz": "Europe/Berlin", "by": "version", "compare": "week", "canDelete": "no", "sort": "key", "state": "active",
		"q": "a", "tags": "web", "days": "7", "limit": "5", "offset": "0", "stale": "false", "enabled": "true",
		"from": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), "to": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	}
	for _, o := range datarOperations(t) {
		for _, p := range o.Parameters {
			if p.In != "query" {
				continue
			}
			one := url.Values{p.Name: {valid[p.Name]}}.Encode()
			for query, want := range map[string]string{
				one + "&" + one:            "2 times",
				one + "&x=1&x=2":           "", // not a parameter
				one + "&" + p.Name:         "2 times",
				p.Name + "=&&" + one:       "2 times",
				strings.Repeat("&"+one, 3): "3 times",
			} {
				got := call(t, s, o.method, strings.ReplaceAll(o.path, "{flagID}", id)+"?"+query, nil)
				message := fmt.Sprintf("%s in query: given %s; want it once", p.Name, want)
				if isList := p.Type == "array"; want == "" || isList {
					if got.status != http.StatusOK {
						t.Errorf("%s?%s: %d %s", o.ID, query, got.status, got.raw)
					}
				} else if got.status != http.StatusBadRequest || got.body.(map[string]any)["message"] != message {
					t.Errorf("%s?%s: %d %s, want %s", o.ID, query, got.status, got.raw, message)
				}
			}
		}
	}
	if got := call(t, s, http.MethodGet, "/flags?limit=1&limit=2", nil); got.status != http.StatusOK {
		t.Errorf("an operation of Flagr: %d %s, want the response of Flagr", got.status, got.raw)
	}
}
