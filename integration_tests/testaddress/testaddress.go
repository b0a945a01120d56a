// Package testaddress finds addresses for servers that start late or are restarted.
package testaddress

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"syscall"
	"testing"
)

// Unused returns a host:port of this machine on which no process listens. On Linux, where all of
// 127.0.0.0/8 is this machine, the host is one of millions, so that no other process starts to
// listen there. Elsewhere it is 127.0.0.1. The port is below those that systems assign
// automatically, and above 10080, the last one that Chromium refuses.
func Unused(t testing.TB) string {
	t.Helper()
	const tries = 200
	for range tries {
		host := "127.0.0.1"
		if runtime.GOOS == "linux" {
			host = fmt.Sprintf("127.%d.%d.%d", 1+rand.N(254), rand.N(256), 1+rand.N(254))
		}
		address := net.JoinHostPort(host, strconv.Itoa(10_100+rand.N(19_900)))
		// To listen there and close would not do: a process that is being started has the listener
		// for a moment.
		connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return address
		}
		if err == nil {
			_ = connection.Close()
		}
	}
	t.Fatal("no address is free")
	return ""
}
