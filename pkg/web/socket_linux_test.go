package web

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

// TestLittleIsKeptForClientsThatDoNotRead writes until the kernel takes no more.
func TestLittleIsKeptForClientsThatDoNotRead(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limited := &headerListener{listener, budget.NewMemory(budget.HeaderBytes)}
	client, err := new(net.Dialer).DialContext(context.Background(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := limited.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(client.Close(), server.Close(), listener.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := server.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	const most = 1 << 20 // maxUnsent, and what the client's kernel keeps
	if n, err := server.Write(make([]byte, 32<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n > most {
		t.Errorf("%d bytes are kept, want at most %d: %v", n, most, err)
	}
}

// TestResetConnectionsAreNotServed has connections of which every second one is reset before it is
// accepted.
func TestResetConnectionsAreNotServed(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	var stay []net.Conn
	for i := range 2 * (resetInTurn + 3) {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		t.Cleanup(func() { _ = c.Close() })
		stay = append(stay, c)
	}
	limited := &headerListener{listener, budget.NewMemory(budget.HeaderBytes)}
	for i, client := range stay {
		c, err := limited.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if got, want := c.RemoteAddr().String(), client.LocalAddr().String(); got != want {
			t.Fatalf("connection %d is from %s, want %s", i, got, want)
		}
	}
}
