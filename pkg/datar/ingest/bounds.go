package ingest

import (
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

const (
	// MaxUnknown is the most unknown texts of a batch.
	MaxUnknown = 1000
	// perHour bounds the names of runs, and the unknown texts, that senders can add to the store within an hour.
	perHour = 1000
)

// bounds keeps senders from growing tables by making up names.
type bounds struct {
	mu struct {
		sync.Mutex
		hour        datar.Hour
		runs, texts map[string]bool
	}
}

// takeLocked reports whether a name may be added in this hour.
func takeLocked(names map[string]bool, name string) bool {
	if !names[name] && len(names) >= perHour {
		return false
	}
	names[name] = true
	return true
}

func (b *bounds) beginLocked(now time.Time) {
	if hour := datar.HourOf(now); hour != b.mu.hour || b.mu.runs == nil {
		b.mu.hour, b.mu.runs, b.mu.texts = hour, map[string]bool{}, map[string]bool{}
	}
}

// record returns what a store keeps of a sender, nil for nothing.
func (b *bounds) record(s *Sender, now time.Time) *datar.ServerRecord {
	r := s.Record(now)
	if r == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beginLocked(now)
	if !takeLocked(b.mu.runs, r.Name+" "+r.Run) {
		return nil
	}
	return r
}

// unknown returns what a store keeps of unknown texts, each text and hour once.
func (b *bounds) unknown(sent []Unknown, now time.Time) (rows []datar.UnknownRow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beginLocked(now)
	type place struct {
		asked string
		hour  datar.Hour
	}
	at := map[place]int{}
	for _, u := range sent {
		if u.Count < 1 || u.Count > MaxCount || u.First > u.Last || u.First < now.Add(-maxWriterAge).UnixMilli() || u.Last > now.Add(maxSkew).UnixMilli() {
			continue
		}
		hour := datar.HourOf(time.UnixMilli(u.Last))
		row := datar.UnknownRow{Asked: datar.CleanAsked(u.Asked), Hour: hour, Count: u.Count, First: max(u.First, hour.Time().UnixMilli()), Last: u.Last}
		if row.Asked != datar.OtherUnknown && !takeLocked(b.mu.texts, row.Asked) {
			row.Asked = datar.OtherUnknown
		}
		i, ok := at[place{row.Asked, hour}]
		if !ok {
			at[place{row.Asked, hour}] = len(rows)
			rows = append(rows, row)
			continue
		}
		rows[i].Count += row.Count
		rows[i].First, rows[i].Last = min(rows[i].First, row.First), max(rows[i].Last, row.Last)
	}
	return rows
}
