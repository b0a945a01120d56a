package mysqldialect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	sqle "github.com/dolthub/go-mysql-server"
	"github.com/dolthub/go-mysql-server/memory"
	"github.com/dolthub/go-mysql-server/server"
	"github.com/dolthub/go-mysql-server/sql"
	"github.com/sirupsen/logrus"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/store"
)

// newServer starts a server in this process and returns a connection string.
func newServer(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	database := memory.NewDatabase("flagr")
	database.EnablePrimaryKeyIndexes() // for foreign keys
	provider := memory.NewDBProvider(database)
	logrus.SetOutput(io.Discard)
	s, err := server.NewServer(server.Config{Protocol: "tcp", Address: address}, sqle.NewDefault(provider), sql.NewContext, memory.NewSessionBuilder(provider), nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Start() }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-ended); err != nil {
			t.Error(err)
		}
	})
	return fmt.Sprintf("root@tcp(%s)/flagr", address)
}

// openStore opens the store of flags twice. The second time, no table is missing.
func openStore(t *testing.T) *store.Store {
	t.Helper()
	dsn := newServer(t)
	var s *store.Store
	for range 2 {
		opened, err := store.Open(t.Context(), store.Options{Driver: "mysql", DSN: dsn, RetryAttempts: 100, RetryDelay: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := opened.Close(); err != nil {
				t.Error(err)
			}
		})
		s = opened
	}
	return s
}

func TestFlags(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	ctx := t.Context()
	ok := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(s.CreateFlag(ctx, "ann", store.NewFlag{Description: "first", Key: "first", Template: "simple_boolean_flag"}))
	key, notes, yes := "renamed", "notes", true
	ok(s.UpdateFlag(ctx, "ann", 1, store.FlagPatch{Key: &key, Notes: &notes, EntityType: &key, DataRecordsEnabled: &yes}))
	ok(s.SetFlagEnabled(ctx, "ann", 1, true))
	ok(s.CreateVariant(ctx, "ann", 1, "off", `{"color":"red"}`))
	ok(s.CreateSegment(ctx, "ann", 1, "second", 50))
	ok(s.CreateConstraint(ctx, "ann", 1, 2, entity.Constraint{Property: "country", Operator: "EQ", Value: `"FR"`}))
	ok(s.ReplaceDistributions(ctx, "ann", 1, 2, []entity.Distribution{{VariantID: 2, VariantKey: "off", Percent: 100}}))
	ok(nil, s.ReorderSegments(ctx, "ann", 1, []int64{2, 1}))
	ok(s.CreateTag(ctx, "ann", 1, "web"))
	ok(s.CreateTag(ctx, "ann", 1, "ios"))
	ok(nil, s.DeleteTag(ctx, "ann", 1, 1))
	ok(s.DuplicateFlag(ctx, "ann", 1, "copy", ""))
	ok(nil, s.DeleteFlag(ctx, "ann", 1))
	ok(s.RestoreFlag(ctx, "ann", 1))
	if _, err := s.CreateFlag(ctx, "ann", store.NewFlag{Description: "d", Key: "copy"}); !errors.Is(err, entity.ErrDuplicateKey) {
		t.Errorf("a key was accepted twice: %v", err)
	}

	flags, err := s.EvalFlags(ctx)
	ok(nil, err)
	if len(flags) != 2 {
		t.Fatalf("flags are %+v", flags)
	}
	for _, flag := range flags {
		if len(flag.Variants) != 2 || len(flag.Segments) != 2 || len(flag.Segments[0].Constraints) != 1 || len(flag.Tags) != 1 {
			t.Errorf("flag is %+v", flag)
		}
	}
	like, limit := "FIRST", int64(1)
	found, err := s.Flags(ctx, store.FlagQuery{DescriptionLike: &like, Tags: []string{"ios"}, Limit: &limit, Preload: true})
	if err != nil || len(found) != 1 || found[0].Key != "renamed" {
		t.Errorf("found %+v, %v", found, err)
	}
	snapshots, err := s.Snapshots(ctx, 1, store.SnapshotQuery{})
	if err != nil || len(snapshots) != 13 {
		t.Errorf("%d snapshots, %v", len(snapshots), err)
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	db := openStore(t).DB()
	var s *gormstore.Store
	for range 2 {
		var err error
		if s, err = gormstore.New(t.Context(), db, gormstore.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	const hour, rows = datar.Hour(490_000), 1_200
	at := hour.Time().UnixMilli()
	for sequence := range int64(4) {
		batch := datar.Batch{Writer: "w", Sequence: sequence/2 + 1} // each is sent twice
		for i := range int64(rows) {
			batch.Rows = append(batch.Rows, datar.Row{Key: datar.Key{FlagID: i + 1, Hour: hour}, Count: 3, First: at, Last: at + sequence})
		}
		if err := s.Apply(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: hour, To: hour + 1, GroupBy: datar.ByFlag})
	if err != nil || len(totals) != rows {
		t.Fatalf("%d totals, %v", len(totals), err)
	}
	for _, total := range totals {
		if total.Count != 6 || total.Last != at+2 {
			t.Fatalf("total is %+v", total)
		}
	}
	later := hour.Time().Add(72 * time.Hour)
	if err := s.Maintain(context.WithoutCancel(t.Context()), later, 0); err != nil {
		t.Fatal(err)
	}
	again, err := s.Totals(t.Context(), datar.TotalsQuery{From: hour - hour%24, To: hour - hour%24 + 24, GroupBy: datar.ByFlag})
	if err != nil || len(again) != rows {
		t.Errorf("%d totals after maintenance, %v", len(again), err)
	}
}
