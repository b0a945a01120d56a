package chstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

// Source is a store whose counts Move copies. gormstore.Store implements it.
type Source interface {
	datar.DetailStore
	// Receipts returns up to limit receipts in the order of their keys, starting with the first key
	// after the given one. Each Key is the SHA-256 of the sender's key, in hex.
	Receipts(ctx context.Context, after string, limit int) ([]ingest.Receipt, error)
	// LastSequences returns the last applied batch of each writer, by the name of the writer.
	LastSequences(ctx context.Context) (map[string]int64, error)
}

// ErrNotEqual means that counts of the source differ from the copy: servers still write to the
// source, or a flag was deleted there.
var ErrNotEqual = errors.New("the sums are not equal")

const (
	// moveRows is the approximate number of rows per insert of Move. movePage is the number of
	// receipts and unknown flags per read.
	moveRows = 20_000
	movePage = 1_000
	// moveAttempts is the maximum number of copies of a day that changes in the meantime.
	moveAttempts = 3
	// totalsSequence is the sequence of copied totals of days. firstHourSequence is the sequence of
	// the first hour of a day.
	totalsSequence    = 1
	firstHourSequence = 2
)

// Move copies the counts of another store, the records of servers, and the receipts and last
// batches of senders. Then it compares the sums of each flag and day.
//
// Move copies the total of each key and hour under its own writer, and the greatest total counts.
// So it may be interrupted at any time and run again, and servers may write to both stores in the
// meantime. It copies only days whose sums differ. The error matches ErrNotEqual if sums differ at
// the end.
func (s *Store) Move(ctx context.Context, source Source, now time.Time, logger *slog.Logger) error {
	m := mover{s: s, source: source, writer: writerID("move:" + source.Identity()), logger: logger}
	if err := m.run(ctx, now); err != nil {
		return fmt.Errorf("move counts: %w", err)
	}
	return nil
}

type mover struct {
	s      *Store
	source Source
	writer string
	logger *slog.Logger
	marks  marks
	// detailed is the first day for which the source has more than totals.
	detailed int32
}

func (m *mover) run(ctx context.Context, now time.Time) error {
	if err := m.readMarks(ctx); err != nil {
		return err
	}
	days, err := m.days(ctx, now)
	if err != nil {
		return err
	}
	differ := 0
	for _, day := range days {
		equal, err := m.moveDay(ctx, day)
		if err != nil {
			return fmt.Errorf("%s: %w", dateOf(day), err)
		}
		if !equal {
			differ++
		}
	}
	if err := m.moveServers(ctx); err != nil {
		return err
	}
	if err := m.moveSenders(ctx); err != nil {
		return err
	}
	if differ > 0 {
		return fmt.Errorf("%w on %d of %d days; run it again when no server writes to the source any more", ErrNotEqual, differ, len(days))
	}
	m.logger.InfoContext(ctx, "all counts are copied, and the sums of each flag and day are equal", "days", len(days))
	return nil
}

// readMarks reads the marks. Before that, it marks the days as reduced that the source has reduced.
func (m *mover) readMarks(ctx context.Context) error {
	detailed, err := m.source.DetailedFrom(ctx)
	if err != nil {
		return err
	}
	m.detailed = dayOf(detailed)
	if m.marks, err = m.s.readMarks(ctx); err != nil || m.marks.reduced >= int64(m.detailed) {
		return err
	}
	if err := m.s.mark(ctx, reducedMark, int64(m.detailed)); err != nil {
		return err
	}
	m.marks, err = m.s.readMarks(ctx)
	return err
}

// days returns the days, up to tomorrow, for which the source has counts or requests for flags that
// do not exist.
func (m *mover) days(ctx context.Context, now time.Time) ([]int32, error) {
	end := datar.HourOf(now).DayStart() + 2*hoursPerDay
	days := map[int32]bool{}
	totals, err := m.source.Totals(ctx, datar.TotalsQuery{From: 0, To: end, GroupBy: datar.ByDay})
	if err != nil {
		return nil, err
	}
	for _, t := range totals {
		days[dayOf(t.Day)] = true
	}
	details, err := m.source.Details(ctx, datar.DetailsQuery{From: 0, To: end, GroupBy: datar.GroupDay})
	if err != nil {
		return nil, err
	}
	for _, r := range details {
		days[dayOf(r.Hour)] = true
	}
	for day := dayOf(end - 1); day > dayOf(end)-int32(datar.RecordLifetime/(24*time.Hour)); day-- {
		unknown, err := m.source.Unknown(ctx, datar.UnknownQuery{From: startOf(day), To: startOf(day + 1), Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(unknown) > 0 {
			days[day] = true
		}
	}
	return slices.Sorted(maps.Keys(days)), nil
}

func startOf(day int32) datar.Hour { return datar.Hour(day) * hoursPerDay }

func dateOf(day int32) string { return startOf(day).Time().Format(time.DateOnly) }

// moveDay copies a day if its sums differ, and reports whether they are equal afterward.
func (m *mover) moveDay(ctx context.Context, day int32) (equal bool, err error) {
	if err := m.copyUnknown(ctx, day); err != nil {
		return false, err
	}
	for attempt := range moveAttempts + 1 {
		difference, evaluations, err := m.compare(ctx, day)
		switch {
		case err != nil:
			return false, err
		case difference == "":
			m.logger.InfoContext(ctx, "the sums of a day are equal", "day", dateOf(day), "evaluations", evaluations, "copied", attempt > 0)
			return true, nil
		case attempt == moveAttempts:
			m.logger.WarnContext(ctx, "the sums of a day differ", "day", dateOf(day), "difference", difference)
			return false, nil
		}
		if err := m.copyDay(ctx, day); err != nil {
			return false, err
		}
	}
	return false, nil
}

// sums are counts by flag and outcome.
type sums map[datar.Key]int64

// compare returns a difference between source and copy, and the number of evaluations of the
// source. For days that are reduced on either side, only totals are known, which may include counts
// of this store's own servers.
func (m *mover) compare(ctx context.Context, day int32) (difference string, evaluations int64, err error) {
	totals := day < m.detailed || int64(day) < m.marks.reduced
	want, err := sumsOf(ctx, m.source, day, totals)
	if err != nil {
		return "", 0, err
	}
	var got sums
	if totals {
		got, err = sumsOf(ctx, m.s, day, true)
	} else {
		got, err = m.copied(ctx, day)
	}
	if err != nil {
		return "", 0, err
	}
	for key, n := range want {
		evaluations += n
		if got[key] < n {
			difference = fmt.Sprintf("flag %d, outcome %s: %d, and %d copied", key.FlagID, key.Outcome, n, got[key])
		}
	}
	for key, n := range got {
		if !totals && n > want[key] {
			difference = fmt.Sprintf("flag %d, outcome %s: %d, and %d copied", key.FlagID, key.Outcome, want[key], n)
		}
	}
	return difference, evaluations, nil
}

// sumsOf adds up a day of a store. If totals is true, it adds up without outcomes.
func sumsOf(ctx context.Context, store datar.DetailStore, day int32, totals bool) (sums, error) {
	found := sums{}
	if totals {
		rows, err := store.Totals(ctx, datar.TotalsQuery{From: startOf(day), To: startOf(day + 1), GroupBy: datar.ByFlag})
		for _, t := range rows {
			found[datar.Key{FlagID: t.FlagID}] = t.Count
		}
		return found, err
	}
	rows, err := store.Details(ctx, datar.DetailsQuery{From: startOf(day), To: startOf(day + 1), GroupBy: datar.GroupFlag | datar.GroupOutcome})
	for _, r := range rows {
		found[r.Key] = r.Count
	}
	return found, err
}

// copied adds up the copied counts of a day that is not reduced.
func (m *mover) copied(ctx context.Context, day int32) (sums, error) {
	rows, err := m.s.client.integers(ctx, fmt.Sprintf("SELECT flag_id, toInt64(outcome), toInt64(sum(c)) FROM %s GROUP BY flag_id, outcome",
		rowsOnce(fmt.Sprintf("%s AND writer = toUUID('%s')", inWindow(startOf(day), startOf(day+1)), m.writer))))
	if err != nil {
		return nil, err
	}
	found := sums{}
	for _, r := range rows {
		found[datar.Key{FlagID: r[0], Outcome: datar.Outcome(r[1])}] = r[2]
	}
	return found, nil
}

func (m *mover) copyDay(ctx context.Context, day int32) error {
	if day < m.detailed {
		return m.copyTotals(ctx, day)
	}
	for hour := startOf(day); hour < startOf(day+1); hour++ {
		if err := m.copyHour(ctx, hour); err != nil {
			return err
		}
	}
	return nil
}

// copyTotals copies a day for which the source has only totals, unless its hours were copied
// before.
func (m *mover) copyTotals(ctx context.Context, day int32) error {
	hours, err := m.s.client.integers(ctx, fmt.Sprintf("SELECT toInt64(max(sequence)) FROM datar_days WHERE day = %d AND writer = toUUID('%s')", day, m.writer))
	if err != nil || hours[0][0] > totalsSequence {
		return err
	}
	totals, err := m.source.Totals(ctx, datar.TotalsQuery{From: startOf(day), To: startOf(day + 1), GroupBy: datar.ByFlag})
	if err != nil {
		return err
	}
	rows := make([]datar.Row, len(totals))
	for i, t := range totals {
		rows[i] = datar.Row{Key: datar.Key{FlagID: t.FlagID, Hour: startOf(day)}, Count: t.Count, Ingested: t.Ingested, Last: t.Last}
	}
	slices.SortFunc(rows, func(a, b datar.Row) int { return a.Compare(b.Key) })
	return m.insert(ctx, totalsSequence, rows)
}

// copyHour copies an hour under a fixed sequence.
func (m *mover) copyHour(ctx context.Context, hour datar.Hour) error {
	const all = datar.GroupFlag | datar.GroupOutcome | datar.GroupVariant | datar.GroupSegment | datar.GroupVersion | datar.GroupAsked | datar.GroupHour
	rows, err := m.source.Details(ctx, datar.DetailsQuery{From: hour, To: hour + 1, GroupBy: all})
	if err != nil {
		return err
	}
	if err := m.completeTimes(ctx, hour, rows); err != nil {
		return err
	}
	return m.insert(ctx, firstHourSequence+int64(hour-hour.DayStart()), rows)
}

// completeTimes sets the time of counts without details to that of the flag's last evaluation in
// the hour. Details do not have this time, but totals need it.
func (m *mover) completeTimes(ctx context.Context, hour datar.Hour, rows []datar.Row) error {
	unattributed := func(r datar.Row) bool { return r.Outcome == datar.Unattributed }
	if !slices.ContainsFunc(rows, unattributed) {
		return nil
	}
	totals, err := m.source.Totals(ctx, datar.TotalsQuery{From: hour, To: hour + 1, GroupBy: datar.ByFlag})
	if err != nil {
		return err
	}
	last := map[int64]int64{}
	for _, t := range totals {
		last[t.FlagID] = t.Last
	}
	for i := range rows {
		if unattributed(rows[i]) {
			rows[i].Last = last[rows[i].FlagID]
		}
	}
	return nil
}

// insert inserts rows in batches and does not split those of a flag: on a reduced day, their sum is
// one row.
func (m *mover) insert(ctx context.Context, sequence int64, rows []datar.Row) error {
	for len(rows) > 0 {
		end := min(moveRows, len(rows))
		for end < len(rows) && rows[end].FlagID == rows[end-1].FlagID {
			end++
		}
		if err := m.s.addRows(ctx, source{m.writer, sequence}, datar.Batch{Rows: rows[:end]}); err != nil {
			return err
		}
		rows = rows[end:]
	}
	return nil
}

// copyUnknown copies requests for flags that do not exist.
func (m *mover) copyUnknown(ctx context.Context, day int32) error {
	found, err := m.source.Unknown(ctx, datar.UnknownQuery{From: startOf(day), To: startOf(day + 1), Limit: 1})
	if err != nil || len(found) == 0 {
		return err
	}
	for hour := startOf(day); hour < startOf(day+1); hour++ {
		for offset := 0; ; offset += movePage {
			rows, err := m.source.Unknown(ctx, datar.UnknownQuery{From: hour, To: hour + 1, Limit: movePage, Offset: offset})
			if err != nil {
				return err
			}
			for i := range rows {
				rows[i].Hour = hour
			}
			if err := m.s.addUnknown(ctx, source{m.writer, totalsSequence}, rows); err != nil {
				return err
			}
			if len(rows) < movePage {
				break
			}
		}
	}
	return nil
}

func (m *mover) moveServers(ctx context.Context) error {
	records, err := m.source.Servers(ctx)
	if err != nil {
		return err
	}
	for page := range slices.Chunk(records, movePage) {
		var b []byte
		for i := range page {
			if b, err = appendServer(b, &page[i]); err != nil {
				return err
			}
		}
		if err := m.s.client.insert(ctx, "datar_servers", serverColumns, b); err != nil {
			return err
		}
	}
	return nil
}

// moveSenders copies the data that keeps batches of senders from being counted twice.
func (m *mover) moveSenders(ctx context.Context) error {
	sequences, err := m.source.LastSequences(ctx)
	if err != nil {
		return err
	}
	for page := range slices.Chunk(slices.Sorted(maps.Keys(sequences)), movePage) {
		var b []byte
		for _, name := range page {
			b = appendNote(b, source{writerID(name), sequences[name]})
		}
		if err := m.s.client.insert(ctx, "datar_batches", noteColumns, b); err != nil {
			return err
		}
	}
	for after := ""; ; {
		receipts, err := m.source.Receipts(ctx, after, movePage)
		if err != nil || len(receipts) == 0 {
			return err
		}
		var b []byte
		for _, r := range receipts {
			b = appendReceipt(b, r.Key, r, true)
		}
		if err := m.s.client.insert(ctx, "datar_receipts", receiptColumns, b); err != nil {
			return err
		}
		after = receipts[len(receipts)-1].Key
	}
}
