package recorder

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/nacl/secretbox"
)

// jsonPayload is a payload of a text, and counts how often it is asked for.
type jsonPayload struct {
	text  string
	calls atomic.Int32
	err   error
}

func (p *jsonPayload) MarshalPayload() ([]byte, error) {
	p.calls.Add(1)
	return []byte(p.text), p.err
}

// payloads are compact JSON documents that are awkward to nest.
var payloads = []string{
	`{}`,
	`{"a":1}`,
	`{"key":"with \"quotes\" and \\ and \n and é and 😀 and \u2028 and <&>"}`,
	`{"nested":{"json":"{\"a\":\"\\\"\"}"}}`,
	`{"empty":"","slash":"/","del":""}`,
}

func TestFramesHoldThePayload(t *testing.T) {
	t.Parallel()
	for _, payload := range payloads {
		text := NewRecord("k", 1, &Framing{}, &jsonPayload{text: payload})
		frame, err := text.Frame()
		if err != nil {
			t.Fatal(err)
		}
		var decoded struct {
			Payload   string
			Encrypted *bool
		}
		if err := json.Unmarshal(frame, &decoded); err != nil {
			t.Fatalf("%s: %v", frame, err)
		}
		if decoded.Payload != payload || decoded.Encrypted == nil || *decoded.Encrypted {
			t.Errorf("frame of %s is %s", payload, frame)
		}

		raw := NewRecord("k", 1, &Framing{RawJSON: true}, &jsonPayload{text: payload})
		frame, err = raw.Frame()
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"payload":` + payload + `}`; string(frame) != want || !json.Valid(frame) {
			t.Errorf("frame is %s, want %s", frame, want)
		}
	}
}

// These bytes are the promise to those who read the stream.
func TestFrameBytes(t *testing.T) {
	t.Parallel()
	frame, err := NewRecord("k", 1, &Framing{}, &jsonPayload{text: `{"flagKey":"a","n":1}`}).Frame()
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"payload":"{\"flagKey\":\"a\",\"n\":1}","encrypted":false}`; string(frame) != want {
		t.Errorf("frame is %s, want %s", frame, want)
	}
}

func TestSealedFramesOpenWithTheKey(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"short", "exactly thirty-two bytes of key.", "longer than thirty-two bytes: only the beginning counts"} {
		key := NewKey(text)
		for _, payload := range payloads {
			// Raw JSON cannot hold what is encrypted, and must not be a way around the encryption.
			for _, raw := range []bool{false, true} {
				r := NewRecord("k", 1, &Framing{RawJSON: raw, Key: key, Sealed: true, NoPlain: true}, &jsonPayload{text: payload})
				frame, err := r.SealedFrame()
				if err != nil {
					t.Fatal(err)
				}
				if opened := open(t, frame, key); opened != payload {
					t.Errorf("opened %q, want %q", opened, payload)
				}
				if plain, _ := r.Frame(); plain != nil {
					t.Errorf("a plain frame was built for nobody: %s", plain)
				}
			}
		}
	}
	first, _ := NewRecord("k", 1, &Framing{Sealed: true}, &jsonPayload{text: "{}"}).SealedFrame()
	second, _ := NewRecord("k", 1, &Framing{Sealed: true}, &jsonPayload{text: "{}"}).SealedFrame()
	if string(first) == string(second) {
		t.Error("two frames have the same nonce")
	}
}

func open(t *testing.T, frame []byte, key [KeySize]byte) string {
	t.Helper()
	var decoded struct {
		Payload   string
		Encrypted bool
	}
	if err := json.Unmarshal(frame, &decoded); err != nil || !decoded.Encrypted {
		t.Fatalf("%s: %v", frame, err)
	}
	sealed, err := base64.StdEncoding.DecodeString(decoded.Payload)
	if err != nil || len(sealed) < nonceSize {
		t.Fatalf("%s: %v", frame, err)
	}
	payload, ok := secretbox.Open(nil, sealed[nonceSize:], (*[nonceSize]byte)(sealed), &key)
	if !ok {
		t.Fatalf("%s does not open", frame)
	}
	return string(payload)
}

func TestAFrameIsBuiltOnceForAllSinks(t *testing.T) {
	t.Parallel()
	p := &jsonPayload{text: `{"a":1}`}
	r := NewRecord("k", 1, &Framing{Sealed: true}, p)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ask := r.Frame
			if i%2 == 0 {
				ask = r.SealedFrame
			}
			if frame, err := ask(); err != nil || len(frame) == 0 {
				t.Errorf("frame is %s, %v", frame, err)
			}
		})
	}
	wg.Wait()
	if n := p.calls.Load(); n != 1 {
		t.Errorf("the payload was asked for %d times", n)
	}
}

func TestAPayloadThatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	broken := errors.New("no JSON for that")
	r := NewRecord("k", 1, &Framing{}, &jsonPayload{err: broken})
	for range 2 {
		if _, err := r.Frame(); !errors.Is(err, broken) {
			t.Errorf("error is %v", err)
		}
	}
}

func TestQueueKeepsOrderThroughGrowth(t *testing.T) {
	t.Parallel()
	var q queue
	next, expected := 0, 0
	for round := range 200 {
		for range round % 7 * 13 {
			q.push(&Record{size: next})
			next++
		}
		for range min(q.len(), round%5*17) {
			if got := q.pop().size; got != expected {
				t.Fatalf("popped %d, want %d", got, expected)
			}
			expected++
		}
	}
	for q.len() > 0 {
		if got := q.pop().size; got != expected {
			t.Fatalf("popped %d, want %d", got, expected)
		}
		expected++
	}
	if expected != next || next > math.MaxInt32 {
		t.Errorf("%d popped of %d", expected, next)
	}
}
