package budget

import (
	"errors"
	"io"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

const (
	// disconnectsPerSecond and disconnectsAtOnce limit the refusals of clients that disconnected. A
	// refusal takes some 80 µs of CPU time, or 300 µs in the generated code, so they use at most 60
	// % of a processor.
	disconnectsPerSecond, disconnectsAtOnce = 2000, 10
	// maxDisconnectDelay limits how many such requests wait, because each keeps its connection and
	// its memory: 4,000. Further ones are refused at once.
	maxDisconnectDelay = 2 * time.Second
)

// Disconnects delays requests whose client disconnected before the end of the body. Thousands of
// clients may do so at the same time, and without the delay, other requests would wait until all of
// them are refused. It is safe for concurrent use. A nil Disconnects does not delay.
type Disconnects struct{ limiter *rate.Limiter }

// NewDisconnects returns the Disconnects of one server.
func NewDisconnects() *Disconnects {
	return &Disconnects{rate.NewLimiter(disconnectsPerSecond, disconnectsAtOnce)}
}

// Wait waits at most two seconds, until a request whose client disconnected may be refused. It
// ignores the request's context, which is already canceled then: a client that closed only its side
// of the connection still reads the response.
func (d *Disconnects) Wait() {
	if d == nil {
		return
	}
	turn := d.limiter.Reserve()
	delay := turn.Delay()
	if delay > maxDisconnectDelay {
		turn.Cancel()
		return
	}
	time.Sleep(delay)
}

// Body returns a body whose Read waits, once, before it returns the error of a client that
// disconnected.
func (d *Disconnects) Body(body io.ReadCloser) io.ReadCloser {
	return &endingBody{ReadCloser: body, disconnects: d}
}

// endingBody is a body that may end early.
type endingBody struct {
	io.ReadCloser
	disconnects *Disconnects
	waited      bool
}

func (b *endingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if !b.waited && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)) {
		b.waited = true
		b.disconnects.Wait()
	}
	return n, err
}
