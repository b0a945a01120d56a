package recorder

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Transport speaks to one kind of broker. A Sink calls it.
type Transport interface {
	// Send delivers a batch, which is never empty, and waits for the answer. It returns nil if everything was delivered,
	// else one entry for each record, nil for a delivered one. A record with an error made by Drop is given up; any other
	// error means that the record may be sent again, and will be. When ctx ends, Send returns soon. Send may be called by
	// as many goroutines at once as Options.Concurrency says.
	Send(ctx context.Context, batch []*Record) []error
	// Close gives up what the transport holds. It is called once, when no Send runs any more, even after a Send that was
	// not left in time.
	Close() error
}

// Prober is a Transport that can tell whether its broker can be reached before there is anything to send.
type Prober interface {
	// Probe returns why nothing could be delivered now, nil if nothing speaks against it. It needs no more rights than Send:
	// a broker that refuses to tell is one that can be reached. It sets itself a deadline, and returns soon when ctx ends.
	// It may run beside Send.
	Probe(ctx context.Context) error
}

// Reason says why a record was dropped.
type Reason string

// The reasons for a drop. There are no others, so they can be labels of a metric.
const (
	// QueueFull: as many records or bytes as the queue may hold were waiting.
	QueueFull Reason = "queue_full"
	// Closed: the record came after Close.
	Closed Reason = "closed"
	// TooLarge: no queue, or no broker, takes a record of this size.
	TooLarge Reason = "too_large"
	// Rejected: the broker refuses this record, and would always do so.
	Rejected Reason = "rejected"
	// RetriesExhausted: the broker answered with errors for as many times as may be tried.
	RetriesExhausted Reason = "retries_exhausted"
	// Undelivered: Close had to end before the record was confirmed. It may have arrived all the same.
	Undelivered Reason = "undelivered"
	// Unencodable: the record cannot be turned into JSON.
	Unencodable Reason = "unencodable"
)

// Reasons lists all reasons.
func Reasons() []Reason {
	return []Reason{QueueFull, Closed, TooLarge, Rejected, RetriesExhausted, Undelivered, Unencodable}
}

// dropError is what Drop makes.
type dropError struct {
	reason Reason
	err    error
}

func (e *dropError) Error() string { return fmt.Sprintf("dropped (%s): %v", e.reason, e.err) }
func (e *dropError) Unwrap() error { return e.err }

// Drop makes an error that says to a Sink that a record must not be sent again.
func Drop(reason Reason, err error) error { return &dropError{reason, err} }

// DropReason gives the reason of an error made by Drop, and "" for others.
func DropReason(err error) Reason {
	if d, ok := errors.AsType[*dropError](err); ok {
		return d.reason
	}
	return ""
}

// FailAll is the result of a Send that failed as a whole.
func FailAll(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// Isolate finds the records for whose sake a broker refused whole requests. It sends those of a batch that were refused again
// in halves, in the same order, until each is taken or refused alone, and writes what came of them into errs, which has the
// results so far.
func Isolate(batch []*Record, errs []error, refused func(error) bool, send func([]*Record) []error) {
	var indices []int
	for i, err := range errs {
		if err != nil && refused(err) {
			indices = append(indices, i)
		}
	}
	if len(indices) < 2 {
		return
	}
	for half := range slices.Chunk(indices, (len(indices)+1)/2) {
		part := make([]*Record, len(half))
		for n, i := range half {
			part[n] = batch[i]
		}
		results := send(part)
		if results == nil {
			results = make([]error, len(part))
		}
		Isolate(part, results, refused, send)
		for n, i := range half {
			errs[i] = results[n]
		}
	}
}
