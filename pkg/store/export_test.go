package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

func TestExportedFileHasEveryRow(t *testing.T) {
	t.Parallel()
	for _, history := range []bool{true, false} {
		t.Run(fmt.Sprintf("history %t", history), func(t *testing.T) {
			t.Parallel()
			s := openFile(t, copyFlagrDatabase(t))
			ok(t, s.DeleteFlag(t.Context(), "ann", 4)) // the export includes deleted rows
			want := dump(t, s.db)
			if !history {
				want["flag_snapshots"] = []map[string]any{}
			}
			path := filepath.Join(t.TempDir(), "export.sqlite")
			ok(t, s.ExportSQLite(t.Context(), path, history))
			got := dump(t, rawDB{openRaw(t, path)})
			for name := range want {
				if len(want[name]) != 0 || len(got[name]) != 0 {
					same(t, want[name], got[name])
				}
			}
			if files := must[[]string](t)(filepath.Glob(path + "*")); len(files) != 1 {
				t.Errorf("files are %v, want one that is complete in itself", files)
			}

			copied := openFile(t, path)
			flag := must[*entity.Flag](t)(copied.RestoreFlag(t.Context(), "bob", 4))
			if flag.Key != "tmpl" || !flag.Enabled {
				t.Errorf("restored from the export: %+v", flag)
			}
		})
	}
}

// TestExportFromMemory exports an in-memory database, which has no connection that could attach a
// file.
func TestExportFromMemory(t *testing.T) {
	t.Parallel()
	s := openFile(t, ":memory:")
	created := must[*entity.Flag](t)(s.CreateFlag(t.Context(), "ada", NewFlag{Description: "d", Template: TemplateBoolean}))
	path := filepath.Join(t.TempDir(), "export.sqlite")
	ok(t, s.ExportSQLite(t.Context(), path, true))
	same(t, dump(t, s.db), dump(t, rawDB{openRaw(t, path)}))
	if flag := must[*entity.Flag](t)(s.Flag(t.Context(), int64(created.ID))); len(flag.Variants) != 1 {
		t.Errorf("after the export: %+v", flag)
	}
}

// TestExportsAreOfOneMoment checks that exports contain the rows of one moment while others write
// and export.
func TestExportsAreOfOneMoment(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		ctx := t.Context()
		const before = exportRows + 1
		for i := range before {
			must[*entity.Flag](t)(s.CreateFlag(ctx, "", NewFlag{Description: "d", Key: fmt.Sprint("flag-", i), Template: TemplateBoolean}))
		}
		var work sync.WaitGroup
		writing, stopWriting := context.WithCancel(ctx)
		var writer sync.WaitGroup
		writer.Go(func() {
			for i := 0; writing.Err() == nil; i++ {
				if _, err := s.CreateFlag(ctx, "", NewFlag{Description: "d", Template: TemplateBoolean}); err != nil {
					t.Error(err)
				}
			}
		})
		folder := t.TempDir()
		for i := range 3 {
			work.Go(func() {
				path := filepath.Join(folder, fmt.Sprint(i))
				if err := s.ExportSQLite(ctx, path, true); err != nil {
					t.Error(err)
					return
				}
				rows := dump(t, rawDB{openRaw(t, path)})
				n := len(rows["flags"])
				if n < before {
					t.Errorf("%d flags exported, want at least %d", n, before)
				}
				for _, table := range []string{"variants", "segments", "distributions", "flag_snapshots"} {
					if len(rows[table]) != n {
						t.Errorf("%d flags and %d %s exported", n, len(rows[table]), table)
					}
				}
			})
		}
		work.Wait()
		stopWriting()
		writer.Wait()
	})
}

func TestAnExportThatCannotBeMadeFails(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := fixture(t, kind)
		if err := s.ExportSQLite(t.Context(), filepath.Join(t.TempDir(), "no", "such", "folder"), true); err == nil {
			t.Error("an export into a folder that is not there gives no error")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.ExportSQLite(ctx, filepath.Join(t.TempDir(), "f"), true); !errors.Is(err, context.Canceled) {
			t.Errorf("an export that nobody waits for gives %v", err)
		}
	})
}
