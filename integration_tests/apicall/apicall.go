// Package apicall calls the API of a server for the programs that measure and attack it.
package apicall

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// ErrBusy matches errors of responses with status 503: the same request may succeed later.
var ErrBusy = errors.New("the server is busy")

// JSON sends a body as JSON, and returns the response if it is an object. Another status than 200
// is an error.
func JSON(ctx context.Context, method, url string, body any) (map[string]any, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(encoded))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusServiceUnavailable:
		return nil, fmt.Errorf("%w: %s %s: %s: %.300s", ErrBusy, method, url, response.Status, text)
	default:
		return nil, fmt.Errorf("%s %s: %s: %.300s", method, url, response.Status, text)
	}
	var decoded map[string]any
	_ = json.Unmarshal(text, &decoded) // a list is not needed
	return decoded, nil
}
