package chstore_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
)

// TestTooManyParts lets ClickHouse reject inserts because datar_counts has too many parts. The
// engine keeps the batch and says why, and when parts are merged, each evaluation counts once.
func TestTooManyParts(t *testing.T) {
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		address := fresh(t)
		s := open(t, address)
		table := "datar_counts"
		if onCluster(t, address) {
			return // the table is created in ZooKeeper, too
		}
		created := strings.TrimSpace(execute(t, address, "SHOW CREATE TABLE "+table+" FORMAT TabSeparatedRaw"))
		execute(t, address, "DROP TABLE "+table)
		execute(t, address, created+", parts_to_delay_insert = 3, parts_to_throw_insert = 3")
		execute(t, address, "SYSTEM STOP MERGES "+parse(t, address).Path[1:]+"."+table)

		e, err := datar.New(datar.Options{Store: s, FlushInterval: time.Hour, Server: datar.ServerOptions{Name: "s"}})
		if err != nil {
			t.Fatal(err)
		}
		recorded := int64(0)
		record := func() {
			e.Record(datar.Event{FlagID: recorded%3 + 1, VariantID: 1, SegmentID: 1, Outcome: datar.Matched, Time: time.Now()})
			recorded++
		}
		const most = 20 // inserts, more than needed when a partition ends meanwhile
		var refused *chstore.Error
		for range most {
			record()
			if err = e.Flush(t.Context()); err != nil {
				break
			}
		}
		if !errors.As(err, &refused) || refused.Code != 252 || errors.Is(err, datar.ErrRefused) {
			t.Fatalf("after %d inserts: %v, want too many parts", recorded, err)
		}
		for range 3 {
			record()
			if err := e.Flush(t.Context()); err == nil {
				t.Error("a flush succeeds while there are too many parts")
			}
		}
		if stats := e.Stats(); stats.LastError == nil || !strings.Contains(stats.LastError.Error(), "FLAGR_RECORDER_DATAR_FLUSH_INTERVAL") ||
			stats.Pending != 4 || stats.Stored != recorded-4 || stats.Recorded != recorded {
			t.Errorf("statistics are %+v, want 4 of %d pending, and how to have fewer parts", stats, recorded)
		}
		wantAll(t, s, recorded-4)

		execute(t, address, "SYSTEM START MERGES "+parse(t, address).Path[1:]+"."+table)
		await(t, "a flush after merges", func() bool {
			execute(t, address, "OPTIMIZE TABLE "+table+" FINAL")
			return e.Flush(t.Context()) == nil
		})
		if stats := e.Stats(); stats.Pending != 0 || stats.Stored != recorded || stats.LastError != nil {
			t.Errorf("statistics are %+v, want all %d stored", stats, recorded)
		}
		wantAll(t, s, recorded)
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
