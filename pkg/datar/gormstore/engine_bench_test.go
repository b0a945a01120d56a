package gormstore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// BenchmarkEngineFlush has an engine flush 10,000 changed keys to a SQLite file.
func BenchmarkEngineFlush(b *testing.B) {
	db, err := gorm.Open(sqlite.Open(filepath.Join(b.TempDir(), "bench.sqlite")+"?_pragma=journal_mode(WAL)"), &gorm.Config{})
	if err != nil {
		b.Fatal(err)
	}
	store, err := gormstore.New(context.Background(), db, gormstore.Options{Logger: noLog})
	if err != nil {
		b.Fatal(err)
	}
	engine, err := datar.New(datar.Options{Store: store, Catalog: datar.StaticCatalog{}})
	if err != nil {
		b.Fatal(err)
	}
	const keys = 10_000
	for b.Loop() {
		for i := range int64(keys) {
			engine.Record(datar.Event{FlagID: i + 1, VariantID: 1, SegmentID: 1, Time: time.Now()})
		}
		if err := engine.Flush(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*keys/b.Elapsed().Seconds(), "rows/s")
	if pool, err := db.DB(); err == nil {
		_ = pool.Close()
	}
}

// The most that an engine with a journal may take, so that a server can have many.
const (
	mostGoroutines   = 5
	mostJournalBytes = 1_450_000 // of one file; there is a second one while one is more than a quarter full
)

// BenchmarkTenants has engines with a journal on one database, each with tables of its own, as a host of several tenants has.
// The time is that until all of them count; the rest is what they hold when each has flushed. One engine for itself shows how
// many connections it takes at a time, and 100 share 10.
func BenchmarkTenants(b *testing.B) {
	for _, kind := range testdb.Kinds() {
		for _, engines := range []int{1, 100} {
			b.Run(fmt.Sprintf("%s/engines=%d", kind.Name, engines), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					db := openKind(b, kind, kind.Fresh(b))
					pool, err := db.DB()
					if err != nil {
						b.Fatal(err)
					}
					pool.SetMaxOpenConns(10)
					pool.SetMaxIdleConns(10) // so that those remain that were needed at once
					dir, goroutines := b.TempDir(), runtime.NumGoroutine()
					b.StartTimer()
					all := startTenants(b, db, dir, engines)
					b.StopTimer()
					measureTenants(b, all, dir, runtime.NumGoroutine()-goroutines)
					b.ReportMetric(float64(pool.Stats().OpenConnections), "connections")
					for _, e := range all {
						if err := e.Close(b.Context()); err != nil {
							b.Error(err)
						}
					}
					_ = pool.Close()
					b.StartTimer()
				}
			})
		}
	}
}

func startTenants(b *testing.B, db *gorm.DB, dir string, n int) (all []*datar.Engine) {
	b.Helper()
	for i := range n {
		store, err := gormstore.New(b.Context(), db, gormstore.Options{TablePrefix: fmt.Sprintf("tenant%d_", i), Logger: noLog})
		if err != nil {
			b.Fatal(err)
		}
		e, err := datar.New(datar.Options{Store: store, Journal: datar.JournalOptions{Dir: dir, Required: true}})
		if err != nil {
			b.Fatal(err)
		}
		e.Start()
		all = append(all, e)
	}
	return all
}

// measureTenants has all engines count and flush at once, and reports what each holds.
func measureTenants(b *testing.B, all []*datar.Engine, dir string, goroutines int) {
	b.Helper()
	var group sync.WaitGroup
	for _, e := range all {
		group.Go(func() {
			for i := range int64(1000) {
				e.Record(datar.Event{FlagID: i + 1, VariantID: 1})
			}
			if err := e.Flush(b.Context()); err != nil {
				b.Error(err)
			}
		})
	}
	group.Wait()
	files, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	if err != nil {
		b.Fatal(err)
	}
	bytes := int64(0)
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			b.Fatal(err)
		}
		bytes += info.Size()
	}
	if most := mostGoroutines*len(all) + 20; goroutines > most { // 20 of the pool, and of what has just ended
		b.Errorf("%d engines have %d goroutines, want at most %d", len(all), goroutines, most)
	}
	perEngine := func(total int64) float64 { return float64(total) / float64(len(all)) }
	b.ReportMetric(perEngine(int64(goroutines)), "goroutines/engine")
	b.ReportMetric(perEngine(bytes), "journal-B/engine")
	if perEngine(bytes) > mostJournalBytes {
		b.Errorf("an engine has journals of %.0f B, want at most %d", perEngine(bytes), mostJournalBytes)
	}
}
