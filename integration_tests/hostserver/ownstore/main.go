// Command ownstore is a server that keeps its counts in a store of its own, over database/sql.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
)

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := openStore(ctx, "counts.sqlite")
	if err != nil {
		return err
	}
	engine, err := datar.New(datar.Options{Store: s, Journal: datar.JournalOptions{Dir: "."}})
	if err != nil {
		return err
	}
	engine.Start()

	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(rw http.ResponseWriter, _ *http.Request) {
		variant := time.Now().UnixNano()%2 + 1 // your decision
		engine.Record(datar.Event{FlagID: 1, VariantID: variant})
		_, _ = fmt.Fprintln(rw, variant) // fails only if the client has disconnected
	})
	server := &http.Server{
		Addr: cmp.Or(os.Getenv("ADDR"), "localhost:8080"), Handler: datarhttp.Mount(mux, "/api", engine), ReadHeaderTimeout: time.Minute,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(drain), engine.Close(context.Background()), s.db.Close())
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
