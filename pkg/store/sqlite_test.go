package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// TestShortReadsOfSQLite checks that a short read is a transaction, although it is not one of
// database/sql.
func TestShortReadsOfSQLite(t *testing.T) {
	t.Parallel()
	s := openFile(t, filepath.Join(t.TempDir(), "flagr.sqlite"))
	create := func() {
		t.Helper()
		must[*entity.Flag](t)(s.CreateFlag(t.Context(), "ann", NewFlag{Description: "d"}))
	}
	count := func(tx *gorm.DB) (n int64) {
		t.Helper()
		if err := tx.Model(&entity.Flag{}).Count(&n).Error; err != nil {
			t.Fatal(err)
		}
		return n
	}
	read := func(queries func(tx *gorm.DB) error) error { return s.readShort(t.Context(), "flags", queries) }
	create()
	if err := read(func(tx *gorm.DB) error {
		before := count(tx)
		create()
		if now := count(tx); now != before {
			t.Errorf("%d flags, and %d at another moment", before, now)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("a query failed")
	if err := read(func(tx *gorm.DB) error { count(tx); return failure }); !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is lost")
			}
		}()
		_ = read(func(tx *gorm.DB) error { count(tx); panic("a query panicked") })
	}()
	create() // later reads must not be part of a transaction that has begun before
	if err := read(func(tx *gorm.DB) error {
		if n := count(tx); n != 3 {
			t.Errorf("%d flags, want 3", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if in := s.pool.(*sqlitePool).readers.Stats().InUse; in != 0 {
		t.Errorf("%d connections are in use", in)
	}
	lost := read(func(tx *gorm.DB) error { return tx.Exec("ROLLBACK").Error })
	if open := s.pool.(*sqlitePool).readers.Stats().OpenConnections; lost == nil || strings.Contains(lost.Error(), "closed") || open != 0 {
		t.Errorf("a transaction that cannot end: %v; %d connections are open", lost, open)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Flags(gone, FlagQuery{}); !errors.Is(err, context.Canceled) {
		t.Errorf("for a client that has left: %v", err)
	}
}

// TestReadsEndBetweenRows checks that a client that leaves ends a list, although SQLite does not
// notice.
func TestReadsEndBetweenRows(t *testing.T) {
	t.Parallel()
	s := openFile(t, filepath.Join(t.TempDir(), "flagr.sqlite"))
	flags := make([]entity.Flag, 3*yieldRows)
	for i := range flags {
		flags[i].Key = fmt.Sprint("flag-", i)
	}
	if err := s.DB().CreateInBatches(flags, 100).Error; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	read := 0
	_, err := s.flags(ctx, FlagQuery{}, func(int64) error {
		read++
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || read >= yieldRows {
		t.Errorf("after %d rows: %v", read, err)
	}
}

// TestReadsWaitForConnections checks that a client that leaves, or a deadline, ends the wait for a
// connection.
func TestReadsWaitForConnections(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{filepath.Join(t.TempDir(), "flagr.sqlite"), ":memory:"} {
		s := openFile(t, dsn)
		readers := s.pool.(*sqlitePool).readers
		for range readers.Stats().MaxOpenConnections {
			taken := must[*sql.Conn](t)(readers.Conn(t.Context()))
			defer func() { _ = taken.Close() }()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := s.Snapshots(ctx, 1, SnapshotQuery{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: snapshots: %v", dsn, err)
		}
		if _, err := s.Flags(ctx, FlagQuery{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: flags: %v", dsn, err)
		}
	}
}

// TestLongSearchesCanBeInterrupted checks which queries of lists end with their context while
// SQLite finds nothing.
func TestLongSearchesCanBeInterrupted(t *testing.T) {
	t.Parallel()
	s := openFile(t, filepath.Join(t.TempDir(), "flagr.sqlite"))
	var ends bool
	if err := s.DB().Callback().Row().Before("gorm:row").Register("test", func(tx *gorm.DB) { ends = tx.Statement.Context.Done() != nil }); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		query FlagQuery
		ends  bool
	}{
		"all":              {FlagQuery{}, false},
		"with parts":       {FlagQuery{Preload: true}, false},
		"by key":           {FlagQuery{Key: new("k")}, false},
		"by tag":           {FlagQuery{Tags: []string{"t"}}, false},
		"enabled":          {FlagQuery{Enabled: new(true)}, true},
		"by description":   {FlagQuery{Description: new("d")}, true},
		"description like": {FlagQuery{DescriptionLike: new("d")}, true},
		"deleted":          {FlagQuery{Deleted: true}, true},
	} {
		if _, err := s.Flags(t.Context(), tc.query); err != nil || ends != tc.ends {
			t.Errorf("%s: can be interrupted: %t, %v", name, ends, err)
		}
	}
}

// TestLongSnapshotsAreReservedBeforeTheyAreRead measures what the process allocates, so it does not
// run beside others.
func TestLongSnapshotsAreReservedBeforeTheyAreRead(t *testing.T) {
	s := openFile(t, filepath.Join(t.TempDir(), "flagr.sqlite"))
	const length = 16 << 20
	if err := s.db.Exec("INSERT INTO flag_snapshots (flag_id, flag) VALUES (1, ?)", strings.Repeat("x", length)).Error; err != nil {
		t.Fatal(err)
	}
	memory := budget.NewMemory(1 << 20)
	allocated := testing.Benchmark(func(b *testing.B) {
		for range b.N {
			ctx, release := memory.Share(b.Context())
			if _, err := s.Snapshots(ctx, 1, SnapshotQuery{}); !errors.Is(err, budget.ErrExhausted) {
				b.Fatal(err)
			}
			release()
		}
	}).AllocedBytesPerOp()
	if allocated > length/4 {
		t.Errorf("%d bytes are allocated for a snapshot that is refused", allocated)
	}
	if all := must[[]entity.FlagSnapshot](t)(s.Snapshots(t.Context(), 1, SnapshotQuery{})); len(all) != 1 || len(all[0].Flag) != length {
		t.Errorf("%d snapshots", len(all))
	}
}
