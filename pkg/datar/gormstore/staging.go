package gormstore

import (
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// On SQLite, a flush spends most of its time parsing statements and binding values. So a batch with
// details is written once, into a temporary table of the connection. Two statements then add it to
// events and details.

const (
	// The primary key has the order in which both statements read.
	createStaging = `CREATE TEMP TABLE IF NOT EXISTS datar_batch (
		flag_id integer, bucket_hour text, variant_id integer, segment_id integer, outcome integer, version integer, asked integer,
		eval_count integer, ingested_count integer, first_ms integer, last_ms integer,
		PRIMARY KEY (flag_id, bucket_hour, variant_id, segment_id, outcome, version, asked)) WITHOUT ROWID`
	clearStaging = "DELETE FROM temp.datar_batch"

	// heldOut is datar.HeldOut. A compile-time check fails if the number differs.
	heldOut = "2"
	_       = uint8(datar.HeldOut-2) + uint8(2-datar.HeldOut)

	// The outcomes are those for which Outcome.IsEvent is true. Events have no segment for held-out
	// evaluations.
	stagedEvents = `INSERT INTO datar_hourly_events AS t
		(flag_id, bucket_hour, variant_id, segment_id, eval_count, ingested_count, first_evaluated_ms, last_evaluated_ms, updated_at)
		SELECT flag_id, bucket_hour, variant_id, CASE outcome WHEN ` + heldOut + ` THEN 0 ELSE segment_id END, SUM(eval_count), SUM(ingested_count), COALESCE(MIN(NULLIF(first_ms, 0)), 0), MAX(last_ms), ?
		FROM temp.datar_batch WHERE outcome IN ? GROUP BY flag_id, bucket_hour, variant_id, CASE outcome WHEN ` + heldOut + ` THEN 0 ELSE segment_id END`
	stagedDetails = `INSERT INTO datar_hourly_details AS t
		(flag_id, bucket_hour, variant_id, segment_id, outcome, version, asked, eval_count, ingested_count, first_evaluated_ms, last_evaluated_ms)
		SELECT * FROM temp.datar_batch WHERE outcome <> 0`
)

var stageRows = insertion{
	table:   "datar_batch",
	columns: "flag_id, bucket_hour, variant_id, segment_id, outcome, version, asked, eval_count, ingested_count, first_ms, last_ms",
	width:   11,
	rows:    32, // the driver's binding time grows with the square of the number of values
}

// eventOutcomes returns the outcomes that are events.
func eventOutcomes() (outcomes []int64) {
	for o := datar.Unattributed; o <= datar.NotFound; o++ {
		if o.IsEvent() {
			outcomes = append(outcomes, int64(o))
		}
	}
	return outcomes
}

// addStaged adds rows to events and details.
func (s *Store) addStaged(tx *gorm.DB, rows []datar.Row, now time.Time) error {
	for _, statement := range []string{createStaging, clearStaging} {
		if err := tx.Exec(s.sql(statement)).Error; err != nil {
			return err
		}
	}
	if err := s.insert(tx, stageRows, len(rows), func(values []any, i int) []any {
		r := &rows[i]
		return append(values, r.FlagID, s.dialect.bindHour(r.Hour), r.VariantID, r.SegmentID, int64(r.Outcome), int64(r.Version), int64(r.Asked),
			r.Count, r.Ingested, r.First, r.Last)
	}); err != nil {
		return err
	}
	if err := tx.Exec(s.sql(stagedEvents+s.dialect.growth[eventsTable]), s.dialect.bindTime(now), eventOutcomes()).Error; err != nil {
		return err
	}
	if err := tx.Exec(s.sql(stagedDetails + s.dialect.growth[detailsTable])).Error; err != nil {
		return err
	}
	return tx.Exec(s.sql(clearStaging)).Error
}
