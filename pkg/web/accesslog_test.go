package web_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// logs writes an exchange in each way: by slog, and as a line of our own.
func logs(e *web.Exchange, asJSON bool) (slogs, own string) {
	var a, b, unused bytes.Buffer
	handler := func(out *bytes.Buffer) slog.Handler {
		if asJSON {
			return slog.NewJSONHandler(out, nil)
		}
		return slog.NewTextHandler(out, nil)
	}
	web.AccessLog{Logger: slog.New(handler(&a))}.Observer()(e)
	web.AccessLog{Logger: slog.New(handler(&unused)), Lines: &b, JSON: asJSON}.Observer()(e)
	return a.String(), b.String() + unused.String()
}

func exchange(method, path, remote, id string) *web.Exchange {
	r := &http.Request{Method: method, URL: &url.URL{Path: path}, RemoteAddr: remote, Header: http.Header{}}
	if id != "" {
		r.Header.Set("X-Request-Id", id)
	}
	return &web.Exchange{
		Request: r, Status: 200, Bytes: 612, Duration: 84 * time.Microsecond, Start: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
	}
}

func TestLinesOfTheAccessLogAreThoseOfSlog(t *testing.T) {
	t.Parallel()
	plain := exchange("POST", "/api/v1/evaluation", "10.0.0.7:51234", "")
	cases := map[string]*web.Exchange{
		"plain":                plain,
		"request id":           exchange("GET", "/api/v1/flags/7", "[2001:db8::1%25eth0]:1", "a/b-c_1"),
		"path is empty":        exchange("GET", "", "10.0.0.7:51234", ""),
		"path to be quoted":    exchange("GET", `/a b="c"\`, "10.0.0.7:51234", ""),
		"path with a line end": exchange("GET", "/a\nlevel=ERROR", "10.0.0.7:51234", ""),
		"path not in UTF-8":    exchange("GET", "/\xff", "10.0.0.7:51234", ""),
		"path in Greek":        exchange("GET", "/αβγ", "10.0.0.7:51234", ""),
		"id to be quoted":      exchange("GET", "/", "10.0.0.7:51234", `"x" y`),
		"remote of a socket":   exchange("GET", "/", "@", ""),
		"no remote":            exchange("GET", "/", "", ""),
	}
	for name, change := range map[string]func(*web.Exchange){
		"aborted":         func(e *web.Exchange) { e.Aborted = true },
		"milliseconds":    func(e *web.Exchange) { e.Start, e.Duration = e.Start.Add(70*time.Millisecond), 0 },
		"nanoseconds":     func(e *web.Exchange) { e.Start, e.Duration = e.Start.Add(987654321), 1 },
		"end of a second": func(e *web.Exchange) { e.Start, e.Duration = e.Start.Add(999_999_999), 2*time.Hour },
		"east":            func(e *web.Exchange) { e.Start = e.Start.In(time.FixedZone("", 5*3600+1800)) },
		"west":            func(e *web.Exchange) { e.Start = e.Start.In(time.FixedZone("", -3*3600)) },
		"now":             func(e *web.Exchange) { e.Start = time.Now() },
		"large":           func(e *web.Exchange) { e.Status, e.Bytes = 599, 1<<62 },
		"nothing":         func(e *web.Exchange) { e.Status, e.Bytes = 0, 0 },
	} {
		e := *plain
		change(&e)
		cases[name] = &e
	}
	for name, e := range cases {
		for _, asJSON := range []bool{false, true} {
			slogs, own := logs(e, asJSON)
			if diff := cmp.Diff(slogs, own); diff != "" {
				t.Errorf("%s, JSON %v (-slog +own):\n%s", name, asJSON, diff)
			}
		}
	}
}

func TestExcludedPathsAndLevels(t *testing.T) {
	t.Parallel()
	e := exchange("GET", "/api/v1/health", "10.0.0.7:51234", "")
	for _, l := range []web.AccessLog{
		{Logger: slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil)), Exclude: []string{"/x", "/api/v1/health"}},
		{Logger: slog.New(slog.NewTextHandler(&bytes.Buffer{}, &slog.HandlerOptions{Level: slog.LevelWarn}))},
	} {
		var lines bytes.Buffer
		l.Lines = &lines
		l.Observer()(e)
		if lines.Len() > 0 {
			t.Errorf("%+v logs %s", l, &lines)
		}
	}
}

// FuzzAccessLog looks for texts that break a line, or make it differ from slog's.
func FuzzAccessLog(f *testing.F) {
	f.Add("POST", "/api/v1/evaluation", "10.0.0.7:51234", "id", int64(84_000), int64(1_700_000_000_123_456_789))
	f.Add("GET", "/a\n=\"", "\x7f", "\u2028", int64(-1), int64(0))
	f.Fuzz(func(t *testing.T, method, path, remote, id string, took, start int64) {
		e := exchange(method, path, remote, id)
		e.Duration, e.Start = time.Duration(took), time.Unix(0, start)
		for _, asJSON := range []bool{false, true} {
			slogs, own := logs(e, asJSON)
			if diff := cmp.Diff(slogs, own); diff != "" {
				t.Errorf("JSON %v (-slog +own):\n%s", asJSON, diff)
			}
		}
	})
}

// BenchmarkAccessLog compares the two ways of writing a line.
func BenchmarkAccessLog(b *testing.B) {
	e := exchange("POST", "/api/v1/evaluation", "10.0.0.7:51234", "")
	for _, way := range []struct {
		name string
		log  web.AccessLog
	}{
		{"slog", web.AccessLog{Logger: slog.New(slog.NewTextHandler(nowhere{}, nil))}},
		{"own", web.AccessLog{Logger: slog.New(slog.NewTextHandler(nowhere{}, nil)), Lines: nowhere{}}},
	} {
		b.Run(way.name, func(b *testing.B) {
			observe := way.log.Observer()
			b.ReportAllocs()
			for b.Loop() {
				observe(e)
			}
		})
	}
}

// nowhere discards lines. Other than io.Discard, slog does not know it.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
