package chstore

import (
	"net/http"
	"sync/atomic"
	"time"
)

// maxCompared is the maximum duration of a request whose response is compared with this process's
// clock. ClickHouse may have set the time of a response at any moment of the request.
const maxCompared = 2 * time.Second

// clock is the difference between ClickHouse's clock and the clock of this process.
type clock struct{ offset atomic.Int64 } // a time.Duration

// compare compares the Date header of a response, in whole seconds, with the clock of this process
// before and after the request.
func (c *clock) compare(date string, before, after time.Time) {
	from, err := http.ParseTime(date)
	if err != nil || after.Sub(before) > maxCompared {
		return
	}
	to := from.Add(time.Second)
	switch {
	case from.After(after):
		c.offset.Store(int64(from.Sub(after)))
	case to.Before(before):
		c.offset.Store(int64(to.Sub(before)))
	default:
		c.offset.Store(0)
	}
}

// ClockOffset implements datar.ClockReporter. It compares with the host that responded last, or
// with the load balancer before it, and does not notice less than a second.
func (s *Store) ClockOffset() time.Duration { return time.Duration(s.client.clock.offset.Load()) }
