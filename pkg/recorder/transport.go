package recorder

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Transport supports one kind of broker. A Sink calls it.
type Transport interface {
	// Send delivers a batch, which is never empty, and waits for the response. It returns nil if
	// everything was delivered, else one entry for each record, which is nil for a delivered one. A
	// record with an error from Drop is dropped; a record with any other error is sent again. Send
	// must return soon after ctx ends. It may be called concurrently, up to Options.Concurrency.
	Send(ctx context.Context, batch []*Record) []error
	// Close releases the transport's resources. It is called once, when no Send is running, or
	// after a Send that did not return in time.
	Close() error
}

// Prober is a Transport that can check whether its broker is reachable before there is anything to
// send.
type Prober interface {
	// Probe returns why nothing could be delivered now, or nil if no problem is known. It requires
	// no more permissions than Send: a broker that denies the request is reachable. It has its own
	// timeout, and returns soon after ctx ends. It may run concurrently with Send.
	Probe(ctx context.Context) error
}

// Reason is why a record was dropped.
type Reason string

// The reasons. There are no others, so they can be labels of a metric.
const (
	// QueueFull: the queue had reached its limit of records or bytes.
	QueueFull Reason = "queue_full"
	// Closed: the record was recorded after Close.
	Closed Reason = "closed"
	// TooLarge: no queue, or no broker, accepts a record of this size.
	TooLarge Reason = "too_large"
	// Rejected: the broker always rejects this record.
	Rejected Reason = "rejected"
	// RetriesExhausted: the broker returned errors until the maximum number of retries.
	RetriesExhausted Reason = "retries_exhausted"
	// Undelivered: Close ended before the record was confirmed. It may have arrived.
	Undelivered Reason = "undelivered"
	// Unencodable: the record cannot be encoded as JSON.
	Unencodable Reason = "unencodable"
)

// Reasons returns all reasons.
func Reasons() []Reason {
	return []Reason{QueueFull, Closed, TooLarge, Rejected, RetriesExhausted, Undelivered, Unencodable}
}

// dropError is an error from Drop.
type dropError struct {
	reason Reason
	err    error
}

func (e *dropError) Error() string { return fmt.Sprintf("dropped (%s): %v", e.reason, e.err) }
func (e *dropError) Unwrap() error { return e.err }

// Drop returns an error that makes a Sink drop a record.
func Drop(reason Reason, err error) error { return &dropError{reason, err} }

// DropReason returns the reason of an error from Drop, or "" for other errors.
func DropReason(err error) Reason {
	if d, ok := errors.AsType[*dropError](err); ok {
		return d.reason
	}
	return ""
}

// FailAll returns the result of a Send that failed as a whole.
func FailAll(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// Isolate finds the records that make a broker reject whole requests. It sends the rejected records
// of a batch again in halves, in the same order, until each half is accepted or has one record. It
// writes the results to errs, which has the results so far.
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
