package metrics

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

func TestAgentIsLookedForAgain(t *testing.T) {
	t.Parallel()
	receiver, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = receiver.Close() })
	var log bytes.Buffer
	a := &agent{address: receiver.LocalAddr().String(), logger: slog.New(slog.NewTextHandler(&log, nil)), dialed: time.Now()}
	write := func(packet string) {
		t.Helper()
		if n, err := a.Write([]byte(packet)); n != len(packet) || err != nil {
			t.Errorf("write %s: %d, %v", packet, n, err)
		}
	}
	write("lost")
	a.dialed = time.Now().Add(-agentRetryInterval)
	write("sent")
	if err := receiver.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	packet := make([]byte, 100)
	if n, _, err := receiver.ReadFrom(packet); err != nil || string(packet[:n]) != "sent" {
		t.Errorf("got %q, %v", packet[:n], err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "metrics are sent to StatsD") {
		t.Errorf("log: %s", &log)
	}
}
