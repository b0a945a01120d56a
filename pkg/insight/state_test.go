package insight_test

import (
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// everybody changes checkout so that a segment without constraints gives blue to all entities.
func everybody(f *entity.Flag) {
	f.Segments[0].Constraints, f.Segments[0].RolloutPercent = nil, 100
	f.Segments[0].Distributions[0].Percent, f.Segments[0].Distributions[1].Percent = 100, 0
}

// TestStates has a case for each state, and a case for each condition that prevents the next state.
func TestStates(t *testing.T) {
	t.Parallel()
	now := at(t, "2026-01-31T14:00:00Z")
	ago := func(days int) time.Time { return now.Add(-time.Duration(days) * 24 * time.Hour) }
	lately := ago(2)
	blue := row(datar.Matched, 61, 23, 117, 10, lately)
	noMatch := row(datar.NoMatch, 0, 0, 117, 5, lately)
	for name, test := range map[string]struct {
		change func(in *insight.StateInput)
		rows   []datar.Row
		want   insight.StateName
		stale  bool
		reason string
		delete insight.Answer
	}{
		"records are off":         {func(in *insight.StateInput) { in.Complete.Since = time.Time{} }, nil, insight.StateNotCounted, false, "not counted", insight.AnswerUnknown},
		"counted for too short":   {func(in *insight.StateInput) { in.Complete.Since = ago(29) }, []datar.Row{blue}, insight.StateNotCounted, false, "less than the 30 days", insight.AnswerNo},
		"young, so not too short": {func(in *insight.StateInput) { in.Complete.Since, in.Flag.CreatedAt = ago(20), ago(20) }, []datar.Row{blue, noMatch}, insight.StateOneSided, false, "", insight.AnswerNo},
		"new": {func(in *insight.StateInput) {
			in.Complete.Since, in.Flag.CreatedAt, in.EverAsked = ago(6), ago(6), false
		}, nil, insight.StateNew, false, "not asked for yet", insight.AnswerUnknown},
		"new, but asked":         {func(in *insight.StateInput) { in.Complete.Since, in.Flag.CreatedAt = ago(6), ago(6) }, []datar.Row{noMatch}, insight.StateGivesNothing, false, "None of 5 evaluations", insight.AnswerNo},
		"never evaluated":        {func(in *insight.StateInput) { in.EverAsked = false }, nil, insight.StateNeverEvaluated, true, "Never asked for", insight.AnswerYes},
		"inactive":               {func(in *insight.StateInput) { in.LastAsked = ago(47) }, nil, insight.StateInactive, true, "Last asked for on 15 December 2025", insight.AnswerYes},
		"inactive, just changed": {func(in *insight.StateInput) { in.History.ChangedAt = ago(6) }, nil, insight.StateInactive, false, "", insight.AnswerNo},
		"off but asked":          {func(in *insight.StateInput) { in.Flag.Enabled = false }, []datar.Row{row(datar.Disabled, 0, 0, 117, 3, lately)}, insight.StateOffButAsked, false, "asked for 3 times", insight.AnswerNo},
		"gives nothing":          {nil, []datar.Row{noMatch}, insight.StateGivesNothing, false, "", insight.AnswerNo},
		"changing":               {func(in *insight.StateInput) { in.History.AssignedAt = ago(6) }, []datar.Row{blue}, insight.StateChanging, false, "25 January 2026", insight.AnswerNo},
		"changed a week ago":     {func(in *insight.StateInput) { in.History.AssignedAt = ago(7) }, []datar.Row{blue}, insight.StateOneSided, false, "", insight.AnswerNo},
		"launched":               {func(in *insight.StateInput) { everybody(in.Flag) }, []datar.Row{blue}, insight.StateLaunched, true, "All 10 evaluations since 20 January 2026 got `blue`", insight.AnswerNo},
		"launched, with others before the change": {func(in *insight.StateInput) { everybody(in.Flag) },
			[]datar.Row{blue, row(datar.HeldOut, 0, 23, 115, 9, ago(12))}, insight.StateLaunched, true, "All 10 evaluations", insight.AnswerNo},
		"an old server still holds out": {func(in *insight.StateInput) { everybody(in.Flag) },
			[]datar.Row{blue, row(datar.HeldOut, 0, 23, 115, 9, lately)}, insight.StateActive, false, "10 of 19 evaluations", insight.AnswerNo},
		"some are held out": {func(in *insight.StateInput) { everybody(in.Flag); in.Flag.Segments[0].RolloutPercent = 99 }, []datar.Row{blue}, insight.StateActive, false, "", insight.AnswerNo},
		"not for everybody": {func(in *insight.StateInput) {
			everybody(in.Flag)
			in.Flag.Segments[0].Constraints = []entity.Constraint{{Property: "x", Operator: "EQ", Value: "1"}}
		}, []datar.Row{blue}, insight.StateActive, false, "", insight.AnswerNo},
		"one-sided":      {nil, []datar.Row{blue, noMatch}, insight.StateOneSided, false, "got `blue`; the configuration can also give `green`", insight.AnswerNo},
		"active":         {nil, []datar.Row{blue, row(datar.Matched, 62, 23, 117, 1, lately)}, insight.StateActive, false, "11 of 11 evaluations", insight.AnswerNo},
		"silent servers": {func(in *insight.StateInput) { in.Complete.Silent = 1 }, nil, insight.StateInactive, true, "", insight.AnswerUnknown},
		"something may be lost": {func(in *insight.StateInput) {
			in.Complete.Holes = append(in.Complete.Holes, insight.Hole{From: in.Now.Add(-time.Hour), To: in.Now, Why: insight.WhyDropped})
		}, nil, insight.StateInactive, true, "", insight.AnswerUnknown},
		"records were off for an hour": {func(in *insight.StateInput) {
			in.Complete.Holes = append(in.Complete.Holes, insight.Hole{From: in.Now.Add(-time.Hour), To: in.Now, Why: insight.WhyNoServer})
		}, nil, insight.StateInactive, true, "", insight.AnswerYes},
		"something was lost": {func(in *insight.StateInput) { in.Complete.Dropped = 1 }, nil, insight.StateInactive, true, "", insight.AnswerUnknown},
		"no server":          {func(in *insight.StateInput) { in.Complete.Servers = 0 }, nil, insight.StateInactive, true, "", insight.AnswerUnknown},
		"by tag only":        {nil, []datar.Row{byTag(blue)}, insight.StateOneSided, false, "", insight.AnswerUnknown},
		"by tag and by name": {nil, []datar.Row{byTag(blue), noMatch}, insight.StateOneSided, false, "", insight.AnswerNo},
		"counted by another": {nil, []datar.Row{{Key: datar.Key{FlagID: 42, VariantID: 61, SegmentID: 23}, Count: 8}}, insight.StateOneSided, false, "", insight.AnswerNo},
		"details are short": {func(in *insight.StateInput) { in.DetailsFrom = ago(7) }, nil, insight.StateNotCounted, false,
			"Not asked for since 24 January 2026. Details of earlier days are deleted, so the 30 days", insight.AnswerUnknown},
		"details are short, never asked": {func(in *insight.StateInput) { in.DetailsFrom, in.EverAsked, in.LastAsked = ago(7), false, time.Time{} }, nil,
			insight.StateNotCounted, false, "Not asked for since 24 January 2026", insight.AnswerUnknown},
		"details are short, asked before them": {func(in *insight.StateInput) { in.DetailsFrom, in.LastAsked = ago(7), ago(10) }, nil,
			insight.StateActive, false, "Last asked for on 21 January 2026. Details are kept from 24 January 2026 on.", insight.AnswerNo},
		"details are short, off and asked before them": {func(in *insight.StateInput) {
			in.Flag.Enabled, in.DetailsFrom, in.LastAsked = false, ago(7), ago(10)
		}, nil, insight.StateOffButAsked, false, "Switched off. Last asked for on 21 January 2026.", insight.AnswerNo},
		"details are short, asked at an unknown time": {func(in *insight.StateInput) { in.DetailsFrom, in.LastAsked, in.Earlier = ago(7), time.Time{}, 3 }, nil,
			insight.StateActive, false, "Asked for 3 times before 24 January 2026.", insight.AnswerNo},
		"details are short, by tag since": {func(in *insight.StateInput) { in.DetailsFrom, in.LastAsked = ago(7), lately }, []datar.Row{byTag(blue)},
			insight.StateOneSided, false, "since 24 January 2026", insight.AnswerUnknown},
		"details are short, by tag since, asked before them": {func(in *insight.StateInput) { in.DetailsFrom, in.LastAsked, in.Earlier = ago(7), lately, 1 },
			[]datar.Row{byTag(blue)}, insight.StateOneSided, false, "", insight.AnswerNo},
		"details since before the flag was created": {func(in *insight.StateInput) {
			in.DetailsFrom, in.Flag.CreatedAt, in.EverAsked, in.LastAsked = ago(7), ago(6), false, time.Time{}
		}, nil, insight.StateNew, false, "not asked for yet", insight.AnswerYes},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := checkout()
			in := &insight.StateInput{
				Flag: f, Days: 30, Now: now, Rows: test.rows, EverAsked: true, LastAsked: ago(40), Refresh: refresh,
				Complete: &insight.Complete{Since: ago(60), UpTo: now, Servers: 3},
				History:  insight.History{ChangedAt: ago(40), AssignedAt: ago(11), AssignedSnapshot: 117},
				Timeline: insight.NewTimeline([]insight.Head{{SnapshotID: 115, At: ago(50)}, {SnapshotID: 117, At: ago(11)}}),
			}
			if test.change != nil {
				test.change(in)
			}
			got := insight.StateOf(in)
			if got.State != test.want || got.Stale != test.stale || !strings.Contains(got.Reason, test.reason) || got.CanDelete.Answer != test.delete {
				t.Errorf("got %s, stale %t, can delete %s: %s\n%+v", got.State, got.Stale, got.CanDelete.Answer, got.Reason, got.CanDelete.Checks)
			}
			if len(got.CanDelete.Checks) != 5 || got.Advice.Text.String() == "" {
				t.Errorf("got %+v", got)
			}
			for _, c := range got.CanDelete.Checks {
				if c.Text.String() == "" || c.OK != (c.Answer == insight.AnswerYes) {
					t.Errorf("got %+v", c)
				}
			}
		})
	}
}

func byTag(r datar.Row) datar.Row {
	r.Asked |= datar.AskedByTag
	return r
}
