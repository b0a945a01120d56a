package ofrep_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// shape describes an object of an answer: the type of each member, those behind a question mark
// optional.
type shape map[string]string

var (
	success = shape{"key": "string", "value?": "value", "reason": "reason", "variant": "string", "metadata": "metadata"}
	failure = shape{"key": "string", "errorCode": "code", "errorDetails": "string", "metadata": "metadata"}
	// bulkFailure is about no flag.
	bulkFailure = shape{"errorCode": "code", "errorDetails": "string", "metadata": "metadata"}
	bulk        = shape{"flags": "flags", "metadata?": "metadata", "eventStreams?": "streams"}
)

// checkShape tells whether a body is what OFREP and the providers allow with this status.
func checkShape(t testing.TB, status int, body []byte) {
	t.Helper()
	var members map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.UseNumber()
	if err := decoder.Decode(&members); err != nil {
		t.Errorf("%v: %s", err, body)
		return
	}
	if err := checkBody(status, members); err != nil {
		t.Errorf("status %d: %v: %.400s", status, err, body)
	}
}

func checkBody(status int, members map[string]any) error {
	_, isBulk := members["flags"]
	_, hasKey := members["key"]
	switch {
	case status == 200 && isBulk:
		return bulk.check(members)
	case status == 200:
		return success.check(members)
	case !hasKey:
		return bulkFailure.check(members)
	default:
		return failure.check(members)
	}
}

func (s shape) check(members map[string]any) error {
	for name, kind := range s {
		name, optional := strings.CutSuffix(name, "?")
		value, ok := members[name]
		if !ok && !optional {
			return fmt.Errorf("%s is missing", name)
		}
		if ok && !isOf(kind, value) {
			return fmt.Errorf("%s is %v, want %s", name, value, kind)
		}
	}
	for name := range members {
		_, there := s[name]
		_, optional := s[name+"?"]
		if !there && !optional {
			return fmt.Errorf("%s is not known", name)
		}
	}
	return nil
}

func isOf(kind string, value any) bool {
	switch kind {
	case "value":
		return value != nil
	case "reason":
		return slices.Contains([]any{"STATIC", "TARGETING_MATCH", "SPLIT", "DISABLED", "DEFAULT"}, value)
	case "code":
		return slices.Contains([]any{"PARSE_ERROR", "INVALID_CONTEXT", "TARGETING_KEY_MISSING", "FLAG_NOT_FOUND", "GENERAL"}, value)
	case "metadata":
		return isMetadata(value)
	case "flags":
		list, ok := value.([]any)
		return ok && !slices.ContainsFunc(list, func(item any) bool {
			members, ok := item.(map[string]any)
			return !ok || success.check(members) != nil && failure.check(members) != nil
		})
	case "streams":
		list, ok := value.([]any)
		return ok && len(list) == 1 && isStream(list[0])
	default:
		_, ok := value.(string)
		return ok
	}
}

// isMetadata allows what all providers read.
func isMetadata(value any) bool {
	members, ok := value.(map[string]any)
	for _, value := range members {
		switch x := value.(type) {
		case string, bool:
		case json.Number:
			n, err := x.Int64()
			ok = ok && err == nil && n <= math.MaxInt32 && n >= -math.MaxInt32
		default:
			ok = false
		}
	}
	return ok
}

func isStream(value any) bool {
	members, _ := value.(map[string]any)
	_, hasURL := members["url"].(string)
	endpoint, _ := members["endpoint"].(map[string]any)
	_, hasURI := endpoint["requestUri"].(string)
	return members["type"] == "sse" && hasURL != hasURI && members["inactivityDelaySec"] == json.Number("120")
}
