// Package recordertest has what the tests of all transports share.
package recordertest

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// Sink returns a sink that is closed when the test ends, within a second: tests that need more of Close have called it.
func Sink(t testing.TB, o recorder.Options) *recorder.Sink {
	t.Helper()
	s := recorder.NewSink(o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Close(ctx)
	})
	return s
}

// Text is a payload with a text of that length.
type Text int

// MarshalPayload implements recorder.Payload.
func (n Text) MarshalPayload() ([]byte, error) {
	return json.Marshal(map[string]string{"text": strings.Repeat("x", int(n))})
}

// UpTo returns the numbers from 0 to n-1.
func UpTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}
