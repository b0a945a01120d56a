// Package recordertest has helpers for the tests of all transports.
package recordertest

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// Sink returns a sink that is closed when the test ends, within a second. A test that needs a
// longer Close must call it.
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

// Text is a payload with a string of that length.
type Text int

// MarshalPayload implements recorder.Payload.
func (n Text) MarshalPayload() ([]byte, error) {
	return json.Marshal(map[string]string{"text": strings.Repeat("x", int(n))})
}

// Fault records times during a fault.
type Fault struct{ began, noticed, ended, working time.Time }

// Begin records the beginning.
func (f *Fault) Begin() { f.began = time.Now() }

// Noticed records when the fault was noticed.
func (f *Fault) Noticed() { f.noticed = time.Now() }

// End records the end.
func (f *Fault) End() { f.ended = time.Now() }

// Working records when the end was noticed.
func (f *Fault) Working() { f.working = time.Now() }

// Log logs a row of the table in docs/recorders.md, once all records are delivered.
func (f *Fault) Log(t testing.TB, s recorder.Stats) {
	t.Helper()
	t.Logf("noticed after %s, working after %s, all delivered after %s: recorded %d, delivered %d, dropped %v, retried %d",
		f.noticed.Sub(f.began).Round(time.Millisecond), f.working.Sub(f.ended).Round(time.Millisecond),
		time.Since(f.ended).Round(time.Millisecond), s.Recorded, s.Delivered, s.Dropped, s.Retried)
}

// UpTo returns the numbers from 0 to n-1.
func UpTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}
