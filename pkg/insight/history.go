package insight

import "time"

// HistoryOf computes the history of a flag from its snapshots, oldest first. With created, the
// first snapshot created the flag. Otherwise older snapshots were left out, and the first one
// stands for them. all is the time from which flags are counted even if their records are off. Zero
// means never.
func HistoryOf(snapshots []Snapshot, created bool, all time.Time) History {
	w := historyWriter{created: created, all: all}
	for i := range snapshots {
		w.add(&snapshots[i])
	}
	return w.end()
}

// historyWriter computes a History from one snapshot after the other. It retains only the last one.
type historyWriter struct {
	created bool
	all     time.Time
	history History
	before  *Snapshot
}

func (w *historyWriter) add(s *Snapshot) {
	h := &w.history
	if w.before != nil {
		w.countAllUntil(s.At)
	}
	h.ChangedAt = s.At
	if w.before != nil || w.created {
		if c := ChangeBetween(w.before, s, 0); c.Affects == AffectsAssignment {
			h.AssignedAt, h.AssignedSnapshot = s.At, s.ID
		}
	}
	if s.Flag != nil {
		deleted := s.Flag.DeletedAt.Valid
		counted := s.Flag.DataRecordsEnabled || !w.all.IsZero() && !s.At.Before(w.all)
		h.record(Period{s.At, !deleted && counted, s.By})
	}
	w.before = s
}

// countAllUntil begins a period if flags are counted without records from a time on at which the
// last snapshot was the newest. A zero end means that it still is.
func (w *historyWriter) countAllUntil(end time.Time) {
	last := w.before
	if last.Flag == nil || last.Flag.DeletedAt.Valid || !last.At.Before(w.all) { // a zero time is not after any other
		return
	}
	if end.IsZero() || w.all.Before(end) {
		w.history.record(Period{From: w.all, On: true})
	}
}

// end returns the History. Do not call add after it.
func (w *historyWriter) end() History {
	if w.before != nil {
		w.countAllUntil(time.Time{})
	}
	return w.history
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
