package app_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestEvaluationsInATurnTakeNone sends requests that need a turn for their body, their logs or the
// number of evaluations, and whose evaluations need one, too. If these waited for a second one, all
// would wait for each other.
func TestEvaluationsInATurnTakeNone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "flags.json")
	const document = `{"Flags":[{"ID":1,"Key":"slow","Enabled":true,"Variants":[{"ID":1,"Key":"on"}],"Segments":[{"ID":1,"RolloutPercent":100,` +
		`"Constraints":[{"Property":"x","Operator":"EREG","Value":"\"(a?){50}b\""}],"Distributions":[{"VariantID":1,"VariantKey":"on","Percent":100}]}]}]}`
	if err := os.WriteFile(path, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	a, _, _ := setup(t, map[string]string{"FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": path})
	h := started(t, a)
	long := strings.Repeat("a", 9_000) + "b"
	padding := strings.Repeat("p", 20_000)
	const evaluation, batch, one, all = "/api/v1/evaluation", "/api/v1/evaluation/batch", "/ofrep/v1/evaluate/flags/slow", "/ofrep/v1/evaluate/flags"
	for name, r := range map[string]struct{ path, body string }{
		"small":             {evaluation, `{"flagKey":"slow","entityID":"e","entityContext":{"x":%q}}`},
		"large":             {evaluation, `{"flagKey":"slow","entityID":"e","entityContext":{"x":%q,"y":"` + padding + `"}}`},
		"not plain":         {evaluation, `{"flagKey":"slow","entityID":"e","more":1,"entityContext":{"x":%q,"y":"` + padding + `"}}`},
		"logs":              {evaluation, `{"flagKey":"slow","entityID":"e","enableDebug":true,"entityContext":{"x":%q}}`},
		"logs, not plain":   {evaluation, `{"flagKey":"slow","entityID":"e","enableDebug":true,"more":1,"entityContext":{"x":%q}}`},
		"batch":             {batch, `{"flagKeys":["slow"],"entities":[{"entityID":"e","entityContext":{"x":%q}}]}`},
		"large batch":       {batch, `{"flagKeys":["slow"],"entities":[{"entityID":"e","entityContext":{"x":%q,"y":"` + padding + `"}}]}`},
		"batch with logs":   {batch, `{"flagKeys":["slow"],"enableDebug":true,"entities":[{"entityID":"e","entityContext":{"x":%q}}]}`},
		"batch, not plain":  {batch, `{"flagKeys":["slow"],"enableDebug":true,"more":1,"entities":[{"entityID":"e","entityContext":{"x":%q}}]}`},
		"OFREP":             {one, `{"context":{"targetingKey":"e","x":%q}}`},
		"OFREP, large":      {one, `{"context":{"targetingKey":"e","x":%q,"y":"` + padding + `"}}`},
		"OFREP, all":        {all, `{"context":{"targetingKey":"e","x":%q}}`},
		"OFREP, all, large": {all, `{"context":{"targetingKey":"e","x":%q,"y":"` + padding + `"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var group sync.WaitGroup
			for range 2 * runtime.GOMAXPROCS(0) {
				group.Go(func() {
					request := httptest.NewRequestWithContext(ctx, http.MethodPost, r.path, strings.NewReader(fmt.Sprintf(r.body, long)))
					request.Header.Set("Content-Type", "application/json")
					rw := httptest.NewRecorder()
					h.ServeHTTP(rw, request)
					if rw.Code != http.StatusOK || !strings.Contains(rw.Body.String(), `"on"`) {
						t.Errorf("%d %.300s", rw.Code, rw.Body)
					}
				})
			}
			group.Wait()
		})
	}
}
