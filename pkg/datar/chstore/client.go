package chstore

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// dialTimeout bounds the connection to a host, so that a host that is down costs little time.
	dialTimeout = 3 * time.Second
	// attemptTimeout bounds a request while there are other hosts to try.
	attemptTimeout = 15 * time.Second
	// requestTimeout bounds a request on the last host.
	requestTimeout = 60 * time.Second
	// maxConnections is the maximum number of connections to each host. By default, ClickHouse runs
	// 100 queries at a time, for all servers.
	maxConnections = 8
	// maxAnswer is the maximum number of bytes of a response.
	maxAnswer = 256 << 20
	// maxErrorText is the maximum number of bytes of ClickHouse's error text that are kept.
	maxErrorText = 500
)

// Error is an error that ClickHouse returned.
type Error struct {
	// Code is ClickHouse's error code, or 0 if the response had no code.
	Code int
	// Status is the HTTP status.
	Status int
	// Host is the host that responded.
	Host string
	// Text is ClickHouse's own text, truncated to 500 bytes.
	Text string
}

// Error implements error.
func (e *Error) Error() string {
	remedy := ""
	switch e.Code {
	case codeTooManyParts:
		remedy = " (the counts are kept and sent again; fewer, larger flushes help: see FLAGR_RECORDER_DATAR_FLUSH_INTERVAL)"
	case codeUnknownDatabase:
		remedy = " (create the database, or name another one in the connection string)"
	case codeReadOnly:
		remedy = " (this replica has lost its coordination service, or is read only)"
	}
	return fmt.Sprintf("ClickHouse on %s: status %d, %s%s", e.Host, e.Status, e.Text, remedy)
}

// ClickHouse's error codes.
const (
	codeUnknownDatabase = 81
	codeReadOnly        = 242
	codeTooManyParts    = 252
	codeAccessDenied    = 497
)

// elsewhere are error codes that another host may not return. They report too many queries,
// timeouts between hosts, a read-only replica, a replica without its coordination service, and an
// insert with an unknown result.
var elsewhere = [...]int{159, 202, 203, 209, 210, 225, codeReadOnly, 279, 319, 999}

func (e *Error) mayWorkElsewhere() bool {
	switch e.Status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return slices.Contains(elsewhere[:], e.Code)
}

// client sends statements to one of several hosts.
type client struct {
	options Options
	http    *http.Client
	// current is the index of the host that worked last. As long as it works, reads and writes use
	// the same host.
	current atomic.Int32
	// settings are sent with each request. They are set before the first concurrent use.
	settings url.Values
	zippers  sync.Pool // of *gzip.Writer
	clock    clock
}

func newClient(o Options) *client {
	return &client{
		options: o,
		http: &http.Client{
			Transport: &http.Transport{
				Proxy:               http.ProxyFromEnvironment,
				DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
				TLSHandshakeTimeout: dialTimeout,
				MaxIdleConnsPerHost: maxConnections,
				MaxConnsPerHost:     maxConnections,
				IdleConnTimeout:     2 * time.Second, // old versions close connections after 3 s
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		settings: url.Values{
			"database": {o.Database}, "output_format_json_quote_64bit_integers": {"1"},
			"max_query_size": {"16777216"}, // a window of years names the rollup of each quarter of a day
		},
	}
}

// query runs a statement and returns the rows of its response. All columns must be strings or
// 64-bit integers.
func (c *client) query(ctx context.Context, statement string) ([][]string, error) {
	text, host, err := c.do(ctx, "", []byte(statement+" FORMAT JSONCompact"), false)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data      [][]string `json:"data"`
		Exception string     `json:"exception"` // newer versions end a response that fails midway with it
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("ClickHouse on %s: the answer is cut or malformed: %w", host, err)
	}
	if answer.Exception != "" {
		return nil, newError(http.StatusOK, host, answer.Exception)
	}
	return answer.Data, nil
}

// integers runs a query whose columns are all integers.
func (c *client) integers(ctx context.Context, statement string) ([][]int64, error) {
	rows, err := c.query(ctx, statement)
	if err != nil {
		return nil, err
	}
	numbers := make([][]int64, len(rows))
	for i, row := range rows {
		numbers[i] = make([]int64, len(row))
		for j, text := range row {
			if numbers[i][j], err = strconv.ParseInt(text, 10, 64); err != nil {
				return nil, fmt.Errorf("column %d of ClickHouse's answer is %q, want a number", j, text)
			}
		}
	}
	return numbers, nil
}

// exec runs a statement that returns no rows.
func (c *client) exec(ctx context.Context, statement string) error {
	_, _, err := c.do(ctx, "", []byte(statement), false)
	return err
}

// execOnce runs a statement that must not run twice, on the current host, with a longer timeout
// than other statements.
func (c *client) execOnce(ctx context.Context, statement string, timeout time.Duration) error {
	_, err := c.once(ctx, c.options.Hosts[c.current.Load()], timeout, "", []byte(statement), false)
	return err
}

// insert inserts rows, one JSON object per line. A truncated body fails as a whole, because it is
// compressed.
func (c *client) insert(ctx context.Context, table, columns string, rows []byte) error {
	var packed bytes.Buffer
	zipper, ok := c.zippers.Get().(*gzip.Writer)
	if ok {
		zipper.Reset(&packed)
	} else {
		zipper, _ = gzip.NewWriterLevel(&packed, gzip.BestSpeed) // the level is valid
	}
	_, _ = zipper.Write(rows) // to memory
	_ = zipper.Close()
	c.zippers.Put(zipper)
	_, _, err := c.do(ctx, "INSERT INTO "+table+" ("+columns+") FORMAT JSONEachRow", packed.Bytes(), true)
	return err
}

// do sends a request to the current host. If that fails, it tries the other hosts. Running the
// statement more than once must have the same effect as running it once.
func (c *client) do(ctx context.Context, statement string, body []byte, packed bool) (answer []byte, host string, err error) {
	count := len(c.options.Hosts)
	first := int(c.current.Load())
	for i := range count {
		if err := ctx.Err(); err != nil {
			return nil, "", fmt.Errorf("ClickHouse: %w", err)
		}
		index := (first + i) % count
		host = c.options.Hosts[index]
		timeout := attemptTimeout
		if i == count-1 {
			timeout = requestTimeout
		}
		answer, err = c.once(ctx, host, timeout, statement, body, packed)
		if err == nil {
			c.current.Store(int32(index))
			return answer, host, nil
		}
		if refused := (*Error)(nil); errors.As(err, &refused) && !refused.mayWorkElsewhere() {
			return nil, host, err
		}
	}
	return nil, host, err
}

func (c *client) once(ctx context.Context, host string, timeout time.Duration, statement string, body []byte, packed bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	address := url.URL{Scheme: "http", Host: host, Path: "/"}
	if c.options.TLS {
		address.Scheme = "https"
	}
	parameters := url.Values{}
	maps.Copy(parameters, c.settings)
	if statement != "" {
		parameters.Set("query", statement)
	}
	address.RawQuery = parameters.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ClickHouse on %s: %w", host, withoutURL(err))
	}
	if packed {
		request.Header.Set("Content-Encoding", "gzip")
	}
	if c.options.User != "" {
		request.Header.Set("X-ClickHouse-User", c.options.User)
	}
	if c.options.Password != "" {
		request.Header.Set("X-ClickHouse-Key", c.options.Password)
	}
	begun := time.Now()
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ClickHouse on %s: %w", host, withoutURL(err))
	}
	c.clock.compare(response.Header.Get("Date"), begun, time.Now())
	defer func() { _ = response.Body.Close() }() // it was read to its end, or failed
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4*maxErrorText)) // as much as there is
		return nil, newError(response.StatusCode, host, string(text))
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("ClickHouse on %s: read the answer: %w", host, err)
	}
	if len(answer) > maxAnswer {
		return nil, fmt.Errorf("ClickHouse on %s: the answer has more than %d bytes", host, maxAnswer)
	}
	if code := response.Header.Get("X-ClickHouse-Exception-Code"); code != "" {
		return nil, newError(response.StatusCode, host, string(answer))
	}
	if page := bytes.TrimSpace(answer); packed && len(page) > 0 {
		// Not from ClickHouse, but for example the page of a proxy. Another host may work.
		return nil, fmt.Errorf("ClickHouse on %s: an insert is answered by %q, want an empty body", host, page[:min(len(page), maxErrorText)])
	}
	return answer, nil
}

// withoutURL removes the URL from an error, because it contains the whole statement.
func withoutURL(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

var errorCode = regexp.MustCompile(`Code: (\d+)`)

func newError(status int, host, text string) *Error {
	e := &Error{Status: status, Host: host}
	if match := errorCode.FindStringSubmatch(text); match != nil {
		e.Code, _ = strconv.Atoi(match[1]) // digits; a number out of range matches no known code
	}
	e.Text = strings.ToValidUTF8(strings.TrimSpace(text[:min(len(text), maxErrorText)]), "?")
	if e.Text == "" {
		e.Text = "no text"
	}
	return e
}
