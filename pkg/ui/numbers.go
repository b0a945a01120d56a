package ui

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"html/template"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// Numbers provides Datar's results for flags.
type Numbers interface {
	AllStates(ctx context.Context, lately int) (*insight.States, error)
	State(ctx context.Context, flagID int64, lately *int64) (*insight.State, error)
	Outcomes(ctx context.Context, flagID int64, w insight.Window) (*insight.Outcomes, error)
	Reasons(ctx context.Context, flagID int64, w insight.Window) (*insight.Reasons, error)
	Rollout(ctx context.Context, flagID int64, w insight.Window) (*insight.Rollout, error)
	Series(ctx context.Context, flagID int64, q insight.SeriesQuery) (*insight.Series, error)
	Unknown(ctx context.Context, w insight.Window, limit, offset *int64) (*insight.UnknownList, error)
	UnknownSum(ctx context.Context, w insight.Window) (*insight.UnknownSum, error)
	Forecast(ctx context.Context, flagID int64, draft *entity.Definition) (*insight.Forecast, error)
}

// Statistics provides the statistics of the servers that count.
type Statistics interface {
	// Stats returns the statistics of this server.
	Stats() datar.Stats
	// Servers returns the records of all servers and their runs.
	Servers(ctx context.Context) ([]datar.ServerRecord, error)
}

// Statements provides statements for users who query the tables of counts themselves.
type Statements interface {
	// DetailsSQL returns a statement that adds up counts. A To of 0 means no end.
	DetailsSQL(q datar.DetailsQuery) string
	// UnknownSQL returns a statement that counts requests for flags that do not exist.
	UnknownSQL(from datar.Hour) string
	// ServersSQL returns a statement that lists the statistics of servers.
	ServersSQL() string
}

// Selections of the list in addition to the states.
const (
	stateContradiction = "contradiction"
	stateUnasked       = "unasked"
)

// states are the states of the tabs, in order.
var states = []string{
	"", string(insight.StateActive), string(insight.StateChanging), string(insight.StateLaunched), string(insight.StateOneSided), string(insight.StateGivesNothing),
	string(insight.StateOffButAsked), string(insight.StateInactive), string(insight.StateNeverEvaluated), string(insight.StateNew), string(insight.StateNotCounted),
}

// stateClass returns the color of a state. Only states that need attention are bold.
func stateClass(state insight.StateName) string {
	switch state {
	case insight.StateGivesNothing:
		return "bad strong"
	case insight.StateOneSided, insight.StateOffButAsked:
		return "warn strong"
	case insight.StateChanging:
		return "accent"
	case insight.StateLaunched:
		return "good"
	case insight.StateActive:
		return ""
	default:
		return "muted"
	}
}

const (
	// latelyDays is the period of the states.
	latelyDays = insight.DefaultDays
	// boardTTL is the minimum time that the numbers of the list are kept. A board that took long is
	// kept longer, so that creating boards takes at most a twentieth of the time.
	boardTTL  = 5 * time.Second
	boardRest = 20
	// boardAge is the maximum age of an old board that is shown while a new one is created. If a
	// board is older, or lacks a change that was made on these pages, a page waits for a new one if
	// the last one took at most boardWait.
	boardAge  = 30 * time.Second
	boardWait = time.Second
	// boardRetry is the minimum time between the failure of a board and the creation of the next
	// one.
	boardRetry = 2 * time.Second
	// staleAfter is the age of the flags in memory above which pages show it.
	staleAfter = 30 * time.Second
)

// board has the numbers of all flags.
type board struct {
	states *insight.States
	flags  map[uint]*insight.FlagState
}

func (b *board) flag(f *entity.Flag) *insight.FlagState {
	if b == nil {
		return nil
	}
	return b.flags[f.ID]
}

// total returns the evaluations of a flag within a number of days, or -1 if unknown.
func total(n *insight.FlagState, days int) int64 {
	switch {
	case n == nil:
		return -1
	case days >= latelyDays:
		return n.Total
	}
	sum := int64(0)
	for _, count := range n.Spark[max(0, len(n.Spark)-days):] {
		sum += count
	}
	return sum
}

// listFrom returns from when total counts: whole UTC days, the last of which is today, or 30 times
// 24 hours.
func listFrom(now time.Time, days int) time.Time {
	if days >= latelyDays {
		return hourOf(now, days)
	}
	return now.UTC().Truncate(24*time.Hour).AddDate(0, 0, 1-days)
}

func lastAsked(n *insight.FlagState) time.Time {
	if n == nil {
		return time.Time{}
	}
	return n.Evidence.Last
}

func isUnasked(n *insight.FlagState) bool {
	return n.State.State == insight.StateNeverEvaluated || n.State.State == insight.StateInactive
}

func isState(n *insight.FlagState, state string) bool {
	switch state {
	case stateContradiction:
		return n.Contradictions > 0
	case stateUnasked:
		return isUnasked(n)
	default:
		return string(n.State.State) == state
	}
}

// boardCache keeps the last board, so that a busy page queries the database only occasionally.
type boardCache struct {
	mu struct {
		sync.Mutex
		board   *board        // nil if none has succeeded
		has     int           // changes that the board includes
		until   time.Time     // when the next one is created
		waitAt  time.Time     // when a page starts to wait for it
		took    time.Duration // duration of the last creation; boardWait or more if it failed
		changes int           // calls of forget
		making  *boardMaking  // nil if none is being created
	}
	wg sync.WaitGroup
}

// boardMaking is the creation of a board. All pages that need the board share it.
type boardMaking struct {
	done    chan struct{} // closed when the creation ends
	board   *board        // set before done is closed; nil if there are no numbers
	changes int           // those that the board includes
}

// forget makes the next page create a new board. A board that is being created lacks the change.
func (b *boardCache) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.until, b.mu.waitAt = time.Time{}, time.Time{}
	b.mu.changes++
}

// boardNow returns nil if Datar is off, or if there are no numbers.
func (u *UI) boardNow(ctx context.Context) *board {
	if u.o.Numbers == nil {
		return nil
	}
	b := &u.board
	b.mu.Lock()
	now, kept := u.o.Now(), b.mu.board
	if now.Before(b.mu.until) { // also if the last one failed
		b.mu.Unlock()
		return kept
	}
	making := b.mu.making
	if making == nil || making.changes != b.mu.changes {
		making = &boardMaking{done: make(chan struct{}), changes: b.mu.changes}
		b.mu.making = making
		b.wg.Go(func() { u.makeBoard(budget.WithoutTurn(context.WithoutCancel(ctx)), making) }) // continues if the page is closed
	}
	wait := kept == nil || b.mu.took < boardWait && !now.Before(b.mu.waitAt)
	b.mu.Unlock()
	if !wait {
		return kept
	}
	budget.Pause(ctx)
	select {
	case <-making.done:
		_ = budget.Resume(ctx) // fails only if the request has ended
		return cmp.Or(making.board, kept)
	case <-ctx.Done():
		return kept
	}
}

// makeBoard creates a board. If there are no numbers, the previous board stays.
func (u *UI) makeBoard(ctx context.Context, making *boardMaking) {
	defer close(making.done)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if u.o.Memory != nil { // not that of the page, which can end before
		shared, release := u.o.Memory.Share(ctx)
		defer release()
		ctx = shared
	}
	begin := u.o.Now()
	made, err := u.readBoard(ctx)
	if err != nil {
		u.o.Logger.Warn("numbers of the list are missing", "error", err)
	}
	making.board = made
	u.board.keep(making, begin, u.o.Now())
}

// readBoard reads the numbers of all flags. It runs outside of requests, whose panics web.Recover
// recovers, so a panic here would end the process. It returns the panic as an error instead.
func (u *UI) readBoard(ctx context.Context) (made *board, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			u.o.Logger.Error("numbers of the list panicked", "panic", cause, "stack", string(debug.Stack()))
			made, err = nil, fmt.Errorf("numbers of the list panicked: %v", cause)
		}
	}()
	all, err := u.o.Numbers.AllStates(ctx, latelyDays)
	if err != nil {
		return nil, err
	}
	made = &board{states: all, flags: make(map[uint]*insight.FlagState, len(all.Flags))}
	for i := range all.Flags {
		made.flags[all.Flags[i].Flag.ID] = &all.Flags[i]
	}
	return made, nil
}

// keep ends the creation of a board, and keeps the board or, for a short time, that it failed. If
// it lacks a change, the next page creates another one.
func (b *boardCache) keep(making *boardMaking, begin, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.making == making {
		b.mu.making = nil
	}
	switch {
	case making.board == nil:
		b.mu.took = boardWait
		if making.changes == b.mu.changes {
			b.mu.until = now.Add(boardRetry)
		}
	case making.changes >= b.mu.has:
		b.mu.board, b.mu.has, b.mu.took = making.board, making.changes, now.Sub(begin)
		if making.changes == b.mu.changes {
			b.mu.until, b.mu.waitAt = now.Add(max(boardTTL, boardRest*b.mu.took)), now.Add(boardAge)
		}
	}
}

// upTo describes how complete the counts are.
func (u *UI) upTo(p *page, c *insight.Complete) template.HTML {
	if c == nil || c.Servers == 0 {
		return u.text.say("upto.now", "at", p.Time(p.Now, "clock"))
	}
	name := "upto"
	if c.Silent > 0 {
		name = "upto.silent"
	}
	return u.text.say(name, "at", p.Time(c.UpTo, "clock"), "servers", c.Servers-c.Silent, "all", c.Servers, "n", c.Silent, "link", p.Root+"server")
}

// counts reports whether evaluations of the flag are counted.
func (u *UI) counts(f *entity.Flag) bool { return f.DataRecordsEnabled || u.o.CountsAll }

// sql returns the statement that adds up the counts of a flag, or of all flags if f is nil, from an
// hour until to, unless that is nil. It is empty if the counts are in another database.
func (u *UI) sql(by datar.Parts, f *entity.Flag, from time.Time, to *time.Time) string {
	if u.o.SQL == nil {
		return ""
	}
	q := datar.DetailsQuery{From: datar.HourOf(from), GroupBy: by}
	if f != nil {
		q.FlagID = int64(f.ID)
	}
	if to != nil {
		if q.To = datar.HourOf(*to); q.To.Time().Before(*to) {
			q.To++
		}
	}
	return u.o.SQL.DetailsSQL(q)
}

// unknownSQL returns the statement that counts requests for flags that do not exist.
func (u *UI) unknownSQL(from time.Time) string {
	if u.o.SQL == nil {
		return ""
	}
	return u.o.SQL.UnknownSQL(datar.HourOf(from))
}

// hourOf returns the start of the last days as the API takes it: in whole hours.
func hourOf(now time.Time, days int) time.Time {
	return now.UTC().AddDate(0, 0, -days).Truncate(time.Hour)
}

// under returns the reason for the state of a flag in the list.
func (u *UI) under(p *page, n *insight.FlagState, days int) template.HTML {
	f := n.Flag
	switch n.State.State {
	case insight.StateNotCounted:
		if !u.counts(f) {
			return u.text.say("under.recordsoff")
		}
		return u.text.say("under.since", "at", p.Time(n.Since, "day"))
	case insight.StateNew:
		return u.text.say("under.created", "at", p.Ago(f.CreatedAt))
	case insight.StateNeverEvaluated:
		return u.text.say("under.days", "n", daysSince(p.Now, f.CreatedAt))
	case insight.StateInactive:
		return u.text.say("under.days", "n", daysSince(p.Now, n.Evidence.Last))
	case insight.StateOffButAsked:
		return u.text.say("under.asked", "n", total(n, days), "days", days)
	case insight.StateGivesNothing:
		if allRolloutsZero(f) {
			return u.text.say("under.rollout0", "n", len(f.Segments))
		}
		return u.text.say("under.nothing", "n", n.Total)
	case insight.StateChanging:
		return u.text.say("under.changed", "at", p.Time(n.Evidence.ChangedAt, ""))
	case insight.StateLaunched:
		return u.text.say("under.launched", "variant", code(n.Evidence.VariantKey))
	case insight.StateOneSided:
		return u.text.say("under.onesided", "variant", code(n.Evidence.VariantKey))
	default:
		return u.sharesUnder(n)
	}
}

func daysSince(now, at time.Time) int {
	if at.IsZero() {
		return latelyDays
	}
	return int(now.Sub(at) / (24 * time.Hour))
}

func allRolloutsZero(f *entity.Flag) bool {
	for i := range f.Segments {
		if f.Segments[i].RolloutPercent != 0 {
			return false
		}
	}
	return len(f.Segments) > 0
}

// sharesUnder returns the two largest shares.
func (u *UI) sharesUnder(n *insight.FlagState) template.HTML {
	if n.Total == 0 {
		return ""
	}
	given := slices.Clone(n.Given)
	slices.SortStableFunc(given, func(a, b insight.VariantOutcome) int { // those without a variant come last
		return cmp.Or(cmp.Compare(boolInt(a.VariantID == 0), boolInt(b.VariantID == 0)), cmp.Compare(b.Count, a.Count))
	})
	var parts []any
	for i, g := range given[:min(2, len(given))] {
		name := any(code(g.VariantKey))
		if g.VariantID == 0 {
			name = u.text.plain("nothing")
		}
		place := strconv.Itoa(i + 1)
		parts = append(parts, "who"+place, name, "share"+place, percent(float64(g.Count)/float64(n.Total)))
	}
	if len(parts) == 4 {
		return u.text.say("under.one", parts...)
	}
	return u.text.say("under.two", parts...)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// noDatar explains why a server has no numbers at all.
func (u *UI) noDatar() template.HTML {
	if u.o.Elsewhere {
		return u.text.say("numbers.elsewhere")
	}
	return u.text.say("numbers.datar")
}

// missing explains why a page of a flag has no numbers, and what to do; it is empty if the page has
// numbers.
func (u *UI) missing(p *page, f *entity.Flag, err error) template.HTML {
	id := strconv.FormatUint(uint64(f.ID), 10)
	switch {
	case u.o.Numbers == nil:
		return u.noDatar()
	case errors.Is(err, datar.ErrInvalidQuery), errors.Is(err, entity.ErrInvalid):
		return u.text.say("numbers.invalid", "why", u.text.problem(err))
	case errors.Is(err, budget.ErrExhausted):
		return u.text.say("numbers.busy", "again", "")
	case err != nil:
		u.o.Logger.Warn("numbers of a flag are missing", "flag", id, "error", err)
		return u.text.say("numbers.database", "at", p.Time(p.Now, "clock"), "again", "")
	default:
		return ""
	}
}
