package insight

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

const (
	// sparkDays is the number of counts in a sparkline.
	sparkDays = 28
	// maxHistory is the maximum number of a flag's newest snapshots from which its History is
	// computed.
	maxHistory = 1_000
	// everTTL is how long the times of earlier requests for flags are cached. Later requests are in
	// the counts of the last days.
	everTTL = time.Minute
)

// cache keeps values that do not change, or change slowly.
type cache struct {
	mu struct {
		sync.Mutex
		// reading has the flags whose histories are being read, and allFlags if those of a list
		// are. The channels are closed at the end.
		reading map[int64]chan struct{}
		// histories maps flags to the History as of their newest snapshot.
		histories map[int64]cachedHistory
		// layouts maps flags to their layouts, without the variants of their buckets, which take
		// 8 KB per segment.
		layouts map[int64]cachedLayout
		// ever maps flags to the requests before the hour everTo, for the last days since the hour
		// everFrom, as of everAt.
		ever             map[int64]earlierAsked
		everFrom, everTo datar.Hour
		everAt           time.Time
	}
}

// allFlags is the key of a list of flags in cache.mu.reading.
const allFlags = 0

// read waits until no other request reads the histories of a flag, or those of lists. The caller
// must call done at the end. What the other request has read is in the cache then. The error is
// that of ctx.
func (c *cache) read(ctx context.Context, flagID int64) (done func(), err error) {
	for {
		c.mu.Lock()
		other := c.mu.reading[flagID]
		if other == nil {
			break
		}
		c.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer c.mu.Unlock()
	if c.mu.reading == nil {
		c.mu.reading = map[int64]chan struct{}{}
	}
	mine := make(chan struct{})
	c.mu.reading[flagID] = mine
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.mu.reading, flagID)
		close(mine)
	}, nil
}

type cachedHistory struct {
	snapshotID int64
	timeline   Timeline
	history    History
}

// until returns the index in t of the newest snapshot of the History if later snapshots can be
// added to it, otherwise -1. They cannot if an earlier one was committed later, or if all flags are
// counted from a time after the History.
func (h *cachedHistory) until(t Timeline, all time.Time) int {
	last := t.Index(h.snapshotID)
	if last < 0 || len(h.history.Records) >= maxHistory {
		return -1
	}
	for i, v := range slices.Backward(h.timeline) {
		if at := last - len(h.timeline) + 1 + i; at >= 0 && t[at].SnapshotID != v.SnapshotID {
			return -1
		}
	}
	if len(t) < len(h.timeline) || !all.IsZero() && !t[last].From.After(all) {
		return -1
	}
	return last
}

// cachedLayout is the layout of a flag that evaluation uses. A changed flag is another value.
type cachedLayout struct {
	flag   *entity.Flag
	layout *eval.Layout
}

// layoutsOf returns the layouts of all flags that evaluation uses, and removes those of other flags
// from the cache.
func (s *Service) layoutsOf(flags []*entity.Flag) map[int64]cachedLayout {
	s.cache.mu.Lock()
	kept := s.cache.mu.layouts
	s.cache.mu.Unlock()
	layouts := make(map[int64]cachedLayout, len(flags))
	for _, f := range flags {
		l := kept[int64(f.ID)]
		if l.flag != f {
			l = cachedLayout{f, eval.LayoutOf(f)}
			for i := range l.layout.Segments {
				l.layout.Segments[i].ByBucket = nil
			}
		}
		layouts[int64(f.ID)] = l
	}
	s.cache.mu.Lock()
	s.cache.mu.layouts = layouts
	s.cache.mu.Unlock()
	return layouts
}

// historyOf returns the History of a flag with a timeline.
func (s *Service) historyOf(ctx context.Context, flagID int64, t Timeline, now time.Time) (History, error) {
	if h, ok := s.keptHistory(flagID, t); ok {
		return h, nil
	}
	done, err := s.cache.read(ctx, flagID)
	if err != nil {
		return History{}, err
	}
	defer done()
	if h, ok := s.keptHistory(flagID, t); ok { // another request has read it
		return h, nil
	}
	histories, err := s.readHistories(ctx, []int64{flagID}, map[int64]Timeline{flagID: t}, now)
	return histories[flagID].history, err
}

// keptHistory returns the cached History of a flag with that timeline.
func (s *Service) keptHistory(flagID int64, t Timeline) (History, bool) {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	kept, ok := s.cache.mu.histories[flagID]
	return kept.history, ok && len(t) > 0 && kept.snapshotID == t[len(t)-1].SnapshotID
}

// readHistories computes and caches the Histories of flags with timelines. Snapshots of all these
// flags are read together, and not retained.
func (s *Service) readHistories(ctx context.Context, flagIDs []int64, timelines map[int64]Timeline, now time.Time) (map[int64]cachedHistory, error) {
	readers := make(map[int64]*historyReader, len(flagIDs))
	firsts := make(map[int64]int, len(flagIDs))
	var snapshotIDs []int64
	for _, id := range flagIDs {
		t := timelines[id]
		first := t.firstOfHistory(now.Add(-MaxDays * day))
		reader := &historyReader{created: first == 0}
		if kept := s.historyBefore(id); kept != nil {
			if last := kept.until(t, s.o.CountsAll); last > first { // a long history is read once, not with each change
				first = last
				reader.created, reader.earlier, reader.until = false, &kept.history, kept.snapshotID
			}
		}
		reader.left = len(t) - first
		firsts[id], readers[id] = first, reader
		for i := len(t) - 1; i >= first; i-- {
			snapshotIDs = append(snapshotIDs, t[i].SnapshotID)
		}
	}
	err := s.o.Flags.EachSnapshot(ctx, snapshotIDs, func(row *entity.FlagSnapshot) {
		if r := readers[int64(row.FlagID)]; r != nil {
			r.add(row)
		}
	})
	if err != nil {
		return nil, err
	}
	histories := make(map[int64]cachedHistory, len(flagIDs))
	for _, id := range flagIDs {
		t, first := timelines[id], firsts[id]
		h := cachedHistory{timeline: t, history: readers[id].history(s.o.CountsAll)}
		if h.history.AssignedAt.IsZero() && first > 0 && readers[id].earlier == nil {
			h.history.AssignedAt = t[first].From // or before
		}
		if len(t) > 0 {
			h.snapshotID = t[len(t)-1].SnapshotID
			s.keepHistory(id, h)
		}
		histories[id] = h
	}
	return histories, nil
}

// historyBefore returns the cached History of a flag as of any snapshot, or nil.
func (s *Service) historyBefore(flagID int64) *cachedHistory {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	if kept, ok := s.cache.mu.histories[flagID]; ok {
		return &kept
	}
	return nil
}

// firstOfHistory returns the index of the first version of which a History is computed. It is in
// the first page that begins before the oldest time, counted from the newest version back.
func (t Timeline) firstOfHistory(oldest time.Time) int {
	first := len(t)
	for first > 0 && len(t)-first < maxHistory {
		if first = max(0, first-snapshotPage); t[first].From.Before(oldest) {
			break
		}
	}
	return first
}

func (s *Service) keepHistory(flagID int64, h cachedHistory) {
	const most = 20_000
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	if s.cache.mu.histories == nil || len(s.cache.mu.histories) >= most {
		s.cache.mu.histories = map[int64]cachedHistory{}
	}
	s.cache.mu.histories[flagID] = h
}

// days returns the number of days that count as lately.
func days(n *int64) (int, error) {
	if n == nil {
		return DefaultDays, nil
	}
	if *n < 1 || *n > MaxDays {
		return 0, invalid("days is %d, want 1 to %d", *n, MaxDays)
	}
	return int(*n), nil
}

// stateParts are what the rows of states are grouped by.
const stateParts = datar.GroupFlag | datar.GroupOutcome | datar.GroupVariant | datar.GroupSegment | datar.GroupVersion | datar.GroupAsked

// State returns a flag's state and whether the flag can be deleted. lately is 1 to 365 days; nil
// means 30.
func (s *Service) State(ctx context.Context, flagID int64, lately *int64) (*State, error) {
	n, err := days(lately)
	if err != nil {
		return nil, err
	}
	flag, err := s.live(ctx, flagID)
	if err != nil {
		return nil, err
	}
	sp, err := s.latelySpan(ctx, n)
	if err != nil {
		return nil, err
	}
	of, err := s.subject(ctx, flagID, sp.all)
	if err != nil {
		return nil, err
	}
	rows, err := s.details(ctx, flagID, sp.detailed, stateParts)
	if err != nil {
		return nil, err
	}
	earlier, asked, err := s.everAsked(ctx, flagID, rows, sp)
	if err != nil {
		return nil, err
	}
	state := StateOf(&StateInput{Flag: flag, Days: n, Now: sp.all.now, Rows: rows, DetailsFrom: sp.detailsFrom(), EverAsked: asked, LastAsked: earlier.last,
		Earlier: earlier.lately, History: of.history, Timeline: of.timeline, Complete: of.complete, Refresh: s.o.Refresh})
	state.Complete = of.complete
	return state, nil
}

// latelySpan is the span of the last days.
type latelySpan struct {
	all span
	// detailed is the part of all with details.
	detailed span
}

// isShort reports whether the details of the first of the last days are deleted.
func (l *latelySpan) isShort() bool { return l.detailed.first > l.all.first }

// detailsFrom returns the start of the details if it is within the last days, otherwise zero.
func (l *latelySpan) detailsFrom() time.Time {
	if !l.isShort() {
		return time.Time{}
	}
	return l.detailed.from
}

// earlierDays returns the whole UTC days among the last days without details. There may be none.
func (l *latelySpan) earlierDays() (first, end datar.Hour) {
	first = l.all.first.DayStart()
	if first < l.all.first {
		first += 24
	}
	return first, l.detailed.first
}

func (s *Service) latelySpan(ctx context.Context, days int) (latelySpan, error) {
	from := s.o.Now().Add(-time.Duration(days) * day)
	sp, err := s.span(Window{From: &from})
	if err != nil {
		return latelySpan{}, err
	}
	kept, err := s.o.Counts.DetailedFrom(ctx)
	if err != nil {
		return latelySpan{}, fmt.Errorf("look up the oldest details: %w", err)
	}
	lately := latelySpan{all: sp, detailed: sp}
	if sp.first < kept {
		lately.detailed.first, lately.detailed.from = kept, kept.Time()
	}
	return lately, nil
}

// earlierAsked describes requests for a flag before the details of the last days.
type earlierAsked struct {
	// last is the time of the last request, zero if unknown.
	last time.Time
	// lately is the number of requests on earlierDays, as far as totals of days contain them.
	lately int64
}

// everAsked returns when a flag was last requested. rows are the detailed counts of the last days.
func (s *Service) everAsked(ctx context.Context, flagID int64, rows []datar.Row, sp latelySpan) (e earlierAsked, asked bool, err error) {
	if first, end := sp.earlierDays(); sp.isShort() && first < end {
		totals, err := s.totalsByFlag(ctx, datar.TotalsQuery{From: first, To: end, FlagID: flagID})
		if err != nil {
			return e, false, err
		}
		for _, t := range totals {
			e.lately += t.Count
		}
	}
	if e.last, asked = lastOf(rows); asked {
		return e, true, nil
	}
	older, err := s.details(ctx, flagID, span{first: 0, last: sp.detailed.first}, datar.GroupFlag)
	if err != nil {
		return e, false, err
	}
	if e.last, asked = lastOf(older); asked {
		return e, true, nil
	}
	totals, err := s.totalsByFlag(ctx, datar.TotalsQuery{From: 0, To: sp.all.last, FlagID: flagID})
	if err != nil {
		return e, false, err
	}
	for _, t := range totals {
		asked, e.last = true, later(e.last, milli(t.Last))
	}
	return e, asked, nil
}

func (s *Service) totalsByFlag(ctx context.Context, q datar.TotalsQuery) ([]datar.Total, error) {
	q.GroupBy = datar.ByFlag
	totals, err := s.o.Counts.Totals(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("add up all counts: %w", err)
	}
	return totals, nil
}

func lastOf(rows []datar.Row) (last time.Time, asked bool) {
	for i := range rows {
		asked, last = true, later(last, milli(rows[i].Last))
	}
	return last, asked
}

// StatesQuery selects flags. Empty fields do not narrow the list.
type StatesQuery struct {
	// States are names of states. A flag must be in one of them.
	States []string
	Stale  *bool
	// CanDelete is yes, no or unknown.
	CanDelete string
	// Q is searched in ID, key, description and tags, ignoring case. A flag must match all
	// comma-separated terms.
	Q string
	// Tags are values of tags. A flag must have one of them.
	Tags    []string
	Enabled *bool
	// Sort is traffic, last, key or updated. Empty means traffic.
	Sort string
	// Days is the number of days that count as lately.
	Days          *int64
	Limit, Offset *int64
}

// States is a page of flags and their states.
type States struct {
	Days int
	// Total is the number of selected flags. Flags is a page of them.
	Total int
	Flags []FlagState
	// ByState maps each state to the number of flags in it, selected or not.
	ByState  map[StateName]int
	Complete *Complete
	// Preparing is the progress of adding up old counts if they are needed and not all added up.
	// Then the states of some or all flags are empty, and only AllStates returns a list. If
	// Complete is nil, nothing is added up yet and Flags is empty.
	Preparing *datar.RollupProgress
	// CountsFrom is when the counts of flags begin, if older ones are not added up yet. Zero means
	// that counts of all Days are included.
	CountsFrom time.Time
}

// FlagState is a flag with its state and traffic.
type FlagState struct {
	*State
	Flag *entity.Flag
	// Total is the number of evaluations lately, of which details are kept.
	Total int64
	// Findings is the number of findings about the current version and about counts. Contradictions
	// and Warnings are the numbers of findings with these severities.
	Findings, Contradictions, Warnings int
	// Holes are the periods lately in which this flag was not counted although it had been counted
	// before, oldest first. Holes of all flags are in States.Complete.
	Holes []Hole
	// Given are the evaluations lately by variant, in the order of the variants' IDs. VariantID 0
	// stands for evaluations without a variant.
	Given []VariantOutcome
	// Spark contains the evaluations of each of the last 28 UTC days, oldest first.
	Spark []int64
}

// States lists flags that are not deleted.
func (s *Service) States(ctx context.Context, q StatesQuery) (*States, error) {
	n, err := days(q.Days)
	if err != nil {
		return nil, err
	}
	limit, offset, err := page(q.Limit, q.Offset, datar.DefaultLimit, datar.MaxLimit)
	if err != nil {
		return nil, err
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	all, err := s.allStates(ctx, n)
	if err != nil {
		return nil, err
	}
	if all.preparing != nil {
		return nil, (*datar.PreparingError)(all.preparing)
	}
	list := &States{Days: n, ByState: make(map[StateName]int, len(StateNames())), Flags: []FlagState{}, Complete: all.complete}
	for _, name := range StateNames() {
		list.ByState[name] = 0
	}
	search := NewSearch(q.Q)
	var selected []*FlagState
	for _, flag := range all.flags {
		in := all.input(flag)
		in.WithoutTexts = true
		f := &FlagState{State: StateOf(in), Flag: flag, Total: sum(in.Rows)}
		list.ByState[f.State.State]++
		if q.selects(f, search) {
			selected = append(selected, f)
		}
	}
	slices.SortStableFunc(selected, q.compare)
	list.Total = len(selected)
	selected = selected[min(offset, len(selected)):]
	selected = selected[:min(limit, len(selected))]
	texts := 0
	for _, f := range selected {
		texts += len(f.Flag.Description)
	}
	if err := ReserveTexts(ctx, texts); err != nil {
		return nil, err
	}
	for _, f := range selected {
		list.Flags = append(list.Flags, all.describe(f.Flag))
	}
	return list, s.sparks(ctx, list.Flags, all.today)
}

// ReserveTexts takes the memory that a response with texts of that many bytes needs, from what
// requests share. The error is budget.ErrExhausted.
func ReserveTexts(ctx context.Context, bytes int) error {
	const perByte = 6 // two, if it is escaped, in a buffer that doubles
	if bytes <= budget.LargeBytes {
		return nil
	}
	return budget.Add(ctx, int64(bytes)*perByte)
}

func (q *StatesQuery) check() error {
	names := StateNames()
	for _, state := range q.States {
		if !slices.Contains(names, StateName(state)) {
			return invalid("state is %q, want one of %s", cut(state), joinedNames(names))
		}
	}
	if !slices.Contains([]string{"", string(AnswerYes), string(AnswerNo), string(AnswerUnknown)}, q.CanDelete) {
		return invalid("canDelete is %q, want yes, no or unknown", cut(q.CanDelete))
	}
	if err := CheckSearch(q.Q); err != nil {
		return err
	}
	if !slices.Contains([]string{"", "traffic", "last", "key", "updated"}, q.Sort) {
		return invalid("sort is %q, want traffic, last, key or updated", cut(q.Sort))
	}
	return nil
}

func joinedNames(names []StateName) string {
	texts := make([]string, len(names))
	for i, n := range names {
		texts[i] = string(n)
	}
	return strings.Join(texts, ", ")
}

func (q *StatesQuery) selects(f *FlagState, search Search) bool {
	hasTag := func(t entity.Tag) bool { return slices.Contains(q.Tags, t.Value) }
	switch {
	case len(q.States) > 0 && !slices.Contains(q.States, string(f.State.State)):
	case q.Stale != nil && *q.Stale != f.Stale:
	case q.CanDelete != "" && q.CanDelete != string(f.CanDelete.Answer):
	case q.Enabled != nil && *q.Enabled != f.Flag.Enabled:
	case len(q.Tags) > 0 && !slices.ContainsFunc(f.Flag.Tags, hasTag):
	default:
		return search.Matches(f.Flag)
	}
	return false
}

func (q *StatesQuery) compare(a, b *FlagState) int {
	byID := cmp.Compare(a.Flag.ID, b.Flag.ID)
	switch q.Sort {
	case "key":
		return cmp.Or(cmp.Compare(strings.ToLower(a.Flag.Key), strings.ToLower(b.Flag.Key)), byID)
	case "updated":
		return cmp.Or(b.Flag.UpdatedAt.Compare(a.Flag.UpdatedAt), byID)
	case "last":
		return cmp.Or(b.Evidence.Last.Compare(a.Evidence.Last), byID)
	default:
		return cmp.Or(cmp.Compare(b.Total, a.Total), byID)
	}
}

// today contains the counts since the last midnight UTC.
type today struct {
	start datar.Hour
	rows  []datar.Row
}

// stateRows reads the counts of the last days. The counts of today change with every flush, so they
// are read separately and reused for sparklines, unless there are no others: then today is nil.
func (s *Service) stateRows(ctx context.Context, sp span) ([]datar.Row, *today, error) {
	start := datar.HourOf(sp.now).DayStart()
	if sp.first > start || sp.last <= start {
		rows, err := s.details(ctx, 0, sp, stateParts)
		return rows, nil, err
	}
	rows, err := s.details(ctx, 0, span{first: sp.first, last: start}, stateParts)
	if err != nil {
		return nil, nil, err
	}
	recent, err := s.details(ctx, 0, span{first: start, last: sp.last}, stateParts)
	if err != nil {
		return nil, nil, err
	}
	return rows, &today{start, recent}, nil
}

// listing contains all that the states of all flags are concluded from.
type listing struct {
	flags     []*entity.Flag
	rows      []datar.Row // without those of today
	today     *today      // nil if all rows are in rows
	histories map[int64]cachedHistory
	layouts   map[int64]cachedLayout
	ever      map[int64]earlierAsked // nil if all details are kept and all flags were requested in the last days
	preparing *datar.RollupProgress  // set if ever is unknown because old counts are being added up
	complete  *Complete
	days      int
	span      latelySpan
	refresh   time.Duration

	own []datar.Row // memory of rowsOf
}

// allStates reads the counts of all flags that evaluation uses.
func (s *Service) allStates(ctx context.Context, days int) (*listing, error) {
	sp, err := s.latelySpan(ctx, days)
	if err != nil {
		return nil, err
	}
	l := &listing{flags: s.o.Snapshots.Snapshot().Listed(), days: days, span: sp, refresh: s.o.Refresh}
	s.o.Counts.Refresh(ctx)
	if l.rows, l.today, err = s.stateRows(ctx, sp.detailed); err != nil {
		return nil, err
	}
	if l.histories, err = s.histories(ctx, l.flags, sp.all.now); err != nil {
		return nil, err
	}
	if sp.isShort() || slices.ContainsFunc(l.flags, l.isUnasked) {
		l.ever, err = s.ever(ctx, sp)
		if preparing, ok := errors.AsType[*datar.PreparingError](err); ok {
			l.preparing = (*datar.RollupProgress)(preparing)
		} else if err != nil {
			return nil, err
		}
	}
	servers, err := s.o.Counts.Servers(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the records of servers: %w", err)
	}
	l.layouts = s.layoutsOf(l.flags)
	l.complete = CompleteOf(&CompleteInput{From: sp.all.from, To: sp.all.now, Now: sp.all.now, Servers: servers})
	return l, nil
}

// isUnasked reports whether a flag was not requested in the last days.
func (l *listing) isUnasked(f *entity.Flag) bool {
	id := int64(f.ID)
	return len(rowsOf(l.rows, id)) == 0 && (l.today == nil || len(rowsOf(l.today.rows, id)) == 0)
}

// rowsOf returns the counts of a flag, which are valid until the next call.
func (l *listing) rowsOf(flagID int64) []datar.Row {
	rows := rowsOf(l.rows, flagID)
	if l.today == nil {
		return rows
	}
	l.own = datar.AppendMergedRows(l.own[:0], rows, rowsOf(l.today.rows, flagID))
	return l.own
}

// input returns what the state of a flag is concluded from. Its rows are valid until the next call.
func (l *listing) input(f *entity.Flag) *StateInput {
	id := int64(f.ID)
	rows, history := l.rowsOf(id), l.histories[id]
	last, asked := lastOf(rows)
	earlier, askedEarlier := l.ever[id]
	if !asked {
		last, asked = earlier.last, askedEarlier
	}
	complete := *l.complete
	complete.Since = since(complete.Since, history.history.Records)
	return &StateInput{Flag: f, Layout: l.layouts[id].layout, Days: l.days, Now: l.span.all.now, Rows: rows, DetailsFrom: l.span.detailsFrom(),
		EverAsked: asked, LastAsked: last, Earlier: earlier.lately, History: history.history, Timeline: history.timeline, Complete: &complete, Refresh: l.refresh}
}

// describe returns all that a list contains about a flag, except its spark.
func (l *listing) describe(f *entity.Flag) FlagState {
	in := l.input(f)
	described := FlagState{State: StateOf(in), Flag: f, Total: sum(in.Rows), Given: givenOf(f, in.Rows)}
	described.Holes = recordHoles(sinceFirstOn(in.History.Records), l.span.all.from, l.span.all.now)
	described.countFindings(in.Rows, in.Layout, in.Timeline, l.span.detailed, l.refresh)
	return described
}

// givenOf adds up the rows of a flag by variant.
func givenOf(f *entity.Flag, rows []datar.Row) []VariantOutcome {
	var given []VariantOutcome
	for i := range rows {
		id := rows[i].VariantID
		at := slices.IndexFunc(given, func(g VariantOutcome) bool { return g.VariantID == id })
		if at < 0 {
			at = len(given)
			given = append(given, VariantOutcome{VariantID: id})
		}
		given[at].Count += rows[i].Count
	}
	for i := range given {
		for j := range f.Variants {
			if int64(f.Variants[j].ID) == given[i].VariantID {
				given[i].VariantKey = f.Variants[j].Key
			}
		}
	}
	slices.SortFunc(given, func(a, b VariantOutcome) int { return cmp.Compare(a.VariantID, b.VariantID) })
	return given
}

// rowsOf returns the rows of one flag. rows are in the order of flags.
func rowsOf(rows []datar.Row, flagID int64) []datar.Row {
	first := sort.Search(len(rows), func(i int) bool { return rows[i].FlagID >= flagID }) // slices.BinarySearchFunc would copy rows
	last := first
	for last < len(rows) && rows[last].FlagID == flagID {
		last++
	}
	return rows[first:last]
}

// countFindings applies the rules that need only the current version of the flag.
func (f *FlagState) countFindings(rows []datar.Row, layout *eval.Layout, t Timeline, sp span, refresh time.Duration) {
	id := int64(f.Flag.SnapshotID)
	if len(t) == 0 {
		return
	}
	found := newestFindings(&RolloutInput{FlagID: int64(f.Flag.ID), From: later(t[len(t)-1].From, sp.from), To: sp.now, Timeline: t,
		Flags: map[int64]*entity.Flag{id: f.Flag}, Layouts: map[int64]*eval.Layout{id: layout}, Rows: rows, Hourly: rows, Refresh: refresh})
	f.Findings = len(found)
	for i := range found {
		switch found[i].Severity {
		case Contradiction:
			f.Contradictions++
		case Warning:
			f.Warnings++
		case Note: // needs no action
		}
	}
}

// histories returns the histories of all flags. It computes those of flags that have changed since
// the last call.
func (s *Service) histories(ctx context.Context, flags []*entity.Flag, now time.Time) (map[int64]cachedHistory, error) {
	histories, missing := s.keptHistories(flags)
	if len(missing) > 0 {
		done, err := s.cache.read(ctx, allFlags)
		if err != nil {
			return nil, err
		}
		defer done()
		histories, missing = s.keptHistories(flags) // another request may have read them
	}
	const flagsAtATime = 200
	for chunk := range slices.Chunk(missing, flagsAtATime) {
		heads, err := s.o.Flags.HeadsOfFlags(ctx, chunk)
		if err != nil {
			return nil, err
		}
		lists := map[int64][]Head{}
		for _, h := range heads {
			lists[int64(h.FlagID)] = append(lists[int64(h.FlagID)], Head{int64(h.ID), h.CreatedAt})
		}
		timelines := make(map[int64]Timeline, len(chunk))
		for _, id := range chunk {
			list := lists[id]
			timelines[id] = NewTimeline(list[max(0, len(list)-maxHeads):])
		}
		read, err := s.readHistories(ctx, chunk, timelines, now)
		if err != nil {
			return nil, err
		}
		maps.Copy(histories, read)
	}
	return histories, nil
}

// keptHistories returns the cached histories of flags, and the IDs of the flags that lack one.
func (s *Service) keptHistories(flags []*entity.Flag) (histories map[int64]cachedHistory, missing []int64) {
	histories = make(map[int64]cachedHistory, len(flags))
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	for _, f := range flags {
		if h, ok := s.cache.mu.histories[int64(f.ID)]; ok && h.snapshotID >= int64(f.SnapshotID) {
			histories[int64(f.ID)] = h
			continue
		}
		missing = append(missing, int64(f.ID))
	}
	return histories, missing
}

// ever returns which flags were requested before the details of the last days.
func (s *Service) ever(ctx context.Context, sp latelySpan) (map[int64]earlierAsked, error) {
	detailed := sp.detailed.first
	s.cache.mu.Lock()
	age := sp.all.now.Sub(s.cache.mu.everAt)
	kept, same := s.cache.mu.ever, s.cache.mu.everFrom == sp.all.first && s.cache.mu.everTo == detailed
	s.cache.mu.Unlock()
	if kept != nil && same && age >= 0 && age < everTTL {
		return kept, nil
	}
	ever := map[int64]earlierAsked{}
	if detailed == 0 {
		return ever, nil
	}
	totals, err := s.totalsByFlag(ctx, datar.TotalsQuery{From: 0, To: detailed})
	if err != nil {
		return nil, err
	}
	for _, t := range totals {
		ever[t.FlagID] = earlierAsked{last: milli(t.Last)}
	}
	if first, end := sp.earlierDays(); sp.isShort() && first < end {
		if totals, err = s.totalsByFlag(ctx, datar.TotalsQuery{From: first, To: end}); err != nil {
			return nil, err
		}
		for _, t := range totals {
			ever[t.FlagID] = earlierAsked{last: ever[t.FlagID].last, lately: t.Count}
		}
	}
	rows, err := s.details(ctx, 0, span{first: 0, last: detailed}, datar.GroupFlag)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		e := ever[rows[i].FlagID]
		e.last = later(e.last, milli(rows[i].Last))
		ever[rows[i].FlagID] = e
	}
	s.cache.mu.Lock()
	s.cache.mu.ever, s.cache.mu.everFrom, s.cache.mu.everTo, s.cache.mu.everAt = ever, sp.all.first, detailed, sp.all.now
	s.cache.mu.Unlock()
	return ever, nil
}

// sparks sets the counts of the last days. The counts of today are in recent, unless it is nil.
func (s *Service) sparks(ctx context.Context, flags []FlagState, recent *today) error {
	if len(flags) == 0 {
		return nil
	}
	now := s.o.Now()
	last, end := datar.HourOf(now).DayStart(), datar.HourOf(now)+1
	if recent != nil {
		last, end = recent.start, recent.start
	}
	first := last - (sparkDays-1)*24
	rows, err := s.details(ctx, 0, span{first: max(0, first), last: end}, datar.GroupFlag|datar.GroupDay)
	if err != nil {
		return err
	}
	for i := range flags {
		f := &flags[i]
		f.Spark = make([]int64, sparkDays)
		for _, r := range rowsOf(rows, int64(f.Flag.ID)) {
			f.Spark[(r.Hour-first)/24] += r.Count
		}
		if recent != nil {
			f.Spark[sparkDays-1] += sum(rowsOf(recent.rows, int64(f.Flag.ID)))
		}
	}
	return nil
}

// Table has one row for each flag.
func (s *States) Table() *Table {
	return tableOf([]string{"flagID", "flagKey", "description", "enabled", "tags", "state", "stale", "reason", "canDelete", "total", "lastAt", "findings", "changedAt"}, func(add func(cells ...string)) {
		for i := range s.Flags {
			f := &s.Flags[i]
			add(number(f.FlagID), f.FlagKey, f.Flag.Description, fmt.Sprint(f.Flag.Enabled), tagsText(f.Flag.Tags), string(f.State.State), fmt.Sprint(f.Stale), f.Reason,
				string(f.CanDelete.Answer), number(f.Total), timeText(f.Evidence.Last), fmt.Sprint(f.Findings), timeText(f.Evidence.ChangedAt))
		}
	})
}
