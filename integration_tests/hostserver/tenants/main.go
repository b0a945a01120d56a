// Command tenants is a server with chi that counts for several tenants. Each tenant has an engine, and its own tables in
// the shared database.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/glebarez/sqlite"
	"github.com/go-chi/chi/v5"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
)

// tenants are the tenants of this server by name.
type tenants map[string]tenant

type tenant struct {
	engine *datar.Engine
	counts http.Handler // of the engine, below the tenant's path
}

// open opens a tenant. Its name is a part of the names of its tables: lower-case letters and digits.
func open(ctx context.Context, db *gorm.DB, name string) (tenant, error) {
	store, err := gormstore.New(ctx, db, gormstore.Options{TablePrefix: name + "_"})
	if err != nil {
		return tenant{}, fmt.Errorf("tenant %q: %w", name, err)
	}
	engine, err := datar.New(datar.Options{
		Store:   store,
		Catalog: datar.StaticCatalog{1: {Key: "checkout", Enabled: true, Variants: map[int64]string{1: "one page", 2: "three steps"}}},
		Journal: datar.JournalOptions{Dir: "."}, // shared: a journal has the identity of its store
	})
	if err != nil {
		return tenant{}, fmt.Errorf("tenant %q: %w", name, err)
	}
	engine.Start()
	return tenant{engine: engine, counts: datarhttp.Mount(nil, "/"+name, engine)}, nil
}

// router has the paths of all tenants. Add access control by tenant as another middleware of the route.
func (all tenants) router() http.Handler {
	router := chi.NewRouter()
	router.Route("/{tenant}", func(r chi.Router) {
		r.Use(all.known)
		r.Get("/checkout", func(rw http.ResponseWriter, r *http.Request) {
			variant := time.Now().UnixNano()%2 + 1 // your decision
			all[chi.URLParam(r, "tenant")].engine.Record(datar.Event{FlagID: 1, VariantID: variant})
			_, _ = fmt.Fprintln(rw, variant) // fails only if the client has disconnected
		})
		r.Get("/datar/*", func(rw http.ResponseWriter, r *http.Request) {
			all[chi.URLParam(r, "tenant")].counts.ServeHTTP(rw, r)
		})
	})
	return router
}

// known returns 404 to requests for unknown tenants.
func (all tenants) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, ok := all[chi.URLParam(r, "tenant")]; !ok {
			http.Error(rw, "no such tenant", http.StatusNotFound)
			return
		}
		next.ServeHTTP(rw, r)
	})
}

// close stores the remaining counts of all tenants concurrently, so that no tenant waits for another.
func (all tenants) close(ctx context.Context) error {
	names := slices.Sorted(maps.Keys(all))
	failed := make([]error, len(names))
	var group sync.WaitGroup
	for i, name := range names {
		group.Go(func() { failed[i] = all[name].engine.Close(ctx) })
	}
	group.Wait()
	return errors.Join(failed...)
}

func openDatabase() (*gorm.DB, error) {
	dialector := sqlite.Open("tenants.sqlite?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)")
	if url := os.Getenv("DATABASE_URL"); url != "" {
		dialector = postgres.Open(url)
	}
	db, err := gorm.Open(dialector, &gorm.Config{})
	if err != nil {
		return nil, err
	}
	pool, err := db.DB()
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(10) // for all tenants: an engine uses one during a flush, and one for a query
	return db, nil
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	db, err := openDatabase()
	if err != nil {
		return err
	}
	all := tenants{}
	for name := range strings.SplitSeq(cmp.Or(os.Getenv("TENANTS"), "red,blue"), ",") {
		if all[name], err = open(ctx, db, name); err != nil {
			return err
		}
	}
	server := &http.Server{Addr: cmp.Or(os.Getenv("ADDR"), "localhost:8080"), Handler: all.router(), ReadHeaderTimeout: time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// Requests first, so that the last flush stores what they record.
	drain, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(drain), all.close(context.Background())) // Close has its own deadline
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
