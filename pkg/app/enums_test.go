package app_test

import (
	"encoding/json"
	"go/ast"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi"
)

// typeOfEnum has, for each enum of a definition in swagger.yaml, the type whose constants are its
// values, or "" if its values have no type.
var typeOfEnum = map[string]string{
	"datarAdvice.do":                          "insight.Do",
	"datarCanDelete.answer":                   "insight.Answer",
	"datarChange.affects":                     "insight.Affects",
	"datarChangePart.what":                    "insight.What",
	"datarCheck.check":                        "insight.CheckName",
	"datarEvaluation.asked":                   "",
	"datarEvaluation.outcome":                 "datar.Outcome",
	"datarFinding.rule":                       "insight.Rule",
	"datarFinding.severity":                   "insight.Severity",
	"datarFlagState.state":                    "insight.StateName",
	"datarFleetImbalance.kind":                "insight.ImbalanceKind",
	"datarFleetServer.kind":                   "datar.ServerKind",
	"datarFleetServer.state":                  "datar.ServerState",
	"datarHole.why":                           "insight.Why",
	"datarLine.outcome":                       "datar.Outcome",
	"datarOutcome.outcome":                    "datar.Outcome",
	"datarRowError.code":                      "datar/ingest.Code",
	"datarSeries.bucket":                      "insight.Unit",
	"datarSeries.by":                          "insight.By",
	"datarStateRow.canDelete":                 "insight.Answer",
	"datarStateRow.state":                     "insight.StateName",
	"datarTailEvent.outcome":                  "datar.Outcome",
	"datarVersionSegment.reach":               "eval.Reach",
	"flagTryResult.outcome":                   "datar.Outcome",
	"recorderStatus.state":                    "recorder.State",
	"constraint.operator":                     "",
	"datarForecast.kind":                      "",
	"datarJournal.state":                      "",
	"datarReasons.kind":                       "",
	"datarSeries.detail":                      "",
	"datarSourceEntry.source":                 "",
	"evalContext.flagTagsOperator":            "",
	"evalResult.recordSource":                 "",
	"evaluationBatchRequest.flagTagsOperator": "",
	"readiness.status":                        "",
	"readinessDatabase.status":                "",
	"readinessRecorder.status":                "",
}

// TestDescriptionHasAllValues compares the enums of swagger.yaml with the constants of the code: a
// new outcome, finding, code of a rejected row or kind of change is in both.
func TestDescriptionHasAllValues(t *testing.T) {
	t.Parallel()
	type schema struct {
		Enum  []string
		Items struct{ Enum []string }
	}
	var description struct {
		Definitions map[string]struct{ Properties map[string]schema }
	}
	if err := json.Unmarshal(restapi.FlatSwaggerJSON, &description); err != nil {
		t.Fatal(err)
	}
	files := sources(t)
	found := map[string]bool{}
	for definition, d := range description.Definitions {
		for property, s := range d.Properties {
			name, described := definition+"."+property, slices.Concat(s.Enum, s.Items.Enum)
			if described == nil {
				continue
			}
			found[name] = true
			typeName, ok := typeOfEnum[name]
			if !ok {
				t.Errorf("the enum %s of swagger.yaml has no row in typeOfEnum", name)
			}
			if typeName == "" {
				continue
			}
			values := valuesOf(t, files, typeName)
			slices.Sort(values)
			slices.Sort(described)
			if !slices.Equal(values, described) {
				t.Errorf("%s of swagger.yaml is one of %q, and %s one of %q", name, described, typeName, values)
			}
		}
	}
	for name := range typeOfEnum {
		if !found[name] {
			t.Errorf("swagger.yaml has no enum %s", name)
		}
	}
}

// valuesOf returns the texts of all values of a type.
func valuesOf(t *testing.T, files map[string]*ast.File, typeName string) (values []string) {
	t.Helper()
	if typeName == "datar.Outcome" {
		for o := range datar.NotFound { // which no counter has
			values = append(values, o.String())
		}
		return values
	}
	pkg, name, _ := strings.Cut(typeName, ".")
	for file, parsed := range files {
		if path.Dir(file) != pkg {
			continue
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !isIdent(spec.Type, name) {
				return true
			}
			for _, value := range spec.Values {
				if literal, ok := value.(*ast.BasicLit); ok {
					text, err := strconv.Unquote(literal.Value)
					if err != nil {
						t.Fatal(err)
					}
					values = append(values, text)
				}
			}
			return true
		})
	}
	return values
}
