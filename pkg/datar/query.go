package datar

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	defaultWindow = 7 * 24 * time.Hour
	defaultLimit  = 100
	maxLimit      = 1000
)

// SummaryQuery selects what QuerySummary returns. The zero value selects the 100 busiest flags of the last 7 days.
type SummaryQuery struct {
	// From is the start of the window, inclusive; nil: 7 days ago. To is its end, exclusive; nil: now. Both are widened
	// to whole hours of UTC.
	From, To *time.Time
	// Limit is 1 to 1000; nil: 100. Offset is 0 or more; nil: 0.
	Limit, Offset *int32
}

// FlagSummary is the traffic of one flag within a window.
type FlagSummary struct {
	FlagID int64
	// FlagInfo is zero if the Catalog does not know the flag any more.
	FlagInfo
	Total int64
	// LastEvaluatedAt is the time of the last evaluation, UTC, to the millisecond. Zero: not known.
	LastEvaluatedAt time.Time
}

// BreakdownQuery selects the window of QueryFlagSummaryBreakdown, as in SummaryQuery.
type BreakdownQuery struct {
	From, To *time.Time
}

// FlagBreakdown is the traffic of one flag within a window, by three dimensions.
type FlagBreakdown struct {
	FlagID int64
	// ByVariant is in descending order of counts. VariantID 0 stands for evaluations that assigned no variant.
	ByVariant []VariantCount
	// BySegment is in descending order of counts. Evaluations that matched no segment are not in it.
	BySegment []SegmentCount
	// Ingested is how many of all were counted elsewhere and sent in, as far as that is known.
	Ingested int64
	// ByDay has the days of UTC that have counts, in ascending order.
	ByDay []DayCount
}

// VariantCount is the number of evaluations that assigned a variant.
type VariantCount struct {
	VariantID, Count int64
	// Name is that of the Catalog, empty if it has none.
	Name string
}

// SegmentCount is the number of evaluations that matched a segment.
type SegmentCount struct {
	SegmentID, Count int64
	// Name is that of the Catalog, empty if it has none.
	Name string
}

// DayCount is the number of evaluations of one day.
type DayCount struct {
	// Day is midnight UTC, when the day begins.
	Day   time.Time
	Count int64
}

// QuerySummary returns the flags with traffic in the window, those with most of it first, equal ones by id. What this
// engine has counted is flushed first, at most once a second, so the answer is that fresh. The error matches
// ErrInvalidQuery if an argument is out of range.
func (e *Engine) QuerySummary(ctx context.Context, query SummaryQuery) ([]FlagSummary, error) {
	from, to, err := e.window(query.From, query.To)
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

// QueryFlagSummaryBreakdown returns the traffic of one flag, as fresh as QuerySummary does. The error matches
// ErrInvalidQuery if an argument is out of range, and ErrFlagNotFound if there is no such flag and never were counts of it.
func (e *Engine) QueryFlagSummaryBreakdown(ctx context.Context, flagID int64, query BreakdownQuery) (*FlagBreakdown, error) {
	from, to, err := e.window(query.From, query.To)
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

// outcomesAndDays reads the totals by outcome and by day, which are two queries. Other engines write meanwhile, so it reads
// them in turns until nothing came in between two of them. If something always does, the sums differ by that.
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

// sum adds totals up. Counts only grow, so that equal sums of one window are of the same evaluations.
func sum(totals []Total) (n int64) {
	for _, t := range totals {
		n += t.Count
	}
	return n
}

// checkCounted returns ErrFlagNotFound if a flag that the Catalog does not know was never counted.
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

// count is the sum of what has an id in common.
type count struct{ id, count int64 }

// descending adds totals up by an id, and sorts by descending count and then by id.
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

// window resolves and checks the bounds of a query, and widens them to whole hours.
func (e *Engine) window(from, to *time.Time) (Hour, Hour, error) {
	now := e.options.Now()
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
	first := max(0, HourOf(start)) // nothing is counted before 1970
	last := HourOf(end)
	if to == nil || end.After(last.Time()) {
		last++ // an hour that has begun is in the window
	}
	return first, min(last, endOfTime), nil
}

func page(limit, offset *int32) (int, int, error) {
	l, o := int32(defaultLimit), int32(0)
	if limit != nil {
		l = *limit
	}
	if offset != nil {
		o = *offset
	}
	if l < 1 || l > maxLimit {
		return 0, 0, fmt.Errorf("%w: limit is %d, want 1 to %d", ErrInvalidQuery, l, maxLimit)
	}
	if o < 0 {
		return 0, 0, fmt.Errorf("%w: offset is %d, want 0 or more", ErrInvalidQuery, o)
	}
	return int(l), int(o), nil
}

// refresh flushes what was counted, unless a query did so within the last second, and waits for it, but no longer than
// a second: a query is better answered with what is stored than not at all. A flush that takes longer, or fails, is
// left to Stats.
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
	go func() { // goes on when the query does not wait any more
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
