//go:build !linux

package web

import "net"

// limitUnsent has no effect on this system.
func limitUnsent(*net.TCPConn) {}
