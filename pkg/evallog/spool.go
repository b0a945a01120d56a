package evallog

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A spool is a directory with one file for each undelivered flush. A file gets its name only when
// it is complete. The file spool.lock is locked while an engine uses the directory.
type spool struct {
	dir    string
	lock   *os.File
	broken bool // the last file could not be written
}

// spoolName matches the names of files.
var spoolName = regexp.MustCompile(`^evallog-[0-9a-f-]{36}-[0-9]{19}\.json$`)

// spoolFile is the content of a file.
type spoolFile struct {
	Version int
	Batches []Batch
}

const spoolVersion = 1

// openSpool creates the directory if it is missing, locks it, and reads its flushes into the
// outbox.
func (e *Engine) openSpool() error {
	dir := e.options.SpoolDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the spool: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "spool.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock the spool: %w", err)
	}
	if err := lockFile(lock); err != nil {
		_ = lock.Close() // nothing was written
		return fmt.Errorf("lock the spool %s, which another engine may be using: %w", dir, err)
	}
	e.outbox.spool = &spool{dir: dir, lock: lock}
	found, err := e.outbox.spool.read(e)
	if err != nil {
		return errors.Join(err, e.outbox.spool.close())
	}
	for _, f := range found {
		for _, b := range f.batches {
			for _, r := range b.Rows {
				if r.Degraded {
					e.mu.statistics.degraded += r.Count
				} else {
					e.mu.statistics.full += r.Count
				}
			}
		}
		e.mu.statistics.adopted += f.evaluations()
		e.enqueue(f)
	}
	if len(found) > 0 {
		e.options.Logger.Info("evallog: found undelivered batches in the spool", "flushes", len(found), "evaluations", e.mu.statistics.adopted)
	}
	return nil
}

// read returns the flushes in the directory: those of one writer in the order of their sequence,
// the writers in the order of their earliest evaluation. It renames unusable files.
func (s *spool) read(e *Engine) ([]*flushed, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read the spool: %w", err)
	}
	var found []*flushed
	earliest := map[string]int64{} // by writer
	for _, entry := range entries {
		if name, unfinished := strings.CutSuffix(entry.Name(), ".new"); unfinished && spoolName.MatchString(name) {
			_ = os.Remove(filepath.Join(s.dir, entry.Name())) // incomplete, from a process that ended while writing
		}
		if !spoolName.MatchString(entry.Name()) {
			continue
		}
		path := filepath.Join(s.dir, entry.Name())
		batches, err := readSpoolFile(path)
		if err != nil {
			e.options.Logger.Error("evallog: a file of the spool is damaged and was renamed", "file", path, "error", err)
			if err := os.Rename(path, path+".damaged"); err != nil {
				return nil, fmt.Errorf("rename a damaged file: %w", err)
			}
			continue
		}
		found = append(found, &flushed{batches: batches, file: path})
		first, writer := batches[0].Rows[0].First, batches[0].Writer
		if known, ok := earliest[writer]; !ok || first < known {
			earliest[writer] = first
		}
	}
	slices.SortFunc(found, func(a, b *flushed) int {
		x, y := a.batches[0], b.batches[0]
		return cmp.Or(cmp.Compare(earliest[x.Writer], earliest[y.Writer]), cmp.Compare(x.Writer, y.Writer), cmp.Compare(x.Sequence, y.Sequence))
	})
	return found, nil
}

func readSpoolFile(path string) ([]Batch, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file spoolFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	if file.Version != spoolVersion || len(file.Batches) == 0 {
		return nil, fmt.Errorf("version %d with %d batches: want version %d and at least one", file.Version, len(file.Batches), spoolVersion)
	}
	for _, b := range file.Batches {
		if b.Writer == "" || b.Sequence < 1 || len(b.Rows) == 0 || len(b.Rows) > maxRows {
			return nil, fmt.Errorf("batch %s:%d with %d rows", b.Writer, b.Sequence, len(b.Rows))
		}
		for _, r := range b.Rows {
			if r.Count < 1 || !r.Key.stated() {
				return nil, fmt.Errorf("batch %s:%d has a row without count or key", b.Writer, b.Sequence)
			}
		}
	}
	return file.Batches, nil
}

// save writes waiting flushes that are not in the spool yet.
func (e *Engine) save() {
	s := e.outbox.spool
	if s == nil {
		return
	}
	for _, f := range e.outbox.waiting {
		if f.file != "" {
			continue
		}
		path, err := s.write(f)
		if err != nil && !s.broken {
			e.options.Logger.Warn("evallog: the spool cannot be written, batches wait in memory only", "error", err)
		}
		s.broken = err != nil
		if err != nil {
			return
		}
		f.file = path
	}
}

func (s *spool) write(f *flushed) (path string, err error) {
	data, err := json.Marshal(spoolFile{Version: spoolVersion, Batches: f.batches})
	if err != nil {
		return "", err
	}
	path = filepath.Join(s.dir, fmt.Sprintf("evallog-%s-%019d.json", f.batches[0].Writer, f.batches[0].Sequence))
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path + ".new") // the first error is returned
		}
	}()
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return "", err
	}
	return path, os.Rename(path+".new", path)
}

func (s *spool) remove(file string) error { return os.Remove(file) }

func (s *spool) close() error { return s.lock.Close() }
