package gormstore

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// serverRun is the record of one run of a server. Times are in Unix milliseconds, or 0.
type serverRun struct {
	Name            exactText  `gorm:"column:name;primaryKey"`
	Run             identifier `gorm:"column:run;primaryKey"`
	Kind            string     `gorm:"column:kind;type:varchar(16);not null"`
	StartedMs       int64      `gorm:"column:started_ms;not null"`
	AtMs            int64      `gorm:"column:at_ms;not null"`
	LastFlushMs     int64      `gorm:"column:last_flush_ms;not null"`
	FlushIntervalMs int64      `gorm:"column:flush_interval_ms;not null"`
	Ended           bool       `gorm:"column:ended;not null"`
	Recorded        int64      `gorm:"column:recorded;not null"`
	Adopted         int64      `gorm:"column:adopted;not null"`
	Stored          int64      `gorm:"column:stored;not null"`
	Pending         int64      `gorm:"column:pending;not null"`
	// Dropped is a JSON object that maps reasons to numbers.
	Dropped     string `gorm:"column:dropped;type:varchar(1024);not null"`
	FirstDropMs int64  `gorm:"column:first_drop_ms;not null"`
	LastDropMs  int64  `gorm:"column:last_drop_ms;not null"`
	// Journal is a datar.JournalRecord as JSON, or empty.
	Journal string `gorm:"column:journal;type:varchar(2048);not null;default:''"`
}

const (
	updateServer = `UPDATE datar_servers SET kind = ?, started_ms = ?, at_ms = ?, last_flush_ms = ?, flush_interval_ms = ?, ended = ?,
		recorded = ?, adopted = ?, stored = ?, pending = ?, dropped = ?, first_drop_ms = ?, last_drop_ms = ?, journal = ?
		WHERE name = ? AND run = ? AND at_ms <= ?`
	insertServer = `INSERT INTO datar_servers (kind, started_ms, at_ms, last_flush_ms, flush_interval_ms, ended,
		recorded, adopted, stored, pending, dropped, first_drop_ms, last_drop_ms, journal, name, run)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
)

// writeServer writes the record of a server, unless a newer record exists.
func (s *Store) writeServer(tx *gorm.DB, r *datar.ServerRecord) error {
	dropped, err := json.Marshal(r.Dropped)
	if err != nil {
		return fmt.Errorf("write the record of server %q: %w", r.Name, err)
	}
	journal := ""
	if r.Journal != nil {
		text, err := json.Marshal(r.Journal)
		if err != nil {
			return fmt.Errorf("write the record of server %q: %w", r.Name, err)
		}
		journal = string(text)
	}
	values := []any{
		string(r.Kind), milli(r.Start), milli(r.At), milli(r.LastFlush), r.FlushInterval.Milliseconds(), r.Ended,
		r.Recorded, r.Adopted, r.Stored, r.Pending, string(dropped), milli(r.FirstDrop), milli(r.LastDrop), journal, r.Name, r.Run,
	}
	updated := tx.Exec(s.sql(updateServer), append(values, milli(r.At))...)
	if updated.Error == nil && updated.RowsAffected == 0 {
		updated = tx.Exec(s.sql(insertServer+s.dialect.growth[serversTable]), values...)
	}
	if updated.Error != nil {
		return fmt.Errorf("write the record of server %q: %w", r.Name, updated.Error)
	}
	return nil
}

// milli and fromMilli convert times to Unix milliseconds and back. The zero time is 0.
func milli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Servers implements datar.DetailStore.
func (s *Store) Servers(ctx context.Context) ([]datar.ServerRecord, error) {
	var runs []serverRun
	if err := s.db.WithContext(ctx).Raw(s.sql("SELECT * FROM datar_servers")).Scan(&runs).Error; err != nil {
		return nil, fmt.Errorf("read the records of servers: %w", err)
	}
	records := make([]datar.ServerRecord, len(runs))
	for i, r := range runs {
		records[i] = datar.ServerRecord{
			Name: string(r.Name), Run: string(r.Run), Kind: datar.ServerKind(r.Kind), Start: fromMilli(r.StartedMs), At: fromMilli(r.AtMs),
			LastFlush: fromMilli(r.LastFlushMs), FlushInterval: time.Duration(r.FlushIntervalMs) * time.Millisecond, Ended: r.Ended,
			Recorded: r.Recorded, Adopted: r.Adopted, Stored: r.Stored, Pending: r.Pending,
			FirstDrop: fromMilli(r.FirstDropMs), LastDrop: fromMilli(r.LastDropMs),
		}
		if err := json.Unmarshal([]byte(r.Dropped), &records[i].Dropped); err != nil {
			return nil, fmt.Errorf("read the record of server %q: %w", r.Name, err)
		}
		if r.Journal != "" {
			if err := json.Unmarshal([]byte(r.Journal), &records[i].Journal); err != nil {
				return nil, fmt.Errorf("read the record of server %q: its journal: %w", r.Name, err)
			}
		}
	}
	return records, nil
}

// forgetServers deletes the records of runs without a batch for datar.RecordLifetime.
func (s *Store) forgetServers(ctx context.Context, now time.Time) error {
	if err := s.db.WithContext(ctx).Exec(s.sql("DELETE FROM datar_servers WHERE at_ms < ?"), now.Add(-datar.RecordLifetime).UnixMilli()).Error; err != nil {
		return fmt.Errorf("forget old servers: %w", err)
	}
	return nil
}
