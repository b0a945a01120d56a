package notification_test

import (
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
