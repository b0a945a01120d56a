package gormstore_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
)

// BenchmarkEngineFlush has an engine flush 10,000 changed keys to a SQLite file.
func BenchmarkEngineFlush(b *testing.B) {
	db, err := gorm.Open(sqlite.Open(filepath.Join(b.TempDir(), "bench.sqlite")+"?_pragma=journal_mode(WAL)"), &gorm.Config{})
	if err != nil {
		b.Fatal(err)
	}
	store, err := gormstore.New(context.Background(), db, gormstore.Options{})
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
