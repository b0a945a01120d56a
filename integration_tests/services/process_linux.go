package services

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// become makes a program run as the account, and in its own process group, so that Ctrl-C does not
// reach it.
func become(cmd *exec.Cmd, as account) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if as.other {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: as.uid, Gid: as.gid}
	}
}

// launch starts a server, which ends with this process at the latest.
func launch(arguments []string, logFile string, as account) (*process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(arguments[0], arguments[1:]...) //nolint:noctx // it outlives the context in which it starts
	cmd.Stdout, cmd.Stderr = log, log
	become(cmd, as)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel sends the signal above when the thread that started the server ends. So the
		// thread must live as long as the server.
		runtime.LockOSThread()
		defer func() { _ = log.Close() }()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // stopped servers have various exit codes
			close(p.done)
		}
	}()
	return p, <-started
}
