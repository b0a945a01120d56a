package datar

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	// DefaultLimit is the default of SummaryQuery.Limit.
	DefaultLimit = 100
	// MaxLimit is the maximum of SummaryQuery.Limit.
	MaxLimit = 1000

	defaultWindow = 7 * 24 * time.Hour
)

// SummaryQuery is the query of QuerySummary. The zero value selects the 100 busiest flags of the
// last 7 days.
type SummaryQuery struct {
	// From is the start of the window, inclusive; nil means 7 days ago. To is its end, exclusive;
	// nil means now. Both are widened to whole UTC hours.
	From, To *time.Time
	// Limit is 1 to 1000; nil means 100. Offset is 0 or more; nil means 0.
	Limit, Offset *int32
}

// FlagSummary is the traffic of one flag within a window.
type FlagSummary struct {
	FlagID int64
	// FlagInfo is zero if the Catalog no longer has the flag.
	FlagInfo
	Total int64
	// LastEvaluatedAt is the time of the last evaluation, UTC, to the millisecond. Zero means
	// unknown.
	LastEvaluatedAt time.Time
}

// BreakdownQuery is the window of QueryFlagSummaryBreakdown, as in SummaryQuery.
type BreakdownQuery struct {
	From, To *time.Time
}

// FlagBreakdown is the traffic of one flag within a window, by three dimensions.
type FlagBreakdown struct {
	FlagID int64
	// ByVariant is in descending order of counts. VariantID 0 stands for evaluations without a
	// variant.
	ByVariant []VariantCount
	// BySegment is in descending order of counts. It omits evaluations that matched no segment.
	BySegment []SegmentCount
	// Ingested is how many of them were counted elsewhere and reported, as far as known.
	Ingested int64
	// ByDay has the UTC days with counts, in ascending order.
	ByDay []DayCount
}

// VariantCount is the number of evaluations that assigned a variant.
type VariantCount struct {
	VariantID, Count int64
	// Name is from the Catalog; empty if it has none.
	Name string
}

// SegmentCount is the number of evaluations that matched a segment.
type SegmentCount struct {
	SegmentID, Count int64
	// Name is from the Catalog; empty if it has none.
	Name string
}

// DayCount is the number of evaluations of one day.
type DayCount struct {
	// Day is the start of the day, midnight UTC.
	Day   time.Time
	Count int64
}

// QuerySummary returns the flags with traffic in the window, busiest first, and flags with equal
// counts by ID. It flushes the engine's counts first, at most once a second. The error matches
// ErrInvalidQuery if an argument is out of range.
func (e *Engine) QuerySummary(ctx context.Context, query SummaryQuery) ([]FlagSummary, error) {
	from, to, err := Window(query.From, query.To, e.options.Now())
	if err != nil {
		return nil, err
	}
	limit, offset, err := page(query.Limit, query.Offset)
	if err != nil {
		return nil, err
	}
	e.refresh(ctx)
	totals, err := e.totals(ctx, TotalsQuery{From: from, To: to, GroupBy: ByFlag})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(totals, func(a, b Total) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.FlagID, b.FlagID))
	})
	totals = totals[min(offset, len(totals)):]
	totals = totals[:min(limit, len(totals))]
	if len(totals) == 0 {
		return []FlagSummary{}, nil
	}

	ids := make([]int64, len(totals))
	for i, t := range totals {
		ids[i] = t.FlagID
	}
	flags, err := e.options.Catalog.Flags(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("look up %d flags: %w", len(ids), err)
	}
	summaries := make([]FlagSummary, len(totals))
	for i, t := range totals {
		summaries[i] = FlagSummary{FlagID: t.FlagID, FlagInfo: flags[t.FlagID], Total: t.Count}
		if t.Last > 0 {
			summaries[i].LastEvaluatedAt = time.UnixMilli(t.Last).UTC()
		}
	}
	return summaries, nil
}

// QueryFlagSummaryBreakdown returns the traffic of one flag, as fresh as QuerySummary. The error
// matches ErrInvalidQuery if an argument is out of range, and ErrFlagNotFound if the flag does not
// exist and has no counts.
func (e *Engine) QueryFlagSummaryBreakdown(ctx context.Context, flagID int64, query BreakdownQuery) (*FlagBreakdown, error) {
	from, to, err := Window(query.From, query.To, e.options.Now())
	if err != nil {
		return nil, err
	}
	if flagID < 1 {
		return nil, fmt.Errorf("%w: there is no flag %d", ErrFlagNotFound, flagID)
	}
	e.refresh(ctx)
	outcomes, days, err := e.outcomesAndDays(ctx, TotalsQuery{From: from, To: to, FlagID: flagID})
	if err != nil {
		return nil, err
	}
	flags, err := e.options.Catalog.Flags(ctx, []int64{flagID})
	if err != nil {
		return nil, fmt.Errorf("look up flag %d: %w", flagID, err)
	}
	info, known := flags[flagID]
	if !known && len(outcomes) == 0 && len(days) == 0 {
		if err := e.checkCounted(ctx, flagID); err != nil {
			return nil, err
		}
	}
	b := &FlagBreakdown{FlagID: flagID, ByDay: make([]DayCount, len(days))}
	for _, t := range outcomes {
		b.Ingested += t.Ingested
	}
	variants := descending(outcomes, func(t Total) int64 { return t.VariantID })
	b.ByVariant = make([]VariantCount, len(variants))
	for i, c := range variants {
		b.ByVariant[i] = VariantCount{c.id, c.count, info.Variants[c.id]}
	}
	outcomes = slices.DeleteFunc(outcomes, func(t Total) bool { return t.SegmentID == 0 })
	segments := descending(outcomes, func(t Total) int64 { return t.SegmentID })
	b.BySegment = make([]SegmentCount, len(segments))
	for i, c := range segments {
		b.BySegment[i] = SegmentCount{c.id, c.count, info.Segments[c.id]}
	}
	slices.SortFunc(days, func(a, b Total) int { return cmp.Compare(a.Day, b.Day) })
	for i, t := range days {
		b.ByDay[i] = DayCount{t.Day.Time(), t.Count}
	}
	return b, nil
}

// outcomesAndDays reads the totals by outcome and by day with two queries. Because other engines
// write concurrently, it alternates the queries until nothing changed between two of them. If
// something always changes, the sums differ by that.
func (e *Engine) outcomesAndDays(ctx context.Context, query TotalsQuery) (outcomes, days []Total, err error) {
	byOutcome, byDay := query, query
	byOutcome.GroupBy, byDay.GroupBy = ByOutcome, ByDay
	outcomes, err = e.totals(ctx, byOutcome)
	for range 3 {
		if err == nil {
			days, err = e.totals(ctx, byDay)
		}
		if err != nil || sum(outcomes) == sum(days) {
			break
		}
		before := sum(outcomes)
		outcomes, err = e.totals(ctx, byOutcome)
		if n := sum(outcomes); n == before || n == sum(days) { // a store may keep days for longer than outcomes
			break
		}
	}
	return outcomes, days, err
}

// sum adds up totals. Counts only grow, so equal sums of one window include the same evaluations.
func sum(totals []Total) (n int64) {
	for _, t := range totals {
		n += t.Count
	}
	return n
}

// checkCounted returns ErrFlagNotFound if a flag that is not in the Catalog was never counted.
func (e *Engine) checkCounted(ctx context.Context, flagID int64) error {
	ever, err := e.totals(ctx, TotalsQuery{From: 0, To: endOfTime, FlagID: flagID, GroupBy: ByFlag})
	if err != nil {
		return err
	}
	if len(ever) == 0 {
		return fmt.Errorf("%w: there is no flag %d", ErrFlagNotFound, flagID)
	}
	return nil
}

// count is a sum for an ID.
type count struct{ id, count int64 }

// descending adds up totals by an ID, and sorts by descending count and then by ID.
func descending(totals []Total, id func(Total) int64) []count {
	sums := map[int64]int64{}
	for _, t := range totals {
		sums[id(t)] += t.Count
	}
	counts := make([]count, 0, len(sums))
	for id, sum := range sums {
		counts = append(counts, count{id, sum})
	}
	slices.SortFunc(counts, func(a, b count) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.id, b.id))
	})
	return counts
}

func (e *Engine) totals(ctx context.Context, query TotalsQuery) ([]Total, error) {
	if query.From >= query.To {
		return nil, nil
	}
	totals, err := e.storeTotals(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("add up counts: %w", err)
	}
	return totals, nil
}

func (e *Engine) storeTotals(ctx context.Context, query TotalsQuery) (totals []Total, err error) {
	defer e.recoverStore(&err)
	return e.options.Store.Totals(ctx, query)
}

// Window returns the hours from first until before last of a query's window, which is widened to
// whole UTC hours and cut to the years 1970 to 9999. A nil from means 7 days before now, and a nil
// to means now. The error matches ErrInvalidQuery.
func Window(from, to *time.Time, now time.Time) (first, last Hour, err error) {
	start, end := now.Add(-defaultWindow), now
	if from != nil {
		start = *from
	}
	if to != nil {
		end = *to
	}
	if start.After(end) {
		return 0, 0, fmt.Errorf("%w: from (%s) must not be after to (%s); without them the window is the last 7 days",
			ErrInvalidQuery, start.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339))
	}
	first, last = max(0, HourOf(start)), max(0, HourOf(end))
	if to == nil || end.After(last.Time()) {
		last++ // an hour that has begun is in the window
	}
	return min(first, endOfTime), min(last, endOfTime), nil
}

func page(limit, offset *int32) (int, int, error) {
	l, o := int32(DefaultLimit), int32(0)
	if limit != nil {
		l = *limit
	}
	if offset != nil {
		o = *offset
	}
	if l < 1 || l > MaxLimit {
		return 0, 0, fmt.Errorf("%w: limit is %d, want 1 to %d", ErrInvalidQuery, l, MaxLimit)
	}
	if o < 0 {
		return 0, 0, fmt.Errorf("%w: offset is %d, want 0 or more", ErrInvalidQuery, o)
	}
	return int(l), int(o), nil
}

// refresh flushes the counts, unless a query did so within the last second, and waits for at most a
// second: a query then returns what is stored. Stats shows flushes that take longer or fail.
func (e *Engine) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, freshness)
	defer cancel()
	if e.lockFlushing(ctx) != nil {
		return
	}
	e.mu.Lock()
	now := e.options.Now()
	age := now.Sub(e.mu.refreshed)
	recent := age >= 0 && age < freshness
	closed := e.mu.closed
	if !closed && !recent {
		e.mu.refreshed = now
	}
	e.mu.Unlock()
	if closed || recent {
		e.unlockFlushing()
		return
	}
	done := make(chan struct{})
	go func() { // continues if the query stops waiting
		defer close(done)
		defer e.unlockFlushing()
		flushing, cancel := context.WithTimeout(e.lifetime, flushTimeout)
		defer cancel()
		_ = e.flush(flushing)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
