//go:build linux || darwin || freebsd || netbsd || openbsd

package evallog

import (
	"os"
	"syscall"
)

// lockFile takes the lock that this process holds until it closes the file, or ends. It fails if another one has it.
func lockFile(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
