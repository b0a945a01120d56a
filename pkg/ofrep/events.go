package ofrep

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

const (
	defaultEventsMax    = 1000
	defaultEventsSpread = 2 * time.Second

	// changesWindow is how long changes are collected into one event.
	changesWindow = time.Second
	// recentRevision is the age up to which a new stream gets an event for the flags at once, if
	// its client does not send the version that it has. The client may have fetched older flags.
	recentRevision = 30 * time.Second
	// commentInterval is shorter than the time after which proxies close idle connections.
	commentInterval = 25 * time.Second
	// streamWriteTimeout ends a stream whose client does not read.
	streamWriteTimeout = 10 * time.Second
	// inactivityDelay is the number of seconds in the background after which a client may close its
	// stream.
	inactivityDelay = 120
	retryAfter      = 10 // seconds
)

// Events configures event streams.
type Events struct {
	// Disabled turns event streams off.
	Disabled bool
	// URL is the public URL of the stream; empty means the path of this server.
	URL string
	// Max is the maximum number of open streams; 0 means 1,000.
	Max int
	// Spread is the time over which an event is sent; 0 means 2 s, and a negative value means at
	// once.
	Spread time.Duration
}

func (e *Events) setDefaults() {
	if e.Max == 0 {
		e.Max = defaultEventsMax
	}
	if e.Spread == 0 {
		e.Spread = defaultEventsSpread
	}
}

// announcement is the description of a stream in a response with all flags.
func (h *Handler) announcement(r *http.Request, s *scope) string {
	query := h.gate.streamQuery(s)
	delay := `,"inactivityDelaySec":` + strconv.Itoa(inactivityDelay) + `}`
	if address := h.options.Events.URL; address != "" {
		return `{"type":"sse","url":` + jsonOf(withQuery(address, query)) + delay
	}
	endpoint := `{"requestUri":` + jsonOf(withQuery(h.options.Prefix+EventsPath, query))
	if origin, err := url.Parse(r.Header.Get("Origin")); err == nil && origin.Host != "" && origin.Host == r.Host {
		endpoint += `,"origin":` + jsonOf(origin.Scheme+"://"+origin.Host)
	}
	return `{"type":"sse","endpoint":` + endpoint + `}` + delay
}

func withQuery(address, query string) string {
	if query == "" {
		return address
	}
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	if u.RawQuery != "" {
		query = u.RawQuery + "&" + query
	}
	u.RawQuery = query
	return u.String()
}

// hub notifies streams of changes.
type hub struct {
	handler *Handler

	stopping chan struct{}
	done     sync.WaitGroup

	mu struct {
		sync.Mutex
		streams          map[*stream]struct{}
		started, stopped bool
	}
}

// stream is one connection.
type stream struct {
	scope scope
	// changed has an element after a change in scope.
	changed chan struct{}
}

func newHub(h *Handler) *hub {
	hub := &hub{handler: h, stopping: make(chan struct{})}
	hub.mu.streams = map[*stream]struct{}{}
	return hub
}

func (b *hub) start() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.started || b.mu.stopped || b.handler.options.Events.Disabled {
		return
	}
	b.mu.started = true
	b.done.Go(b.run)
}

func (b *hub) stop() {
	b.mu.Lock()
	if !b.mu.stopped {
		b.mu.stopped = true
		close(b.stopping)
	}
	b.mu.Unlock()
	b.done.Wait()
}

// run compares the flags before and after each change.
func (b *hub) run() {
	before := b.handler.current()
	for {
		select {
		case <-b.stopping:
			return
		case <-before.state.Replaced:
		}
		timer := time.NewTimer(changesWindow)
		select {
		case <-b.stopping:
			timer.Stop()
			return
		case <-timer.C:
		}
		after := b.handler.current()
		b.tell(changedFlags(before.state.Snapshot, after.state.Snapshot))
		before = after
	}
}

// tell notifies the streams that have one of the flags in scope.
func (b *hub) tell(changed []eval.CompiledFlag) {
	if len(changed) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.mu.streams {
		if slices.ContainsFunc(changed, s.scope.has) {
			select {
			case s.changed <- struct{}{}:
			default: // the previous event is not sent yet, and includes this change
			}
		}
	}
}

// changedFlags returns new, removed and changed flags; changed ones in both states.
func changedFlags(before, after *eval.Snapshot) []eval.CompiledFlag {
	old := map[uint]eval.CompiledFlag{}
	for _, f := range before.Compiled() {
		old[f.Source().ID] = f
	}
	var changed []eval.CompiledFlag
	for _, f := range after.Compiled() {
		was, known := old[f.Source().ID]
		delete(old, f.Source().ID)
		if known && sameFlag(was, f) {
			continue
		}
		changed = append(changed, f)
		if known {
			changed = append(changed, was) // it may have left a scope
		}
	}
	for f := range maps.Values(old) {
		changed = append(changed, f)
	}
	return changed
}

// sameFlag reports whether nothing has changed. Flags from documents may have no snapshots.
func sameFlag(a, b eval.CompiledFlag) bool {
	if a == b {
		return true
	}
	if x, y := a.Source().SnapshotID, b.Source().SnapshotID; x != 0 || y != 0 {
		return x == y && a.Source().Key == b.Source().Key
	}
	return reflect.DeepEqual(a.Source(), b.Source())
}

// open adds a stream, unless there are too many or the server is stopping.
func (b *hub) open(s scope) *stream {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.stopped || len(b.mu.streams) >= b.handler.options.Events.Max {
		return nil
	}
	opened := &stream{scope: s, changed: make(chan struct{}, 1)}
	b.mu.streams[opened] = struct{}{}
	b.handler.counts.streams.Add(1)
	return opened
}

func (b *hub) close(s *stream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.mu.streams, s)
	b.handler.counts.streams.Add(-1)
}

// serveEvents serves an event stream until the client or the server ends it.
func (h *Handler) serveEvents(rw http.ResponseWriter, r *http.Request) {
	if !h.allow(rw, r, nil, http.MethodGet) {
		return
	}
	tags, byTicket, refused := h.gate.admit(rw, r, true)
	if refused != nil {
		h.counts.refusedTicket.Add(1)
		h.writeProblem(rw, nil, refused)
		return
	}
	s, refused := scopeOf(r.URL.Query())
	if refused != nil {
		h.writeProblem(rw, nil, refused)
		return
	}
	if !byTicket {
		s.within = tags
	}
	opened := h.hub.open(s)
	if opened == nil {
		h.counts.refusedLimit.Add(1)
		rw.Header().Set("Retry-After", strconv.Itoa(retryAfter+rand.IntN(retryAfter)))
		h.writeProblem(rw, nil, &problem{http.StatusServiceUnavailable, codeGeneral, "too many event streams are open, or the server is stopping"})
		return
	}
	defer h.hub.close(opened)
	header := rw.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("X-Accel-Buffering", "no")
	w := streamWriter{rw: rw, control: http.NewResponseController(rw)}
	_ = w.control.SetReadDeadline(time.Time{}) // the server's own deadline would end the request; some writers do not support deadlines
	h.stream(r, opened, &w)
}

// stream writes until the stream ends.
func (h *Handler) stream(r *http.Request, s *stream, w *streamWriter) {
	v := h.current()
	if !w.write("retry: 5000\nid: " + v.revision + "\n\n") {
		return
	}
	last := r.Header.Get(lastEventID)
	if last != "" && last != v.revision || last == "" && h.options.Now().Sub(v.state.Since) < recentRevision {
		if !h.sendEvent(w) {
			return
		}
	}
	comment := time.NewTicker(commentInterval)
	defer comment.Stop()
	var due <-chan time.Time // nil while no event is due
	for {
		select {
		case <-r.Context().Done():
			return
		case <-h.hub.stopping:
			return
		case <-comment.C:
			if !w.write(":\n\n") {
				return
			}
		case <-s.changed:
			if due == nil {
				due = time.After(h.delay())
			}
		case <-due:
			due = nil
			if !h.sendEvent(w) {
				return
			}
		}
	}
}

// delay returns when within the spread a stream gets an event.
func (h *Handler) delay() time.Duration {
	if h.options.Events.Spread <= 0 {
		return 0
	}
	return rand.N(h.options.Events.Spread)
}

// sendEvent sends the version of the newest flags.
func (h *Handler) sendEvent(w *streamWriter) bool {
	v := h.current()
	h.counts.events.Add(1)
	return w.write(fmt.Sprintf("id: %s\nevent: message\ndata: {\"type\":\"refetchEvaluation\",\"etag\":\"%s\",\"lastModified\":%d}\n\n",
		v.revision, v.revision, v.state.Since.Unix()))
}

// streamWriter writes without buffering, and limits how long the client may take.
type streamWriter struct {
	rw      http.ResponseWriter
	control *http.ResponseController
}

// write reports whether the stream is still open.
func (w *streamWriter) write(text string) bool {
	_ = w.control.SetWriteDeadline(time.Now().Add(streamWriteTimeout)) // some writers do not support deadlines
	if _, err := w.rw.Write([]byte(text)); err != nil {
		return false
	}
	return w.control.Flush() == nil
}
