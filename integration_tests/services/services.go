// Package services runs the database servers that tests need: real ones, on loopback, on free ports, with their data
// in a temporary folder, without Docker. It installs what is missing into a folder outside the repository, or with
// apt where there is no other way, and stops only what it started.
//
// It works on Linux on amd64. Elsewhere compose.yaml offers the same servers.
package services

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Kind is a kind of server that can be started.
type Kind struct {
	// Name is what messages call it.
	Name string
	// Variable is the environment variable that carries a connection string to the tests.
	Variable string
	// OnRequest: the server is started only if it is named.
	OnRequest bool
	// anyAccount: the server also runs as root, whose Python other accounts may not be allowed to use.
	anyAccount bool
	// driver is the name of the driver in database/sql, empty if ping says whether the server answers.
	driver string
	ping   func(ctx context.Context, dsn string) error
	// install returns the folder or program that prepare and command need.
	install func(ctx context.Context) (string, error)
	// prepare makes the data folder of a new server.
	prepare func(ctx context.Context, installed, dir string, as account) error
	// command is what runs the server, dsn how its administrator connects, and end the signal that stops it.
	command func(installed, dir string, port int) []string
	dsn     func(port int) string
	end     os.Signal
}

// Kinds lists all kinds.
func Kinds() []Kind {
	return []Kind{
		postgres("10", "10.23.0-beta.6"),
		postgres("15", "15.18.0-beta.17"),
		postgres("18", "18.4.0-beta.17"),
		mariadb(),
		clickhouse(),
		chdb(),
	}
}

const (
	// startTimeout and stopTimeout are far beyond the second or two that each server needs.
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
	// startAttempts: another program may take the port that was free just before.
	startAttempts = 3
	// password is that of the administrators; the servers listen on loopback only.
	password = "flagr-test-password"
)

// Server is one running server.
type Server struct {
	Kind Kind
	// DSN is the connection string of its administrator, in the form that FLAGR_DB_DBCONNECTIONSTR takes.
	DSN string

	dir       string
	installed string
	as        account
	port      int
	process   *process
}

// Start installs a server if need be, and starts it. The caller must Close it.
func Start(ctx context.Context, kind Kind) (s *Server, err error) {
	installed, err := kind.install(ctx)
	if err != nil {
		return nil, fmt.Errorf("install %s: %w", kind.Name, err)
	}
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	if kind.anyAccount {
		as = account{}
	}
	dir, err := os.MkdirTemp("", "flagr-test-"+kind.Name+"-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	if err := as.own(dir); err != nil {
		return nil, err
	}
	if err := kind.prepare(ctx, installed, dir, as); err != nil {
		return nil, fmt.Errorf("prepare the data folder of %s: %w", kind.Name, err)
	}
	s = &Server{Kind: kind, dir: dir, installed: installed, as: as}
	for range startAttempts {
		if s.port, err = freePort(ctx); err != nil {
			return nil, err
		}
		s.DSN = kind.dsn(s.port)
		if err = s.Resume(ctx); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// Resume starts a server again that was stopped, with its data and on its port.
func (s *Server) Resume(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p, err := launch(s.Kind.command(s.installed, s.dir, s.port), s.logFile(), s.as)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Kind.Name, err)
	}
	s.process = p
	if err := s.await(ctx); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w; its log:\n%s", s.Kind.Name, err, s.Log()), s.Stop())
	}
	return nil
}

// await waits until the server answers.
func (s *Server) await(ctx context.Context) error {
	ping := s.Kind.ping
	if ping == nil {
		db, err := sql.Open(s.Kind.driver, s.DSN)
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		ping = func(ctx context.Context, _ string) error { return db.PingContext(ctx) }
	}
	for {
		err := ping(ctx, s.DSN)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer within %s: %w", startTimeout, err)
		case <-s.process.done:
			return errors.New("the server ended")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the server as an administrator would, and keeps its data.
func (s *Server) Stop() error { return s.signal(s.Kind.end) }

// Kill ends the server as a crash would, and keeps its data.
func (s *Server) Kill() error { return s.signal(os.Kill) }

func (s *Server) signal(signal os.Signal) error {
	select {
	case <-s.process.done:
		return nil
	default:
	}
	if err := s.process.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", s.Kind.Name, err)
	}
	select {
	case <-s.process.done:
		return nil
	case <-time.After(stopTimeout):
		_ = s.process.cmd.Process.Kill()
		<-s.process.done
		return fmt.Errorf("%s did not stop within %s and was killed; its log:\n%s", s.Kind.Name, stopTimeout, s.Log())
	}
}

// Close stops the server and removes its data.
func (s *Server) Close() error { return errors.Join(s.Stop(), os.RemoveAll(s.dir)) }

// Log is what the server has written so far.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "server.log") }

// process is a running program.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the program has ended
}

// account is who runs the servers: PostgreSQL and MariaDB refuse to run as root.
type account struct {
	other    bool // than the current one
	uid, gid uint32
}

// unprivileged is the current account, or nobody if that is root.
func unprivileged() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return account{}, fmt.Errorf("database servers do not run as root: %w", err)
	}
	uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
	if err != nil {
		return account{}, err
	}
	gid, err := strconv.ParseUint(nobody.Gid, 10, 32)
	return account{other: true, uid: uint32(uid), gid: uint32(gid)}, err
}

// own gives a file or folder to the account.
func (a account) own(path string) error {
	if !a.other {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// run runs a program to its end.
func run(ctx context.Context, dir string, as account, arguments ...string) error {
	cmd := exec.CommandContext(ctx, arguments[0], arguments[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "HOME="+homeFor(as))
	become(cmd, as)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(arguments[0]), err, output)
	}
	return nil
}

func homeFor(as account) string {
	if as.other {
		return os.TempDir()
	}
	return os.Getenv("HOME")
}

func freePort(ctx context.Context) (int, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	return port, listener.Close()
}

// cache is the folder for what is installed. FLAGR_TEST_CACHE names another one.
func cache() (string, error) {
	if dir := os.Getenv("FLAGR_TEST_CACHE"); dir != "" {
		return dir, nil
	}
	if os.Geteuid() == 0 {
		return "/var/cache/flagr-test", nil // root's own folder is closed to the account of the servers
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "flagr-test"), err
}

// apt installs packages that lack one of the programs. The mutex keeps two of our own from fighting for apt's lock.
func apt(ctx context.Context, lock *sync.Mutex, packages []string, programs ...string) error {
	missing := func() (string, error) {
		for _, program := range programs {
			if _, err := lookPath(program); err != nil {
				return program, err
			}
		}
		return "", nil
	}
	lock.Lock()
	defer lock.Unlock()
	program, err := missing()
	if err == nil {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("there is no %s: install %q, or use the servers of compose.yaml", program, packages)
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("there is neither %s nor apt-get to install it: use the servers of compose.yaml", program)
	}
	// On a machine that was just started something else may be using apt.
	install := append([]string{"apt-get", "-o", "DPkg::Lock::Timeout=120", "install", "-y", "-qq", "--no-install-recommends"}, packages...)
	if run(ctx, "/", account{}, install...) != nil { // the lists of packages may be old, or not there
		if err := run(ctx, "/", account{}, "apt-get", "update", "-qq"); err != nil {
			return err
		}
		if err := run(ctx, "/", account{}, install...); err != nil {
			return err
		}
	}
	if program, err := missing(); err != nil {
		return fmt.Errorf("%q do not bring %s", packages, program)
	}
	return nil
}

// lookPath also looks where servers are, which is not in everybody's path.
func lookPath(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		path, err = exec.LookPath(filepath.Join("/usr/sbin", program))
	}
	return path, err
}
