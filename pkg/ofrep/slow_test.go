package ofrep_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
)

// patience is how long what must happen may take on a busy machine.
const patience = time.Minute

// padded writes so much behind each message that the buffers of a connection cannot hold it, and
// brings deadlines for writing twenty times nearer, so that the test need not wait for 10 seconds.
type padded struct {
	http.ResponseWriter
}

func (w padded) Write(b []byte) (int, error) {
	if n, err := w.ResponseWriter.Write(b); err != nil {
		return n, err
	}
	line := ":" + strings.Repeat(" ", 1<<16) + "\n"
	for range 512 { // 32 MiB
		if _, err := io.WriteString(w.ResponseWriter, line); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func (w padded) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w padded) SetWriteDeadline(at time.Time) error {
	return http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(time.Until(at) / 20))
}

// TestASlowReaderOfASocket connects and never reads. The server ends this stream, and the other one
// goes on.
func TestASlowReaderOfASocket(t *testing.T) {
	t.Parallel()
	h := setup(t, "", 10*time.Millisecond, ofrep.Options{Events: ofrep.Events{Spread: -1}})
	ended := make(chan struct{}) // the slow stream
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("slow") {
			defer close(ended)
			rw = padded{rw}
		}
		h.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(h.Stop) // closing the server waits for streams

	good, err := http.Get(server.URL + ofrep.EventsPath)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = good.Body.Close() }()
	slow, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	if _, err := io.WriteString(slow, "GET "+ofrep.EventsPath+"?slow HTTP/1.1\r\nHost: "+strings.TrimPrefix(server.URL, "http://")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the slow stream is not ended")
	}
	if n := h.Stats().Streams; n != 1 {
		t.Errorf("%d streams are open, want the other one", n)
	}

	// The connection is closed, so a client that wakes up learns of it, and the other stream hears
	// of the next change.
	if err := slow.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, slow); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection of the slow stream stays open")
	}
	h.source.set(parse(t, strings.Replace(examples, `"SnapshotID":98`, `"SnapshotID":99`, 1)))
	heard := make(chan bool, 1)
	go func() {
		n := 0
		for scanner := bufio.NewScanner(good.Body); scanner.Scan(); {
			if strings.HasPrefix(scanner.Text(), "data: ") {
				if n++; n == 2 { // the first one, at once, since the flags are new
					heard <- true
					return
				}
			}
		}
		heard <- false
	}()
	select {
	case ok := <-heard:
		if !ok {
			t.Error("the other stream ended")
		}
	case <-time.After(patience):
		t.Error("the other stream did not hear of a change")
	}
}
