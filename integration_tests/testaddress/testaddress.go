// Package testaddress finds addresses for servers that start late or are restarted.
package testaddress

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Unused returns a host:port of this machine on which no process listens. On Linux, where all of
// 127.0.0.0/8 is this machine, the host is one of millions, so that no other process starts to
// listen there. Elsewhere it is 127.0.0.1. The port is below those that systems assign
// automatically.
func Unused(t testing.TB) string {
	t.Helper()
	const tries = 200
	for i := range tries {
		host := fmt.Sprintf("127.%d.%d.%d", 1+rand.N(254), rand.N(256), 1+rand.N(254))
		if i >= tries/2 {
			host = "127.0.0.1"
		}
		address := fmt.Sprintf("%s:%d", host, 10_000+rand.N(20_000))
		if l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
	t.Fatal("no address is free")
	return ""
}
