// Package recorder streams records of evaluations and exposures out of the process. Record is one
// of them, in the frame that consumers read. Sink is a bounded queue in front of a Transport, which
// supports one kind of broker.
//
// The caller of Sink.AsyncRecord never waits for a broker. Records that cannot be kept or delivered
// are dropped and counted by reason, so that at any moment recorded = delivered + pending +
// dropped.
package recorder

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"sync"

	"golang.org/x/crypto/nacl/secretbox"
)

// KeySize is the length of an encryption key in bytes.
const KeySize = 32

// nonceSize is the size that secretbox requires.
const nonceSize = 24

// Framing is the format of frames. All recorders share it, so that each frame is built once.
type Framing struct {
	// RawJSON nests the payload as a JSON object in Frame; otherwise it is a string.
	RawJSON bool
	// Key encrypts the payload in SealedFrame.
	Key [KeySize]byte
	// NoPlain and Sealed select the frames to build: Frame unless NoPlain, SealedFrame only if
	// Sealed.
	NoPlain, Sealed bool
}

// NewKey converts a string to a key: a shorter string is padded with zero bytes, and a longer one
// is cut to KeySize bytes.
func NewKey(text string) (key [KeySize]byte) {
	copy(key[:], text)
	return key
}

// Payload returns the JSON of a record. It is called at most once, in a goroutine of a Sink.
type Payload interface {
	MarshalPayload() ([]byte, error)
}

// Record is one evaluation or exposure, shared by one or more sinks. Its frames are built when the
// first sink calls for one, outside the request, and kept until the last sink has released the
// record.
type Record struct {
	key     string
	size    int
	framing *Framing

	once          sync.Once
	payload       Payload // nil once the frames are built
	plain, sealed []byte
	err           error
}

// NewRecord returns a Record. The key, an entity ID, selects the partition. Size is the approximate
// memory in bytes that the record keeps alive, which counts toward the limit of queues. The framing
// must not change afterward.
func NewRecord(key string, size int, framing *Framing, payload Payload) *Record {
	return &Record{key: key, size: size, framing: framing, payload: payload}
}

// Key returns the partition key of the record.
func (r *Record) Key() string { return r.key }

// Frame returns {"payload":"...","encrypted":false}, or {"payload":{...}} with Framing.RawJSON. Do
// not change it. The error is permanent: the payload cannot be encoded as JSON.
func (r *Record) Frame() ([]byte, error) {
	r.once.Do(r.build)
	return r.plain, r.err
}

// SealedFrame returns {"payload":"...","encrypted":true}: the payload encrypted and authenticated
// by NaCl's secretbox under Framing.Key, with the nonce of 24 bytes in front of it, in base64. The
// payload is always a string, because an encrypted one cannot be a JSON object. Do not change the
// frame. The errors are the errors of Frame.
func (r *Record) SealedFrame() ([]byte, error) {
	r.once.Do(r.build)
	return r.sealed, r.err
}

func (r *Record) build() {
	payload, err := r.payload.MarshalPayload()
	r.payload = nil
	if err != nil {
		r.err = err
		return
	}
	if !r.framing.NoPlain {
		r.plain = plainFrame(payload, r.framing.RawJSON)
	}
	if r.framing.Sealed {
		r.sealed = sealedFrame(payload, &r.framing.Key)
	}
}

func plainFrame(payload []byte, rawJSON bool) []byte {
	const rawStart, rawEnd = `{"payload":`, `}`
	const textStart, textEnd = `{"payload":"`, `","encrypted":false}`
	if rawJSON {
		frame := make([]byte, 0, len(rawStart)+len(payload)+len(rawEnd))
		frame = append(frame, rawStart...)
		frame = append(frame, payload...)
		return append(frame, rawEnd...)
	}
	escapes := bytes.Count(payload, []byte{'"'}) + bytes.Count(payload, []byte{'\\'})
	frame := make([]byte, 0, len(textStart)+len(payload)+escapes+len(textEnd))
	frame = append(frame, textStart...)
	frame = appendEscaped(frame, payload)
	return append(frame, textEnd...)
}

// appendEscaped appends JSON as the contents of a JSON string. Compact JSON has no control
// characters, so only quotes and backslashes need a backslash.
func appendEscaped(dst, json []byte) []byte {
	start := 0
	for i, c := range json {
		if c == '"' || c == '\\' {
			dst = append(dst, json[start:i]...)
			dst = append(dst, '\\', c)
			start = i + 1
		}
	}
	return append(dst, json[start:]...)
}

func sealedFrame(payload []byte, key *[KeySize]byte) []byte {
	const start, end = `{"payload":"`, `","encrypted":true}`
	var nonce [nonceSize]byte
	_, _ = rand.Read(nonce[:]) // never returns an error: it ends the process instead
	sealed := make([]byte, nonceSize, nonceSize+len(payload)+secretbox.Overhead)
	copy(sealed, nonce[:])
	sealed = secretbox.Seal(sealed, payload, &nonce, key)
	frame := make([]byte, 0, len(start)+base64.StdEncoding.EncodedLen(len(sealed))+len(end))
	frame = append(frame, start...)
	frame = base64.StdEncoding.AppendEncode(frame, sealed)
	return append(frame, end...)
}
