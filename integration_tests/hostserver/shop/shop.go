// Package shop is what both hosts of this module have in common: a shop that tries out two kinds of recommendations.
// It knows nothing of Datar.
package shop

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"os"

	"github.com/glebarez/sqlite"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// Experiment is something that the shop tries out on its customers.
type Experiment struct {
	ID          int64
	Name, About string
	Running     bool
}

// Recommendations is the one experiment of the shop.
var Recommendations = Experiment{ID: 7, Name: "recommendations", About: "Bestsellers or similar articles", Running: true}

// Kinds are the kinds of recommendations, by their ids.
var Kinds = map[int64]string{1: "bestsellers", 2: "similar"}

// Decide chooses the kind of recommendations that a customer sees: always the same one.
func Decide(customer string) (kindID int64) {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(customer)) // documented never to fail
	return int64(hash.Sum32()%2) + 1
}

// OpenDatabase opens the database of the shop: the one of PostgreSQL that SHOP_POSTGRES names, or the file SHOP_SQLITE.
func OpenDatabase() (*gorm.DB, error) {
	dialector := sqlite.Open(cmp.Or(os.Getenv("SHOP_SQLITE"), "shop.sqlite") + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)")
	if dsn := os.Getenv("SHOP_POSTGRES"); dsn != "" {
		dialector = postgres.Open(dsn)
	}
	db, err := gorm.Open(dialector, &gorm.Config{Logger: logger.Discard})
	if err != nil {
		return nil, fmt.Errorf("open the shop's database: %w", err)
	}
	return db, nil
}
