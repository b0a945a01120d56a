// Package services runs the database servers for tests: real servers, on loopback, on free ports,
// with their data in a temporary folder, without Docker. It installs missing servers into a folder
// outside the repository, or with apt if there is no alternative. It stops only servers that it
// started.
//
// It works on Linux on amd64. On other platforms, compose.yaml provides the same servers.
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
	// Name is the name in messages.
	Name string
	// Variable is the environment variable with the connection string for the tests.
	Variable string
	// OnRequest is true if the server is started only if it is named.
	OnRequest bool
	// anyAccount is true if the server also runs as root. Other accounts may not be allowed to use
	// root's Python.
	anyAccount bool
	// driver is the name of the driver in database/sql. It is empty if ping checks whether the
	// server responds.
	driver string
	ping   func(ctx context.Context, dsn string) error
	// install returns the folder or program that prepare and command need.
	install func(ctx context.Context) (string, error)
	// prepare creates the data folder of a new server.
	prepare func(ctx context.Context, installed, dir string, as account) error
	// command returns the server's command line, dsn returns the administrator's connection string,
	// and end is the signal that stops the server.
	command func(installed, dir string, port int) []string
	dsn     func(port int) string
	end     os.Signal
}

// Kinds returns all kinds.
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
	// startTimeout and stopTimeout are far longer than the second or two that each server needs.
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
	// startAttempts is greater than 1 because another program may take a free port.
	startAttempts = 3
	// password is the password of the administrators. The servers listen on loopback only.
	password = "flagr-test-password"
)

// Server is a running server.
type Server struct {
	Kind Kind
	// DSN is the connection string of its administrator, in the format of FLAGR_DB_DBCONNECTIONSTR.
	DSN string

	dir       string
	installed string
	as        account
	port      int
	process   *process
}

// Start starts a server, and installs it first if it is missing. The caller must call Close.
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

// Resume restarts a stopped server with its data and on its port.
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

// await waits until the server responds.
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

// Stop stops the server gracefully and keeps its data.
func (s *Server) Stop() error { return s.signal(s.Kind.end) }

// Kill kills the server, as a crash would, and keeps its data.
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

// Log returns what the server has logged so far.
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
	done chan struct{} // closed when the program ends
}

// account is the account that runs the servers. PostgreSQL and MariaDB refuse to run as root.
type account struct {
	other    bool // differs from the current account
	uid, gid uint32
}

// unprivileged returns the current account, or the account "nobody" if the current one is root.
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

// own changes the owner of a file or folder to the account.
func (a account) own(path string) error {
	if !a.other {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// run runs a program and waits until it ends.
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

// cache returns the folder for installed servers. FLAGR_TEST_CACHE overrides it.
func cache() (string, error) {
	if dir := os.Getenv("FLAGR_TEST_CACHE"); dir != "" {
		return dir, nil
	}
	if os.Geteuid() == 0 {
		return "/var/cache/flagr-test", nil // the account of the servers cannot read root's home folder
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "flagr-test"), err
}

// apt installs packages if one of the programs is missing. The mutex prevents two of our own calls
// from competing for apt's lock.
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
	// On a machine that has just started, another program may be using apt.
	install := append([]string{"apt-get", "-o", "DPkg::Lock::Timeout=120", "install", "-y", "-qq", "--no-install-recommends"}, packages...)
	if run(ctx, "/", account{}, install...) != nil { // the package lists may be outdated or missing
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

// lookPath also searches folders of servers, which are not in every user's path.
func lookPath(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		path, err = exec.LookPath(filepath.Join("/usr/sbin", program))
	}
	return path, err
}
