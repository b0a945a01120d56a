package insight

import (
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

const (
	// Versions are counted modulo versionModulus, because a counter has 16 bits for them.
	versionModulus = 1 << 16
	// clockSkew is how much the clocks of servers and of the database may differ.
	clockSkew = time.Minute
)

// Version is a snapshot of a flag and the time in which it was the newest one.
type Version struct {
	SnapshotID int64
	// From is when the snapshot was committed, To when the next one was. To is zero for the newest.
	From, To time.Time
}

// Timeline is a list of versions of one flag, the oldest first, each From the To of the one before.
type Timeline []Version

// Head is what a Timeline needs of a snapshot.
type Head struct {
	SnapshotID int64
	At         time.Time
}

// NewTimeline makes a timeline of snapshots in the order of their ids. Clocks of servers differ a little, so a snapshot can
// seem older than the one before; it then begins when that one does.
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

// Alive returns the versions that were the newest at some time within a window. Versions without duration are left out.
func (t Timeline) Alive(from, to time.Time) Timeline {
	var alive Timeline
	for _, v := range t {
		if v.From.Before(to) && (v.To.IsZero() || v.To.After(from) && v.To.After(v.From)) {
			alive = append(alive, v)
		}
	}
	return alive
}

// Index returns the place of a snapshot in the timeline, -1 if it is not there.
func (t Timeline) Index(snapshotID int64) int {
	return slices.IndexFunc(t, func(v Version) bool { return v.SnapshotID == snapshotID })
}

// At returns the place of the version that was the newest at a time, -1 for times before the first one.
func (t Timeline) At(at time.Time) int {
	for i, v := range slices.Backward(t) {
		if !v.From.After(at) {
			return i
		}
	}
	return -1
}

// Resolve finds the version that a count belongs to: the newest snapshot with that id modulo 65,536 that was committed
// before the count's last evaluation, or up to a minute after it, for clocks differ. It returns its place, or -1 if there is
// none. An old version resolves to itself for as long as no later snapshot of the same flag has the same number, that is
// for at least 65,536 changes on the server.
func (t Timeline) Resolve(version uint16, last time.Time) int {
	latest := last.Add(clockSkew)
	for i, v := range slices.Backward(t) {
		if uint16(v.SnapshotID%versionModulus) == version && !v.From.After(latest) {
			return i
		}
	}
	return -1
}

// Ambiguous tells whether two of the snapshots have the same number modulo 65,536. Then counts must be grouped by hour
// before they are resolved.
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

// resolveRow resolves the version of a row. Rows without times are taken to be of the end of their hour.
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
