package notification_test

import (
	"context"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/notification"
)

func TestDetailsOfWaitingChangesAreBounded(t *testing.T) {
	t.Parallel()
	w := notification.New(notification.Options{URL: "http://127.0.0.1:1", QueueSize: 100})
	for range 110 { // nothing is posted before Start
		w.Notify(entity.Change{Before: make([]byte, 1<<20), After: make([]byte, 1<<20)})
	}
	if got := w.Stats(); got.Undetailed != 102 || got.Dropped != 10 {
		t.Errorf("got %+v, want 8 changes with their 2 MiB, 92 without, and 10 dropped", got)
	}
}

func TestWaitingChangesAreBoundedWithoutDetails(t *testing.T) {
	t.Parallel()
	w := notification.New(notification.Options{URL: "http://127.0.0.1:1", QueueSize: 100})
	user := strings.Repeat("u", 100<<10) // as long as a header
	for range 60 {
		w.Notify(entity.Change{User: user, Before: make([]byte, 1<<10)})
	}
	w.Notify(entity.Change{User: "u"}) // a short one still fits
	if got := w.Stats(); got.Undetailed != 0 || got.Dropped != 60-40 {
		t.Errorf("got %+v, want 40 that wait with 100 KiB each, and 20 dropped", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Stop(ctx); err == nil || !strings.Contains(err.Error(), "41 notifications were not delivered") {
		t.Errorf("stop: %v, want 41 that were not delivered", err)
	}
}
