// Package ofrep serves the OpenFeature Remote Evaluation Protocol, so that applications can use
// this server through the OpenFeature SDK of their language and a generic provider. It evaluates
// with eval.Service, like all other endpoints.
package ofrep

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
	"github.com/flagr-datar/flagr-datar/pkg/fastpath"
)

const (
	// Root is the prefix of all paths of OFREP.
	Root = "/ofrep/"
	// EventsPath is the path of event streams.
	EventsPath = "/ofrep/v1/events"

	flagsPath  = "/ofrep/v1/evaluate/flags"
	flagPrefix = flagsPath + "/"
	// flagPattern names the route of one flag.
	flagPattern = flagPrefix + "{key}"
)

const (
	// maxPooledBytes is the largest response whose memory is reused: a response with about 4,000
	// flags.
	maxPooledBytes = 1 << 20
	// knownLengthBytes is the length up to which net/http computes the length of a response itself.
	knownLengthBytes = 2048
)

// Header values that all responses share. Setting a header replaces the slice and does not change
// it.
var (
	contentTypeJSON = []string{"application/json"}
	privateNoCache  = []string{"private, no-cache"}
)

// Evaluator evaluates and records.
type Evaluator interface {
	EvaluateInto(ctx context.Context, r eval.Request, result *eval.Result) error
	EvaluateFlags(ctx context.Context, r eval.Request, flags []eval.CompiledFlag, record bool, use func(*eval.Result)) error
}

// States provides the flags.
type States interface {
	// State returns the newest flags; it is never nil.
	State() *evalcache.State
	// Look checks the source of the flags, and waits for the check until ctx ends.
	Look(ctx context.Context)
	// LastCheck is the time of the last check of the source.
	LastCheck() time.Time
}

// Options configure a Handler. Eval and States are required.
type Options struct {
	Eval   Evaluator
	States States
	// Version is the server's version. Responses of another version have other entity tags.
	Version string
	// FlagSetID is the name of the set of flags in metadata; empty omits it.
	FlagSetID string
	// Prefix is the prefix of all paths as clients see them. Requests arrive without it.
	Prefix string
	// RecordBulk records and observes evaluations of requests for all flags.
	RecordBulk bool
	// Inject adds properties to the context of an evaluation, which is nil or a map; it may be nil.
	Inject func(context any, r *http.Request) any
	Access Access
	Events Events
	// Bodies is the memory of request bodies of more than 16 KiB, and Answers that of responses of
	// more than 16 KiB. Nil means budget.BodyBytes and budget.AnswerBytes.
	Bodies, Answers *budget.Memory
	// AnswerBytes is the maximum length of a response, estimated before the evaluation; 0 means
	// eval.DefaultAnswerBytes.
	AnswerBytes int
	// Turns limits how many large bodies are decoded and evaluated in parallel. Nil means no limit.
	Turns budget.Turns
	// Now is the clock, which also dates States; nil means time.Now.
	Now func() time.Time
}

// Handler serves OFREP. Start runs its event streams, and Stop ends them.
type Handler struct {
	options Options
	gate    gate
	pool    sync.Pool // of *memory
	view    atomic.Pointer[view]
	hub     *hub
	counts  counts
	// unknown is the metadata if the flag is unknown.
	unknown string
	// plainEnd is endOf for a request that needs no login and has neither a scope nor an origin.
	plainEnd func() string
}

// counts are the counters of Stats.
type counts struct {
	bulkFlags, events, refusedLimit, refusedTicket atomic.Uint64
	streams                                        atomic.Int64
}

// Stats are counts since the start.
type Stats struct {
	// BulkFlags is the number of flags evaluated for requests for all flags.
	BulkFlags uint64
	// Streams is the number of open event streams.
	Streams int64
	// StreamEvents is the number of events sent, one for each stream.
	StreamEvents uint64
	// RefusedByLimit and RefusedByTicket count rejected streams.
	RefusedByLimit, RefusedByTicket uint64
}

// memory is the memory that a request needs.
type memory struct {
	reader fastpath.ContextReader
	result eval.Result
	answer []byte
	// digests are the digests of the parts of answer and of the part after them.
	digests []byte
}

// New returns a Handler. Call Start for its event streams to be notified of changes.
func New(o Options) *Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Bodies == nil {
		o.Bodies = budget.NewMemory(budget.BodyBytes)
	}
	if o.Answers == nil {
		o.Answers = budget.NewMemory(budget.AnswerBytes)
	}
	o.AnswerBytes = cmp.Or(o.AnswerBytes, eval.DefaultAnswerBytes)
	h := &Handler{options: o, gate: newGate(o.Access, o.Now)}
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

// Start starts to watch for changes of flags.
func (h *Handler) Start() { h.hub.start() }

// Stop ends all event streams, and rejects new ones. It may be called more than once, and before
// Start.
func (h *Handler) Stop() { h.hub.stop() }

// Stats returns the counters.
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

// flagKeyOf returns the key in the path of one flag: the rest of the path, unescaped once and not
// cleaned.
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

// serveFlag handles a request for one flag.
func (h *Handler) serveFlag(rw http.ResponseWriter, r *http.Request, key string) {
	if !h.allow(rw, r, &key, http.MethodPost) {
		return
	}
	tags, _, refused := h.gate.admit(rw, r, false)
	if refused != nil {
		h.writeProblem(rw, &key, refused)
		return
	}
	body, forget, refused := h.readBody(rw, r)
	defer forget()
	if refused != nil {
		h.writeProblem(rw, &key, refused)
		return
	}
	turn, err := h.options.Turns.TakeFor(r.Context(), budget.Weight(body))
	if err != nil {
		h.writeProblem(rw, &key, disconnected())
		return
	}
	defer turn.End()
	m := h.pool.Get().(*memory)
	defer h.release(m)
	said, held, refused := h.evaluate(r, m, key, tags, body, turn != nil)
	if refused != nil {
		turn.End()
		h.writeProblem(rw, &key, refused)
		return
	}
	defer held.Release()
	turn.End()
	status := http.StatusOK
	if said.failed {
		status = http.StatusBadRequest
	}
	m.answer = appendName(m.answer[:0], key)
	if _, length := said.parts(); length > budget.LargeBytes/2 { // thousands of clients may read it slowly
		m.reader, m.result = fastpath.ContextReader{}, eval.Result{}
		held.Release()
		writeHead(rw, status, len(m.answer)+length)
		if _, err := rw.Write(m.answer); err == nil { // fails only if the client disconnected
			_ = said.writeTo(rw)
		}
		return
	}
	m.answer = said.appendTo(m.answer)
	writeBody(rw, status, m.answer)
}

// evaluate evaluates the flag with a key. Before, it reserves the memory of the response.
func (h *Handler) evaluate(r *http.Request, m *memory, key string, tags []string, body string, inTurn bool) (_ *answer, held budget.Hold, _ *problem) {
	request := eval.Request{FlagKey: key, InTurn: inTurn}
	if refused := m.readContext(body, h.options.Inject != nil, &request); refused != nil {
		return nil, held, refused
	}
	if h.options.Inject != nil {
		request.EntityContext = h.options.Inject(request.EntityContext, r)
	}
	if f, ok := h.options.States.State().Snapshot.Find(key); ok { // a flag that is refused is not evaluated
		if !within(f, tags) {
			return nil, held, unknownFlag(key)
		}
		var refused *problem
		if held, refused = h.reserve(answerBytes(f)); refused != nil {
			return nil, held, refused
		}
	}
	if h.options.Eval.EvaluateInto(r.Context(), request, &m.result) != nil {
		held.Release()
		return nil, held, disconnected()
	}
	f, ok := m.result.Flag()
	if !ok {
		held.Release()
		return nil, held, unknownFlag(key)
	}
	return h.answersOf(f).of(&m.result), held, nil
}

func unknownFlag(key string) *problem {
	return &problem{http.StatusNotFound, codeFlagNotFound, "flag " + key + " does not exist"}
}

func (h *Handler) answersOf(f eval.CompiledFlag) *answers {
	return f.Derived(h, h.deriveAnswers).(*answers)
}

func (h *Handler) deriveAnswers(f eval.CompiledFlag) any { return answersFor(f, h.options.FlagSetID) }

// release returns memory for reuse. It drops all references to the request.
func (h *Handler) release(m *memory) {
	m.result = eval.Result{}
	m.reader.Forget()
	if cap(m.answer) > maxPooledBytes || cap(m.digests) > maxPooledBytes {
		m.answer, m.digests = nil, nil
	}
	h.pool.Put(m)
}

// allow rejects all methods but one.
func (h *Handler) allow(rw http.ResponseWriter, r *http.Request, key *string, method string) bool {
	if r.Method == method {
		return true
	}
	rw.Header().Set("Allow", method)
	h.writeProblem(rw, key, &problem{http.StatusMethodNotAllowed, codeGeneral, "method " + r.Method + " is not allowed; want " + method})
	return false
}

// writeProblem responds with an error, about the flag with the given key unless that is nil.
func (h *Handler) writeProblem(rw http.ResponseWriter, key *string, p *problem) {
	if p.status == http.StatusServiceUnavailable && rw.Header().Get("Retry-After") == "" {
		rw.Header().Set("Retry-After", "1")
	}
	b := []byte{'{'}
	if key != nil {
		b = appendName(nil, *key)
	}
	writeBody(rw, p.status, append(b, errorText(p.code, p.details, h.unknown)...))
}

// writeHead writes everything before a JSON body of the given length.
func writeHead(rw http.ResponseWriter, status, length int) {
	rw.Header()["Content-Type"] = contentTypeJSON
	if length > knownLengthBytes {
		rw.Header().Set("Content-Length", strconv.Itoa(length))
	}
	if status != http.StatusOK {
		rw.WriteHeader(status)
	}
}

func writeBody(rw http.ResponseWriter, status int, body []byte) {
	writeHead(rw, status, len(body))
	_, _ = rw.Write(body) //nolint:gosec // JSON; the write fails only if the client disconnected
}
