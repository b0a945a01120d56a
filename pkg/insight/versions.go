package insight

import (
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

const (
	// versionModulus is the modulus of counted versions, because a counter has 16 bits for a
	// version.
	versionModulus = 1 << 16
	// clockSkew is the accepted difference between the clocks of servers and of the database.
	clockSkew = time.Minute
)

// Version is a snapshot of a flag and the time in which it was the newest one.
type Version struct {
	SnapshotID int64
	// From is when the snapshot was committed. To is when the next one was committed, zero for the
	// newest.
	From, To time.Time
}

// Timeline is a list of versions of one flag, oldest first. Each From is the To of the previous
// version.
type Timeline []Version

// Head is the part of a snapshot that a Timeline needs.
type Head struct {
	SnapshotID int64
	At         time.Time
}

// NewTimeline returns a timeline of snapshots, which are in the order of their IDs. Because of
// clock skew, a snapshot can seem older than the previous one. It then begins at the same time.
func NewTimeline(heads []Head) Timeline {
	t := make(Timeline, len(heads))
	for i, h := range heads {
		at := h.At.UTC()
		if i > 0 {
			if at.Before(t[i-1].From) {
				at = t[i-1].From
			}
			t[i-1].To = at
		}
		t[i] = Version{SnapshotID: h.SnapshotID, From: at}
	}
	return t
}

// Alive returns the versions that were current at some time within a window, except those without
// duration.
func (t Timeline) Alive(from, to time.Time) Timeline {
	var alive Timeline
	for _, v := range t {
		if v.From.Before(to) && (v.To.IsZero() || v.To.After(from) && v.To.After(v.From)) {
			alive = append(alive, v)
		}
	}
	return alive
}

// Index returns the index of a snapshot in the timeline, or -1.
func (t Timeline) Index(snapshotID int64) int {
	return slices.IndexFunc(t, func(v Version) bool { return v.SnapshotID == snapshotID })
}

// At returns the index of the version that was current at a time, or -1 for times before the first
// version.
func (t Timeline) At(at time.Time) int {
	for i, v := range slices.Backward(t) {
		if !v.From.After(at) {
			return i
		}
	}
	return -1
}

// Resolve returns the index of the version that a count belongs to, or -1. This is the newest
// snapshot with that ID modulo 65,536 that was committed before the count's last evaluation, or up
// to a minute after it because of clock skew. The result for an old version is correct until a
// later snapshot of the same flag has the same number. That takes at least 65,536 changes on the
// server.
func (t Timeline) Resolve(version uint16, last time.Time) int {
	latest := last.Add(clockSkew)
	for i, v := range slices.Backward(t) {
		if uint16(v.SnapshotID%versionModulus) == version && !v.From.After(latest) {
			return i
		}
	}
	return -1
}

// Ambiguous reports whether two of the snapshots have the same number modulo 65,536. Then counts
// must be grouped by hour before they are resolved.
func (t Timeline) Ambiguous() bool {
	seen := make(map[uint16]bool, len(t))
	for _, v := range t {
		number := uint16(v.SnapshotID % versionModulus)
		if seen[number] {
			return true
		}
		seen[number] = true
	}
	return false
}

// resolveRow resolves the version of a row. A row without times is resolved as of the end of its
// hour.
func (t Timeline) resolveRow(r *datar.Row) int {
	if r.Outcome == datar.Unattributed {
		return -1
	}
	last := time.UnixMilli(r.Last)
	if r.Last == 0 {
		last = r.Hour.Time().Add(time.Hour)
	}
	return t.Resolve(r.Version, last)
}
