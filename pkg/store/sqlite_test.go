package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// TestShortReadsOfSQLite checks that a short read is a transaction, although it is not one of database/sql.
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
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Flags(gone, FlagQuery{}); !errors.Is(err, context.Canceled) {
		t.Errorf("for a client that has left: %v", err)
	}
}

// TestReadsEndBetweenRows checks that a client that leaves ends a list, although SQLite does not notice.
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
