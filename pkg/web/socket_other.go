//go:build !linux

package web

import "net"

// limitUnsent has no effect on this system.
func limitUnsent(*net.TCPConn) {}

// isReset returns false: on this system, the first read notices it.
func isReset(*net.TCPConn) bool { return false }
