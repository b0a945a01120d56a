//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package datar

import (
	"fmt"
	"os"
	"runtime"
)

func mapFile(*os.File, int) ([]byte, error) {
	return nil, fmt.Errorf("journals are not available on %s", runtime.GOOS)
}

func detachMapped([]byte) error { return nil }

func unmap([]byte) {}

func syncMapped([]byte) error { return nil }

func lockFile(*os.File) error {
	return fmt.Errorf("journals are not available on %s", runtime.GOOS)
}

func unlockFile(*os.File) error { return nil }
