// Package ofrep serves the OpenFeature Remote Evaluation Protocol, so that applications ask this server through the
// OpenFeature SDK of their language and a generic provider. It evaluates with eval.Service, as all other endpoints do.
package ofrep

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
	"github.com/flagr-datar/flagr-datar/pkg/fastpath"
)

const (
	// Root is what all paths of OFREP begin with.
	Root = "/ofrep/"
	// EventsPath is the path of event streams.
	EventsPath = "/ofrep/v1/events"

	flagsPath  = "/ofrep/v1/evaluate/flags"
	flagPrefix = flagsPath + "/"
	// flagPattern names the route of one flag.
	flagPattern = flagPrefix + "{key}"
)

const (
	// maxPooledBytes is the largest answer whose memory is kept: that of some 4,000 flags.
	maxPooledBytes = 1 << 20
	// knownLengthBytes is up to which length net/http finds out the length of an answer by itself.
	knownLengthBytes = 2048
)

// Values of headers that are shared by all answers. Setting a header replaces the slice and does not change it.
var (
	contentTypeJSON = []string{"application/json"}
	privateNoCache  = []string{"private, no-cache"}
)

// Evaluator decides and records.
type Evaluator interface {
	EvaluateInto(ctx context.Context, r eval.Request, result *eval.Result)
	EvaluateFlags(ctx context.Context, r eval.Request, flags []eval.CompiledFlag, record bool, use func(*eval.Result)) error
}

// States has the flags.
type States interface {
	// State returns the newest flags; it is never nil.
	State() *evalcache.State
	// Look has the source of the flags looked at, and waits for that until ctx ends.
	Look(ctx context.Context)
	// LastCheck is when the source was last looked at.
	LastCheck() time.Time
}

// Options configure a Handler. Eval and States are mandatory.
type Options struct {
	Eval   Evaluator
	States States
	// Version is the server's version. Answers of another version have other entity tags.
	Version string
	// FlagSetID names the set of flags in metadata; empty leaves it out.
	FlagSetID string
	// Prefix is in front of all paths as clients see them. Requests come without it.
	Prefix string
	// RecordBulk has evaluations of all flags recorded and observed.
	RecordBulk bool
	// Inject adds properties to the context of an evaluation, which is nil or a map; nil adds nothing.
	Inject func(context any, r *http.Request) any
	Access Access
	Events Events
}

// Handler serves OFREP. Start runs its event streams, and Stop ends them.
type Handler struct {
	options Options
	gate    gate
	pool    sync.Pool // of *memory
	view    atomic.Pointer[view]
	hub     *hub
	counts  counts
	// unknown is the metadata where no flag is known.
	unknown string
	// plainEnd is endOf a request that needs no login and names neither a scope nor an origin.
	plainEnd func() string
}

// counts are those of Stats.
type counts struct {
	bulkFlags, events, refusedLimit, refusedTicket atomic.Uint64
	streams                                        atomic.Int64
}

// Stats are counts since the start.
type Stats struct {
	// BulkFlags is how many flags were evaluated for answers with all flags.
	BulkFlags uint64
	// Streams is how many event streams are open.
	Streams int64
	// StreamEvents is how many events were sent, one for each stream.
	StreamEvents uint64
	// RefusedByLimit and RefusedByTicket count streams that were turned away.
	RefusedByLimit, RefusedByTicket uint64
}

// memory is what a request needs while it is answered.
type memory struct {
	reader fastpath.ContextReader
	result eval.Result
	answer []byte
	// digests are those of the parts of answer, and what follows them.
	digests []byte
}

// New returns a Handler. Start must be called for its event streams to learn of changes.
func New(o Options) *Handler {
	h := &Handler{options: o, gate: newGate(o.Access)}
	h.options.Events.setDefaults()
	h.unknown = "{}"
	if o.FlagSetID != "" {
		h.unknown = `{"flagSetId":` + jsonOf(o.FlagSetID) + `}`
	}
	h.plainEnd = sync.OnceValue(func() string { return h.endOf(&http.Request{}, &bulk{}) })
	h.pool.New = func() any { return new(memory) }
	h.hub = newHub(h)
	return h
}

// Start begins to watch for changes of flags.
func (h *Handler) Start() { h.hub.start() }

// Stop ends all event streams, and refuses further ones. It may be called more than once, and before Start.
func (h *Handler) Stop() { h.hub.stop() }

// Stats returns the counts.
func (h *Handler) Stats() Stats {
	return Stats{
		BulkFlags: h.counts.bulkFlags.Load(), Streams: h.counts.streams.Load(), StreamEvents: h.counts.events.Load(),
		RefusedByLimit: h.counts.refusedLimit.Load(), RefusedByTicket: h.counts.refusedTicket.Load(),
	}
}

// ServeHTTP serves the paths below Root.
func (h *Handler) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	key, isFlag := flagKeyOf(r.URL)
	switch {
	case isFlag:
		r.Pattern = flagPattern
		h.serveFlag(rw, r, key)
	case r.URL.Path == flagsPath:
		r.Pattern = flagsPath
		h.serveFlags(rw, r)
	case r.URL.Path == EventsPath && !h.options.Events.Disabled:
		r.Pattern = EventsPath
		h.serveEvents(rw, r)
	default:
		h.writeProblem(rw, nil, &problem{http.StatusNotFound, codeGeneral, "OFREP has no path " + r.URL.Path})
	}
}

// flagKeyOf is the key in the path of one flag: all that follows, unescaped once. Nothing of it is cleaned.
func flagKeyOf(u *url.URL) (key string, ok bool) {
	if u.RawPath == "" {
		return strings.CutPrefix(u.Path, flagPrefix)
	}
	escaped, ok := strings.CutPrefix(u.RawPath, flagPrefix)
	if !ok {
		return "", false
	}
	key, err := url.PathUnescape(escaped)
	return key, err == nil
}

// serveFlag answers for one flag.
func (h *Handler) serveFlag(rw http.ResponseWriter, r *http.Request, key string) {
	if !h.allow(rw, r, &key, http.MethodPost) {
		return
	}
	tags, _, refused := h.gate.admit(rw, r, false)
	if refused != nil {
		h.writeProblem(rw, &key, refused)
		return
	}
	body, refused := readBody(rw, r)
	if refused != nil {
		h.writeProblem(rw, &key, refused)
		return
	}
	m := h.pool.Get().(*memory)
	defer h.release(m)
	request := eval.Request{FlagKey: key}
	if refused = m.readContext(body, h.options.Inject != nil, &request); refused != nil {
		h.writeProblem(rw, &key, refused)
		return
	}
	if h.options.Inject != nil {
		request.EntityContext = h.options.Inject(request.EntityContext, r)
	}
	if len(tags) > 0 { // what is out of scope is not evaluated
		if f, ok := h.options.States.State().Snapshot.Find(key); ok && !within(f, tags) {
			h.writeProblem(rw, &key, unknownFlag(key))
			return
		}
	}
	h.options.Eval.EvaluateInto(r.Context(), request, &m.result)
	f, ok := m.result.Flag()
	if !ok {
		h.writeProblem(rw, &key, unknownFlag(key))
		return
	}
	said := h.answersOf(f).of(&m.result)
	m.answer = append(appendName(m.answer[:0], key), said.text...)
	status := http.StatusOK
	if said.failed {
		status = http.StatusBadRequest
	}
	writeBody(rw, status, m.answer)
}

func unknownFlag(key string) *problem {
	return &problem{http.StatusNotFound, codeFlagNotFound, "flag " + key + " does not exist"}
}

func (h *Handler) answersOf(f eval.CompiledFlag) *answers {
	return f.Derived(h, h.deriveAnswers).(*answers)
}

func (h *Handler) deriveAnswers(f eval.CompiledFlag) any { return answersFor(f, h.options.FlagSetID) }

// release keeps memory for further requests. Nothing in it refers to this request any more.
func (h *Handler) release(m *memory) {
	m.result = eval.Result{}
	m.reader.Forget()
	if cap(m.answer) > maxPooledBytes || cap(m.digests) > maxPooledBytes {
		m.answer, m.digests = nil, nil
	}
	h.pool.Put(m)
}

// allow refuses all methods but one.
func (h *Handler) allow(rw http.ResponseWriter, r *http.Request, key *string, method string) bool {
	if r.Method == method {
		return true
	}
	rw.Header().Set("Allow", method)
	h.writeProblem(rw, key, &problem{http.StatusMethodNotAllowed, codeGeneral, "method " + r.Method + " is not allowed; want " + method})
	return false
}

// writeProblem answers with an error, about the flag with the given key unless that is nil.
func (h *Handler) writeProblem(rw http.ResponseWriter, key *string, p *problem) {
	b := []byte{'{'}
	if key != nil {
		b = appendName(nil, *key)
	}
	writeBody(rw, p.status, append(b, errorText(p.code, p.details, h.unknown)...))
}

func writeBody(rw http.ResponseWriter, status int, body []byte) {
	rw.Header()["Content-Type"] = contentTypeJSON
	if len(body) > knownLengthBytes {
		rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	if status != http.StatusOK {
		rw.WriteHeader(status)
	}
	_, _ = rw.Write(body) //nolint:gosec // JSON; the write fails only when the client is gone
}
