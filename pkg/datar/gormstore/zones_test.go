package gormstore_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	gomysql "github.com/go-sql-driver/mysql"
	"gorm.io/driver/mysql"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

// openMariaDB connects with parameters that a program may have in its connection string.
func openMariaDB(t *testing.T, dsn string, change func(*gomysql.Config)) *gorm.DB {
	t.Helper()
	config, err := gomysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	change(config)
	db, err := gorm.Open(mysql.Open(config.FormatDSN()), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	return db
}

// onMariaDB runs a test with the connection string of an empty database.
func onMariaDB(t *testing.T, test func(t *testing.T, dsn string)) {
	testdb.OnEachServer(t, func(t *testing.T, kind testdb.Kind) {
		if kind.Driver != "mysql" {
			t.Skip("only MySQL and MariaDB have parseTime and loc")
		}
		test(t, kind.Fresh(t))
	})
}

var berlin = time.FixedZone("Europe/Berlin", 2*3600)

// TestParseTimeAndLocDoNotMatter checks that the store writes and reads the same times, whatever
// time parameters the program sets.
func TestParseTimeAndLocDoNotMatter(t *testing.T) {
	onMariaDB(t, func(t *testing.T, dsn string) {
		at := time.Date(2026, 7, 21, 23, 30, 0, 0, time.UTC)
		row := datar.Row{
			Key:   datar.Key{FlagID: 1, VariantID: 2, SegmentID: 3, Hour: datar.HourOf(at), Outcome: datar.Matched},
			Count: 1, First: at.UnixMilli(), Last: at.UnixMilli(),
		}
		n := int64(0)
		for name, change := range map[string]func(*gomysql.Config){
			"parseTime":            func(c *gomysql.Config) { c.ParseTime = true },
			"neither":              func(*gomysql.Config) {},
			"loc without":          func(c *gomysql.Config) { c.Loc = time.FixedZone("Asia/Kolkata", 5*3600+1800) },
			"parseTime with loc":   func(c *gomysql.Config) { c.ParseTime, c.Loc = true, time.FixedZone("America/New_York", -5*3600) },
			"values in statements": func(c *gomysql.Config) { c.InterpolateParams, c.Loc = true, time.FixedZone("Asia/Tokyo", 9*3600) },
		} {
			s, err := gormstore.New(t.Context(), openMariaDB(t, dsn, change), gormstore.Options{})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			n++
			if _, err := s.ApplyReceipt(t.Context(), []datar.Row{row}, ingest.Receipt{Key: name, Answer: "{}"}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := s.Apply(t.Context(), datar.Batch{Writer: name, Sequence: 1}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for range 2 { // before and after rollups
				totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: row.Hour.DayStart(), To: row.Hour.DayStart() + 24, GroupBy: datar.ByDay})
				if err != nil || len(totals) != 1 || totals[0].Day != row.Hour.DayStart() || totals[0].Count != n {
					t.Errorf("%s: totals are %+v (%v), want %d on the day of hour %d", name, totals, err, n, row.Hour)
				}
				details, err := s.Details(t.Context(), datar.DetailsQuery{From: row.Hour, To: row.Hour + 1, GroupBy: datar.GroupHour | datar.GroupOutcome})
				if err != nil || len(details) != 1 || details[0].Hour != row.Hour || details[0].Outcome != datar.Matched || details[0].Count != n {
					t.Errorf("%s: details are %+v (%v), want %d", name, details, err, n)
				}
				if err := s.Maintain(t.Context(), at.AddDate(0, 0, 1), 0); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if found, err := s.ApplyReceipt(t.Context(), nil, ingest.Receipt{Key: name, Answer: "{}"}); found == nil || err != nil {
				t.Errorf("%s: the receipt is forgotten: %v", name, err)
			}
		}
	})
}

// flagrTable is the table as Flagr creates it on MariaDB.
const flagrTable = "CREATE TABLE `datar_hourly_events` (`id` bigint unsigned AUTO_INCREMENT,`flag_id` int unsigned NOT NULL," +
	"`bucket_hour` datetime(3) NOT NULL,`variant_id` bigint NOT NULL DEFAULT 0,`segment_id` bigint NOT NULL DEFAULT 0," +
	"`eval_count` bigint NOT NULL DEFAULT 0,`updated_at` datetime(3) NULL,PRIMARY KEY (`id`)," +
	"UNIQUE INDEX `idx_datar_hourly` (`flag_id`,`bucket_hour`,`variant_id`,`segment_id`))"

// TestHoursThatFlagrWroteWithLoc checks that New fails if Flagr wrote hours in another time zone,
// until they are converted as documented.
func TestHoursThatFlagrWroteWithLoc(t *testing.T) {
	onMariaDB(t, func(t *testing.T, dsn string) {
		db := openMariaDB(t, dsn, func(c *gomysql.Config) { c.ParseTime, c.Loc, c.MultiStatements = true, berlin, true })
		execute(t, db, flagrTable)
		at := time.Date(2026, 7, 21, 22, 0, 0, 0, time.UTC) // midnight in Berlin
		for i := range 3 {
			if err := db.Exec("INSERT INTO datar_hourly_events (flag_id, bucket_hour, eval_count, updated_at) VALUES (1, ?, 10, ?)",
				at.Add(time.Duration(i)*time.Hour), at).Error; err != nil {
				t.Fatal(err)
			}
		}
		_, err := gormstore.New(t.Context(), db, gormstore.Options{})
		if err == nil || !strings.Contains(err.Error(), "loc") || !strings.Contains(err.Error(), "docs/datar.md") {
			t.Fatalf("got %v, want an error that names loc and how to convert", err)
		}

		execute(t, db, strings.ReplaceAll(documented(t, "Convert hours that Flagr wrote with loc"), "Europe/Berlin", "+02:00")) // a test server has no time zone names
		s := newStore(t, openMariaDB(t, dsn, func(*gomysql.Config) {}))
		totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: datar.HourOf(at), To: datar.HourOf(at) + 2, GroupBy: datar.ByDay})
		if err != nil || len(totals) != 1 || totals[0].Count != 20 || totals[0].Day != datar.HourOf(at).DayStart() {
			t.Errorf("totals are %+v (%v), want 20 of the first two hours, which are one day of UTC", totals, err)
		}
	})
}

// documented returns the SQL below a heading of docs/datar.md.
func documented(t *testing.T, heading string) string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/datar.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)#+ " + regexp.QuoteMeta(heading) + "\n.*?```sql\n(.*?)```").FindSubmatch(text)
	if found == nil {
		t.Fatalf("docs/datar.md has no SQL below %q", heading)
	}
	return string(found[1])
}

// TestLookForOffsetsUsesTheIndex checks that the query for hours with offsets, which precedes each
// query, does not read all events.
func TestLookForOffsetsUsesTheIndex(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	newStore(t, db)
	var plan []struct{ Detail string }
	if err := db.Raw("EXPLAIN QUERY PLAN " + gormstore.OffsetsQuery).Scan(&plan).Error; err != nil {
		t.Fatal(err)
	}
	if len(plan) != 1 || !strings.Contains(plan[0].Detail, "idx_datar_offset_hour") {
		t.Errorf("the plan is %+v, want one that uses idx_datar_offset_hour", plan)
	}
}

// TestHoursWithOffsetsAreInstants checks that hours that Flagr wrote on SQLite in the time zone of
// its process count in the correct hour.
func TestHoursWithOffsetsAreInstants(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	newStore(t, db)
	start := time.Date(2026, 7, 21, 20, 0, 0, 0, time.UTC)
	want := map[datar.Hour]int64{}
	s := newStore(t, db)
	for i := range 12 {
		at := start.Add(time.Duration(i) * time.Hour)
		for n, zone := range []*time.Location{berlin, time.FixedZone("", -7*3600), time.FixedZone("", 5*3600+1800)} {
			want[datar.HourOf(at)] += int64(n) + 1
			if err := db.Exec("INSERT INTO datar_hourly_events (flag_id, bucket_hour, eval_count, updated_at) VALUES (1, ?, ?, ?)", at.In(zone), n+1, at).Error; err != nil {
				t.Fatal(err)
			}
		}
		want[datar.HourOf(at)] += 100
		row := datar.Row{Key: datar.Key{FlagID: 1, Hour: datar.HourOf(at)}, Count: 100, First: at.UnixMilli(), Last: at.UnixMilli()}
		if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: int64(i) + 1, Rows: []datar.Row{row}}); err != nil {
			t.Fatal(err)
		}
	}
	var texts int64
	if err := db.Raw("SELECT COUNT(DISTINCT substr(bucket_hour, -6)) FROM datar_hourly_events").Scan(&texts).Error; err != nil || texts != 4 {
		t.Fatalf("hours have %d offsets (%v), want 4", texts, err)
	}
	check := func(when string, from, to datar.Hour) {
		t.Helper()
		var sum int64
		days := map[datar.Hour]int64{}
		for hour, n := range want {
			if hour >= from && hour < to {
				sum += n
				days[hour.DayStart()] += n
			}
		}
		for _, flag := range []int64{0, 1} {
			totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: from, To: to, FlagID: flag, GroupBy: datar.ByDay})
			got := map[datar.Hour]int64{}
			for _, total := range totals {
				got[total.Day] = total.Count
			}
			if err != nil || fmt.Sprint(got) != fmt.Sprint(days) {
				t.Errorf("%s, hours %d to %d of flag %d: days are %v (%v), want %v", when, from, to, flag, got, err, days)
			}
			details, err := s.Details(t.Context(), datar.DetailsQuery{From: from, To: to, FlagID: flag, GroupBy: datar.GroupHour})
			var left int64
			for _, r := range details {
				left += r.Count
				if r.Count != want[r.Hour] {
					t.Errorf("%s: hour %d of flag %d has %d, want %d", when, r.Hour, flag, r.Count, want[r.Hour])
				}
			}
			if err != nil || left != sum {
				t.Errorf("%s: details have %d (%v), want %d", when, left, err, sum)
			}
		}
	}
	first := datar.HourOf(start)
	for _, when := range []string{"as events", "rolled up", "as events of which a day is being purged"} {
		for from := first; from < first+12; from++ {
			if when != "as events of which a day is being purged" || from >= (first+12).DayStart() {
				check(when, from, first+12)
			}
			if when == "as events" {
				check(when, first, from)
			}
		}
		now := start.AddDate(0, 0, 1)
		keep := time.Duration(0)
		if when == "rolled up" {
			now, keep = start.AddDate(0, 0, 3), 60*time.Hour
		}
		if err := s.Maintain(t.Context(), now, keep); err != nil {
			t.Fatal(err)
		}
	}
	totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: first.DayStart(), To: first + 12, GroupBy: datar.ByDay})
	if err != nil || len(totals) != 2 {
		t.Errorf("days are %+v (%v), want 2", totals, err)
	}
}
