package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"

	_ "github.com/glebarez/go-sqlite" // the driver "sqlite"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// store is a datar.Store in three tables of SQLite, over database/sql.
type store struct {
	db       *sql.DB
	identity string
}

var _ datar.Store = (*store)(nil)

const tables = `
CREATE TABLE IF NOT EXISTS counts (
	flag INTEGER, hour INTEGER, variant INTEGER, segment INTEGER,
	count INTEGER NOT NULL, ingested INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
	PRIMARY KEY (flag, hour, variant, segment)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS writers (writer TEXT PRIMARY KEY, sequence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS store (identity TEXT PRIMARY KEY)`

// openStore creates missing tables, and with them the identity, which never changes.
func openStore(ctx context.Context, file string) (*store, error) {
	db, err := sql.Open("sqlite", file+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, err
	}
	s := &store{db: db}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", file, err), db.Close())
	}
	return s, nil
}

func (s *store) prepare(ctx context.Context) error {
	if _, err := s.db.ExecContext(ctx, tables); err != nil {
		return err
	}
	// One statement, because two processes may start at the same time.
	if _, err := s.db.ExecContext(ctx, `INSERT INTO store SELECT ? WHERE NOT EXISTS (SELECT 1 FROM store)`, rand.Text()); err != nil {
		return err
	}
	return s.db.QueryRowContext(ctx, `SELECT identity FROM store`).Scan(&s.identity)
}

// Identity implements datar.Store.
func (s *store) Identity() string { return s.identity }

// Apply implements datar.Store: the number of the batch and its rows are in one transaction.
func (s *store) Apply(ctx context.Context, batch datar.Batch) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	// This statement is first: it also blocks others that send the same batch.
	noted, err := tx.ExecContext(ctx, `INSERT INTO writers VALUES (?, ?)
		ON CONFLICT (writer) DO UPDATE SET sequence = excluded.sequence WHERE sequence < excluded.sequence`, batch.Writer, batch.Sequence)
	if err != nil {
		return err
	}
	if n, err := noted.RowsAffected(); err != nil || n == 0 { // it was applied before, and the response was lost
		return err
	}
	add, err := tx.PrepareContext(ctx, `INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (flag, hour, variant, segment) DO UPDATE SET count = count + excluded.count,
		ingested = ingested + excluded.ingested, first = MIN(first, excluded.first), last = MAX(last, excluded.last)`)
	if err != nil {
		return err
	}
	defer func() { _ = add.Close() }()
	for _, r := range batch.Rows {
		if _, err := add.ExecContext(ctx, r.FlagID, r.Hour, r.VariantID, r.SegmentID, r.Count, r.Ingested, r.First, r.Last); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// groupings are the columns that Totals selects and groups by. A day begins at its first hour, also before 1970.
var groupings = map[datar.Dimension]string{
	datar.ByFlag:    "flag, 0, 0, 0",
	datar.ByOutcome: "0, variant, segment, 0",
	datar.ByDay:     "0, 0, 0, hour - (hour % 24 + 24) % 24",
}

// Totals implements datar.Store.
func (s *store) Totals(ctx context.Context, query datar.TotalsQuery) (totals []datar.Total, err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT `+groupings[query.GroupBy]+`, SUM(count), SUM(ingested), MAX(last) FROM counts
		WHERE hour >= ? AND hour < ? AND ? IN (0, flag) GROUP BY 1, 2, 3, 4`, query.From, query.To, query.FlagID)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var t datar.Total
		if err := rows.Scan(&t.FlagID, &t.VariantID, &t.SegmentID, &t.Day, &t.Count, &t.Ingested, &t.Last); err != nil {
			return nil, err
		}
		totals = append(totals, t)
	}
	return totals, rows.Err()
}
