package handler

import (
	"maps"
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

func outcomesModel(o *insight.Outcomes) *models.DatarOutcomes {
	return &models.DatarOutcomes{
		FlagID: &o.FlagID, FlagKey: &o.FlagKey, From: timeModel(o.From), To: timeModel(o.To), Total: &o.Total,
		Outcomes: mapAll(o.Outcomes, func(c *insight.OutcomeCount) *models.DatarOutcome {
			return &models.DatarOutcome{Outcome: new(c.Outcome.String()), Count: &c.Count, Unevaluable: c.Unevaluable, FirstAt: timeModel(c.First), LastAt: timeModel(c.Last)}
		}),
		Segments: mapAll(o.Segments, func(s *insight.SegmentOutcome) *models.DatarSegmentOutcome {
			return &models.DatarSegmentOutcome{
				SegmentID: s.SegmentID, Description: s.Description, Matched: &s.Matched, HeldOut: &s.HeldOut,
				Variants: mapAll(s.Variants, func(v *insight.VariantOutcome) *models.DatarVariantOutcome {
					return &models.DatarVariantOutcome{VariantID: &v.VariantID, VariantKey: v.VariantKey, Count: &v.Count}
				}),
			}
		}),
		Asked:    &models.DatarAsked{ByName: &o.Asked.ByName, ByTag: &o.Asked.ByTag, WithoutEntityID: o.Asked.WithoutEntityID},
		Complete: completeModel(o.Complete),
	}
}

func reasonsModel(r *insight.Reasons) *models.DatarReasons {
	return &models.DatarReasons{
		Kind: new("sample"), FlagID: &r.FlagID, From: timeModel(r.From), To: timeModel(r.To), Examined: &r.Examined, Of: &r.Of,
		Segments: mapAll(r.Segments, func(s *insight.SegmentReasons) *models.DatarSegmentReasons {
			return &models.DatarSegmentReasons{
				SegmentID: &s.SegmentID, Description: s.Description,
				Constraints: mapAll(s.Constraints, func(c *insight.ConstraintReasons) *models.DatarConstraintReasons {
					return &models.DatarConstraintReasons{
						ConstraintID: &c.ConstraintID, Text: c.Text, Stopped: &c.Stopped, Missing: &c.Missing, OtherType: &c.OtherType, False: &c.False,
					}
				}),
			}
		}),
		Complete: completeModel(r.Complete),
	}
}

func seriesModel(s *insight.Series) *models.DatarSeries {
	m := &models.DatarSeries{
		FlagID: &s.FlagID, Bucket: new(string(s.Unit)), Tz: new(s.Zone.String()), By: new(string(s.By)),
		Starts: timesModel(s.Starts), End: new(s.End.Format(time.RFC3339)), Lines: linesModel(s.By, s.Lines), Whole: s.Whole,
		Changes: mapAll(s.Changes, changeModel), Complete: completeModel(s.Complete),
	}
	if s.UTCDays {
		m.Detail = "utcDay"
	}
	m.ComparisonMissing = s.ComparisonMissing.String()
	if c := s.Comparison; c != nil {
		m.Comparison = &models.DatarComparison{Starts: timesModel(c.Starts), End: new(c.End.Format(time.RFC3339)), Lines: linesModel(s.By, c.Lines), Whole: c.Whole}
	}
	return m
}

// timesModel keeps the offset of the time zone, unlike the generated times.
func timesModel(times []time.Time) []string {
	texts := make([]string, len(times))
	for i, t := range times {
		texts[i] = t.Format(time.RFC3339)
	}
	return texts
}

func linesModel(by insight.By, lines []insight.Line) []*models.DatarLine {
	return mapAll(lines, func(l *insight.Line) *models.DatarLine {
		m := &models.DatarLine{VariantID: l.VariantID, SegmentID: l.SegmentID, SnapshotID: l.SnapshotID, Name: l.Name, Counts: l.Counts}
		switch by {
		case insight.ByOutcome:
			m.Outcome = l.Outcome.String()
		case insight.ByTotal:
			m.Name = string(by)
		case insight.ByVariant, insight.BySegment, insight.ByVersion: // the line has an ID
		}
		return m
	})
}

func changeModel(c *insight.Change) *models.DatarChange {
	return &models.DatarChange{
		SnapshotID: &c.SnapshotID, At: timeModel(c.At), By: c.By, EffectiveBy: timeModel(c.EffectiveBy), Affects: new(string(c.Affects)), Text: &c.Text,
		Parts: mapAll(c.Parts, func(p *insight.Part) *models.DatarChangePart {
			return &models.DatarChangePart{
				What: new(string(p.What)), SegmentID: p.SegmentID, VariantID: p.VariantID, ConstraintID: p.ConstraintID, From: p.From, To: p.To,
			}
		}),
	}
}

func rolloutModel(r *insight.Rollout) *models.DatarRollout {
	return &models.DatarRollout{
		FlagID: &r.FlagID, From: timeModel(r.From), To: timeModel(r.To),
		Versions: mapAll(r.Versions, func(v *insight.VersionRollout) *models.DatarVersion {
			return &models.DatarVersion{
				SnapshotID: &v.SnapshotID, From: timeModel(v.From), To: timeModel(v.To), Enabled: &v.Enabled, Count: &v.Count, Unassigned: &v.Unassigned,
				Segments: mapAll(v.Segments, func(s *insight.SegmentRollout) *models.DatarVersionSegment {
					return &models.DatarVersionSegment{
						SegmentID: s.SegmentID, Description: s.Description, Rank: new(int64(s.Rank)), RolloutPercent: new(int64(s.RolloutPercent)),
						Reach: string(s.Reach), ReachText: s.ReachText.String(), Count: &s.Count, Given: mapAll(s.Given, givenModel),
					}
				}),
			}
		}),
		Unattributed: r.Unattributed, OtherVersions: int64(r.OtherVersions), OtherCount: r.OtherCount,
		Findings: mapAll(r.Findings, func(f *insight.Finding) *models.DatarFinding {
			return &models.DatarFinding{
				Rule: new(string(f.Rule)), Severity: new(string(f.Severity)), SnapshotID: f.SnapshotID, SegmentID: f.SegmentID, VariantID: f.VariantID,
				Count: f.Count, AtLeast: f.AtLeast, LastAt: timeModel(f.Last), Text: new(f.Text.String()),
			}
		}),
		Complete: completeModel(r.Complete),
	}
}

func givenModel(g *insight.Given) *models.DatarGiven {
	return &models.DatarGiven{
		VariantID: savedID(g.VariantID), VariantKey: g.VariantKey, HeldOut: g.HeldOut, Percent: int64(g.Percent), Buckets: new(int64(g.Buckets)), Set: &g.Set,
		Count: g.Count, Got: g.Got,
	}
}

// savedID is 0 for a part of a draft that is not saved.
func savedID(id int64) int64 {
	if insight.IsDraftID(id) {
		return 0
	}
	return id
}

func forecastModel(f *insight.Forecast) *models.DatarForecast {
	expected := func(e *insight.Expected) *models.DatarExpected {
		return &models.DatarExpected{VariantID: savedID(e.VariantID), VariantKey: e.VariantKey, PerDay: &e.PerDay}
	}
	return &models.DatarForecast{
		Kind: new("estimate"), FlagID: &f.FlagID, Now: mapAll(f.Now, expected), Then: mapAll(f.Then, expected),
		Moved: new(int64(f.Moved)), Gained: new(int64(f.Gained)), Lost: new(int64(f.Lost)),
		Segments: mapAll(f.Segments, func(s *insight.SegmentForecast) *models.DatarSegmentForecast {
			return &models.DatarSegmentForecast{
				SegmentID: savedID(s.SegmentID), Unknown: s.Unknown, Reason: s.Reason, PerDay: s.PerDay,
				Moved: new(int64(s.Moved)), Gained: new(int64(s.Gained)), Lost: new(int64(s.Lost)),
				Now: mapAll(s.Now, givenModel), Then: mapAll(s.Then, givenModel),
			}
		}),
		Removed: f.Removed, Complete: completeModel(f.Complete),
	}
}

func stateModel(s *insight.State) *models.DatarFlagState {
	return &models.DatarFlagState{
		FlagID: &s.FlagID, FlagKey: &s.FlagKey, State: new(string(s.State)), Stale: &s.Stale, Since: timeModel(s.Since), Reason: &s.Reason,
		Evidence: &models.DatarEvidence{Count: &s.Evidence.Count, LastAt: timeModel(s.Evidence.Last), VariantKey: s.Evidence.VariantKey, ChangedAt: timeModel(s.Evidence.ChangedAt)},
		Advice:   &models.DatarAdvice{Do: new(string(s.Advice.Do)), Text: new(s.Advice.Text.String())},
		CanDelete: &models.DatarCanDelete{
			Answer: new(string(s.CanDelete.Answer)),
			Checks: mapAll(s.CanDelete.Checks, func(c *insight.Check) *models.DatarCheck {
				return &models.DatarCheck{Check: new(string(c.Check)), Ok: &c.OK, Text: new(c.Text.String())}
			}),
		},
		Complete: completeModel(s.Complete),
	}
}

func statesModel(s *insight.States) *models.DatarStates {
	m := &models.DatarStates{
		Days: new(int64(s.Days)), Total: new(int64(s.Total)), ByState: make(map[string]int64, len(s.ByState)),
		Flags: mapAll(s.Flags, stateRowModel), Complete: completeModel(s.Complete),
	}
	for _, name := range slices.Sorted(maps.Keys(s.ByState)) {
		m.ByState[string(name)] = int64(s.ByState[name])
	}
	return m
}

func stateRowModel(f *insight.FlagState) *models.DatarStateRow {
	m := &models.DatarStateRow{
		FlagID: &f.FlagID, FlagKey: &f.FlagKey, Description: f.Flag.Description, Enabled: &f.Flag.Enabled,
		State: new(string(f.State.State)), Stale: &f.Stale, Reason: &f.Reason, Total: &f.Total, LastAt: timeModel(f.Evidence.Last),
		Findings: new(int64(f.Findings)), Contradictions: int64(f.Contradictions), Spark: f.Spark, CanDelete: new(string(f.CanDelete.Answer)),
		Tags: make([]string, 0, len(f.Flag.Tags)),
	}
	for i := range f.Flag.Tags {
		m.Tags = append(m.Tags, f.Flag.Tags[i].Value)
	}
	return m
}

func unknownModel(u *insight.Unknown) *models.DatarUnknown {
	return &models.DatarUnknown{Asked: &u.Asked, Count: &u.Count, FirstAt: timeModel(u.First), LastAt: timeModel(u.Last), DeletedFlagID: u.DeletedFlagID, Similar: u.Similar}
}

func triedModel(t *insight.Tried) *models.FlagTryResult {
	m := &models.FlagTryResult{
		EntityID: &t.Request.EntityID, Bucket: new(int64(t.Bucket)), Outcome: new(t.Outcome.String()), FlagSnapshotID: t.FlagSnapshotID,
		SegmentID: savedID(t.MatchedSegmentID), VariantID: savedID(t.VariantID), VariantKey: t.VariantKey, Msg: t.Message,
		Debug: make([]*models.SegmentDebugLog, len(t.SegmentLogs)),
	}
	for i, log := range t.SegmentLogs {
		m.Debug[i] = &models.SegmentDebugLog{SegmentID: max(savedID(log.SegmentID), 0), Msg: log.Message}
	}
	return m
}

func tailModel(e *insight.TailEvent) *models.DatarTailEvent {
	m := &models.DatarTailEvent{
		At: timeModel(e.At), Outcome: new(e.Outcome.String()), SegmentID: e.SegmentID, VariantID: e.VariantID, VariantKey: e.VariantKey,
		SnapshotID: e.SnapshotID, Entity: &e.Entity, Text: &e.Text,
	}
	if e.SegmentID != 0 {
		m.Bucket, m.RolloutPercent = new(int64(e.Bucket)), new(int64(e.RolloutPercent))
	}
	return m
}
