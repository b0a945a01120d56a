//go:build linux || darwin || freebsd || netbsd || openbsd

package evallog

import (
	"os"
	"syscall"
)

// lockFile locks the file until this process closes it or ends. It fails if another process has
// locked it.
func lockFile(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
