package ui

import (
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// TestCountedDays: a flag that was asked 60 times in its first hour is not asked twice a day.
func TestCountedDays(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for ago, want := range map[time.Duration]int64{0: 1, time.Hour: 1, 24 * time.Hour: 1, 25 * time.Hour: 2, 90 * 24 * time.Hour: latelyDays, -time.Hour: 1} {
		state := &insight.State{Complete: &insight.Complete{Since: now.Add(-ago)}}
		if got := countedDays(state, now.AddDate(-1, 0, 0), now); got != want {
			t.Errorf("counted since %s: %d days, want %d", ago, got, want)
		}
		if got := countedDays(&insight.State{}, now.Add(-ago), now); got != want {
			t.Errorf("created %s ago: %d days, want %d", ago, got, want)
		}
	}
	restart := now.Add(-time.Hour)
	restarted := &insight.State{Complete: &insight.Complete{Since: restart, Holes: []insight.Hole{{From: restart.Add(-time.Hour), To: restart, Why: insight.WhyNoServer}}}}
	for _, state := range []*insight.State{{}, {Complete: &insight.Complete{}}, restarted} {
		if got := countedDays(state, time.Time{}, now); got != latelyDays {
			t.Errorf("counted since an unknown time: %d days, want %d", got, latelyDays)
		}
	}
}
