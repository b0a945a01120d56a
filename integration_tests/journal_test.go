package integration_tests

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

const journalDir = "FLAGR_RECORDER_DATAR_JOURNAL_DIR"

// onSQLite returns a database for tests that do not depend on the kind of database.
func onSQLite(t *testing.T) (db database, dsn string) {
	t.Helper()
	t.Parallel()
	db = databaseOf(testdb.SQLite())
	return db, db.fresh(t)
}

// journal returns the only journal in a folder.
func journal(t *testing.T, dir string) string {
	t.Helper()
	files := journals(t, dir)
	if len(files) != 1 || !strings.HasSuffix(files[0], ".journal") {
		t.Fatalf("files are %q, want one journal", files)
	}
	return files[0]
}

// TestJournalFaultsUnderLoad deletes or truncates a journal while a server counts in it. The server
// must continue with a new journal.
func TestJournalFaultsUnderLoad(t *testing.T) {
	t.Parallel()
	truncate := func(size int64) func(string) error {
		return func(path string) error { return os.Truncate(path, size) }
	}
	for _, tc := range []struct {
		name  string
		fault func(path string) error
		// truncated: counts since the last flush may be lost.
		cut bool
	}{
		{"deleted", os.Remove, false},
		{"moved", func(path string) error { return os.Rename(path, path+".moved") }, false},
		{"replaced", func(path string) error { return os.WriteFile(path+".new", nil, 0o600) }, false},
		{"cut to nothing", truncate(0), true},
		{"cut behind the header", truncate(4096), true},
		{"cut within the counters", truncate(4096 + 3*64 + 40), true},
		{"cut in the middle", truncate(600_000), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			db, dsn := onSQLite(t)
			s := start(t, db, dsn, counting("50ms"))
			flags := splitFlags(t, s)
			l := load{pace: pace}
			l.begin(s, flags, endless)
			poll(t, "a flush under load", func() bool { return statistics(t, s).Stored > 2_000 })
			file := journal(t, s.cmd.Dir)
			if err := tc.fault(file); err != nil {
				t.Fatal(err)
			}
			if tc.name == "replaced" {
				if err := os.Rename(file+".new", file); err != nil {
					t.Fatal(err)
				}
			}
			// Only counts up to now, and those before the server notices, may be lost.
			poll(t, "the server to notice", func() bool { return statistics(t, s).Journal.Lost == 1 })
			lost := l.sent.Load()
			until := l.acknowledged.Load() + 5_000
			poll(t, "load after it", func() bool { return l.acknowledged.Load() > until })
			l.end()
			settle(t, s)
			now := statistics(t, s)
			if now.Journal.State != "file" || now.Journal.Lost != 1 {
				t.Errorf("the journal is %+v, want another file, and one lost", now.Journal)
			}
			if n := strings.Count(s.log.String(), "level=WARN"); n != 1 {
				t.Errorf("%d warnings, want 1:\n%s", n, s.log)
			}
			fresh := 0
			for _, path := range journals(t, s.cmd.Dir) {
				if strings.HasSuffix(path, ".journal") && path != file {
					fresh++
				}
			}
			if fresh != 1 {
				t.Errorf("files are %q, want one new journal instead of %s", journals(t, s.cmd.Dir), file)
			}

			// Nothing is lost from here on. A foreign file in the place of the journal is set
			// aside.
			var after load
			after.begin(s, flags, 100)
			after.clients.Wait()
			s.kill(t)
			if tc.name == "replaced" {
				s = startRough(t, s.cmd.Dir, s.env)
				if log := s.log.String(); strings.Count(log, "level=ERROR") != 1 || !strings.Contains(log, "damaged") {
					t.Errorf("want one error, about a damaged journal; the log:\n%s", log)
				}
			} else {
				s = s.again(t)
			}
			settle(t, s)
			s.stop(t, syscall.SIGTERM)
			total := stored(t, db, dsn)
			if !tc.cut {
				l.sent.Add(after.sent.Load())
				l.acknowledged.Add(after.acknowledged.Load())
				l.checkAnswered(t, total)
				return
			}
			acknowledged := l.acknowledged.Load() + after.acknowledged.Load()
			t.Logf("acknowledged %d, counted %d: %d lost", acknowledged, total, acknowledged-total)
			if total > acknowledged || total < acknowledged-lost {
				t.Errorf("%d evaluations counted, want at most the %d acknowledged, and at most %d fewer", total, acknowledged, lost)
			}
			if l.failed.Load()+after.failed.Load() != 0 || l.acknowledged.Load() != l.sent.Load() {
				t.Errorf("%d evaluations sent, %d acknowledged, %d with another status than 200", l.sent.Load(), l.acknowledged.Load(), l.failed.Load())
			}
		})
	}
}

// TestTruncatedJournalWithoutPendingCounts must lose nothing, because the next evaluation detects
// the truncation.
func TestTruncatedJournalWithoutPendingCounts(t *testing.T) {
	db, dsn := onSQLite(t)
	s := start(t, db, dsn, counting("1h"))
	flags := splitFlags(t, s)
	var l load
	l.begin(s, flags, 500)
	l.clients.Wait()
	settle(t, s)
	if err := os.Truncate(journal(t, s.cmd.Dir), 0); err != nil {
		t.Fatal(err)
	}
	l.begin(s, flags, 500)
	l.clients.Wait()
	settle(t, s)
	s.stop(t, syscall.SIGTERM)
	l.checkAnswered(t, storedTwice(t, db, dsn))
}

// smallDisk mounts a file system of this size in memory, and returns its path. Without the
// permission to mount, it skips the test.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("only root on Linux can make a small disk")
	}
	dir := t.TempDir()
	if output, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a small disk: %v: %s", err, output)
	}
	t.Cleanup(func() {
		if output, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, output)
		}
	})
	return dir
}

// remountReadOnly makes a small disk read-only.
func remountReadOnly(t *testing.T, dir string) {
	t.Helper()
	if output, err := exec.CommandContext(t.Context(), "mount", "-o", "remount,ro", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot make a disk read-only: %v: %s", err, output)
	}
}

// fill uses up the free space of a small disk.
func fill(t *testing.T, dir string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1 << 16, 4096, 1} {
		for piece := make([]byte, size); err == nil; {
			_, err = file.Write(piece)
		}
		err = nil
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUnusableJournalDir sets a journal folder that cannot have a journal. The server must log the
// reason and exit.
func TestUnusableJournalDir(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		dir  func(t *testing.T) string
		says string
	}{
		{"missing", func(t *testing.T) string { return filepath.Join(t.TempDir(), "missing") }, "no such file or directory"},
		{"a file", func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}, "not a directory"},
		{"without permission", func(t *testing.T) string {
			if os.Geteuid() == 0 {
				t.Skip("root can write to every folder")
			}
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o500); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "permission denied"},
		{"read-only", func(t *testing.T) string {
			dir := smallDisk(t, "8m")
			remountReadOnly(t, dir)
			return dir
		}, "read-only file system"},
		{"too small", func(t *testing.T) string { return smallDisk(t, "1m") }, "no space left on device"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			db, dsn := onSQLite(t)
			dir := tc.dir(t)
			p := launch(t, t.TempDir(), quick.with(db.environ(dsn)).with(environ{journalDir: dir}))
			if code := p.wait(t); code != 1 {
				t.Errorf("the exit code is %d, want 1", code)
			}
			lines := strings.Split(strings.TrimSpace(p.log.String()), "\n")
			last := lines[len(lines)-1]
			for _, want := range []string{dir, tc.says, "journal"} {
				if !strings.Contains(last, want) {
					t.Errorf("the last line has no %q; the log:\n%s", want, p.log)
				}
			}
			if files := journals(t, dir); len(files) != 0 {
				t.Errorf("the server left %q", files)
			}
		})
	}
}

// TestUnusableWorkingDirectory starts servers without a journal setting, in working directories
// that cannot have a journal. They must warn once, and count in memory.
func TestUnusableWorkingDirectory(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		dir  func(t *testing.T) string
	}{
		{"read-only", func(t *testing.T) string {
			if os.Geteuid() != 0 {
				dir := t.TempDir()
				if err := os.Chmod(dir, 0o500); err != nil {
					t.Fatal(err)
				}
				return dir
			}
			dir := smallDisk(t, "8m")
			remountReadOnly(t, dir)
			return dir
		}},
		{"full", func(t *testing.T) string {
			dir := smallDisk(t, "8m")
			fill(t, dir)
			return dir
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			db, dsn := onSQLite(t)
			s := startIn(t, tc.dir(t), quick.with(db.environ(dsn)).with(counting("50ms")))
			flags := splitFlags(t, s)
			var l load
			l.begin(s, flags, 500)
			l.clients.Wait()
			if now := statistics(t, s); now.Journal.State != "memory" {
				t.Errorf("the journal is %+v, want memory", now.Journal)
			}
			s.stop(t, syscall.SIGTERM)
			l.checkAnswered(t, storedTwice(t, db, dsn))
			if n := strings.Count(s.log.String(), "level=WARN"); n != 1 || !strings.Contains(s.log.String(), "counting in memory; a killed process loses counts") {
				t.Errorf("%d warnings, want one about counts in memory:\n%s", n, s.log)
			}
		})
	}
}

// TestDiskThatFillsUp needs another journal on a full disk. The server must count in memory until
// there is space.
func TestDiskThatFillsUp(t *testing.T) {
	db, dsn := onSQLite(t)
	dir := smallDisk(t, "8m")
	s := startIn(t, dir, quick.with(db.environ(dsn)).with(counting("50ms")))
	flags := splitFlags(t, s)
	filler := fill(t, dir)
	l := load{pace: pace}
	l.begin(s, flags, endless)
	poll(t, "a flush under load", func() bool { return statistics(t, s).Stored > 1_000 })
	path := journal(t, dir)
	held, err := os.Open(path) // keeps the space in use, also after the server has closed the file
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close() //nolint:errcheck // it is only read
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	poll(t, "the server to count in memory", func() bool { return statistics(t, s).Journal.State == "memory" })
	until := l.acknowledged.Load() + 5_000
	poll(t, "load after it", func() bool { return l.acknowledged.Load() > until })
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	l.end()
	settle(t, s)
	if n := strings.Count(s.log.String(), "level=WARN"); n != 2 { // for the lost journal, and for the missing new one
		t.Errorf("%d warnings, want 2:\n%s", n, s.log)
	}
	s.stop(t, syscall.SIGTERM)
	l.checkAnswered(t, storedTwice(t, db, dsn))
}

// TestServersShareAJournalFolder kills two servers of one database that share a folder, and starts
// one. A server of another database must not change their journals.
func TestServersShareAJournalFolder(t *testing.T) {
	db, dsn := onSQLite(t)
	dir := t.TempDir()
	env := quick.with(db.environ(dsn)).with(counting("1h"))
	first := startIn(t, dir, env)
	flags := splitFlags(t, first)
	second := startIn(t, dir, env)
	awaitChanges(t, second)
	var l load
	l.begin(first, flags, 300)
	l.begin(second, flags, 300)
	l.clients.Wait()
	if files := journals(t, dir); len(files) != 2 {
		t.Errorf("files are %q, want a journal of each server", files)
	}

	// A third server adopts no journal that is in use.
	third := startIn(t, dir, env)
	if now := statistics(t, third); now.Adopted != 0 {
		t.Errorf("the third server: %+v, want nothing adopted", now)
	}
	third.stop(t, syscall.SIGTERM)
	first.kill(t)
	second.kill(t)
	before := contents(t, dir)

	otherDSN := db.fresh(t)
	other := startIn(t, dir, env.with(db.environ(otherDSN)))
	f := newFlag(t, other, "other")
	awaitChanges(t, other)
	evaluate(t, other, f, "u", nil)
	settle(t, other)
	if now := statistics(t, other); now.Adopted != 0 || now.Stored != 1 {
		t.Errorf("the server of another database: %+v, want only its own", now)
	}
	other.stop(t, syscall.SIGTERM)
	if n := stored(t, db, otherDSN); n != 1 {
		t.Errorf("the other database has %d evaluations, want 1", n)
	}
	for path, content := range contents(t, dir) {
		if !bytes.Equal(content, before[path]) {
			t.Errorf("%s was changed by the server of another database", path)
		}
	}

	s := startIn(t, dir, env)
	if now := statistics(t, s); now.Adopted != l.acknowledged.Load() {
		t.Errorf("after the restart: %+v, want %d adopted", now, l.acknowledged.Load())
	}
	settle(t, s)
	s.stop(t, syscall.SIGTERM)
	l.checkAnswered(t, storedTwice(t, db, dsn))
	if files := journals(t, dir); len(files) != 0 {
		t.Errorf("there are still %q", files)
	}
}

// TestRunsShorterThanTheFlushInterval kills servers before their first flush, one after another.
// Each one must store the counts of the previous one at once, so that journals do not accumulate.
func TestRunsShorterThanTheFlushInterval(t *testing.T) {
	const runs = 3
	db, dsn := onSQLite(t)
	dir := t.TempDir()
	s := startIn(t, dir, quick.with(db.environ(dsn)).with(counting("1h")))
	f := newFlag(t, s, "short")
	awaitChanges(t, s)
	for run := range runs + 1 {
		poll(t, "what the run before has left to be stored", func() bool {
			return stored(t, db, dsn) == int64(run) && len(journals(t, dir)) == 1
		})
		if run < runs {
			evaluate(t, s, f, "u", nil)
			s.kill(t)
			s = s.again(t)
		}
	}
	s.stop(t, syscall.SIGTERM)
	if n := stored(t, db, dsn); n != runs {
		t.Errorf("%d evaluations are stored, want %d", n, runs)
	}
}

// contents reads the journals in a folder.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, path := range journals(t, dir) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = content
	}
	return all
}

// TestDamagedJournal damages one of two journals while no server runs. The next server must set it
// aside and use the other one.
func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		damage func(content []byte) []byte
	}{
		{"cut", func(b []byte) []byte { return b[:len(b)/2] }},
		{"emptied", func([]byte) []byte { return nil }},
		{"header overwritten", func(b []byte) []byte { return append([]byte("x"), b[1:]...) }},
		{"counters overwritten", func(b []byte) []byte { copy(b[4096:], bytes.Repeat([]byte{0xff}, 640)); return b }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			db, dsn := onSQLite(t)
			dir := t.TempDir()
			env := quick.with(db.environ(dsn)).with(counting("1h"))
			first := startIn(t, dir, env)
			flags := splitFlags(t, first)
			damaged := journal(t, dir)
			second := startIn(t, dir, env)
			awaitChanges(t, second)
			for i := range 50 {
				evaluate(t, first, flags[0], fmt.Sprint("u", i), nil)
				evaluate(t, second, flags[0], fmt.Sprint("u", i), nil)
			}
			first.kill(t)
			second.kill(t)
			content, err := os.ReadFile(damaged)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(damaged, tc.damage(content), 0o600); err != nil {
				t.Fatal(err)
			}

			s := startRough(t, dir, env)
			if now := statistics(t, s); now.Adopted != 50 {
				t.Errorf("after the restart: %+v, want the 50 of the other journal adopted", now)
			}
			aside := damaged + ".damaged-1"
			if _, err := os.Stat(aside); err != nil {
				t.Errorf("the damaged journal was not set aside: %v", err)
			}
			if log := s.log.String(); strings.Count(log, "level=ERROR") != 1 || !strings.Contains(log, filepath.Base(aside)) {
				t.Errorf("want one error with the new path; the log:\n%s", log)
			}
			evaluate(t, s, flags[0], "u", nil)
			s.stop(t, syscall.SIGTERM)
			if n := stored(t, db, dsn); n != 51 {
				t.Errorf("%d evaluations counted, want 51", n)
			}
			// It is reported only once.
			again := startIn(t, dir, env)
			if a := again.call(t, http.MethodGet, "/datar/summary", nil); a.status != http.StatusOK {
				t.Errorf("summary: %s", a)
			}
		})
	}
}
