// Command plain is the shop as a server of net/http.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"

	"shop.example/hostserver/shop"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := shop.Open()
	if err != nil {
		return err
	}

	store, err := gormstore.New(ctx, s.DB, gormstore.Options{TablePrefix: "shop_"})
	if err != nil {
		return err
	}
	experiment := shop.Recommendations
	experiments := datar.StaticCatalog{experiment.ID: {Key: experiment.Name, Description: experiment.About, Enabled: experiment.Running}}
	engine, err := datar.New(datar.Options{
		Store: store, Catalog: experiments, FlushInterval: s.Interval, Journal: datar.JournalOptions{Dir: "."},
	})
	if err != nil {
		return err
	}
	engine.Start()

	mux := http.NewServeMux()
	mux.Handle("/shop/", http.StripPrefix("/shop", datarhttp.Handler(engine)))
	mux.HandleFunc("GET /shop/recommendations", func(rw http.ResponseWriter, r *http.Request) {
		kind := s.Decide(r.FormValue("customer"))
		engine.Record(datar.Event{FlagID: shop.Recommendations.ID, VariantID: kind, Time: time.Now()})
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(map[string]string{"kind": shop.Kinds[kind]}) // fails only if the client has disconnected
	})

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: shop.Authenticate(mux), ReadHeaderTimeout: time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Fprintf(os.Stderr, "Serving shop at http://%s\n", listener.Addr())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// Requests first, so that the last flush stores what they record.
	drain, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(drain), engine.Close(context.Background())) // has its own deadline
}
