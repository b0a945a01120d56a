package ofrep

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// maxBodyBytes is the largest request body. It has the context of one entity.
const maxBodyBytes = 1 << 20

// problem is the reason why a request, or the whole response, failed.
type problem struct {
	status  int
	code    string
	details string
}

// readBody reads the whole body. The memory of a body of more than 16 KiB, or of unknown length,
// grows as its bytes arrive. Call release when the request is done.
func (h *Handler) readBody(rw http.ResponseWriter, r *http.Request) (text string, release func(), refused *problem) {
	release = func() {}
	if r.ContentLength > maxBodyBytes {
		return "", release, tooLarge()
	}
	var body []byte
	var err error
	if r.ContentLength >= 0 && r.ContentLength <= budget.LargeBytes {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, body)
	} else {
		length := int64(maxBodyBytes)
		if r.ContentLength >= 0 {
			length = r.ContentLength
		}
		limited := budget.NewBody(http.MaxBytesReader(rw, r.Body, maxBodyBytes), length, h.options.Bodies)
		release = limited.Release
		body, err = budget.ReadGrowing(limited, int(length), nil)
	}
	switch large := (*http.MaxBytesError)(nil); {
	case err == nil:
		text = unsafe.String(unsafe.SliceData(body), len(body)) // nothing else refers to the bytes
		return strings.TrimPrefix(text, entity.ByteOrderMark), release, nil
	case errors.As(err, &large):
		return "", release, tooLarge()
	case errors.Is(err, budget.ErrTooManyValues):
		return "", release, &problem{http.StatusRequestEntityTooLarge, codeGeneral, err.Error()}
	case errors.Is(err, budget.ErrExhausted):
		return "", release, busy()
	default:
		return "", release, &problem{http.StatusBadRequest, codeParseError, "the request body is incomplete"}
	}
}

func tooLarge() *problem {
	return &problem{http.StatusRequestEntityTooLarge, codeGeneral, fmt.Sprintf("the request body is larger than %d bytes", maxBodyBytes)}
}

// busy is the refusal of a request because other requests use the memory.
func busy() *problem {
	return &problem{http.StatusServiceUnavailable, codeGeneral, budget.ErrExhausted.Error()}
}

// disconnected is the response to a client that disconnected, which only the access log shows.
func disconnected() *problem { return &problem{499, codeGeneral, "the client disconnected"} }

// answerBytes is the approximate maximum length of a response about a flag.
func answerBytes(f eval.CompiledFlag) int { return f.AnswerBytes() + fixedAnswerBytes }

// fixedAnswerBytes is the approximate length of a response without the texts of the flag.
const fixedAnswerBytes = 256

// reserve reserves memory for a response of about the given length, which the caller must release.
func (h *Handler) reserve(bytes int) (held budget.Hold, refused *problem) {
	held.Memory = h.options.Answers
	if bytes > h.options.AnswerBytes {
		return held, &problem{http.StatusBadRequest, codeGeneral, fmt.Sprintf(
			"the response would have about %d bytes, more than the %d allowed (FLAGR_EVAL_ANSWER_BYTES): request fewer flags", bytes, h.options.AnswerBytes)}
	}
	if held.Take(bytes) != nil {
		refused = busy()
	}
	return held, refused
}

// readContext parses a body into request. If reader does not accept the form, encoding/json parses
// it. With decoded, the context is a map, so that properties can be added.
func (m *memory) readContext(body string, decoded bool, request *eval.Request) *problem {
	request.EntityIDRequired = true
	if !decoded {
		if object, ok := m.reader.Read(body); ok {
			request.EntityContext = object
			return fromObject(object, request)
		}
	}
	if strings.Trim(body, " \t\r\n") == "" {
		return nil
	}
	var members map[string]json.RawMessage // what is not the context is not decoded
	var noObject *json.UnmarshalTypeError
	if err := json.Unmarshal(unsafe.Slice(unsafe.StringData(body), len(body)), &members); err != nil && !errors.As(err, &noObject) {
		return &problem{http.StatusBadRequest, codeParseError, "the request body is not JSON: " + err.Error()}
	}
	if members == nil {
		return invalidContext("the request body must be an object")
	}
	value := entity.DecodeJSON(string(members["context"]))
	switch context := value.(type) {
	case nil:
		return nil
	case map[string]any:
		if entity.Deeper(context, entity.MaxJSONDepth) {
			return invalidContext(fmt.Sprintf("context nests more than the %d levels of objects and lists allowed", entity.MaxJSONDepth))
		}
		request.EntityContext = context
		return fromMap(context, request)
	default:
		return invalidContext("context must be an object")
	}
}

func invalidContext(details string) *problem {
	return &problem{http.StatusBadRequest, codeInvalidContext, details}
}

const (
	targetingKey      = "targetingKey"
	entityType        = "entityType"
	badTargetingKey   = "targetingKey must be a string"
	flagTags          = "flagTags"
	flagTagsOperator  = "flagTagsOperator"
	flagKeys          = "flagKeys"
	keyTags           = "keyTags"
	jsonNull          = "null"
	maxScopeSelectors = 1000
)

func fromObject(object *eval.Object, request *eval.Request) *problem {
	id, isText := textOf(object.Get(targetingKey))
	if raw := object.Get(targetingKey); !isText && raw != "" && raw != jsonNull {
		return invalidContext(badTargetingKey)
	}
	request.EntityID = id
	request.EntityType, _ = textOf(object.Get(entityType))
	return nil
}

// textOf decodes a JSON string; it returns false if the JSON is not a string.
func textOf(raw string) (string, bool) {
	if raw == "" || raw[0] != '"' {
		return "", false
	}
	if strings.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], true
	}
	var text string
	err := json.Unmarshal([]byte(raw), &text)
	return text, err == nil
}

func fromMap(context map[string]any, request *eval.Request) *problem {
	switch id := context[targetingKey].(type) {
	case nil:
	case string:
		request.EntityID = id
	default:
		return invalidContext(badTargetingKey)
	}
	request.EntityType, _ = context[entityType].(string)
	return nil
}

// scope is the set of flags of a request.
type scope struct {
	tags     []string // if tags and keys are empty: all flags
	operator string
	keys     []string // of flags, or their IDs
	named    map[string]bool
	within   []string // the tags of the API key; empty means all flags
}

// scopeOf parses the selection from a query. The error is not nil if the query is too long or the
// operator is unknown.
func scopeOf(query url.Values) (scope, *problem) {
	if len(query) == 0 {
		return scope{}, nil
	}
	s := scope{tags: listOf(query[flagTags]), keys: listOf(query[flagKeys]), within: listOf(query[keyTags]), operator: query.Get(flagTagsOperator)}
	if s.operator != "" && s.operator != eval.TagsAny && s.operator != eval.TagsAll {
		return scope{}, &problem{http.StatusBadRequest, codeGeneral, fmt.Sprintf("%s is %q; want %s or %s", flagTagsOperator, s.operator, eval.TagsAny, eval.TagsAll)}
	}
	if n := len(s.tags) + len(s.keys) + len(s.within); n > maxScopeSelectors {
		return scope{}, &problem{http.StatusBadRequest, codeGeneral, fmt.Sprintf("the query names %d tags and keys; want at most %d", n, maxScopeSelectors)}
	}
	s.named = make(map[string]bool, len(s.keys))
	for _, key := range s.keys {
		s.named[key] = true
	}
	return s, nil
}

// listOf parses a parameter that is repeated or comma-separated.
func listOf(values []string) []string {
	var list []string
	seen := map[string]bool{}
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			if part != "" && !seen[part] {
				seen[part] = true
				list = append(list, part)
			}
		}
	}
	return list
}

// everything reports whether all flags are in scope.
func (s *scope) everything() bool { return len(s.tags) == 0 && len(s.keys) == 0 && len(s.within) == 0 }

// query encodes the scope as parameters, always in the same order.
func (s *scope) query() string {
	if s.everything() {
		return ""
	}
	var b strings.Builder
	add := func(name string, values ...string) {
		if len(values) == 0 {
			return
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(name + "=" + url.QueryEscape(strings.Join(values, ",")))
	}
	add(flagTags, s.tags...)
	if s.operator != "" && len(s.tags) > 0 {
		add(flagTagsOperator, s.operator)
	}
	add(flagKeys, s.keys...)
	add(keyTags, s.within...)
	return b.String()
}

// has reports whether a flag is in scope.
func (s *scope) has(f eval.CompiledFlag) bool {
	if !within(f, s.within) {
		return false
	}
	if len(s.tags) == 0 && len(s.keys) == 0 {
		return true
	}
	return s.hasTags(f.Tags()) || len(s.named) > 0 && (s.named[f.Source().Key] || s.named[strconv.FormatUint(uint64(f.Source().ID), 10)])
}

func (s *scope) hasTags(tags []string) bool {
	if len(s.tags) == 0 {
		return false
	}
	isThere := func(tag string) bool { return slices.Contains(tags, tag) }
	if s.operator == eval.TagsAll {
		return !slices.ContainsFunc(s.tags, func(tag string) bool { return !isThere(tag) })
	}
	return slices.ContainsFunc(s.tags, isThere)
}

// within reports whether a flag has one of the tags; without tags, every flag is within.
func within(f eval.CompiledFlag, tags []string) bool {
	return len(tags) == 0 || slices.ContainsFunc(tags, func(tag string) bool { return slices.Contains(f.Tags(), tag) })
}
