//go:build linux || darwin || freebsd || netbsd || openbsd

package datar

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

func mapFile(file *os.File, size int) ([]byte, error) {
	return unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// detachMapped unmaps the file. Later uses of the memory fault, and its addresses stay reserved
// until unmap.
func detachMapped(mapped []byte) error {
	_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(&mapped[0]), uintptr(len(mapped)), unix.PROT_NONE, unix.MAP_FIXED|unix.MAP_ANON|unix.MAP_PRIVATE)
	return err
}

func unmap(mapped []byte) { _ = unix.Munmap(mapped) }

// syncMapped returns when the changes are on disk.
func syncMapped(mapped []byte) error { return unix.Msync(mapped, unix.MS_SYNC) }

// lockFile locks the file until this process closes it or ends. It fails if another process has
// locked it.
func lockFile(file *os.File) error { return unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// unlockFile releases the lock. Closing the file is not enough, because the mapping keeps it open.
func unlockFile(file *os.File) error { return unix.Flock(int(file.Fd()), unix.LOCK_UN) }
