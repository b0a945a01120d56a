package web

import (
	"net"
	"syscall"
)

const (
	tcpNotSentLowat = 25 // TCP_NOTSENT_LOWAT, which package syscall does not have
	// maxUnsent is how much of a response the kernel keeps beyond what it has sent to the client.
	maxUnsent = 128 << 10
)

// limitUnsent limits the bytes that the kernel keeps for a client that does not read. Otherwise it
// copies and keeps up to 4 MiB for each connection. What is on its way to the client does not
// count, so transfers are not slower. Without support by the kernel, it has no effect.
func limitUnsent(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, maxUnsent)
	})
}

// isReset reports whether the client has reset the connection, after which nothing can be read or
// written.
func isReset(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	reset := false
	_ = raw.Control(func(fd uintptr) {
		pending, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
		reset = err == nil && pending != 0
	})
	return reset
}
