// Package shop is the common part of both hosts of this module: a shop that tests two kinds of recommendations.
// It does not use Datar.
package shop

import (
	"cmp"
	"crypto/subtle"
	"fmt"
	"hash/fnv"
	"net/http"
	"os"
	"time"

	"github.com/glebarez/sqlite"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// Experiment is an experiment of the shop.
type Experiment struct {
	ID          int64
	Name, About string
	Running     bool
}

// Recommendations is the only experiment of the shop.
var Recommendations = Experiment{ID: 7, Name: "recommendations", About: "Bestsellers or similar articles", Running: true}

// Kinds are the kinds of recommendations by ID.
var Kinds = map[int64]string{1: "bestsellers", 2: "similar"}

// Shop is a running shop.
type Shop struct {
	// DB is the shop's own database.
	DB *gorm.DB
	// Interval is the flush interval, from SHOP_INTERVAL; 0 is the default.
	Interval time.Duration
}

// Decide returns the kind of recommendations for a customer, always the same one.
func (s *Shop) Decide(customer string) (kindID int64) {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(customer)) // documented never to fail
	return int64(hash.Sum32()%2) + 1
}

// Authenticate passes requests with the token SHOP_TOKEN to next. Other requests return 401. Without SHOP_TOKEN, all
// requests return 401.
func Authenticate(next http.Handler) http.Handler {
	token := os.Getenv("SHOP_TOKEN")
	want := []byte("Bearer " + token)
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if token == "" || subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			http.Error(rw, "missing or wrong token", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(rw, r)
	})
}

// Open opens the shop with its database: PostgreSQL at SHOP_POSTGRES, or the SQLite file SHOP_SQLITE.
func Open() (*Shop, error) {
	interval, err := time.ParseDuration(cmp.Or(os.Getenv("SHOP_INTERVAL"), "0s"))
	if err != nil {
		return nil, fmt.Errorf("SHOP_INTERVAL: %w", err)
	}
	dialector := sqlite.Open(cmp.Or(os.Getenv("SHOP_SQLITE"), "shop.sqlite") + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)")
	if dsn := os.Getenv("SHOP_POSTGRES"); dsn != "" {
		dialector = postgres.Open(dsn)
	}
	db, err := gorm.Open(dialector, &gorm.Config{Logger: logger.Discard})
	if err != nil {
		return nil, fmt.Errorf("open the shop's database: %w", err)
	}
	return &Shop{DB: db, Interval: interval}, nil
}
