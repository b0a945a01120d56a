package evallog_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/flagr-datar/flagr-datar/pkg/evallog"
	"github.com/flagr-datar/flagr-datar/pkg/evallog/evallogtest"
)

func ExampleEngine() {
	writer := &evallogtest.Writer{} // in a program: evallog.NewHTTPWriter
	engine, err := evallog.New(evallog.Options{Writer: writer, Context: evallog.Context{Service: "shop", Env: "prod"}})
	if err != nil {
		log.Fatal(err)
	}
	engine.Start()

	for range 3 {
		engine.Record(evallog.Evaluation{Key: evallog.Key{
			Flag:         "checkout",
			Variant:      evallog.Some("on"),
			Allocation:   evallog.Some("10"),
			TargetingKey: evallog.None(),
			ErrorCode:    evallog.None(),
		}})
	}

	if err := engine.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
	for key, count := range writer.Counts() {
		fmt.Println(key.Flag, key.Variant, count)
	}
	// Output: checkout on 3
}

func ExampleNewHTTPWriter() {
	writer, err := evallog.NewHTTPWriter(evallog.HTTPOptions{
		URL:    "https://flagr.example.com/api/v1/datar/evaluations",
		Header: http.Header{"Authorization": {"Bearer " + "the token"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	engine, err := evallog.New(evallog.Options{Writer: writer, SpoolDir: "/var/lib/shop/evaluations"})
	if err != nil {
		log.Fatal(err)
	}
	engine.Start()
}
