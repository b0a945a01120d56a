package gormstore_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/gorm/schema"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

func prefixed(t *testing.T, db *gorm.DB, prefix string) *gormstore.Store {
	t.Helper()
	s, err := gormstore.New(t.Context(), db, gormstore.Options{TablePrefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOptionsAreRefusedByName(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	for name, prefix := range map[string]string{
		"capital letter": "Shop_", "digit first": "1_", "quote": `a"b`, "dot": "public.", "space": "a ", "not ASCII": "läden_",
		"too long": strings.Repeat("a", 25), "new line": "a\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := gormstore.New(t.Context(), db, gormstore.Options{TablePrefix: prefix})
			if err == nil || !strings.Contains(err.Error(), "Options.TablePrefix") {
				t.Errorf("%q: got %v, want an error that names the option", prefix, err)
			}
		})
	}
	for name, db := range map[string]*gorm.DB{"nil": nil, "empty": {}, "without a dialector": {Config: &gorm.Config{}}} {
		if _, err := gormstore.New(t.Context(), db, gormstore.Options{}); err == nil || !strings.Contains(err.Error(), "gorm.Open") {
			t.Errorf("a database that is %s: %v", name, err)
		}
	}
}

// TestPrefixesKeepStoresApart checks that stores with different prefixes, including the longest and
// the empty one, share a database but no data.
func TestPrefixesKeepStoresApart(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		db := openKind(t, kind, kind.Fresh(t))
		at := time.Date(2026, 3, 31, 14, 30, 0, 0, time.UTC)
		// The empty prefix comes last, so that a statement without its prefix finds no table.
		prefixes := []string{"shop_", "a", "idx_", "datar_", strings.Repeat("x", 24), ""}
		identities := map[string]bool{}
		for i, prefix := range prefixes {
			s := prefixed(t, db, prefix)
			identities[s.Identity()] = true
			row := datar.Row{Key: datar.Key{FlagID: 1, Hour: datar.HourOf(at)}, Count: int64(i) + 1, First: at.UnixMilli(), Last: at.UnixMilli()}
			for sequence := range int64(2) { // the second batch finds the row by the unique index
				if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: sequence + 1, Rows: []datar.Row{row}}); err != nil {
					t.Fatal(err)
				}
			}
			if known, err := s.ApplyReceipt(t.Context(), nil, ingest.Receipt{Key: "k", Digest: "d", Answer: "a"}); known != nil || err != nil {
				t.Fatalf("prefix %q: the receipt is known: %v (%v)", prefix, known, err)
			}
			if err := s.Maintain(t.Context(), at.AddDate(0, 0, 9), datar.MinRetention); err != nil {
				t.Fatal(err)
			}
		}
		if len(identities) != len(prefixes) {
			t.Errorf("%d stores have %d identities", len(prefixes), len(identities))
		}
		pool, err := db.DB()
		if err != nil {
			t.Fatal(err)
		}
		schema := kind.Schema(t, pool)
		tables, keys := schema.Tables(), slices.Collect(maps.Keys(schema.Keys))
		for i, prefix := range prefixes {
			for _, name := range []string{"hourly_events", "writers", "meta", "rollups", "rollup_totals", "rollup_outcomes", "rollup_details", "receipts", "hourly_details", "outcomes", "unknown_hourly", "servers"} {
				if len(tables[prefix+"datar_"+name]) == 0 {
					t.Errorf("prefix %q: no table for %s", prefix, name)
				}
			}
			for _, name := range []string{"hourly", "bucket_hour", "receipts_created_at"} {
				// MySQL reports table.index.
				index := regexp.MustCompile(`^index (\w+\.)?idx_` + prefix + "datar_" + name + "$")
				if !slices.ContainsFunc(keys, index.MatchString) {
					t.Errorf("prefix %q: no index for %s in %q", prefix, name, keys)
				}
			}
			totals, err := prefixed(t, db, prefix).Totals(t.Context(), datar.TotalsQuery{From: 0, To: datar.HourOf(at) + 1, GroupBy: datar.ByFlag})
			if err != nil || len(totals) != 1 || totals[0].Count != 2*(int64(i)+1) {
				t.Errorf("prefix %q: totals are %+v (%v), want %d", prefix, totals, err, 2*(i+1))
			}
		}
	})
}

// TestHostNamesItsTablesOtherwise checks that the naming strategy of the host's GORM session does
// not change the store's tables and columns.
func TestHostNamesItsTablesOtherwise(t *testing.T) {
	t.Parallel()
	db, err := gorm.Open(sqlite.Open(t.TempDir()+"/host.sqlite?_pragma=busy_timeout(10000)"), &gorm.Config{
		Logger:         logger.Discard,
		NamingStrategy: schema.NamingStrategy{TablePrefix: "Host", SingularTable: true, NoLowerCase: true},
		PrepareStmt:    true,
		QueryFields:    true,
	})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	s := newStore(t, db)
	at := time.Date(2026, 3, 31, 14, 30, 0, 0, time.UTC)
	row := datar.Row{Key: datar.Key{FlagID: 1, Hour: datar.HourOf(at)}, Count: 3, First: at.UnixMilli(), Last: at.UnixMilli()}
	if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 1, Rows: []datar.Row{row}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Maintain(t.Context(), at.AddDate(0, 0, 9), datar.MinRetention); err != nil {
		t.Fatal(err)
	}
	totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: 0, To: datar.HourOf(at) + 1, GroupBy: datar.ByDay})
	if err != nil || len(totals) != 1 || totals[0].Count != 3 {
		t.Errorf("totals are %+v (%v)", totals, err)
	}
	var foreign int64
	if err := db.Raw("SELECT COUNT(*) FROM sqlite_master WHERE tbl_name NOT LIKE 'datar_%' AND tbl_name <> 'sqlite_sequence'").Row().Scan(&foreign); err != nil || foreign != 0 {
		t.Errorf("%d tables that are not the store's (%v)", foreign, err)
	}
}
