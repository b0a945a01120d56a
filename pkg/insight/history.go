package insight

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// historyReader computes a History from snapshots, newest first. It reads the whole contents of
// snapshots only until it has found the last change of the assignment, and retains one of them
// until then.
type historyReader struct {
	created bool     // whether the oldest snapshot created the flag; if not, older ones were left out
	left    int      // number of snapshots to come
	moments []moment // newest first

	// earlier is the History up to the snapshot with the ID until, which is then the last one to
	// come. It may be nil.
	earlier *History
	until   int64

	after      *Snapshot // the last one read, nil if it is not needed any more
	assigned   bool      // the last change of the assignment is found
	assignedAt time.Time
	assignedID int64
}

// moment is the part of a snapshot that decides whether the flag was counted.
type moment struct {
	at                      time.Time
	by                      string
	valid, records, deleted bool
}

// momentOf decodes a row. It is valid if the row contains JSON in which these members can be read:
// the flag was counted then, even if the rest of the JSON is damaged.
func momentOf(row *entity.FlagSnapshot) moment {
	var flag struct {
		DataRecordsEnabled bool
		DeletedAt          entity.DeletedAt
	}
	err := json.Unmarshal(entity.Abridged(row.Flag), &flag)
	return moment{at: row.CreatedAt.UTC(), by: row.UpdatedBy, valid: err == nil, records: flag.DataRecordsEnabled, deleted: flag.DeletedAt.Valid}
}

// add adds the snapshot before the last one.
func (r *historyReader) add(row *entity.FlagSnapshot) {
	r.left--
	if r.earlier == nil || int64(row.ID) != r.until {
		r.moments = append(r.moments, momentOf(row))
	}
	if r.assigned {
		return
	}
	s := parseBare(row)
	if r.after != nil {
		r.compare(&s)
	}
	if r.assigned {
		r.after = nil
		return
	}
	if r.after = &s; r.left == 0 {
		r.end()
	}
}

// compare checks whether the last snapshot changed the assignment. A nil before means that it
// created the flag.
func (r *historyReader) compare(before *Snapshot) {
	if ChangeBetween(before, r.after, 0).Affects == AffectsAssignment {
		r.assigned, r.assignedAt, r.assignedID = true, r.after.At, r.after.ID
	}
}

// end is called after the last snapshot.
func (r *historyReader) end() {
	if r.after != nil && r.created {
		r.compare(nil)
	}
	r.after = nil
}

// history returns the History of the snapshots. all is the time from which flags are counted even
// if their records are off. Zero means never.
func (r *historyReader) history(all time.Time) History {
	r.end() // if some snapshots do not exist any more
	h := History{AssignedAt: r.assignedAt, AssignedSnapshot: r.assignedID}
	if r.earlier != nil {
		h.ChangedAt, h.Records = r.earlier.ChangedAt, slices.Clone(r.earlier.Records)
		if !r.assigned {
			h.AssignedAt, h.AssignedSnapshot = r.earlier.AssignedAt, r.earlier.AssignedSnapshot
		}
	}
	if len(r.moments) > 0 {
		h.ChangedAt = r.moments[0].at
	}
	for i := len(r.moments) - 1; i >= 0; i-- {
		m := &r.moments[i]
		if !m.valid {
			continue
		}
		anyway := !m.deleted && !all.IsZero()
		h.record(Period{m.at, !m.deleted && m.records || anyway && !m.at.Before(all), m.by})
		if anyway && m.at.Before(all) && (i == 0 || all.Before(r.moments[i-1].at)) {
			h.record(Period{From: all, On: true})
		}
	}
	return h
}

func (h *History) record(p Period) {
	if last := len(h.Records) - 1; last < 0 || h.Records[last].On != p.On {
		h.Records = append(h.Records, p)
	}
}

// ChangesTable has one row for each part of each change, and one row for a change without parts.
func ChangesTable(changes []Change) *Table {
	return tableOf([]string{"snapshotID", "at", "by", "effectiveBy", "affects", "text", "what", "segmentID", "variantID", "constraintID", "from", "to"}, func(add func(cells ...string)) {
		for i := range changes {
			c := &changes[i]
			parts := c.Parts
			if len(parts) == 0 {
				parts = []Part{{}}
			}
			for _, p := range parts {
				add(number(c.SnapshotID), timeText(c.At), c.By, timeText(c.EffectiveBy), string(c.Affects), c.Text,
					string(p.What), id(p.SegmentID), id(p.VariantID), id(p.ConstraintID), p.From, p.To)
			}
		}
	})
}
