package web

import (
	"io"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"
)

// AccessLog logs exchanges at level info. It does not log queries or headers, which may have
// personal data and credentials.
type AccessLog struct {
	// Logger receives the lines. Required.
	Logger *slog.Logger
	// Exclude lists paths that are not logged.
	Exclude []string
	// Lines is the writer of Logger's handler if that handler is a plain slog.JSONHandler (with
	// JSON) or slog.TextHandler. Most lines are then written to it without the handler, in the same
	// format at a quarter of the cost. It must support concurrent calls. If nil, all lines go
	// through Logger.
	Lines io.Writer
	JSON  bool
}

// maxFastText is the longest string in a line that is written without the handler, which may
// shorten longer strings.
const maxFastText = 256

// Observer returns an Observer that logs each exchange.
func (l AccessLog) Observer() func(*Exchange) {
	form := textForm
	if l.JSON {
		form = jsonForm
	}
	buffers := sync.Pool{New: func() any { return new([]byte) }}
	return func(e *Exchange) {
		r := e.Request
		if slices.Contains(l.Exclude, r.URL.Path) || !l.Logger.Enabled(r.Context(), slog.LevelInfo) {
			return
		}
		id := ""
		if ids := r.Header["X-Request-Id"]; len(ids) > 0 {
			id = ids[0]
		}
		if l.Lines == nil || len(r.URL.Path) > maxFastText || len(r.Method) > maxFastText || len(id) > maxFastText || e.APIKey != "" || !isBare(r.Method) || !isBare(r.URL.Path) || !isBare(r.RemoteAddr) || id != "" && !isBare(id) {
			l.log(e, id)
			return
		}
		buffer := buffers.Get().(*[]byte)
		*buffer = form.append((*buffer)[:0], e, id)
		_, _ = l.Lines.Write(*buffer) // as in slog, errors are ignored
		buffers.Put(buffer)
	}
}

// log passes a line to the logger.
func (l AccessLog) log(e *Exchange, id string) {
	r := e.Request
	attrs := make([]slog.Attr, 0, 9)
	attrs = append(attrs,
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", e.Status),
		slog.Int64("bytes", e.Bytes), slog.Duration("took", e.Duration), slog.String("remote", r.RemoteAddr))
	if id != "" {
		attrs = append(attrs, slog.String("request_id", id))
	}
	if e.APIKey != "" {
		attrs = append(attrs, slog.String("api_key", e.APIKey))
	}
	if e.Aborted {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	// The source position is omitted, because it is not needed and logger.LogAttrs would look it
	// up.
	record := slog.NewRecord(e.Start.Add(e.Duration), slog.LevelInfo, "request", 0)
	record.AddAttrs(attrs...)
	_ = l.Logger.Handler().Handle(r.Context(), record) // as in slog
}

// lineForm has the text before each value of a line, and at its end.
type lineForm struct {
	time, method, path, status, bytes, took, remote, id, aborted, end string
	// quote follows a string.
	quote string
	// nanoseconds reports whether times and durations have nanoseconds, and durations are numbers.
	nanoseconds bool
}

// These are the formats of slog's two handlers.
var (
	textForm = lineForm{
		time: "time=", method: " level=INFO msg=request method=", path: " path=", status: " status=", bytes: " bytes=",
		took: " took=", remote: " remote=", id: " request_id=", aborted: " aborted=true", end: "\n",
	}
	jsonForm = lineForm{
		nanoseconds: true, time: `{"time":"`, method: `","level":"INFO","msg":"request","method":"`, path: `","path":"`, status: `","status":`,
		bytes: `,"bytes":`, took: `,"took":`, remote: `,"remote":"`, id: `,"request_id":"`, quote: `"`, aborted: `,"aborted":true`, end: "}\n",
	}
)

// append appends the line of an exchange whose strings need no quoting.
func (form *lineForm) append(b []byte, e *Exchange, id string) []byte {
	b = append(b, form.time...)
	b = form.appendTime(b, e.Start.Add(e.Duration))
	b = append(append(b, form.method...), e.Request.Method...)
	b = append(append(b, form.path...), e.Request.URL.Path...)
	b = strconv.AppendInt(append(b, form.status...), int64(e.Status), 10)
	b = strconv.AppendInt(append(b, form.bytes...), e.Bytes, 10)
	b = append(b, form.took...)
	if form.nanoseconds {
		b = strconv.AppendInt(b, int64(e.Duration), 10)
	} else {
		b = append(b, e.Duration.String()...)
	}
	b = append(append(append(b, form.remote...), e.Request.RemoteAddr...), form.quote...)
	if id != "" {
		b = append(append(append(b, form.id...), id...), form.quote...)
	}
	if e.Aborted {
		b = append(b, form.aborted...)
	}
	return append(b, form.end...)
}

// appendTime appends a time in RFC 3339, with nanoseconds or with three digits of milliseconds.
func (form *lineForm) appendTime(b []byte, t time.Time) []byte {
	if form.nanoseconds {
		return t.AppendFormat(b, time.RFC3339Nano)
	}
	// A custom layout would take three times as long.
	seconds := len(b) + len("2006-01-02T15:04:05")
	b = t.AppendFormat(b, time.RFC3339)
	millis := t.Nanosecond() / int(time.Millisecond)
	return slices.Insert(b, seconds, '.', '0'+byte(millis/100), '0'+byte(millis/10%10), '0'+byte(millis%10))
}

// isBare reports whether a string is unchanged in both formats.
func isBare(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '=' || c == '\\' {
			return false
		}
	}
	return s != ""
}
