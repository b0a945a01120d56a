package insight

import (
	"encoding/json"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// HistoryOf computes the history of a flag from its snapshots, oldest first. With created, the
// first snapshot created the flag. Otherwise older snapshots were left out, and the first one
// stands for them. all is the time from which flags are counted even if their records are off. Zero
// means never.
func HistoryOf(snapshots []Snapshot, created bool, all time.Time) History {
	var r historyReader
	for i := len(snapshots) - 1; i >= 0; i-- {
		s := &snapshots[i]
		m := moment{at: s.At, by: s.By, valid: s.Flag != nil}
		if m.valid {
			m.deleted, m.records = s.Flag.DeletedAt.Valid, s.Flag.DataRecordsEnabled
		}
		r.add(m, func() Snapshot { return *s })
	}
	return r.history(created, all)
}

// historyReader computes a History from snapshots, newest first. It reads the whole contents of
// snapshots only until it has found the last change of the assignment.
type historyReader struct {
	moments  []moment  // newest first
	after    *Snapshot // the last one read
	assigned *Snapshot // the last one that affected the assignment, nil as long as it is not found
}

// moment is the part of a snapshot that decides whether the flag was counted.
type moment struct {
	at                      time.Time
	by                      string
	valid, records, deleted bool
}

// momentOf decodes a row. It is not valid if the row does not contain the JSON of a flag.
func momentOf(row *entity.FlagSnapshot) moment {
	var flag struct {
		DataRecordsEnabled bool
		DeletedAt          entity.DeletedAt
	}
	err := json.Unmarshal(row.Flag, &flag)
	return moment{at: row.CreatedAt.UTC(), by: row.UpdatedBy, valid: err == nil, records: flag.DataRecordsEnabled, deleted: flag.DeletedAt.Valid}
}

// add adds the snapshot before the last one. It calls content only if it needs it.
func (r *historyReader) add(m moment, content func() Snapshot) {
	r.moments = append(r.moments, m)
	if r.assigned != nil {
		return
	}
	s := content()
	if r.after != nil && ChangeBetween(&s, r.after, 0).Affects == AffectsAssignment {
		r.assigned = r.after
	}
	r.after = &s
}

// history returns the History of the snapshots so far: see HistoryOf.
func (r *historyReader) history(created bool, all time.Time) History {
	var h History
	if len(r.moments) > 0 {
		h.ChangedAt = r.moments[0].at
	}
	if r.assigned == nil && created && r.after != nil && ChangeBetween(nil, r.after, 0).Affects == AffectsAssignment {
		r.assigned = r.after
	}
	if r.assigned != nil {
		h.AssignedAt, h.AssignedSnapshot = r.assigned.At, r.assigned.ID
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
	t := &Table{Header: []string{"snapshotID", "at", "by", "effectiveBy", "affects", "text", "what", "segmentID", "variantID", "constraintID", "from", "to"}}
	for i := range changes {
		c := &changes[i]
		parts := c.Parts
		if len(parts) == 0 {
			parts = []Part{{}}
		}
		for _, p := range parts {
			t.add(number(c.SnapshotID), timeText(c.At), c.By, timeText(c.EffectiveBy), string(c.Affects), c.Text,
				string(p.What), id(p.SegmentID), id(p.VariantID), id(p.ConstraintID), p.From, p.To)
		}
	}
	return t
}
