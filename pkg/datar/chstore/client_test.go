package chstore_test

import (
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
)

// imitation responds like ClickHouse to the statements of New, and to all others as fail does.
type imitation struct {
	*httptest.Server
	mu struct {
		sync.Mutex
		inserts []string // tables
		bodies  []string
		users   map[string]bool
		// fail may respond to a request, and reports whether it did.
		fail func(w http.ResponseWriter, statement string) bool
	}
	version string // of the tables; empty means that there are no tables
}

func imitate(t *testing.T) *imitation {
	t.Helper()
	c := &imitation{version: "2"}
	c.mu.users = map[string]bool{}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *imitation) onRequest(fail func(w http.ResponseWriter, statement string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.fail = fail
}

func (c *imitation) address() string { return strings.TrimPrefix(c.URL, "http://") }

func (c *imitation) insertions() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string{}, c.mu.inserts...)
}

// ServeHTTP implements http.Handler.
func (c *imitation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(r.Body) // fails below if it is nil
	}
	text, err := io.ReadAll(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	statement := r.URL.Query().Get("query") + string(text)
	c.mu.Lock()
	fail := c.mu.fail
	c.mu.users[r.Header.Get("X-ClickHouse-User")+":"+r.Header.Get("X-ClickHouse-Key")] = true
	c.mu.Unlock()
	if fail != nil && fail(w, statement) {
		return
	}
	answer := `{"data":[]}`
	switch {
	case strings.HasPrefix(statement, "SELECT version()"):
		answer = `{"data":[["26.9.2.1"]]}`
	case strings.Contains(statement, "system.columns"):
		answer = fmt.Sprintf(`{"data":[["identity","'abcdefghijklmnopqrstuvwxyz'"],["version","CAST(%s, 'UInt16')"]]}`, c.version)
	case strings.Contains(statement, "maxIf(value"):
		answer = `{"data":[["0","0","0","0"]]}`
	case strings.HasPrefix(statement, "SELECT engine FROM"):
		answer = `{"data":[["ReplacingMergeTree"]]}`
	case strings.HasPrefix(statement, "INSERT INTO"):
		c.mu.Lock()
		c.mu.inserts = append(c.mu.inserts, strings.Fields(statement)[2])
		c.mu.bodies = append(c.mu.bodies, string(text))
		c.mu.Unlock()
		answer = ""
	}
	_, _ = io.WriteString(w, answer)
}

const clientPassword = "s3cr3t/word"

func openHosts(t *testing.T, hosts ...string) (*chstore.Store, error) {
	t.Helper()
	s, err := chstore.New(t.Context(), chstore.Options{Hosts: hosts, User: "u", Password: clientPassword, Database: "datar"})
	if err == nil {
		t.Cleanup(s.Close)
	}
	return s, err
}

// TestInsertsSkipAProxyWithAPage has a proxy in front of one host that responds to inserts with a
// page and status 200.
func TestInsertsSkipAProxyWithAPage(t *testing.T) {
	t.Parallel()
	page, works := imitate(t), imitate(t)
	s, err := openHosts(t, page.address(), works.address())
	if err != nil {
		t.Fatal(err)
	}
	backSoon := func(w http.ResponseWriter, statement string) bool {
		if !strings.HasPrefix(statement, "INSERT") {
			return false
		}
		_, _ = io.WriteString(w, "<html>We are back soon")
		return true
	}
	page.onRequest(backSoon)
	for sequence := range int64(2) {
		if err := s.Apply(t.Context(), batchOf(sequence+1)); err != nil {
			t.Fatal(err)
		}
	}
	if got := works.insertions(); len(got) < 2 {
		t.Errorf("the host that works has the inserts %v, want those of both batches", got)
	}
	works.onRequest(backSoon)
	if err := s.Apply(t.Context(), batchOf(3)); err == nil || !strings.Contains(err.Error(), "back soon") {
		t.Errorf("with the page on both hosts: %v", err)
	}
}

func batchOf(sequence int64) datar.Batch {
	hour := datar.Hour(490_000)
	ms := hour.Time().UnixMilli()
	return datar.Batch{Writer: "w", Sequence: sequence, Rows: []datar.Row{{Key: datar.Key{FlagID: 1, Hour: hour}, Count: 3, First: ms, Last: ms}}}
}

func exception(code int, text string) func(http.ResponseWriter, string) bool {
	return func(w http.ResponseWriter, statement string) bool {
		if !strings.HasPrefix(statement, "INSERT") {
			return false
		}
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = fmt.Fprintf(w, "Code: %d, e.displayText() = DB::Exception: %s", code, text)
		return true
	}
}

// TestFailover checks that a host that is down, closes the connection, is overloaded or is
// read-only is skipped, and that user and password are sent to the next host.
func TestFailover(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(http.ResponseWriter, string) bool{
		"hangs up": func(w http.ResponseWriter, _ string) bool {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close()
			}
			return true
		},
		"bad gateway": func(w http.ResponseWriter, _ string) bool { w.WriteHeader(http.StatusBadGateway); return true },
		"read only":   exception(242, "Table is in readonly mode"),
		"busy":        exception(202, "Too many simultaneous queries"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := imitate(t), imitate(t)
			first.onRequest(fail)
			s, err := openHosts(t, "127.0.0.1:1", first.address(), second.address())
			if err != nil {
				t.Fatal(err)
			}
			for sequence := range int64(2) {
				if err := s.Apply(t.Context(), batchOf(sequence+1)); err != nil {
					t.Fatal(err)
				}
			}
			if got := second.insertions(); len(got) != 2 || got[0] != "datar_counts" {
				t.Errorf("the second host has %q, want two inserts into datar_counts", got)
			}
			if second.mu.users["u:"+clientPassword] != true || len(second.mu.users) != 1 {
				t.Errorf("users are %v", second.mu.users)
			}
		})
	}
}

// TestErrorsOfClickHouse checks that errors that are the same on all hosts, such as too many parts,
// are returned immediately. The engine then keeps the batch.
func TestErrorsOfClickHouse(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fail func(http.ResponseWriter, string) bool
		code int
		want string
	}{
		"too many parts": {exception(252, "Too many parts (300)"), 252, "kept and sent again"},
		"no database":    {exception(81, "Database datar doesn't exist"), 81, "create the database"},
		"no space":       {exception(243, "Cannot reserve 1.00 MiB"), 243, "Cannot reserve"},
		"not ClickHouse": {func(w http.ResponseWriter, s string) bool {
			if !strings.HasPrefix(s, "INSERT") {
				return false
			}
			http.Error(w, "<html>"+strings.Repeat("x", 10_000), http.StatusNotFound)
			return true
		}, 0, "status 404"},
		"redirect": {func(w http.ResponseWriter, s string) bool {
			if !strings.HasPrefix(s, "INSERT") {
				return false
			}
			w.Header().Set("Location", "https://login.example.com/")
			w.WriteHeader(http.StatusFound)
			return true
		}, 0, "status 302"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := imitate(t), imitate(t)
			s, err := openHosts(t, first.address(), second.address())
			if err != nil {
				t.Fatal(err)
			}
			first.onRequest(test.fail)
			err = s.Apply(t.Context(), batchOf(1))
			var refused *chstore.Error
			if !errors.As(err, &refused) || refused.Code != test.code || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 1000 {
				t.Errorf("got %v, want code %d and %q", err, test.code, test.want)
			}
			if errors.Is(err, datar.ErrRefused) {
				t.Error("the engine would drop the rows")
			}
			if strings.Contains(fmt.Sprint(err), clientPassword) || strings.Contains(fmt.Sprint(err), "JSONEachRow") {
				t.Errorf("the error has the password or the statement: %v", err)
			}
			if got := second.insertions(); len(got) != 0 {
				t.Errorf("the second host was asked as well: %q", got)
			}
		})
	}
}

// TestAnswersThatFailMidway checks that a truncated response, or one that fails midway with status
// 200, leads to an error and not to a lower number.
func TestAnswersThatFailMidway(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"cut":           `{"data":[["1","0","5","0","0"],["2","0"`,
		"old exception": "{\"data\":[[\"1\",\"0\",\"5\",\"0\",\"0\"]\nCode: 241, e.displayText() = DB::Exception: Memory limit",
		"new exception": `{"data":[["1","0","5","0","0"]],"exception":"Code: 241. DB::Exception: Memory limit"}`,
		"empty":         "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := imitate(t)
			s, err := openHosts(t, c.address())
			if err != nil {
				t.Fatal(err)
			}
			c.onRequest(func(w http.ResponseWriter, _ string) bool { _, _ = io.WriteString(w, answer); return true })
			if totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: 0, To: 1, GroupBy: datar.ByFlag}); err == nil {
				t.Errorf("got %+v, want an error", totals)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	c := imitate(t)
	for version, want := range map[string]string{
		"3": "the tables are of version 3, and this server knows version 2",
		"1": "the tables are of version 1, which this server does not use any more",
	} {
		c.version = version
		if _, err := openHosts(t, c.address()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("tables of version %s: %v", version, err)
		}
	}
	for _, s := range c.insertions() {
		t.Errorf("something was written to %s", s)
	}
	c.onRequest(func(w http.ResponseWriter, _ string) bool {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "Code: 516. DB::Exception: u: Authentication failed")
		return true
	})
	if _, err := openHosts(t, c.address()); err == nil || !strings.Contains(err.Error(), "Authentication failed") || strings.Contains(err.Error(), clientPassword) {
		t.Errorf("a wrong password: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := chstore.New(ctx, chstore.Options{Hosts: []string{"127.0.0.1:1"}, Password: clientPassword, Database: "datar"})
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), clientPassword) {
		t.Errorf("an unreachable host: %v", err)
	}
}

// TestTLS checks that a TLS connection is used only if the certificate is verified. Otherwise
// nothing is sent.
func TestTLS(t *testing.T) {
	t.Parallel()
	c := imitate(t)
	secure := httptest.NewUnstartedServer(c)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes fail on purpose
	secure.StartTLS()
	t.Cleanup(secure.Close)
	options, err := chstore.ParseURL("clickhouses://u:" + strings.ReplaceAll(clientPassword, "/", "%2F") + "@" + strings.TrimPrefix(secure.URL, "https://") + "/datar")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chstore.New(t.Context(), options); err == nil || !strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), clientPassword) {
		t.Errorf("a certificate of an unknown authority: %v", err)
	}
	if len(c.mu.users) != 0 {
		t.Error("something was sent to a server that was not verified")
	}
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	s, err := chstore.NewTrusting(t.Context(), options, roots)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Apply(t.Context(), batchOf(1)); err != nil {
		t.Fatal(err)
	}
	if got := c.insertions(); len(got) != 1 || !c.mu.users["u:"+clientPassword] {
		t.Errorf("inserts went to %q, and users are %v", got, c.mu.users)
	}
	plain := options
	plain.TLS = false
	if _, err := chstore.New(t.Context(), plain); err == nil {
		t.Error("plain HTTP works on a port of HTTPS")
	}
}

// TestOrderOfInserts checks that the record of a server, which says what is stored, is written
// last.
func TestOrderOfInserts(t *testing.T) {
	t.Parallel()
	c := imitate(t)
	s, err := openHosts(t, c.address())
	if err != nil {
		t.Fatal(err)
	}
	batch := batchOf(1)
	later := batch.Rows[0]
	later.Hour += 24
	batch.Rows = append(batch.Rows, later)
	batch.Unknown = []datar.UnknownRow{{Asked: "x", Hour: later.Hour, Count: 1}}
	batch.Server = &datar.ServerRecord{Name: "s", Run: "r"}
	if err := s.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(c.insertions()), "[datar_counts datar_counts datar_unknown datar_servers]"; got != want {
		t.Errorf("inserts went to %s, want %s", got, want)
	}
}
