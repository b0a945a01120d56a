package provider_test

import (
	"context"
	"fmt"
	"log"

	"github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/isolated"

	"github.com/flagr-datar/flagr-datar/pkg/provider"
)

// A program evaluates in its own process. When it ends, the server has its counts.
func Example() {
	server := exampleServer()
	defer server.Close()

	p, err := provider.New(provider.Options{URL: server.URL, IgnoreEvents: true})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	api := isolated.NewAPI() // most programs use the functions of package openfeature
	if err := api.SetProviderAndWait(ctx, p); err != nil {
		log.Print(err) // the provider goes on trying
	}
	client := api.NewClient()
	user := openfeature.NewEvaluationContext("user-1", map[string]any{"country": "FR"})
	for range 42 {
		if client.Boolean(ctx, "on", false, user) {
			continue // the new search
		}
	}
	fmt.Println("page size", client.Int(ctx, "size", 5, user))
	if err := api.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	counts, _ := server.counts()
	fmt.Println("on:", counts["on=on@3"], "size:", counts["size=small@4"])
	// Output:
	// page size 10
	// on: 42 size: 1
}
