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

// BenchmarkEngineFlush flushes 10,000 changed keys from an engine to a SQLite file.
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

// The limits for an engine with a journal, so that a process can run many.
const (
	mostGoroutines   = 5
	ofPool           = 20        // goroutines of a pool of 10 connections
	mostJournalBytes = 1_450_000 // of one file; there is a second file while one is more than a quarter full
)

// BenchmarkTenants runs engines with journals on one database, each with its own tables, as in a
// program with several tenants. It measures the time until all of them count, and what they hold
// after each has flushed. A single engine shows how many connections it uses at a time. 100 engines
// share 10 connections.
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
					pool.SetMaxIdleConns(10) // so that the connections that were needed at once stay open
					dir, goroutines := b.TempDir(), runtime.NumGoroutine()
					b.StartTimer()
					all := startTenants(b, db, dir, engines)
					b.StopTimer()
					measureTenants(b, all, dir, goroutinesBeyond(goroutines, mostGoroutines*engines))
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

// goroutinesBeyond returns how many goroutines there are beyond before. If there are more than
// most, it waits for those that have just been needed to start engines to end.
func goroutinesBeyond(before, most int) (n int) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if n = runtime.NumGoroutine() - before; n <= most+ofPool || time.Now().After(deadline) {
			return n
		}
	}
}

// measureTenants counts in all engines, flushes them at once, and reports what each holds.
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
	if most := mostGoroutines * len(all); goroutines > most+ofPool {
		b.Errorf("%d engines have %d goroutines, want at most %d", len(all), goroutines, most+ofPool)
	}
	perEngine := func(total int64) float64 { return float64(total) / float64(len(all)) }
	b.ReportMetric(perEngine(int64(goroutines)), "goroutines/engine")
	b.ReportMetric(perEngine(bytes), "journal-B/engine")
	if perEngine(bytes) > mostJournalBytes {
		b.Errorf("an engine has journals of %.0f B, want at most %d", perEngine(bytes), mostJournalBytes)
	}
}
