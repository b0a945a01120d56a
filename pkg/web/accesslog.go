package web

import (
	"io"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"
)

// AccessLog is a log of exchanges at level info. Neither queries nor headers are logged, as they may hold data of people and
// credentials.
type AccessLog struct {
	// Logger takes the lines. Mandatory.
	Logger *slog.Logger
	// Exclude lists paths that are not logged.
	Exclude []string
	// Lines is where Logger's handler writes to, if that is a plain slog.JSONHandler (with JSON) or slog.TextHandler: then
	// most lines are written to it without the handler, in the same form at a quarter of the cost. It must take calls from
	// several goroutines at once. Nil: all lines take the way through Logger.
	Lines io.Writer
	JSON  bool
}

// maxFastText is the longest text of a line that is written without the handler, which may shorten longer ones.
const maxFastText = 256

// Observer returns what logs each exchange.
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
		_, _ = l.Lines.Write(*buffer) // as slog itself, which has nobody to tell
		buffers.Put(buffer)
	}
}

// log gives a line to the logger.
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
	// Without the place in the source, which nobody wants to know and which logger.LogAttrs would look up.
	record := slog.NewRecord(e.Start.Add(e.Duration), slog.LevelInfo, "request", 0)
	record.AddAttrs(attrs...)
	_ = l.Logger.Handler().Handle(r.Context(), record) // as slog itself
}

// lineForm is what stands before each value of a line, and at its end.
type lineForm struct {
	time, method, path, status, bytes, took, remote, id, aborted, end string
	// quote stands behind a text.
	quote string
	// nanoseconds is whether times and durations are given to the nanosecond, and durations as a number.
	nanoseconds bool
}

// These are the forms of slog's two handlers.
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

// append appends the line of an exchange whose texts are bare.
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

// appendTime appends a time as RFC 3339, otherwise with three digits of milliseconds.
func (form *lineForm) appendTime(b []byte, t time.Time) []byte {
	if form.nanoseconds {
		return t.AppendFormat(b, time.RFC3339Nano)
	}
	// A layout of one's own would take three times as long as this one.
	seconds := len(b) + len("2006-01-02T15:04:05")
	b = t.AppendFormat(b, time.RFC3339)
	millis := t.Nanosecond() / int(time.Millisecond)
	return slices.Insert(b, seconds, '.', '0'+byte(millis/100), '0'+byte(millis/10%10), '0'+byte(millis%10))
}

// isBare reports whether a text stands in both forms as it is.
func isBare(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '=' || c == '\\' {
			return false
		}
	}
	return s != ""
}
