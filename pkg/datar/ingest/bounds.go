package ingest

import (
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

const (
	// MaxUnknown is the maximum number of unknown keys of a batch.
	MaxUnknown = 1000
	// perHour limits the names of runs, and the unknown keys, that senders can add to the store
	// within an hour.
	perHour = 1000
)

// bounds prevents senders from growing tables with generated names.
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

// record returns the part of a sender's record that a store keeps, or nil.
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

// unknown returns the unknown keys that a store keeps, each key and hour once.
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
