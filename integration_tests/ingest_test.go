package integration_tests

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

const ingestPath = "/datar/evaluations"

// taking returns the environment of a server that accepts reported counts.
func taking() environ {
	return quick.with(counting("1h")).with(environ{"FLAGR_RECORDER_DATAR_INGEST_ENABLED": "true"})
}

// countsOf returns a body with one row for each variant of the flag, and its number of evaluations.
func countsOf(f flagAnswer, each int64) (body string, total int64) {
	now := time.Now().UnixMilli()
	var rows []string
	for _, v := range f.Variants {
		rows = append(rows, fmt.Sprintf(`{"timestamp":%d,"flag":{"key":%q},"variant":{"key":%q},"first_evaluation":%d,"last_evaluation":%d,"evaluation_count":%d}`,
			now, f.Key, v.Key, now, now, each))
		total += each
	}
	return `{"flagEvaluations":[` + strings.Join(rows, ",") + "]}", total
}

// postCounts posts a batch.
func (s *server) postCounts(key, body string) (answer, error) {
	request, err := http.NewRequest(http.MethodPost, s.url+ingestPath, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", key)
	return s.do(request)
}

// sendCounts posts a batch, and retries while the server asks for it.
func (s *server) sendCounts(key, body string) (answer, error) {
	for {
		if a, err := s.postCounts(key, body); err != nil || a.status != http.StatusServiceUnavailable {
			return a, err
		}
	}
}

// TestReplaysAreAppliedOnce replays the same batches from many senders at the same time: some with
// arbitrary keys in any order, and some with the numbers of writers, in order.
func TestReplaysAreAppliedOnce(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		const senders, writers, keys = 100, 20, 50
		dsn := db.fresh(t)
		s := start(t, db, dsn, taking())
		flags := splitFlags(t, s)
		type batch struct {
			key, body string
			total     int64
			applied   atomic.Int64
		}
		var plain, numbered []*batch
		var total int64
		for i := range keys {
			for _, to := range []*[]*batch{&plain, &numbered} {
				b := &batch{key: fmt.Sprint("order ", i)}
				if to == &numbered {
					b.key = fmt.Sprint("1f0c7d0e-5a52-4d0f-9a3e-6a3a7d1c9b10:", i+1)
				}
				b.body, b.total = countsOf(flags[i%len(flags)], int64(i+1))
				total += b.total
				*to = append(*to, b)
			}
		}
		var group sync.WaitGroup
		for sender := range senders + writers {
			group.Go(func() {
				mine := numbered
				if sender < senders {
					mine = make([]*batch, keys)
					for i, from := range rand.Perm(keys) {
						mine[i] = plain[from]
					}
				}
				for _, b := range mine {
					a, err := s.sendCounts(b.key, b.body)
					var got struct {
						Duplicate     bool
						AcceptedCount int64
					}
					if err == nil {
						err = json.Unmarshal(a.body, &got)
					}
					if err != nil || a.status != http.StatusOK || got.AcceptedCount != b.total {
						t.Errorf("%s: %s, %v; want 200 with %d", b.key, a, err, b.total)
						return
					}
					if !got.Duplicate {
						b.applied.Add(1)
					}
				}
			})
		}
		group.Wait()
		for _, b := range append(plain, numbered...) {
			if n := b.applied.Load(); n != 1 {
				t.Errorf("%s was applied %d times according to its responses", b.key, n)
			}
		}
		s.stop(t, syscall.SIGTERM)
		if got := stored(t, db, dsn); got != total {
			t.Errorf("the database has %d evaluations, want %d", got, total)
		}
	})
}

// TestCountsDuringDatabaseFaults sends batches while the database is down, hangs, or loses its
// responses, and again when it works.
func TestCountsDuringDatabaseFaults(t *testing.T) {
	onKinds(t, serverKinds, func(t *testing.T, kind testdb.Kind, db database) {
		dsn := db.fresh(t)
		p, through := newProxy(t, kind, dsn)
		s := startRough(t, t.TempDir(), taking().with(db.environ(through)), "--write-timeout", "1m")
		flags := splitFlags(t, s)
		var total int64
		for i, f := range []faults{{down: true}, {hang: true}, {loseAnswer: 1}, {loseCommit: 1}} {
			keys := []string{fmt.Sprint("order ", i), fmt.Sprint("1f0c7d0e-5a52-4d0f-9a3e-6a3a7d1c9b10:", i+1)}
			if f.hang { // until the server times out; the same with either key
				keys = keys[1:]
			}
			for _, key := range keys {
				body, counts := countsOf(flags[0], int64(i+1))
				total += counts
				p.set(f)
				a, err := s.postCounts(key, body)
				switch {
				case err != nil:
					t.Errorf("%s, %+v: %v", key, f, err)
				case a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") != "":
				case a.status == http.StatusOK && f.loseAnswer > 0: // the server found the receipt
				default:
					t.Errorf("%s, %+v: %s, Retry-After %q; want 503", key, f, a, a.header.Get("Retry-After"))
				}
				p.set(faults{})
				for range 2 {
					if a, err := s.sendCounts(key, body); err != nil || a.status != http.StatusOK {
						t.Errorf("%s after %+v: %s, %v", key, f, a, err)
					}
				}
			}
		}
		s.stop(t, syscall.SIGTERM)
		if got := stored(t, db, dsn); got != total {
			t.Errorf("the database has %d evaluations, want %d", got, total)
		}
	})
}

// hold opens a connection, and sends the headers of a batch and the first bytes of its body.
func hold(t *testing.T, s *server, announced, sent int) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	head := fmt.Sprintf("POST /api/v1%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", ingestPath, s.address(), announced)
	_, _ = io.WriteString(c, head+strings.Repeat(" ", sent)) // the server may have returned 503 and closed the connection
	return c
}

// awaitEnd waits until the server has closed the connection.
func awaitEnd(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(stopDeadline)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, c)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // of the connection itself
		t.Error("the server still waits for a client that sends nothing")
	}
}

// TestSlowSenders has clients that never complete their batches. The server must close their
// connections, and other clients must not be affected.
func TestSlowSenders(t *testing.T) {
	onKinds(t, []string{"sqlite"}, func(t *testing.T, _ testdb.Kind, db database) {
		dsn := db.fresh(t)
		s := start(t, db, dsn, taking(), "--read-timeout", "8s")
		flags := splitFlags(t, s)
		var slow []net.Conn
		for range 200 {
			slow = append(slow, hold(t, s, 1<<20, 100))
		}
		dribbling, dribbled := hold(t, s, 1<<20, 1), make(chan struct{})
		go func() { // a byte at intervals, as long as the connection is open
			defer close(dribbled)
			ticker := time.NewTicker(20 * time.Millisecond)
			defer ticker.Stop()
			for range ticker.C {
				if _, err := dribbling.Write([]byte(" ")); err != nil {
					return
				}
			}
		}()
		body, total := countsOf(flags[0], 7)
		if a, err := s.sendCounts("beside them", body); err != nil || a.status != http.StatusOK {
			t.Errorf("a batch beside slow ones: %s, %v", a, err)
		}
		for _, c := range append(slow, dribbling) {
			awaitEnd(t, c)
		}
		<-dribbled
		s.stop(t, syscall.SIGTERM)
		if got := stored(t, db, dsn); got != total {
			t.Errorf("the database has %d evaluations, want %d", got, total)
		}
	})
}

// TestSendersCannotFillMemory has clients that use as much memory of the server as they can.
func TestSendersCannotFillMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("peak memory is read from /proc, which only Linux has")
	}
	onKinds(t, []string{"sqlite"}, func(t *testing.T, _ testdb.Kind, db database) {
		s := start(t, db, db.fresh(t), taking())
		flags := splitFlags(t, s)
		var bomb bytes.Buffer
		w := gzip.NewWriter(&bomb)
		if _, err := io.CopyN(w, spaces{}, 256<<20); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				for name, send := range map[string]func(*http.Request){
					"a bomb": func(r *http.Request) {
						r.Body = io.NopCloser(bytes.NewReader(bomb.Bytes()))
						r.Header.Set("Content-Encoding", "gzip")
					},
					"an endless body": func(r *http.Request) { r.Body = io.NopCloser(spaces{}) },
				} {
					request, err := http.NewRequest(http.MethodPost, s.url+ingestPath, nil)
					if err != nil {
						t.Error(err)
						return
					}
					request.Header.Set("Content-Type", "application/json")
					send(request)
					// The server may close the connection of an endless body before its response is
					// read.
					if a, err := s.do(request); err == nil && a.status != http.StatusRequestEntityTooLarge && a.status != http.StatusServiceUnavailable {
						t.Errorf("%s: %s", name, a)
					}
				}
			})
		}
		group.Wait()
		const senders = 1000
		var slow []net.Conn
		for range senders {
			slow = append(slow, hold(t, s, 1<<20, 1<<20-1))
		}
		const most = 400 << 20
		if peak := peakMemory(t, s); peak > most {
			t.Errorf("the server used %d MiB, want at most %d", peak>>20, most>>20)
		} else {
			t.Logf("the server used %d MiB for %d senders of 1 MiB each", peak>>20, senders)
		}
		for _, c := range slow {
			_ = c.Close()
		}
		body, _ := countsOf(flags[0], 7)
		if a, err := s.sendCounts("after them", body); err != nil || a.status != http.StatusOK {
			t.Errorf("a batch after them: %s, %v", a, err)
		}
	})
}

// spaces is an endless body.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	const some = "                                                                                                    "
	return copy(p, some), nil
}

// peakMemory returns the peak memory of the server in bytes.
func peakMemory(t *testing.T, s *server) int64 {
	t.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == "VmHWM:" {
			kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	t.Fatal("the kernel does not report the peak memory")
	return 0
}
