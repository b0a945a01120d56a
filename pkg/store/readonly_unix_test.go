//go:build unix

package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// TestReadOnlySQLiteFile checks that the error for a SQLite file that is not writable names the
// file and its permissions, and that its flags can be evaluated.
func TestReadOnlySQLiteFile(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		runAsNobody(t) // permissions do not apply to root
		return
	}
	for name, c := range map[string]struct {
		journal      string
		file, folder os.FileMode
	}{
		"file":                       {"DELETE", 0o444, 0o755},
		"file in WAL mode":           {"WAL", 0o444, 0o755},
		"file and folder":            {"DELETE", 0o444, 0o555},
		"file and folder, WAL mode":  {"WAL", 0o444, 0o555},
		"folder of a writable file":  {"WAL", 0o644, 0o555},
		"folder, with a rolled back": {"DELETE", 0o644, 0o555},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			file := filepath.Join(folder, "a b.sqlite")
			fill(t, file+"?_pragma=journal_mode("+c.journal+")")
			ok(t, os.Chmod(file, c.file))
			ok(t, os.Chmod(folder, c.folder))
			t.Cleanup(func() { _ = os.Chmod(folder, 0o755) }) // so that it can be removed
			checkReadOnly(t, file, fmt.Sprintf("its permissions are %s, those of its folder %s, and the user ID of the server is %d",
				c.file, os.ModeDir|c.folder, os.Geteuid()))
		})
	}
}

func TestReadOnlySQLiteConnectionString(t *testing.T) {
	t.Parallel()
	for _, journal := range []string{"DELETE", "WAL"} {
		file := filepath.Join(t.TempDir(), "c.sqlite")
		fill(t, file+"?_pragma=journal_mode("+journal+")")
		checkReadOnly(t, "file:"+file+"?mode=ro", "the connection string opens it read only")
	}
}

func fill(t *testing.T, dsn string) {
	t.Helper()
	s, err := Open(t.Context(), Options{Driver: "sqlite3", DSN: withPragma(dsn, "synchronous(OFF)")})
	ok(t, err)
	must[*entity.Flag](t)(s.CreateFlag(t.Context(), "", NewFlag{Description: "d", Key: "k", Template: TemplateBoolean}))
	ok(t, s.Close())
}

func checkReadOnly(t *testing.T, dsn, why string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := Open(ctx, Options{Driver: "sqlite3", DSN: dsn, RetryAttempts: 10, RetryDelay: time.Hour})
	if err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "FLAGR_EVAL_ONLY_MODE=true") {
		t.Errorf("got %v, want %q", err, why)
	}
	var log bytes.Buffer
	s, err := Open(ctx, Options{Driver: "sqlite3", DSN: dsn, AllowReadOnly: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if !s.ReadOnly() || !strings.Contains(log.String(), why) {
		t.Errorf("read only: %t, log: %s", s.ReadOnly(), &log)
	}
	if flags, err := s.EvalFlags(ctx); err != nil || len(flags) != 1 || len(flags[0].Segments) != 1 {
		t.Errorf("flags: %+v, %v", flags, err)
	}
	if _, err := s.CreateFlag(ctx, "", NewFlag{Description: "e"}); err == nil {
		t.Error("a flag was created")
	}
	ok(t, s.Close())
}

// runAsNobody runs the calling test in a process without root privileges.
func runAsNobody(t *testing.T) {
	t.Helper()
	folder := t.TempDir()
	ok(t, os.Chmod(filepath.Dir(folder), 0o755)) // another user must be able to read it
	binary := filepath.Join(folder, "test")
	source, err := os.Open(os.Args[0])
	ok(t, err)
	program, err := os.OpenFile(binary, os.O_CREATE|os.O_WRONLY, 0o755) // another user must be able to run it
	ok(t, err)
	_, err = io.Copy(program, source)
	ok(t, err)
	ok(t, program.Close())
	ok(t, source.Close())
	cmd := exec.CommandContext(t.Context(), binary, "-test.v", "-test.run", "^"+t.Name()+"$") // this test binary
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	output, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, output)
	}
}
