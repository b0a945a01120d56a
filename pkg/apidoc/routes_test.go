package apidoc_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-openapi/analysis"
	"github.com/go-openapi/loads"
	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/apidoc"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi"
)

// operation is what a generated API reads of an operation when it routes a request.
type operation struct {
	ID                 string
	Tags               []string
	Consumes, Produces []string
	Parameters         []string
	Success            int
}

// operationsOf returns the operations of a document by method and path.
func operationsOf(t *testing.T, document *loads.Document) map[string]operation {
	t.Helper()
	analyzed := analysis.New(document.Spec())
	all := map[string]operation{}
	for method, paths := range analyzed.Operations() {
		for path, op := range paths {
			_, code, _ := op.SuccessResponse()
			got := operation{ID: op.ID, Tags: op.Tags, Consumes: slices.Sorted(slices.Values(analyzed.ConsumesFor(op))), Produces: slices.Sorted(slices.Values(analyzed.ProducesFor(op))), Success: code}
			for _, p := range op.Parameters {
				text := strings.Join([]string{p.In, p.Name, p.Type, p.Format, p.CollectionFormat}, " ")
				if p.Items != nil {
					text += " of " + p.Items.Type + p.Items.Format
				}
				if p.Required {
					text += " required"
				}
				got.Parameters = append(got.Parameters, text)
			}
			all[method+" "+path] = got
		}
	}
	return all
}

// A server that routes by apidoc.Routes accepts what the description says.
func TestRoutes(t *testing.T) {
	t.Parallel()
	whole, err := loads.Embedded(restapi.SwaggerJSON, restapi.FlatSwaggerJSON)
	if err != nil {
		t.Fatal(err)
	}
	text, err := apidoc.Routes(restapi.FlatSwaggerJSON)
	if err != nil {
		t.Fatal(err)
	}
	routes, err := loads.Embedded(text, text)
	if err != nil {
		t.Fatal(err)
	}
	want, got := operationsOf(t, whole), operationsOf(t, routes)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operations differ (-description +routes):\n%s", diff)
	}
	if _, known := got[http.MethodPost+" /evaluation"]; !known || routes.BasePath() != whole.BasePath() {
		t.Errorf("%d operations at %s, want POST /evaluation at %s", len(got), routes.BasePath(), whole.BasePath())
	}
	if size, most := len(text), len(whole.Raw())/4; size > most {
		t.Errorf("routes take %d bytes, want at most %d", size, most)
	}
	if diff := cmp.Diff(whole.Spec().SecurityDefinitions, routes.Spec().SecurityDefinitions); diff != "" {
		t.Errorf("security definitions differ:\n%s", diff)
	}
	if _, err := apidoc.Routes([]byte(`{"paths":[]}`)); err == nil || !strings.Contains(err.Error(), "description of the API") {
		t.Errorf("routes of a wrong description: %v", err)
	}
}
