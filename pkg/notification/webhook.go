// Package notification notifies other systems about changes of flags, by posting each change to a
// URL.
package notification

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

const (
	// defaultQueueSize is the maximum number of queued changes. People make changes, so only a long
	// outage or a script fills it.
	defaultQueueSize = 1000
	// maxAnswerBytes is how much of a response is read, so that its connection can be reused.
	maxAnswerBytes = 64 << 10
	// maxDetailBytes limits the details of all queued changes together.
	maxDetailBytes = 16 << 20
	// maxDiffBytes limits both indented states of a change together, for a difference between them.
	// Indents make nested lists up to 100 times as long.
	maxDiffBytes = 12 << 20
	// maxEntryBytes limits all queued changes together, without their details.
	maxEntryBytes = 4 << 20
	// entryBytes is the size of a change without its strings.
	entryBytes = 256
)

// Options configure a Webhook.
type Options struct {
	// URL may contain a token, so it is not in any log line or error.
	URL string
	// Header is sent with each request. It is not logged either.
	Header http.Header
	// Timeout limits one request.
	Timeout time.Duration
	// MaxRetries is the maximum number of retries of a failed request. The first delay is
	// RetryBase. It doubles each time, up to RetryMax, and is shortened at random by up to half.
	MaxRetries          int
	RetryBase, RetryMax time.Duration
	// QueueSize is the maximum number of queued changes; 0 means 1000. Further changes are dropped.
	QueueSize int
	// Logger receives delivery failures; nil means no logging.
	Logger *slog.Logger
}

// Stats counts changes since the Webhook was created. It does not include queued changes.
type Stats struct {
	// Delivered changes were confirmed with a 2xx status.
	Delivered uint64
	// Failed changes were dropped after a final status, or after the last retry.
	Failed uint64
	// Dropped changes were not posted completely, because the queue was full or the Webhook was
	// stopped.
	Dropped uint64
	// Undetailed changes were queued without their states before and after, because the queue used
	// too much memory.
	Undetailed uint64
}

// Webhook posts changes one after another, in the order of Notify.
type Webhook struct {
	options Options
	client  *http.Client
	queue   chan entity.Change
	done    chan struct{} // closed when the queue is closed and empty

	running context.Context // of the requests
	cancel  context.CancelFunc

	// mu protects its fields, and the closing of queue.
	mu struct {
		sync.Mutex
		started, stopped bool
	}

	delivered, failed, dropped, undetailed atomic.Uint64
	// These count queued changes. They grow only under mu.
	detailBytes, entryBytes atomic.Int64
}

// New returns a Webhook that posts nothing until Start.
func New(o Options) *Webhook {
	if o.QueueSize <= 0 {
		o.QueueSize = defaultQueueSize
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	w := &Webhook{
		options: o,
		client: &http.Client{
			Timeout: o.Timeout,
			// Following a redirect would turn the POST into a GET, and send the headers to another
			// host.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		queue: make(chan entity.Change, o.QueueSize),
		done:  make(chan struct{}),
	}
	w.running, w.cancel = context.WithCancel(context.Background())
	return w
}

// Start starts to post in the background. Further calls, and calls after Stop, do nothing.
func (w *Webhook) Start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.started || w.mu.stopped {
		return
	}
	w.mu.started = true
	go w.run()
}

// Notify queues a change. It returns at once. If the queue is full, or after Stop, the change is
// dropped, counted and logged.
func (w *Webhook) Notify(c entity.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.stopped {
		w.drop(c, "the server is stopping")
		return
	}
	entry, details := entryOf(c), detailsOf(c)
	if w.entryBytes.Load()+entry > maxEntryBytes {
		w.drop(c, "the notifications that wait take too much memory")
		return
	}
	if w.detailBytes.Load()+details > maxDetailBytes {
		total := w.undetailed.Add(1)
		w.options.Logger.Warn("notification is sent without details: too many are queued", append(attributes(c), "so_far", total)...)
		c.Before, c.After, details = nil, nil, 0
	}
	w.entryBytes.Add(entry)
	w.detailBytes.Add(details)
	select {
	case w.queue <- c:
	default:
		w.entryBytes.Add(-entry)
		w.detailBytes.Add(-details)
		w.drop(c, "too many notifications wait")
	}
}

// entryOf is the size of a change without its states, in bytes. Clients control the length of keys,
// tags and names.
func entryOf(c entity.Change) int64 {
	return entryBytes + int64(len(c.FlagKey)+len(c.ComponentKey)+len(c.User))
}

// detailsOf is the size of the states of a change, in bytes.
func detailsOf(c entity.Change) int64 { return int64(cap(c.Before)) + int64(cap(c.After)) }

// Stop accepts no more changes, and posts the queued ones until ctx ends. The remaining changes are
// dropped, and the error has their number. Further calls also wait.
func (w *Webhook) Stop(ctx context.Context) error {
	before := w.dropped.Load()
	w.mu.Lock()
	if !w.mu.stopped {
		w.mu.stopped = true
		close(w.queue)
		if !w.mu.started {
			w.cancel()
			go w.run() // drops the queued changes
		}
	}
	w.mu.Unlock()
	select {
	case <-w.done:
	case <-ctx.Done():
		w.cancel()
		<-w.done // returns soon, because nothing is posted anymore
	}
	if dropped := w.dropped.Load() - before; dropped > 0 {
		return fmt.Errorf("%d notifications were not delivered", dropped)
	}
	return nil
}

// Stats returns the current counts.
func (w *Webhook) Stats() Stats {
	return Stats{Delivered: w.delivered.Load(), Failed: w.failed.Load(), Dropped: w.dropped.Load(), Undetailed: w.undetailed.Load()}
}

func (w *Webhook) run() {
	defer close(w.done)
	defer w.cancel()
	for c := range w.queue {
		err := w.running.Err()
		if err == nil {
			err = w.deliver(w.running, c)
		}
		w.entryBytes.Add(-entryOf(c))
		w.detailBytes.Add(-detailsOf(c))
		switch {
		case err == nil:
			w.delivered.Add(1)
		case w.running.Err() != nil:
			w.drop(c, "the server stops before it could be delivered")
		default:
			w.failed.Add(1)
			w.options.Logger.Error("notification was not delivered", append(attributes(c), "error", err)...)
		}
	}
}

func (w *Webhook) drop(c entity.Change, why string) {
	total := w.dropped.Add(1)
	w.options.Logger.Warn("notification is dropped", append(attributes(c), "reason", why, "dropped_so_far", total)...)
}

func attributes(c entity.Change) []any {
	return []any{"operation", c.Operation, "component_type", c.Component, "component_id", c.ComponentID, "flag_id", c.FlagID}
}

// deliver posts a change until it is confirmed or rejected, until the last retry fails, or until
// ctx ends.
func (w *Webhook) deliver(ctx context.Context, c entity.Change) error {
	body, err := encode(c)
	if err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		again, err := w.post(ctx, body)
		if err == nil || !again || attempt >= w.options.MaxRetries || ctx.Err() != nil {
			return err
		}
		pause := time.NewTimer(w.backoff(attempt))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return err
		}
	}
}

// backoff is the delay after the given attempt, counted from 0.
func (w *Webhook) backoff(attempt int) time.Duration {
	pause := w.options.RetryBase
	for range attempt {
		if pause >= w.options.RetryMax/2 {
			pause = w.options.RetryMax
			break
		}
		pause *= 2
	}
	pause = min(pause, w.options.RetryMax)
	return pause - rand.N(pause/2+1)
}

// post sends one request. If it fails, post reports whether a retry may succeed.
func (w *Webhook) post(ctx context.Context, body []byte) (again bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.options.URL, bytes.NewReader(body))
	if err != nil {
		return false, withoutURL(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "flagr-datar")
	maps.Copy(request.Header, w.options.Header)
	if host := w.options.Header.Get("Host"); host != "" {
		request.Host = host
	}
	response, err := w.client.Do(request)
	if err != nil {
		return true, withoutURL(err)
	}
	defer func() { _ = response.Body.Close() }() // the body is already read
	_, _ = io.CopyN(io.Discard, response.Body, maxAnswerBytes)
	switch status := response.StatusCode; {
	case status >= 200 && status < 300:
		return false, nil
	case status >= 300 && status < 400:
		return false, fmt.Errorf("the webhook returned %s: redirects are not followed", response.Status)
	default:
		return status >= 500 || status == http.StatusTooManyRequests, fmt.Errorf("the webhook returned %s", response.Status)
	}
}

// withoutURL removes the URL from the error, because it may contain a token.
func withoutURL(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// message is the body of a request.
type message struct {
	Operation     entity.Operation `json:"operation"`
	FlagID        uint             `json:"flag_id"`
	FlagKey       string           `json:"flag_key"`
	ComponentType entity.Component `json:"component_type"`
	ComponentID   uint             `json:"component_id"`
	ComponentKey  string           `json:"component_key"`
	User          string           `json:"user"`
	Timestamp     time.Time        `json:"timestamp"`
	PreValue      string           `json:"pre_value,omitempty"`
	PostValue     string           `json:"post_value,omitempty"`
	Diff          string           `json:"diff,omitempty"`
}

func encode(c entity.Change) ([]byte, error) {
	m := message{
		Operation:     c.Operation,
		FlagID:        c.FlagID,
		FlagKey:       c.FlagKey,
		ComponentType: c.Component,
		ComponentID:   c.ComponentID,
		ComponentKey:  c.ComponentKey,
		User:          c.User,
		Timestamp:     c.Time,
		PreValue:      string(c.Before),
		PostValue:     string(c.After),
	}
	if c.After != nil {
		m.Diff = unified(c.Before, c.After)
	}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(m); err != nil {
		return nil, fmt.Errorf("write the notification as JSON: %w", err)
	}
	return body.Bytes(), nil
}

// unified compares two JSON texts line by line in the format of diff -u. It returns an empty string
// if they have more than maxDiffBytes.
func unified(before, after []byte) string {
	if indentedBytes(before, maxDiffBytes)+indentedBytes(after, maxDiffBytes) > maxDiffBytes {
		return ""
	}
	text := diff.Diff("before", indented(withoutHTMLEscapes(before)), "after", indented(withoutHTMLEscapes(after)))
	_, text, _ = bytes.Cut(text, []byte("\n")) // the line before the names repeats them
	return string(text)
}

// htmlEscapes are the escapes of <, > and & in snapshots of Flagr and of earlier versions.
var htmlEscapes = map[string]byte{`\u003c`: '<', `\u003e`: '>', `\u0026`: '&'}

// withoutHTMLEscapes replaces htmlEscapes in JSON, so that texts that are written in either way do
// not differ.
func withoutHTMLEscapes(text []byte) []byte {
	if !bytes.Contains(text, []byte(`\u00`)) {
		return text
	}
	const length = len(`\u003c`)
	plain := make([]byte, 0, len(text))
	for len(text) > 0 {
		at := bytes.IndexByte(text, '\\')
		if at < 0 {
			break
		}
		plain = append(plain, text[:at]...)
		text = text[at:]
		if c, ok := htmlEscapes[string(text[:min(length, len(text))])]; ok {
			plain = append(plain, c)
			text = text[length:]
			continue
		}
		n := min(2, len(text)) // also an escaped backslash, after which no escape begins
		plain = append(plain, text[:n]...)
		text = text[n:]
	}
	return append(plain, text...)
}

// indentedBytes returns at least the length of indented, or a number above most.
func indentedBytes(text []byte, most int) int {
	n, depth, inString, escaped := len(text)+1, 0, false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case inString:
			inString, escaped = c != '"', c == '\\'
		case c == '"':
			inString = true
		case c == ':':
			n++
		case c == '[', c == '{':
			depth++
			n += len("\n") + depth*len(indent)
		case c == ',':
			n += len("\n") + depth*len(indent)
		case c == ']', c == '}':
			depth = max(0, depth-1)
			n += len("\n") + depth*len(indent)
		}
		if n > most {
			break
		}
	}
	return n
}

// indent is that of each level of indented JSON.
const indent = "  "

// indented writes each member on its own line. Invalid JSON is unchanged.
func indented(text []byte) []byte {
	if len(text) == 0 {
		return nil
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", indent); err != nil {
		return text
	}
	b.WriteByte('\n')
	return b.Bytes()
}
