package datar_test

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

// TestRecordWhileTheLogIsBlocked removes a journal that is in use, and does not read the warning.
// New keys, which need the engine's lock, are counted meanwhile.
func TestRecordWhileTheLogIsBlocked(t *testing.T) {
	t.Parallel()
	read, write := io.Pipe()
	dir := t.TempDir()
	store := &memstore.Store{}
	e, err := datar.New(datar.Options{
		Store: store, Journal: datar.JournalOptions{Dir: dir}, Logger: slog.New(slog.NewTextHandler(write, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Record(datar.Event{FlagID: 1, VariantID: 1, Time: time.Now()})
	journals, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range journals {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	flushed := make(chan error, 1)
	go func() { flushed <- e.Flush(t.Context()) }()
	first := make([]byte, 1)
	if _, err := io.ReadFull(read, first); err != nil { // the log line is being written
		t.Fatal(err)
	}
	recorded := make(chan struct{})
	go func() {
		defer close(recorded)
		for i := range int64(100) {
			e.Record(datar.Event{FlagID: 2 + i, VariantID: 1, Time: time.Now()})
		}
	}()
	select {
	case <-recorded:
	case <-time.After(time.Minute):
		t.Error("Record waits for the log")
	}
	go func() { _, _ = io.Copy(io.Discard, read) }()
	if err := <-flushed; err != nil {
		t.Error(err)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
	rows, err := store.Details(context.Background(), datar.DetailsQuery{To: datar.HourOf(time.Now()) + 2, GroupBy: datar.GroupFlag})
	if err != nil || len(rows) != 101 {
		t.Errorf("%d flags are stored, %v; want 101", len(rows), err)
	}
}
