// Package notification tells other systems of changes of flags, by posting each to a URL.
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
	// defaultQueueSize is how many changes may wait. People make changes, so it takes a long outage or a script to fill it.
	defaultQueueSize = 1000
	// maxAnswerBytes is how much of an answer is read, so that its connection can be used again.
	maxAnswerBytes = 64 << 10
	// maxDetailBytes is the most that details of the changes that wait take, all together.
	maxDetailBytes = 16 << 20
	// maxEntryBytes is the most that those changes take without their details.
	maxEntryBytes = 4 << 20
	// entryBytes is what a change takes beside its texts.
	entryBytes = 256
)

// Options say where a Webhook posts to, and how hard it tries.
type Options struct {
	// URL may hold a token, so no log line or error repeats it.
	URL string
	// Header is sent along, and kept secret as well.
	Header http.Header
	// Timeout bounds one call.
	Timeout time.Duration
	// MaxRetries is how often a failed call is repeated. The pause before is RetryBase at first, doubles each time up to
	// RetryMax, and is shortened by up to half of it at random.
	MaxRetries          int
	RetryBase, RetryMax time.Duration
	// QueueSize is how many changes may wait; 0 means 1000. Those beyond are dropped.
	QueueSize int
	// Logger gets what could not be delivered; nil means none.
	Logger *slog.Logger
}

// Stats counts changes since the Webhook was made. Those that wait or are being posted are in none of them.
type Stats struct {
	// Delivered changes were confirmed with a 2xx status.
	Delivered uint64
	// Failed changes were given up after an answer that is final, or after the last retry.
	Failed uint64
	// Dropped changes were never posted, or not to the end: those that wait were too many or too long, or the Webhook was stopped.
	Dropped uint64
	// Undetailed changes were taken without their states before and after, because those that wait took too much memory.
	Undetailed uint64
}

// Webhook posts changes one after another, in the order in which it was told of them.
type Webhook struct {
	options Options
	client  *http.Client
	queue   chan entity.Change
	done    chan struct{} // closed when the queue is closed and empty

	running context.Context // of the calls
	cancel  context.CancelFunc

	mu      sync.Mutex // guards what follows, and the closing of queue
	started bool
	stopped bool

	delivered, failed, dropped, undetailed atomic.Uint64
	// Of the changes that wait, or are being posted. They grow under the lock only.
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
			// Following would turn the POST into a GET, and send the headers to another host.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		queue: make(chan entity.Change, o.QueueSize),
		done:  make(chan struct{}),
	}
	w.running, w.cancel = context.WithCancel(context.Background())
	return w
}

// Start begins to post in the background. Further calls, and those after Stop, do nothing.
func (w *Webhook) Start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started || w.stopped {
		return
	}
	w.started = true
	go w.run()
}

// Notify takes one change to post. It returns at once: when too many changes wait, or after Stop, the change is
// dropped, counted and logged.
func (w *Webhook) Notify(c entity.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
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
		w.options.Logger.Warn("notification loses its details: too many wait", append(attributes(c), "so_far", total)...)
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

// entryOf is how many bytes a change takes without its states. Keys, tags and names are as long as clients make them.
func entryOf(c entity.Change) int64 {
	return entryBytes + int64(len(c.FlagKey)+len(c.ComponentKey)+len(c.User))
}

// detailsOf is how many bytes the states of a change take.
func detailsOf(c entity.Change) int64 { return int64(cap(c.Before)) + int64(cap(c.After)) }

// Stop takes no more changes and posts those that wait, until ctx ends. What is left then is dropped, and the error says
// how many there were. Further calls wait like the first one.
func (w *Webhook) Stop(ctx context.Context) error {
	before := w.dropped.Load()
	w.mu.Lock()
	if !w.stopped {
		w.stopped = true
		close(w.queue)
		if !w.started {
			w.cancel()
			go w.run() // counts what waits
		}
	}
	w.mu.Unlock()
	select {
	case <-w.done:
	case <-ctx.Done():
		w.cancel()
		<-w.done // soon: nothing is posted any more
	}
	if dropped := w.dropped.Load() - before; dropped > 0 {
		return fmt.Errorf("%d notifications were not delivered", dropped)
	}
	return nil
}

// Stats returns the counts so far.
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

// deliver posts a change until it is confirmed, refused for good, tried often enough, or until ctx ends.
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

// backoff is the pause after the given attempt, counted from 0.
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

// post makes one call, and tells whether another one may help if it fails.
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
	defer func() { _ = response.Body.Close() }() // nothing is left to be lost
	_, _ = io.CopyN(io.Discard, response.Body, maxAnswerBytes)
	switch status := response.StatusCode; {
	case status >= 200 && status < 300:
		return false, nil
	case status >= 300 && status < 400:
		return false, fmt.Errorf("the webhook answers %s: redirects are not followed", response.Status)
	default:
		return status >= 500 || status == http.StatusTooManyRequests, fmt.Errorf("the webhook answers %s", response.Status)
	}
}

// withoutURL keeps the token that a URL may hold out of the log.
func withoutURL(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// message is the body of a call.
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

// unified compares two JSON texts line by line in the format of diff -u.
func unified(before, after []byte) string {
	text := diff.Diff("before", indented(before), "after", indented(after))
	_, text, _ = bytes.Cut(text, []byte("\n")) // the line before the names repeats them
	return string(text)
}

// indented puts each member on a line of its own. A text that is no JSON stays as it is.
func indented(text []byte) []byte {
	if len(text) == 0 {
		return nil
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return text
	}
	b.WriteByte('\n')
	return b.Bytes()
}
