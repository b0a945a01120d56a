package ui

import (
	"context"
	"html/template"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Numbers is what Datar knows of flags.
type Numbers interface {
	QuerySummary(ctx context.Context, query datar.SummaryQuery) ([]datar.FlagSummary, error)
	QueryFlagSummaryBreakdown(ctx context.Context, flagID int64, query datar.BreakdownQuery) (*datar.FlagBreakdown, error)
	Stats() datar.Stats
}

// States of flags, in the order of the tabs. The last two are no states but selections.
const (
	stateNotCounted    = "not_counted"
	stateGivesNothing  = "gives_nothing"
	stateActive        = "active"
	stateOffButAsked   = "off_but_asked"
	stateInactive      = "inactive"
	stateContradiction = "contradiction"
	stateUnasked       = "unasked"
)

var states = []string{
	"", stateActive, "changing", "launched", "one_sided", stateGivesNothing, stateOffButAsked, stateInactive, "never_evaluated", "new", stateNotCounted,
}

// stateClass is the color of a state. Only what needs somebody is in bold type.
func stateClass(state string) string {
	switch state {
	case stateGivesNothing:
		return "bad strong"
	case "one_sided", stateOffButAsked:
		return "warn strong"
	case "changing":
		return "accent"
	case "launched":
		return "good"
	case stateActive:
		return ""
	default:
		return "muted"
	}
}

// boardTTL is for how long the numbers of the list are kept.
const boardTTL = 5 * time.Second

// staleAfter is the age of the flags in memory from which pages say how old they are.
const staleAfter = 30 * time.Second

// Board is what came of all flags within a number of days.
type Board struct {
	Total    int64
	Complete Complete
	Flags    map[uint]*FlagBoard
}

// Complete says how far the counts of a page can be trusted.
type Complete struct {
	UpTo            time.Time
	Servers, Silent int
}

// FlagBoard is what came of one flag. Under is what its state rests on.
type FlagBoard struct {
	State                           string
	Under                           template.HTML
	Total                           int64
	Last                            time.Time
	Spark                           []int64
	Contradictions, Warnings, Notes int
	Stale                           bool
}

func (b *Board) flag(f *entity.Flag) *FlagBoard {
	if b == nil {
		return nil
	}
	return b.Flags[f.ID]
}

func (n *FlagBoard) is(state string) bool {
	switch state {
	case stateContradiction:
		return n.Contradictions > 0
	case stateUnasked:
		return n.Stale && n.Total == 0
	default:
		return n.State == state
	}
}

func (n *FlagBoard) total() int64 {
	if n == nil {
		return -1
	}
	return n.Total
}

func (n *FlagBoard) last() time.Time {
	if n == nil {
		return time.Time{}
	}
	return n.Last
}

// boardCache keeps the last boards, so that a busy page asks the database now and then only.
type boardCache struct {
	mu   sync.Mutex
	made map[int]madeBoard // by days
}

type madeBoard struct {
	at    time.Time
	board *Board
}

// boardOf is nil while Datar is off, and when there are no numbers to be had.
func (u *UI) boardOf(ctx context.Context, days int) *Board {
	if u.o.Numbers == nil {
		return nil
	}
	u.board.mu.Lock()
	defer u.board.mu.Unlock()
	now := u.o.Now()
	if kept, ok := u.board.made[days]; ok && now.Sub(kept.at) < boardTTL && now.Sub(kept.at) >= 0 {
		return kept.board
	}
	board, err := u.makeBoard(ctx, now, days)
	if err != nil {
		u.o.Logger.Warn("numbers of the list are missing", "error", err)
		return nil
	}
	if u.board.made == nil {
		u.board.made = map[int]madeBoard{}
	}
	u.board.made[days] = madeBoard{now, board}
	return board
}

func (u *UI) makeBoard(ctx context.Context, now time.Time, days int) (*Board, error) {
	from := now.Add(-time.Duration(days) * 24 * time.Hour)
	b := &Board{Flags: map[uint]*FlagBoard{}, Complete: Complete{UpTo: now, Servers: 1}}
	counts := map[uint]*datar.FlagSummary{}
	limit := int32(1000)
	for offset := int32(0); ; offset += limit {
		some, err := u.o.Numbers.QuerySummary(ctx, datar.SummaryQuery{From: &from, Limit: &limit, Offset: &offset})
		if err != nil {
			return nil, err
		}
		for i := range some {
			counts[uint(some[i].FlagID)] = &some[i]
			b.Total += some[i].Total
		}
		if len(some) < int(limit) {
			break
		}
	}
	for _, f := range u.o.Snapshots.Snapshot().Flags() {
		one := &FlagBoard{State: stateActive}
		if n := counts[f.ID]; n != nil {
			one.Total, one.Last = n.Total, n.LastEvaluatedAt
		}
		switch {
		case !f.DataRecordsEnabled:
			one.State, one.Under = stateNotCounted, u.text.say("under.recordsoff")
		case one.Total == 0:
			one.State = stateInactive
		case !f.Enabled:
			one.State = stateOffButAsked
		}
		b.Flags[f.ID] = one
	}
	return b, nil
}

// upTo says how far counts are complete.
func (u *UI) upTo(p *page, c Complete) template.HTML {
	text := u.text.say("upto", "at", p.Time(c.UpTo, "clock"), "servers", c.Servers-c.Silent, "all", c.Servers)
	if c.Silent > 0 {
		text = u.text.say("upto.silent", "at", p.Time(c.UpTo, "clock"), "servers", c.Servers-c.Silent, "all", c.Servers, "n", c.Silent, "link", p.Root+"server")
	}
	return text
}
