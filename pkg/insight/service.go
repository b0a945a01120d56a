package insight

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

const (
	// maxHeads is the maximum number of a flag's newest snapshots that are read.
	maxHeads = 10_000
	// maxNamed is the maximum number of snapshots that are searched for the names of deleted parts.
	maxNamed = 100
	// snapshotPage is the number of snapshots that are read at a time.
	snapshotPage = 20
)

// Counts reads the counts of evaluations.
type Counts interface {
	// Refresh stores the counts of this server, so that the other methods see them. It waits at
	// most a second.
	Refresh(ctx context.Context)
	Details(ctx context.Context, q datar.DetailsQuery) ([]datar.Row, error)
	DetailedFrom(ctx context.Context) (datar.Hour, error)
	Unknown(ctx context.Context, q datar.UnknownQuery) ([]datar.UnknownRow, error)
	Servers(ctx context.Context) ([]datar.ServerRecord, error)
	Totals(ctx context.Context, q datar.TotalsQuery) ([]datar.Total, error)
}

// Flags reads flags and their snapshots. Errors match entity.ErrNotFound for a flag that does not
// exist.
type Flags interface {
	// AnyFlag reads a flag with all its parts, even if it is deleted. Its variants may have no
	// attachments.
	AnyFlag(ctx context.Context, id int64) (*entity.Flag, error)
	// SnapshotHeads lists at most limit snapshots of a flag, newest first.
	SnapshotHeads(ctx context.Context, flagID int64, limit int) ([]entity.SnapshotHead, error)
	// HeadsOfFlags lists all snapshots of some flags, in the order of their IDs.
	HeadsOfFlags(ctx context.Context, flagIDs []int64) ([]entity.SnapshotHead, error)
	// SnapshotsByID reads snapshots in the order of their IDs.
	SnapshotsByID(ctx context.Context, ids []int64) ([]entity.FlagSnapshot, error)
	// EachSnapshot calls each with snapshots in the order of the given IDs. It reads a limited
	// number of bytes at a time, and each must not retain the row.
	EachSnapshot(ctx context.Context, ids []int64, each func(*entity.FlagSnapshot)) error
	// DeletedAmong returns the deleted flags that have one of the keys or IDs.
	DeletedAmong(ctx context.Context, keys []string, ids []int64) ([]entity.Flag, error)
}

// Options are the dependencies and settings of a Service.
type Options struct {
	// Counts is nil when Datar is off. Then only Changes and Trial work.
	Counts Counts
	// Flags is mandatory.
	Flags Flags
	// Snapshots provides the flags that evaluation uses. Mandatory.
	Snapshots eval.Source
	// Sampler is nil if no evaluations are sampled.
	Sampler *Sampler
	// CountsAll is the time from which flags are counted even if their records are off. Zero means
	// that only flags with records on are counted.
	CountsAll time.Time
	// Refresh is the interval at which servers check for changes of flags.
	Refresh time.Duration
	// Trials bounds Trial. Its Turns also limit how many large Forecasts are computed at once.
	Trials TrialLimits
	// Now is the clock. Mandatory.
	Now func() time.Time
}

// Service answers questions about flags. Its errors match datar.ErrInvalidQuery and
// entity.ErrInvalid for bad input, and name the parameter and what is accepted. They match
// entity.ErrNotFound for a flag that does not exist.
type Service struct {
	o     Options
	cache cache
}

// NewService returns a Service.
func NewService(o Options) *Service { return &Service{o: o} }

// HasCounts reports whether there are counts. Without counts, only Changes and Trial
// work.
func (s *Service) HasCounts() bool { return s.o.Counts != nil }

// Window is a time range, extended to whole UTC hours. A nil From means 7 days ago, and a nil To
// means now.
type Window struct{ From, To *time.Time }

// span is a Window in whole hours.
type span struct {
	first, last datar.Hour // last is exclusive
	from, to    time.Time
	now         time.Time
}

func (s *Service) span(w Window) (span, error) {
	now := s.o.Now().UTC()
	first, last, err := datar.Window(w.From, w.To, now)
	if err != nil {
		return span{}, err
	}
	return span{first: first, last: last, from: first.Time(), to: last.Time(), now: now}, nil
}

// detailed returns the span of a request that needs details. Old windows have no details.
func (s *Service) detailed(ctx context.Context, w Window) (span, error) {
	sp, err := s.span(w)
	if err != nil {
		return sp, err
	}
	kept, err := s.o.Counts.DetailedFrom(ctx)
	if err != nil {
		return sp, fmt.Errorf("look up the oldest details: %w", err)
	}
	if sp.first < kept && sp.first < sp.last {
		return sp, invalidWindow("api.window.kept", "from", sp.from.Format(time.RFC3339), "kept", kept.Time().Format(time.RFC3339))
	}
	return sp, nil
}

// details reads rows of a flag, or of all flags if flagID is 0.
func (s *Service) details(ctx context.Context, flagID int64, sp span, by datar.Parts) ([]datar.Row, error) {
	if sp.first >= sp.last {
		return nil, nil
	}
	rows, err := s.o.Counts.Details(ctx, datar.DetailsQuery{From: sp.first, To: sp.last, FlagID: flagID, GroupBy: by})
	if err != nil {
		return nil, fmt.Errorf("add up details: %w", err)
	}
	if size := len(rows) * bytesPerRow; size > budget.LargeBytes {
		if err := budget.AtLeast(ctx, int64(size)); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// timeline reads the versions of a flag and when each was the newest.
func (s *Service) timeline(ctx context.Context, flagID int64) (Timeline, error) {
	heads, err := s.o.Flags.SnapshotHeads(ctx, flagID, maxHeads)
	if err != nil {
		return nil, err
	}
	list := make([]Head, len(heads))
	for i, h := range heads {
		list[len(heads)-1-i] = Head{int64(h.ID), h.CreatedAt}
	}
	return NewTimeline(list), nil
}

const (
	// bytesPerRow is the memory of a row of counts in a list that grows.
	bytesPerRow = 160
	// bytesPerCount is the memory of a count of a series, and of its text in the response.
	bytesPerCount = 24
)

// bytesPerKeptByte is the memory of a decoded flag for each byte of its JSON.
const bytesPerKeptByte = 3

// flagsAt reads the flag as it was in some snapshots, by their IDs. It skips invalid snapshots. The
// flags take memory of the request until it ends.
func (s *Service) flagsAt(ctx context.Context, ids []int64) (map[int64]*entity.Flag, error) {
	flags := make(map[int64]*entity.Flag, len(ids))
	size, taken := 0, 0 // bytes of JSON
	for chunk := range slices.Chunk(ids, snapshotPage) {
		n, err := s.readFlags(ctx, chunk, flags)
		if err != nil {
			return nil, err
		}
		if size += n; size > budget.LargeBytes {
			if err := budget.Add(ctx, int64(size-taken)*bytesPerKeptByte); err != nil {
				return nil, err
			}
			taken = size
		}
	}
	return flags, nil
}

// readFlags adds the flag as it was in at most snapshotPage snapshots, and returns the bytes of
// their JSON.
func (s *Service) readFlags(ctx context.Context, ids []int64, flags map[int64]*entity.Flag) (size int, err error) {
	rows, err := s.o.Flags.SnapshotsByID(ctx, ids)
	if err != nil {
		return 0, err
	}
	for i := range rows {
		if snapshot := parseBare(&rows[i]); snapshot.Flag != nil {
			flags[snapshot.ID] = snapshot.Flag
			size += len(rows[i].Flag)
		}
	}
	return size, nil
}

// names returns the names of all parts in the rows. Names of deleted parts come from the newest
// snapshot that contains them.
func (s *Service) names(ctx context.Context, flag *entity.Flag, t Timeline, rows []datar.Row) (*Names, error) {
	names := NewNames(flag)
	for end := len(t); end > 0 && len(t)-end < maxNamed && !names.Complete(rows); end -= snapshotPage {
		var ids []int64
		for _, v := range t[max(0, end-snapshotPage):end] {
			ids = append(ids, v.SnapshotID)
		}
		flags := map[int64]*entity.Flag{} // not kept
		if _, err := s.readFlags(ctx, ids, flags); err != nil {
			return nil, err
		}
		for _, id := range slices.Backward(ids) {
			names.Add(flags[id])
		}
	}
	return names, nil
}

// complete returns the completeness of a window. records are those of the flag, or empty for a
// response about all flags.
func (s *Service) complete(ctx context.Context, sp span, records []Period) (*Complete, error) {
	servers, err := s.o.Counts.Servers(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the records of servers: %w", err)
	}
	return CompleteOf(&CompleteInput{From: sp.from, To: earlier(sp.to, sp.now), Now: sp.now, Servers: servers, Records: records}), nil
}

// CompleteOfFlag returns the completeness of the counts of one flag within a window. It does not
// call Refresh, because the counts were read just before.
func (s *Service) CompleteOfFlag(ctx context.Context, flagID int64, w Window) (*Complete, error) {
	sp, err := s.span(w)
	if err != nil {
		return nil, err
	}
	of, err := s.uncounted(ctx, flagID, sp)
	if err != nil {
		return nil, err
	}
	return s.complete(ctx, sp, of.history.Records)
}

// subject is a flag with the data that most methods need.
type subject struct {
	flag     *entity.Flag
	timeline Timeline
	history  History
	complete *Complete
}

func (s *Service) subject(ctx context.Context, flagID int64, sp span) (*subject, error) {
	of, err := s.uncounted(ctx, flagID, sp)
	if err != nil {
		return nil, err
	}
	s.o.Counts.Refresh(ctx)
	if of.complete, err = s.complete(ctx, sp, of.history.Records); err != nil {
		return nil, err
	}
	return of, nil
}

// uncounted returns a subject without complete.
func (s *Service) uncounted(ctx context.Context, flagID int64, sp span) (*subject, error) {
	flag, err := s.o.Flags.AnyFlag(ctx, flagID)
	if err != nil {
		return nil, err
	}
	timeline, err := s.timeline(ctx, flagID)
	if err != nil {
		return nil, err
	}
	history, err := s.historyOf(ctx, flagID, timeline, sp.now)
	if err != nil {
		return nil, err
	}
	return &subject{flag: flag, timeline: timeline, history: history}, nil
}

// Outcomes returns the outcomes of a flag's evaluations.
func (s *Service) Outcomes(ctx context.Context, flagID int64, w Window) (*Outcomes, error) {
	sp, err := s.detailed(ctx, w)
	if err != nil {
		return nil, err
	}
	of, err := s.subject(ctx, flagID, sp)
	if err != nil {
		return nil, err
	}
	rows, err := s.details(ctx, flagID, sp, datar.GroupOutcome|datar.GroupVariant|datar.GroupSegment|datar.GroupAsked)
	if err != nil {
		return nil, err
	}
	names, err := s.names(ctx, of.flag, of.timeline, rows)
	if err != nil {
		return nil, err
	}
	o := OutcomesOf(of.flag, names, sp.from, sp.to, rows)
	o.Complete = of.complete
	return o, nil
}

// Reasons returns which constraints stopped evaluations that matched no segment, from a sample of
// this server.
func (s *Service) Reasons(ctx context.Context, flagID int64, w Window) (*Reasons, error) {
	sp, err := s.detailed(ctx, w)
	if err != nil {
		return nil, err
	}
	of, err := s.subject(ctx, flagID, sp)
	if err != nil {
		return nil, err
	}
	rows, err := s.details(ctx, flagID, sp, datar.GroupOutcome)
	if err != nil {
		return nil, err
	}
	r := &Reasons{FlagID: flagID, From: sp.from, To: sp.to, Segments: []SegmentReasons{}}
	if s.o.Sampler != nil {
		r = s.o.Sampler.Reasons(flagID, of.flag, sp.first, sp.last)
	}
	for i := range rows {
		if rows[i].Outcome == datar.NoMatch {
			r.Of += rows[i].Count
		}
	}
	r.Complete = of.complete
	return r, nil
}

// SeriesQuery selects what a Series shows. Empty fields select defaults.
type SeriesQuery struct {
	Window
	// Bucket is hour, day or week. By is outcome, variant, segment or version. Compare is previous,
	// week or an RFC 3339 time.
	Bucket, Zone, By, Compare string
}

// Series returns the traffic of a flag over time.
func (s *Service) Series(ctx context.Context, flagID int64, q SeriesQuery) (*Series, error) {
	sp, err := s.span(q.Window)
	if err != nil {
		return nil, err
	}
	zone, err := LoadZone(q.Zone)
	if err != nil {
		return nil, err
	}
	unit, err := ParseUnit(q.Bucket, sp.from, sp.to)
	if err != nil {
		return nil, err
	}
	by, err := ParseBy(q.By)
	if err != nil {
		return nil, err
	}
	c := Calendar{unit, zone}
	window, compared, err := c.Windows(sp.first, sp.last, q.Compare, sp.now)
	if err != nil {
		return nil, err
	}
	kept, err := s.o.Counts.DetailedFrom(ctx)
	if err != nil {
		return nil, fmt.Errorf("look up the oldest details: %w", err)
	}
	var missing catalog.Message
	utcDays := sp.first < kept && sp.first < sp.last
	if utcDays {
		if c, by = (Calendar{unit, time.UTC}), ByTotal; unit == UnitHour {
			c.Unit = UnitDay
		}
		sp.first = sp.first.DayStart()
		if sp.last != sp.last.DayStart() {
			sp.last = (sp.last + 24).DayStart()
		}
		sp.from, sp.to = sp.first.Time(), sp.last.Time()
		if window, compared, err = c.Windows(sp.first, sp.last, q.Compare, sp.now); err != nil {
			return nil, err
		}
	} else if compared != nil && compared.From < kept {
		missing = catalog.Say("api.series.compared", "from", compared.From.Time().Format(time.RFC3339), "kept", kept.Time().Format(time.RFC3339))
		compared = nil
	}
	of, err := s.subject(ctx, flagID, sp)
	if err != nil {
		return nil, err
	}
	series := &Series{FlagID: flagID, Unit: c.Unit, Zone: c.Zone, By: by, UTCDays: utcDays, ComparisonMissing: missing, Complete: of.complete}
	if series.Buckets, err = s.fill(ctx, of, series, &window, of.complete.Holes, sp.now); err != nil {
		return nil, err
	}
	if compared != nil {
		comparedSpan := span{compared.From, compared.To, compared.From.Time(), compared.To.Time(), sp.now}
		complete, err := s.complete(ctx, comparedSpan, of.history.Records)
		if err != nil {
			return nil, err
		}
		comparison, err := s.fill(ctx, of, series, compared, complete.Holes, sp.now)
		if err != nil {
			return nil, err
		}
		series.Comparison = &comparison
	}
	if series.Changes, err = s.changesWithin(ctx, of.timeline, sp.from, sp.to); err != nil {
		return nil, err
	}
	return series, nil
}

// fill reads the counts of a window of a series. They take memory of the request until it ends.
func (s *Service) fill(ctx context.Context, of *subject, series *Series, w *SeriesWindow, holes []Hole, now time.Time) (Buckets, error) {
	rows, err := s.seriesRows(ctx, series.FlagID, w, series.By, series.UTCDays)
	if err != nil {
		return Buckets{}, err
	}
	names, err := s.names(ctx, of.flag, of.timeline, rows)
	if err != nil {
		return Buckets{}, err
	}
	b, err := w.Fill(series.Zone, series.By, rows, of.timeline, names, now, holes)
	if size := len(b.Lines) * len(b.Starts) * bytesPerCount; err == nil && size > budget.LargeBytes {
		err = budget.Add(ctx, int64(size))
	}
	return b, err
}

// seriesRows reads the counts of a window, by day if that is enough, otherwise by hour.
func (s *Service) seriesRows(ctx context.Context, flagID int64, w *SeriesWindow, by By, utcDays bool) ([]datar.Row, error) {
	if w.From >= w.To {
		return nil, nil
	}
	if utcDays {
		totals, err := s.o.Counts.Totals(ctx, datar.TotalsQuery{From: w.From, To: w.To, FlagID: flagID, GroupBy: datar.ByDay})
		if err != nil {
			return nil, fmt.Errorf("add up days: %w", err)
		}
		rows := make([]datar.Row, len(totals))
		for i, t := range totals {
			rows[i] = datar.Row{Key: datar.Key{FlagID: flagID, Hour: t.Day}, Count: t.Count, Ingested: t.Ingested, Last: t.Last}
		}
		return rows, nil
	}
	parts := by.parts() | datar.GroupHour
	if w.IsWholeDays() {
		parts = by.parts() | datar.GroupDay
	}
	return s.details(ctx, flagID, span{first: w.From, last: w.To}, parts)
}

// maxSeriesChanges is the maximum number of changes in a series. It contains the newest ones.
const maxSeriesChanges = 100

// changesWithin lists the changes of a window, newest first.
func (s *Service) changesWithin(ctx context.Context, t Timeline, from, to time.Time) ([]Change, error) {
	last := t.At(to.Add(-time.Nanosecond))
	first := last
	for first >= 0 && !t[first].From.Before(from) && last-first < maxSeriesChanges {
		first--
	}
	if last < 0 || first == last {
		return []Change{}, nil
	}
	return s.changesOf(ctx, t, first+1, last+1)
}

// changesOf lists the changes of a part of a timeline, newest first.
func (s *Service) changesOf(ctx context.Context, t Timeline, first, end int) ([]Change, error) {
	changes := []Change{}
	var before *Snapshot
	for start := max(0, first-1); start < end; start += snapshotPage {
		var ids []int64
		for _, v := range t[start:min(end, start+snapshotPage)] {
			ids = append(ids, v.SnapshotID)
		}
		rows, err := s.o.Flags.SnapshotsByID(ctx, ids)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			snapshot := ParseSnapshot(&rows[i])
			if start+i >= first || i >= len(ids) {
				changes = append(changes, ChangeBetween(before, &snapshot, s.o.Refresh))
			}
			before = &snapshot
		}
	}
	slices.Reverse(changes)
	return changes, nil
}

// ChangeList is a page of the changes of a flag.
type ChangeList struct {
	FlagID int64
	// Total is the number of all changes, at most 10,000.
	Total   int
	Changes []Change
}

// Changes lists the changes of a flag, newest first. The flag may be deleted. limit is 1 to 100;
// nil means 20.
func (s *Service) Changes(ctx context.Context, flagID int64, limit, offset *int64) (*ChangeList, error) {
	const defaultChanges, maxChanges = 20, 100
	l, o, err := page(limit, offset, defaultChanges, maxChanges)
	if err != nil {
		return nil, err
	}
	if _, err := s.o.Flags.AnyFlag(ctx, flagID); err != nil {
		return nil, err
	}
	t, err := s.timeline(ctx, flagID)
	if err != nil {
		return nil, err
	}
	end := max(0, len(t)-o)
	changes, err := s.changesOf(ctx, t, max(0, end-l), end)
	if err != nil {
		return nil, err
	}
	return &ChangeList{FlagID: flagID, Total: len(t), Changes: changes}, nil
}

func page(limit, offset *int64, usual, most int) (int, int, error) {
	l, o := int64(usual), int64(0)
	if limit != nil {
		l = *limit
	}
	if offset != nil {
		o = *offset
	}
	if l < 1 || l > int64(most) {
		return 0, 0, invalid("limit is %d, want 1 to %d", l, most)
	}
	const farthest = 1_000_000
	if o < 0 || o > farthest {
		return 0, 0, invalid("offset is %d, want 0 to %d", o, farthest)
	}
	return int(l), int(o), nil
}

// Rollout compares the configuration of a flag with the results of its evaluations.
func (s *Service) Rollout(ctx context.Context, flagID int64, w Window) (*Rollout, error) {
	sp, err := s.detailed(ctx, w)
	if err != nil {
		return nil, err
	}
	of, err := s.subject(ctx, flagID, sp)
	if err != nil {
		return nil, err
	}
	parts := datar.GroupOutcome | datar.GroupVariant | datar.GroupSegment | datar.GroupVersion | datar.GroupAsked
	if of.timeline.Ambiguous() {
		parts |= datar.GroupHour
	}
	to := earlier(sp.to, sp.now)
	if to.Before(sp.from) { // the window begins in the future
		to = sp.from
	}
	in := &RolloutInput{FlagID: flagID, From: sp.from, To: to, Timeline: of.timeline, Refresh: s.o.Refresh}
	if in.Rows, err = s.details(ctx, flagID, sp, parts); err != nil {
		return nil, err
	}
	if first, late := UsedLate(in.Timeline, in.Refresh, in.Rows); late {
		lateSpan := span{first: max(first, sp.first), last: sp.last}
		if in.Hourly, err = s.details(ctx, flagID, lateSpan, datar.GroupOutcome|datar.GroupVersion|datar.GroupHour); err != nil {
			return nil, err
		}
	}
	if in.Flags, err = s.flagsAt(ctx, VersionsNeeded(in.Timeline, in.From, in.To, in.Rows)); err != nil {
		return nil, err
	}
	if of.flag.DeletedAt.Valid {
		if in.AskedDeleted, in.LastAskedDeleted, err = s.askedDeleted(ctx, of.flag, sp); err != nil {
			return nil, err
		}
	}
	r := RolloutOf(in)
	r.Complete = of.complete
	return r, nil
}

// maxUnknownTexts is the maximum number of texts that are searched for a deleted flag, and that
// UnknownSum adds up.
const maxUnknownTexts = 10_000

// askedDeleted counts requests for a deleted flag by its key or ID.
func (s *Service) askedDeleted(ctx context.Context, flag *entity.Flag, sp span) (n int64, last time.Time, err error) {
	if sp.first >= sp.last {
		return 0, last, nil
	}
	rows, err := s.o.Counts.Unknown(ctx, datar.UnknownQuery{From: sp.first, To: sp.last, Limit: maxUnknownTexts})
	if err != nil {
		return 0, last, fmt.Errorf("read what was asked for: %w", err)
	}
	for _, r := range rows {
		if r.Asked == flag.Key || r.Asked == strconv.FormatUint(uint64(flag.ID), 10) {
			n += r.Count
			last = later(last, milli(r.Last))
		}
	}
	return n, last, nil
}

// UnknownList is a page of requested keys and IDs that do not exist.
type UnknownList struct {
	From, To time.Time
	Unknown  []Unknown
	Complete *Complete
}

// Unknown lists requested keys and IDs of flags that do not exist, most requested first. limit is 1
// to 1,000; nil means 100.
func (s *Service) Unknown(ctx context.Context, w Window, limit, offset *int64) (*UnknownList, error) {
	sp, err := s.span(w)
	if err != nil {
		return nil, err
	}
	l, o, err := page(limit, offset, datar.DefaultLimit, datar.MaxLimit)
	if err != nil {
		return nil, err
	}
	s.o.Counts.Refresh(ctx)
	list := &UnknownList{From: sp.from, To: sp.to, Unknown: []Unknown{}}
	if sp.first < sp.last {
		rows, err := s.o.Counts.Unknown(ctx, datar.UnknownQuery{From: sp.first, To: sp.last, Limit: l, Offset: o})
		if err != nil {
			return nil, fmt.Errorf("read what was asked for: %w", err)
		}
		deleted, err := s.deletedAmong(ctx, rows)
		if err != nil {
			return nil, err
		}
		flags := s.o.Snapshots.Snapshot().Flags()
		keys := make([]string, len(flags))
		for i, f := range flags {
			keys[i] = f.Key
		}
		list.Unknown = UnknownOf(rows, keys, deleted)
	}
	if list.Complete, err = s.complete(ctx, sp, nil); err != nil {
		return nil, err
	}
	return list, nil
}

// UnknownSum adds up the requested keys and IDs that do not exist.
type UnknownSum struct {
	// Texts is their number, and Count how often they were requested. With AtLeast there are more
	// texts than the 10,000 most requested ones, which are added up.
	Texts   int
	Count   int64
	AtLeast bool
	// ByText has the counts of the texts, and ByDeletedFlag those of deleted flags by their IDs.
	ByText        map[string]int64
	ByDeletedFlag map[int64]int64
}

// UnknownSum adds up what Unknown lists.
func (s *Service) UnknownSum(ctx context.Context, w Window) (*UnknownSum, error) {
	sp, err := s.span(w)
	if err != nil {
		return nil, err
	}
	sum := &UnknownSum{ByText: map[string]int64{}, ByDeletedFlag: map[int64]int64{}}
	if sp.first >= sp.last {
		return sum, nil
	}
	s.o.Counts.Refresh(ctx)
	rows, err := s.o.Counts.Unknown(ctx, datar.UnknownQuery{From: sp.first, To: sp.last, Limit: maxUnknownTexts + 1})
	if err != nil {
		return nil, fmt.Errorf("read what was asked for: %w", err)
	}
	if len(rows) > maxUnknownTexts {
		rows, sum.AtLeast = rows[:maxUnknownTexts], true
	}
	deleted, err := s.deletedAmong(ctx, rows)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		sum.Count += r.Count
		if r.Asked != datar.OtherUnknown {
			sum.Texts++
		}
		sum.ByText[r.Asked] += r.Count
		if id := deleted[r.Asked]; id != 0 {
			sum.ByDeletedFlag[id] += r.Count
		}
	}
	return sum, nil
}

// deletedAmong returns the IDs of deleted flags by the requested text: their key, or their ID in
// decimal.
func (s *Service) deletedAmong(ctx context.Context, rows []datar.UnknownRow) (map[string]int64, error) {
	var keys []string
	var ids []int64
	for _, r := range rows {
		if r.Asked == datar.OtherUnknown {
			continue
		}
		keys = append(keys, r.Asked)
		if id, err := strconv.ParseInt(r.Asked, 10, 64); err == nil && id > 0 && strconv.FormatInt(id, 10) == r.Asked {
			ids = append(ids, id)
		}
	}
	flags, err := s.o.Flags.DeletedAmong(ctx, keys, ids)
	if err != nil {
		return nil, err
	}
	found := make(map[string]int64, 2*len(flags))
	for i := range flags {
		found[strconv.FormatUint(uint64(flags[i].ID), 10)] = int64(flags[i].ID)
	}
	for i := range flags {
		found[flags[i].Key] = int64(flags[i].ID) // a key takes precedence over an ID
	}
	return found, nil
}

// Forecast returns the effect of a draft of a flag. The draft leaves out unchanged parts.
func (s *Service) Forecast(ctx context.Context, flagID int64, draft *entity.Definition) (*Forecast, error) {
	flag, err := s.live(ctx, flagID)
	if err != nil {
		return nil, err
	}
	changed, err := DraftOf(flag, draft)
	if err != nil {
		return nil, err
	}
	now := s.o.Now().UTC()
	from := now.Add(-ForecastDays * day)
	sp, err := s.span(Window{From: &from})
	if err != nil {
		return nil, err
	}
	timeline, err := s.timeline(ctx, flagID)
	if err != nil {
		return nil, err
	}
	s.o.Counts.Refresh(ctx)
	rows, err := s.details(ctx, flagID, sp, datar.GroupOutcome|datar.GroupSegment|datar.GroupVersion)
	if err != nil {
		return nil, err
	}
	flags, err := s.flagsAt(ctx, VersionsNeeded(timeline, from, now, rows))
	if err != nil {
		return nil, err
	}
	history, err := s.historyOf(ctx, flagID, timeline, now)
	if err != nil {
		return nil, err
	}
	complete, err := s.complete(ctx, sp, history.Records)
	if err != nil {
		return nil, err
	}
	f, err := s.forecast(ctx, flag, changed, timeline, flags, rows, now)
	if err != nil {
		return nil, err
	}
	f.Complete = complete
	return f, nil
}

const (
	// largeForecast is the number of segments of a draft from which its forecast takes a turn.
	largeForecast = 50
	// bytesPerForecast is the memory of a segment in the response.
	bytesPerForecast = 1 << 10
)

// forecast calls ForecastOf. Large forecasts take a turn and memory of the request.
func (s *Service) forecast(ctx context.Context, flag, draft *entity.Flag, t Timeline, flags map[int64]*entity.Flag, rows []datar.Row, now time.Time) (*Forecast, error) {
	if n := max(len(flag.Segments), len(draft.Segments)); n > largeForecast {
		if err := budget.Add(ctx, int64(n)*bytesPerForecast); err != nil {
			return nil, err
		}
		if err := s.o.Trials.Turns.Take(ctx); err != nil {
			return nil, &UnfinishedError{Work: "the forecast was not computed", Err: err}
		}
		defer s.o.Trials.Turns.Release()
	}
	return ForecastOf(flag, draft, t, flags, rows, now), nil
}

// live reads a flag that is not deleted.
func (s *Service) live(ctx context.Context, flagID int64) (*entity.Flag, error) {
	flag, err := s.o.Flags.AnyFlag(ctx, flagID)
	if err != nil {
		return nil, err
	}
	if flag.DeletedAt.Valid {
		return nil, entity.NotFound("flag %d is deleted: restore it first", flagID)
	}
	return flag, nil
}

// Trial returns a Trial of a flag for some entities, or of a draft of it unless draft is nil.
func (s *Service) Trial(ctx context.Context, flagID int64, draft *entity.Definition, entities []eval.Entity) (*Trial, error) {
	flag, err := s.live(ctx, flagID)
	if err != nil {
		return nil, err
	}
	if draft != nil {
		if flag, err = DraftOf(flag, draft); err != nil {
			return nil, err
		}
	}
	return NewTrial(flag, entities, s.o.Trials)
}
