package ofrep

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/etag"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
)

const (
	flagsOnly              = "flagsOnly"
	flagConfigEtag         = "flagConfigEtag"
	flagConfigLastModified = "flagConfigLastModified"

	// maxLookWait is the maximum time that a request waits for a change made on another server.
	maxLookWait = time.Second
	// tagBytes is how many bytes of a checksum are in an entity tag, which has tagLength
	// characters.
	tagBytes  = 16
	tagLength = (tagBytes*8 + 5) / 6
)

// view is a state of the flags, prepared for responses.
type view struct {
	state    *evalcache.State
	revision string
	flags    []eval.CompiledFlag // by key
	bytes    int                 // answerBytes of all flags
}

// current returns the view of the newest state.
func (h *Handler) current() *view {
	state := h.options.States.State()
	if v := h.view.Load(); v != nil && v.state == state {
		return v
	}
	sum := sha256.Sum256([]byte(state.Version))
	v := &view{state: state, revision: hex.EncodeToString(sum[:8]), flags: state.Snapshot.Compiled()}
	slices.SortStableFunc(v.flags, func(a, b eval.CompiledFlag) int { return cmp.Compare(a.Source().Key, b.Source().Key) })
	v.bytes = answersBytes(v.flags)
	h.view.Store(v)
	return v
}

func answersBytes(flags []eval.CompiledFlag) int {
	n := 0
	for _, f := range flags {
		n += answerBytes(f)
	}
	return n
}

// in returns the flags in scope, sorted by key, and the approximate maximum length of the response.
func (v *view) in(s *scope) (_ []eval.CompiledFlag, bytes int) {
	if s.everything() {
		return v.flags, v.bytes
	}
	var flags []eval.CompiledFlag
	for _, f := range v.flags {
		if s.has(f) {
			flags = append(flags, f)
		}
	}
	return flags, answersBytes(flags)
}

// serveFlags handles a request for all flags in scope.
func (h *Handler) serveFlags(rw http.ResponseWriter, r *http.Request) {
	if !h.allow(rw, r, nil, http.MethodPost) {
		return
	}
	tags, _, refused := h.gate.admit(rw, r, false)
	if refused != nil {
		h.writeProblem(rw, nil, refused)
		return
	}
	var query url.Values
	if r.URL.RawQuery != "" {
		query = r.URL.Query()
	}
	s, refused := scopeOf(query)
	s.within = tags
	if refused != nil {
		h.writeProblem(rw, nil, refused)
		return
	}
	body, forget, refused := h.readBody(rw, r)
	defer forget()
	if refused != nil {
		h.writeProblem(rw, nil, refused)
		return
	}
	turn, err := h.options.Turns.TakeFor(r.Context(), budget.Weight(body))
	if err != nil {
		h.writeProblem(rw, nil, disconnected())
		return
	}
	defer turn.End()
	m := h.pool.Get().(*memory)
	defer h.release(m)
	h.answerFlags(rw, r, m, &bulk{scope: s, query: query, body: body, turn: turn})
}

// bulk is a request for all flags.
type bulk struct {
	scope scope
	query url.Values
	body  string
	turn  *budget.Turn // ends before the response is written
}

func (h *Handler) answerFlags(rw http.ResponseWriter, r *http.Request, m *memory, b *bulk) {
	v, current := h.atLeast(r.Context(), b.query)
	end := h.bulkEnd(r, b)
	known := entityTags(r.Header["If-None-Match"])
	if !current {
		known = nil
	}
	input := h.inputTag(m, v, b, end)
	if h.options.Inject == nil { // otherwise the time also affects the response
		for _, tag := range known { // of responses to valid bodies
			if string(input[:]) == tag.input {
				_ = h.options.Eval.EvaluateFlags(r.Context(), eval.Request{}, nil, false, nil) // for traces: nothing was evaluated
				b.turn.End()
				notModified(rw, tag)
				return
			}
		}
	}
	var request eval.Request
	if refused := m.readContext(b.body, h.options.Inject != nil, &request); refused != nil {
		b.turn.End()
		h.writeProblem(rw, nil, refused)
		return
	}
	if h.options.Inject != nil {
		request.EntityContext = h.options.Inject(request.EntityContext, r)
	}
	flags, bytes := v.in(&b.scope)
	held, refused := h.reserve(bytes)
	if refused != nil {
		b.turn.End()
		h.writeProblem(rw, nil, refused)
		return
	}
	defer held.Release()
	if b.turn == nil { // the body is small
		var err error
		if b.turn, err = h.options.Turns.TakeFor(r.Context(), bytes); err != nil {
			h.writeProblem(rw, nil, disconnected())
			return
		}
		defer b.turn.End()
	}
	h.counts.bulkFlags.Add(uint64(len(flags)))
	request.InTurn = b.turn != nil
	if err := h.writeFlags(r.Context(), m, &request, flags, end); err != nil {
		b.turn.End()
		h.writeProblem(rw, nil, disconnected()) // a client that only closed its side reads it
		return
	}
	b.turn.End()
	held.Keep(len(m.answer))
	tag := entityTag{answer: tagOf(m.digests), input: string(input[:])}
	for _, k := range known {
		if k.answer == tag.answer {
			notModified(rw, tag)
			return
		}
	}
	tag.set(rw)
	writeBody(rw, http.StatusOK, m.answer)
}

// writeFlags evaluates flags and writes the whole response. The part after the list of flags is
// given. The entity tag is computed from the digests of the parts, because a checksum of the text
// took a third of the time of the request.
func (h *Handler) writeFlags(ctx context.Context, m *memory, request *eval.Request, flags []eval.CompiledFlag, end string) error {
	b := append(m.answer[:0], `{"flags":[`...)
	digests := m.digests[:0]
	err := h.options.Eval.EvaluateFlags(ctx, *request, flags, h.options.RecordBulk, func(r *eval.Result) {
		f, _ := r.Flag()
		a := h.answersOf(f)
		if b[len(b)-1] == '}' {
			b = append(b, ',')
		}
		one := a.of(r)
		b = one.appendTo(append(b, a.name...))
		digests = binary.BigEndian.AppendUint64(digests, one.digest)
	})
	m.answer = append(append(b, ']'), end...)
	m.digests = append(digests, end...)
	return err
}

// bulkEnd returns the part after the list of flags, which does not depend on the context.
func (h *Handler) bulkEnd(r *http.Request, b *bulk) string {
	if len(b.query) == 0 && r.Header["Origin"] == nil && h.gate.isOpen() { // most servers
		return h.plainEnd()
	}
	return h.endOf(r, b)
}

func (h *Handler) endOf(r *http.Request, b *bulk) string {
	if b.query.Get(flagsOnly) == "true" {
		return "}"
	}
	end := ""
	if h.options.FlagSetID != "" {
		end = `,"metadata":` + h.unknown
	}
	if !h.options.Events.Disabled {
		end += `,"eventStreams":[` + h.announcement(r, &b.scope) + `]`
	}
	return end + "}"
}

// atLeast returns flags that include the change named in the query, if they are available at once,
// and false if they are older.
func (h *Handler) atLeast(ctx context.Context, query url.Values) (_ *view, current bool) {
	wanted := query.Get(flagConfigEtag)
	v := h.current()
	isOther := func(v *view) bool { return wanted != "" && wanted != v.revision }
	unseen := false
	if seconds := query.Get(flagConfigLastModified); seconds != "" {
		modified, err := strconv.ParseInt(seconds, 10, 64)
		unseen = err == nil && modified > h.options.States.LastCheck().Unix()
	}
	if !isOther(v) && !unseen {
		return v, true
	}
	ctx, cancel := context.WithTimeout(ctx, maxLookWait)
	defer cancel()
	h.options.States.Look(ctx)
	v = h.current()
	return v, !isOther(v)
}

// entityTag is the version of a response: its checksum, and the checksum of its inputs.
type entityTag struct{ answer, input string }

func (t entityTag) set(rw http.ResponseWriter) {
	header := rw.Header()
	header["Etag"] = []string{`W/"` + t.answer + "." + t.input + `"`}
	header["Cache-Control"] = privateNoCache
}

func notModified(rw http.ResponseWriter, t entityTag) {
	t.set(rw)
	rw.WriteHeader(http.StatusNotModified)
}

// entityTags parses If-None-Match. It omits tags that this server cannot have sent.
func entityTags(values []string) []entityTag {
	var tags []entityTag
	for tag := range etag.List(values) {
		answer, input, ok := strings.Cut(tag, ".")
		if ok && isTag(answer) && isTag(input) {
			tags = append(tags, entityTag{answer, input})
		}
	}
	return tags
}

func isTag(text string) bool {
	if len(text) != tagLength {
		return false
	}
	for i := range len(text) {
		if c := text[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func tagOf(text []byte) string {
	tag := encodedTag(text)
	return string(tag[:])
}

// encodedTag returns the beginning of a checksum, in base64url.
func encodedTag(text []byte) (tag [tagLength]byte) {
	sum := sha256.Sum256(text)
	base64.RawURLEncoding.Encode(tag[:], sum[:tagBytes])
	return tag
}

// inputTag returns the checksum of all inputs of a response.
func (h *Handler) inputTag(m *memory, v *view, b *bulk, end string) [tagLength]byte {
	parts := m.digests[:0]
	for _, part := range [...]string{h.options.Version, v.revision, b.scope.query(), b.body, end} {
		parts = binary.BigEndian.AppendUint64(parts, uint64(len(part)))
		parts = append(parts, part...)
	}
	m.digests = parts
	return encodedTag(parts)
}
