package datarhttp_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

// newEngine returns an engine that has counted one event.
func newEngine() *datar.Engine {
	now := time.Date(2026, 3, 31, 14, 30, 0, 0, time.UTC)
	engine, err := datar.New(datar.Options{
		Store: &memstore.Store{}, Catalog: datar.StaticCatalog{1: {Key: "spring-sale"}}, Now: func() time.Time { return now },
	})
	if err != nil {
		log.Fatal(err)
	}
	engine.Record(datar.Event{FlagID: 1, VariantID: 2, Time: now})
	return engine
}

func ExampleMount() {
	engine := newEngine()
	defer func() { _ = engine.Close(context.Background()) }()

	// The handler of a server, such as the one that go-swagger passes to setupGlobalMiddleware.
	host := http.NotFoundHandler()
	server := datarhttp.Mount(host, "/api/v1", engine)

	answer := httptest.NewRecorder()
	server.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/api/v1/datar/summary", nil))
	fmt.Print(answer.Body)
	// Output: {"complete":{"dropped":0,"holes":[],"pending":0,"servers":1,"silent":0,"since":"2026-03-31T14:30:00.000Z","upTo":"2026-03-31T14:30:00.000Z"},"flags":[{"flagID":1,"flagKey":"spring-sale","totalEvalCount":1,"lastEvaluatedAt":"2026-03-31T14:30:00.000Z"}]}
}

// A router strips the prefix itself.
func ExampleHandler() {
	engine := newEngine()
	defer func() { _ = engine.Close(context.Background()) }()
	mux := http.NewServeMux()
	mux.Handle("/admin/", http.StripPrefix("/admin", datarhttp.Handler(engine)))

	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/admin/datar/flags/1/summary", nil))
	fmt.Print(answer.Code, " ", answer.Body)
	// Output: 200 {"complete":{"dropped":0,"holes":[],"pending":0,"servers":1,"silent":0,"since":"2026-03-31T14:30:00.000Z","upTo":"2026-03-31T14:30:00.000Z"},"flagID":1,"trafficByDay":[{"count":1,"date":"2026-03-31"}],"trafficBySegment":[],"trafficByVariant":[{"count":1,"variantID":2}]}
}

// Without an engine the endpoints are there, and say so.
func ExampleHandler_off() {
	answer := httptest.NewRecorder()
	datarhttp.Handler(nil).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/datar/status", nil))
	fmt.Print(answer.Code, " ", answer.Body)
	// Output: 503 {"message":"Datar is off: this server counts no evaluations"}
}
