package insight

import "time"

// HistoryOf computes the history of a flag from its snapshots, oldest first. With created, the
// first snapshot created the flag. Otherwise older snapshots were left out, and the first one
// stands for them. all is the time from which flags are counted even if their records are off. Zero
// means never.
func HistoryOf(snapshots []Snapshot, created bool, all time.Time) History {
	var h History
	for i := range snapshots {
		s := &snapshots[i]
		h.ChangedAt = s.At
		var before *Snapshot
		if i > 0 {
			before = &snapshots[i-1]
		}
		if before != nil || created {
			if c := ChangeBetween(before, s, 0); c.Affects == AffectsAssignment {
				h.AssignedAt, h.AssignedSnapshot = s.At, s.ID
			}
		}
		if s.Flag != nil {
			deleted := s.Flag.DeletedAt.Valid
			anyway := !deleted && !all.IsZero()
			h.record(Period{s.At, !deleted && s.Flag.DataRecordsEnabled || anyway && !s.At.Before(all), s.By})
			if anyway && s.At.Before(all) && (i+1 == len(snapshots) || all.Before(snapshots[i+1].At)) {
				h.record(Period{From: all, On: true})
			}
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
