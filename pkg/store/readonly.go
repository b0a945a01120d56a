package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	gosqlite "github.com/glebarez/go-sqlite"
	"github.com/glebarez/sqlite"
)

// unwritableError reports a SQLite file that exists but is not writable.
type unwritableError struct {
	file         string
	mode, folder fs.FileMode
	readOnlyMode bool // the connection string opens it read-only
}

func (e *unwritableError) Error() string {
	return e.fact() + "; want a file and a folder that the server can write, or a file that it can read and FLAGR_EVAL_ONLY_MODE=true"
}

func (e *unwritableError) fact() string {
	if e.readOnlyMode {
		return fmt.Sprintf("cannot write the SQLite file %s: the connection string opens it read only", e.file)
	}
	return fmt.Sprintf("cannot write the SQLite file %s: its permissions are %s, those of its folder %s, and the user ID of the server is %d",
		e.file, e.mode, e.folder, os.Geteuid())
}

// unwritable returns an unwritableError for a write error of a SQLite file, and nil for all other
// errors and pools.
func unwritable(p pool, err error) *unwritableError {
	files, ok := p.(*sqlitePool)
	if !ok || !slices.Contains([]int{sqlitePermission, sqliteReadOnly, sqliteCannotOpen}, codeOf(err)) {
		return nil
	}
	path := pathOf(files.file)
	file, fileErr := os.Stat(path)
	folder, folderErr := os.Stat(filepath.Dir(path))
	if fileErr == nil && folderErr == nil && !file.IsDir() {
		return &unwritableError{file: path, mode: file.Mode(), folder: folder.Mode(), readOnlyMode: files.readOnly}
	}
	return nil
}

// codeOf returns the primary result code of SQLite, or 0 for other errors.
func codeOf(err error) int {
	var cause *gosqlite.Error
	if !errors.As(err, &cause) {
		return 0
	}
	return cause.Code() & 0xFF
}

// pathOf returns the path of a file that is given by its path or a file: URI.
func pathOf(file string) string {
	name, isURI := strings.CutPrefix(file, "file:")
	if !isURI {
		return file
	}
	if path, err := url.PathUnescape(name); err == nil {
		name = path
	}
	if rest, ok := strings.CutPrefix(name, "//"); ok { // an authority: empty, or localhost
		name = strings.TrimPrefix(rest, "localhost")
	}
	return name
}

// openSQLiteReadOnly opens an existing file for reading only. In WAL mode, even readers need files
// beside it. If these cannot be created, no other process writes the file, so it is opened as
// immutable.
func openSQLiteReadOnly(ctx context.Context, dsn string) (target, error) {
	file, options, _, err := parseSQLite(dsn)
	if err != nil {
		return target{}, err
	}
	path := pathOf(file)
	options.Set("mode", "ro")
	options["_pragma"] = slices.DeleteFunc(options["_pragma"], func(pragma string) bool {
		return hasPragma([]string{pragma}, "journal_mode")
	})
	opened, err := openReaders(ctx, path, options)
	if err == nil {
		return opened, nil
	}
	if _, statErr := os.Stat(path + "-wal"); !errors.Is(statErr, fs.ErrNotExist) {
		return target{}, err
	}
	options.Set("immutable", "1")
	return openReaders(ctx, path, options)
}

func openReaders(ctx context.Context, path string, options url.Values) (target, error) {
	uri := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + options.Encode()
	readers, err := sql.Open(sqlite.DriverName, uri)
	if err != nil {
		return target{}, err
	}
	readers.SetMaxOpenConns(sqliteReaders)
	readers.SetMaxIdleConns(sqliteReaders)
	// A file that cannot be read does not fail before the first query.
	if _, err := readers.ExecContext(ctx, "SELECT COUNT(*) FROM sqlite_master"); err != nil {
		return target{}, errors.Join(fmt.Errorf("open %s read only: %w", path, err), readers.Close())
	}
	p := &sqlitePool{writer: readers, readers: readers, file: path, readOnly: true}
	return target{dialector: sqliteDialector{&sqlite.Dialector{Conn: p}}, pool: p}, nil
}
