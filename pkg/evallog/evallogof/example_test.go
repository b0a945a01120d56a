package evallogof_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/memprovider"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
	"github.com/flagr-datar/flagr-datar/pkg/evallog"
	"github.com/flagr-datar/flagr-datar/pkg/evallog/datarwriter"
	"github.com/flagr-datar/flagr-datar/pkg/evallog/evallogof"
)

// exampleFlags tells Datar of one flag, with id 1. On a server these are the flags that it
// evaluates.
type exampleFlags struct{}

func (exampleFlags) FlagByKey(key string) (ingest.Flag, bool) {
	return ingest.Flag{ID: 1, RecordsEnabled: true, Variants: map[string]int64{"on": 7}}, key == "checkout"
}

func (exampleFlags) Flags(context.Context, []int64) (map[int64]datar.FlagInfo, error) {
	return map[int64]datar.FlagInfo{1: {Key: "checkout", Enabled: true}}, nil
}

// A program evaluates with OpenFeature, and its evaluations show up in GET /datar/flags/1/summary.
func Example() {
	ctx := context.Background()
	store := &memstore.Store{}

	// What counts in the program. With a Flagr server elsewhere the writer is the one of
	// evallog.NewHTTPWriter.
	evaluationLog, err := evallog.New(evallog.Options{Writer: datarwriter.New(store, exampleFlags{})})
	if err != nil {
		log.Fatal(err)
	}
	evaluationLog.Start()

	// The line that an OpenFeature program adds.
	openfeature.AddHooks(evallogof.NewHook(evaluationLog, evallogof.HookOptions{}))

	provider := memprovider.NewInMemoryProvider(map[string]memprovider.InMemoryFlag{"checkout": {
		State: memprovider.Enabled, DefaultVariant: "on", Variants: map[string]any{"on": true, "off": false},
	}})
	if err := openfeature.SetProviderAndWait(provider); err != nil {
		log.Fatal(err)
	}
	client := openfeature.NewClient("shop")
	for range 42 {
		if client.Boolean(ctx, "checkout", false, openfeature.EvaluationContext{}) {
			continue // the new checkout
		}
	}
	_ = client.Boolean(ctx, "misspelt", false, openfeature.EvaluationContext{})

	// At the end of the program.
	if err := evaluationLog.Close(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("dropped:", evaluationLog.Stats().Dropped)

	// A server over the same store answers with the numbers.
	engine, err := datar.New(datar.Options{Store: store, Catalog: exampleFlags{}})
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(datarhttp.Handler(engine))
	defer server.Close()
	response, err := http.Get(server.URL + "/datar/flags/1/summary")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var summary struct {
		TrafficByVariant []struct{ VariantID, Count int64 }
	}
	if err := json.NewDecoder(response.Body).Decode(&summary); err != nil {
		log.Fatal(err)
	}
	for _, v := range summary.TrafficByVariant {
		fmt.Println("variant", v.VariantID, "count", v.Count)
	}
	// Output:
	// dropped: map[FLAG_NOT_FOUND:1]
	// variant 7 count 42
}
