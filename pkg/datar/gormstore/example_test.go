package gormstore_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
)

// The store uses the existing connections of the program.
func ExampleNew() {
	dir, err := os.MkdirTemp("", "datar")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	db, err := gorm.Open(sqlite.Open(filepath.Join(dir, "host.sqlite")), &gorm.Config{})
	if err != nil {
		log.Fatal(err)
	}

	store, err := gormstore.New(ctx, db, gormstore.Options{TablePrefix: "shop_"})
	if err != nil {
		log.Fatal(err)
	}
	hour := datar.HourOf(time.Date(2026, 3, 31, 14, 30, 0, 0, time.UTC))
	batch := datar.Batch{Writer: "w", Sequence: 1, Rows: []datar.Row{{Key: datar.Key{FlagID: 1, Hour: hour}, Count: 5}}}
	for range 2 { // the second time, the batch is recognized
		if err := store.Apply(ctx, batch); err != nil {
			log.Fatal(err)
		}
	}
	totals, err := store.Totals(ctx, datar.TotalsQuery{From: hour, To: hour + 1, GroupBy: datar.ByFlag})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(totals[0].Count)
	// Output: 5
}
