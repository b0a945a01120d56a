//go:build !linux

package services

import (
	"errors"
	"time"
)

// CPUTime returns an error, because it is implemented for Linux only.
func (*Server) CPUTime() (time.Duration, error) {
	return 0, errors.New("the CPU time of servers is known on Linux only")
}
