package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/open-feature/go-sdk/openfeature"
)

// maxAnswerBytes limits the response about one flag.
const maxAnswerBytes = 4 << 20

// remote evaluates on the server with OFREP.
type remote struct {
	options *Options
	// silent is the time until which the server requested no requests, in Unix nanoseconds.
	silent atomic.Int64
}

// remoteAnswer is the server's response about a flag, a success or an error.
type remoteAnswer struct {
	Value        json.RawMessage
	Reason       string
	Variant      string
	ErrorCode    string
	ErrorDetails string
	Metadata     map[string]any
}

func (r *remote) evaluate(ctx context.Context, flag string, flat openfeature.FlattenedContext) *resolution {
	if time.Now().UnixNano() < r.silent.Load() {
		return failed(openfeature.NewGeneralResolutionError("the server requested a pause"))
	}
	body, err := json.Marshal(map[string]any{"context": map[string]any(flat)})
	if err != nil {
		return failed(openfeature.NewInvalidContextResolutionError("context is not JSON: " + err.Error()))
	}
	ctx, cancel := context.WithTimeout(ctx, r.options.Timeout)
	defer cancel()
	answer, err := r.ask(ctx, flag, body)
	if err != nil {
		return failed(openfeature.NewGeneralResolutionError(fmt.Sprintf("evaluate flag %s: %v", flag, err)))
	}
	resolved := &resolution{detail: openfeature.ProviderResolutionDetail{
		Reason: openfeature.Reason(answer.Reason), Variant: answer.Variant, FlagMetadata: metadataOf(answer.Metadata),
	}}
	if answer.ErrorCode != "" {
		resolved.detail.ResolutionError, resolved.detail.Reason = errorOf(answer.ErrorCode, answer.ErrorDetails), openfeature.ErrorReason
		return resolved
	}
	resolved.value = valueOf(string(answer.Value))
	return resolved
}

func (r *remote) ask(ctx context.Context, flag string, body []byte) (*remoteAnswer, error) {
	request, err := newRequest(ctx, r.options, http.MethodPost, onePath+url.PathEscape(flag), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := r.options.Client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }() // already read
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusTooManyRequests {
		if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
			r.silent.Store(time.Now().Add(min(time.Duration(seconds)*time.Second, time.Hour)).UnixNano())
		}
	}
	answer := &remoteAnswer{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	err = decoder.Decode(answer)
	if response.StatusCode != http.StatusOK && (err != nil || answer.ErrorCode == "") {
		return nil, fmt.Errorf("the server returns %s", response.Status)
	}
	if err != nil {
		return nil, fmt.Errorf("read the response: %w", err)
	}
	return answer, nil
}

// metadataOf converts whole numbers to int64.
func metadataOf(members map[string]any) openfeature.FlagMetadata {
	metadata := make(openfeature.FlagMetadata, len(members))
	for name, value := range members {
		if number, ok := value.(json.Number); ok {
			if whole, err := number.Int64(); err == nil {
				value = whole
			} else {
				value = number.String()
			}
		}
		metadata[name] = value
	}
	return metadata
}

func errorOf(code, details string) openfeature.ResolutionError {
	switch openfeature.ErrorCode(code) {
	case openfeature.FlagNotFoundCode:
		return openfeature.NewFlagNotFoundResolutionError(details)
	case openfeature.ParseErrorCode:
		return openfeature.NewParseErrorResolutionError(details)
	case openfeature.TargetingKeyMissingCode:
		return openfeature.NewTargetingKeyMissingResolutionError(details)
	case openfeature.InvalidContextCode:
		return openfeature.NewInvalidContextResolutionError(details)
	case openfeature.TypeMismatchCode:
		return openfeature.NewTypeMismatchResolutionError(details)
	default:
		return openfeature.NewGeneralResolutionError(details)
	}
}
