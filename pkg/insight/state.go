package insight

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// StateName is the name of a flag's state.
type StateName string

// The states. A flag has the first state that applies.
const (
	// StateNotCounted: the flag is not counted now, or has been counted for less than the
	// configured days although it is older, or details are kept for less than the configured days
	// and no request in these days is known. No other state can be concluded.
	StateNotCounted StateName = "not_counted"
	// StateNew: created less than 7 days ago and never requested.
	StateNew StateName = "new"
	// StateNeverEvaluated: counted for at least the configured days and never requested.
	StateNeverEvaluated StateName = "never_evaluated"
	// StateInactive: requested earlier, but not lately.
	StateInactive StateName = "inactive"
	// StateOffButAsked: off, but requested lately.
	StateOffButAsked StateName = "off_but_asked"
	// StateGivesNothing: on and requested lately, but no evaluation got a variant.
	StateGivesNothing StateName = "gives_nothing"
	// StateChanging: a change in the last 7 days affects the assignment.
	StateChanging StateName = "changing"
	// StateLaunched: on, the configuration gives all entities the same variant, and all evaluations
	// lately got it.
	StateLaunched StateName = "launched"
	// StateOneSided: on, all assignments lately were the same variant, but the configuration can
	// give others.
	StateOneSided StateName = "one_sided"
	// StateActive applies if no other state applies.
	StateActive StateName = "active"
)

// StateNames returns all states in the order in which they are checked.
func StateNames() []StateName {
	return []StateName{StateNotCounted, StateNew, StateNeverEvaluated, StateInactive, StateOffButAsked, StateGivesNothing,
		StateChanging, StateLaunched, StateOneSided, StateActive}
}

const (
	// DefaultDays is the default number of days that count as lately.
	DefaultDays = 30
	// MaxDays is the maximum number of days that can count as lately.
	MaxDays = 365

	day = 24 * time.Hour
	// settleDays is the number of days in which a flag counts as new, and a change as recent.
	settleDays = 7
)

// State describes a flag's state and whether the flag can be deleted.
type State struct {
	FlagID  int64
	FlagKey string
	State   StateName
	// Stale is true for flags to clean up: never evaluated, inactive or launched, and unchanged for
	// the configured days.
	Stale bool
	// Since is when the state began, zero if unknown.
	Since     time.Time
	Reason    string
	Evidence  Evidence
	Advice    Advice
	CanDelete CanDelete
	// Complete is the completeness of the last days.
	Complete *Complete
}

// Evidence is the data from which a State was concluded.
type Evidence struct {
	// Count is the number of all evaluations lately, of which details are kept. Last is the time of
	// the last evaluation ever, zero if there is none or it is unknown.
	Count int64
	Last  time.Time
	// VariantKey is the key of the only variant of launched and one-sided flags.
	VariantKey string
	// ChangedAt is when a change last affected the assignment.
	ChangedAt time.Time
}

// Do is a recommended action for a State.
type Do string

// The actions.
const (
	DoNothing        Do = "nothing"
	DoWait           Do = "wait"
	DoCount          Do = "count"
	DoDelete         Do = "delete"
	DoRemoveFromCode Do = "remove_from_code"
	DoCheckTargeting Do = "check_targeting"
)

// Advice recommends what to do about a State.
type Advice struct {
	Do   Do
	Text catalog.Message
}

// CanDelete describes whether a flag can be deleted.
type CanDelete struct {
	Answer Answer
	Checks []Check
}

// Answer is the answer of CanDelete.
type Answer string

// The answers.
const (
	AnswerYes     Answer = "yes"
	AnswerNo      Answer = "no"
	AnswerUnknown Answer = "unknown"
)

// CheckName is the name of a Check.
type CheckName string

// The checks.
const (
	CheckCounted   CheckName = "counted"
	CheckNotAsked  CheckName = "not_asked"
	CheckAllHeard  CheckName = "all_heard"
	CheckNoneLost  CheckName = "none_lost"
	CheckUnchanged CheckName = "unchanged"
)

// Check is one condition for the deletion of a flag.
type Check struct {
	Check CheckName
	// OK is true if the condition holds.
	OK bool
	// Answer is what the condition alone says about the deletion.
	Answer Answer
	Text   catalog.Message
}

// History is the part of a flag's history that a State needs.
type History struct {
	// ChangedAt is the time of the flag's last change.
	ChangedAt time.Time
	// AssignedAt is when a change last affected the assignment. AssignedSnapshot is the snapshot of
	// that change.
	AssignedAt       time.Time
	AssignedSnapshot int64
	// Records are the periods in which counting of the flag was on or off, oldest first.
	Records []Period
}

// StateInput is the input of StateOf.
type StateInput struct {
	Flag *entity.Flag
	// Layout is the known layout of Flag. If it is nil, it is computed.
	Layout *eval.Layout
	// Days is the number of days before Now that count as lately.
	Days int
	Now  time.Time
	// Rows are the counts of the last days, grouped at least by outcome, variant, version and
	// asked.
	Rows []datar.Row
	// DetailsFrom is the start of Rows if the details of the first of the last days are deleted,
	// otherwise zero. Earlier is the number of evaluations on the whole UTC days between, as far as
	// totals of days contain them: disabled flags and flags without segments are not in the totals.
	DetailsFrom time.Time
	Earlier     int64
	// EverAsked is true if the flag was ever requested, as far as counts are kept. LastAsked is the
	// last such time, zero if unknown.
	EverAsked bool
	LastAsked time.Time
	History   History
	Timeline  Timeline
	// Complete is the completeness of this flag's counts of the last days.
	Complete *Complete
	// Refresh is the interval at which servers check for changes of flags.
	Refresh time.Duration
	// WithoutTexts leaves out sentences with numbers and dates, which take most of the time.
	WithoutTexts bool
}

// stater is a StateInput with values that several rules use.
type stater struct {
	*StateInput
	start      time.Time
	asked      Asked
	total      int64
	assigned   map[int64]int64 // by variant
	layout     *eval.Layout
	lately     time.Duration
	countedFor time.Duration
}

// StateOf returns the first state that applies.
func StateOf(in *StateInput) *State {
	s := &stater{StateInput: in, lately: time.Duration(in.Days) * day, assigned: map[int64]int64{}, layout: in.Layout}
	if s.layout == nil {
		s.layout = eval.LayoutOf(in.Flag)
	}
	s.start = in.Now.Add(-s.lately)
	for i := range in.Rows {
		r := &in.Rows[i]
		s.total += r.Count
		s.asked.add(r)
		if r.VariantID != 0 && (r.Outcome == datar.Matched || r.Outcome == datar.Unattributed) {
			s.assigned[r.VariantID] += r.Count
		}
	}
	if !in.Complete.Since.IsZero() {
		s.countedFor = in.Now.Sub(in.Complete.Since)
	}
	state := s.state()
	state.FlagID, state.FlagKey = int64(in.Flag.ID), in.Flag.Key
	state.Evidence.Count, state.Evidence.Last, state.Evidence.ChangedAt = s.total, in.LastAsked, in.History.AssignedAt
	state.CanDelete = s.canDelete()
	state.Advice = s.advice(state)
	if slices.Contains([]StateName{StateNeverEvaluated, StateInactive, StateLaunched}, state.State) {
		state.Stale = !in.History.ChangedAt.After(s.start)
	}
	return state
}

// say formats a sentence, unless the state is without texts.
func (s *stater) say(format string, args ...any) string {
	if s.WithoutTexts {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

// text returns a message, unless the state is without texts.
func (s *stater) text(name string, args ...any) catalog.Message {
	if s.WithoutTexts {
		return catalog.Message{}
	}
	return catalog.Say(name, args...)
}

func (s *stater) state() *State {
	f, now := s.Flag, s.Now
	age := now.Sub(f.CreatedAt)
	since := s.Complete.Since
	switch {
	case since.IsZero():
		return &State{State: StateNotCounted, Since: s.recordsOffSince(), Reason: "The flag is not counted, so nothing is known about it."}
	case s.countedFor < s.lately && age > s.lately:
		return &State{State: StateNotCounted, Since: since,
			Reason: s.say("Counted without a break since %s only, which is less than the %s asked about.", dateText(since), daysText(s.Days))}
	case s.isUnknown():
		return &State{State: StateNotCounted, Since: s.DetailsFrom,
			Reason: s.say("Not asked for since %s. Details of earlier days are deleted, so the %s asked about are not known.", dateText(s.DetailsFrom), daysText(s.Days))}
	case age < settleDays*day && !s.EverAsked:
		return &State{State: StateNew, Since: f.CreatedAt.UTC(), Reason: s.say("Created on %s, and not asked for yet.", dateText(f.CreatedAt))}
	case s.countedFor >= s.lately && !s.EverAsked:
		return &State{State: StateNeverEvaluated, Since: f.CreatedAt.UTC(), Reason: s.say("Never asked for since counting began on %s.", dateText(since))}
	case s.EverAsked && !s.askedLately():
		return &State{State: StateInactive, Since: s.LastAsked, Reason: s.inactiveReason()}
	case !f.Enabled && s.total > 0:
		return &State{State: StateOffButAsked, Since: s.History.AssignedAt,
			Reason: s.say("Switched off, and asked for %s since %s.", times(s.total), dateText(s.begin()))}
	case !f.Enabled && s.askedLately():
		return &State{State: StateOffButAsked, Since: s.History.AssignedAt, Reason: s.say("Switched off. %s", s.earlierText())}
	case f.Enabled && s.total > 0 && len(s.assigned) == 0:
		return &State{State: StateGivesNothing,
			Reason: s.say("None of %s since %s got a variant.", evaluations(s.total), dateText(s.begin()))}
	case !s.History.AssignedAt.IsZero() && now.Sub(s.History.AssignedAt) < settleDays*day:
		return &State{State: StateChanging, Since: s.History.AssignedAt, Reason: s.say("Who gets what was last changed on %s.", dateText(s.History.AssignedAt))}
	}
	if launched := s.launched(); launched != nil {
		return launched
	}
	if oneSided := s.oneSided(); oneSided != nil {
		return oneSided
	}
	if s.askedEarlier() && s.total == 0 {
		return &State{State: StateActive, Reason: s.earlierText().String()}
	}
	if s.total == 0 {
		return &State{State: StateActive, Reason: s.say("Created on %s, and not asked for yet.", dateText(f.CreatedAt))}
	}
	var assigned int64
	for _, n := range s.assigned {
		assigned += n
	}
	return &State{State: StateActive, Reason: s.say("%s of %s since %s got a variant.", catalog.Number(assigned), evaluations(s.total), dateText(s.begin()))}
}

// begin returns the start of the details of the last days, or when the flag was created if that is
// later.
func (s *stater) begin() time.Time { return later(later(s.start, s.DetailsFrom), s.Flag.CreatedAt) }

// askedEarlier reports whether the flag was requested in the part of the last days of which details
// are deleted.
func (s *stater) askedEarlier() bool {
	return !s.DetailsFrom.IsZero() && (s.Earlier > 0 || !s.LastAsked.Before(s.start) && s.LastAsked.Before(s.DetailsFrom))
}

// askedLately reports whether the flag was requested in the last days, as far as known.
func (s *stater) askedLately() bool { return s.total > 0 || s.askedEarlier() }

// isUnknown reports whether requests in the last days may have been forgotten, and none is known.
func (s *stater) isUnknown() bool {
	return s.DetailsFrom.After(later(s.start, s.Flag.CreatedAt)) && !s.askedLately()
}

// earlierText describes requests of which details are deleted.
func (s *stater) earlierText() catalog.Message {
	if s.LastAsked.IsZero() {
		return s.text("api.check.asked.earlier", "n", s.Earlier, "from", catalog.Day(s.DetailsFrom))
	}
	return s.text("api.check.asked.last", "at", catalog.Day(s.LastAsked), "from", catalog.Day(s.DetailsFrom))
}

func (s *stater) recordsOffSince() time.Time {
	if n := len(s.History.Records); n > 0 && !s.History.Records[n-1].On {
		return s.History.Records[n-1].From
	}
	return time.Time{}
}

func (s *stater) inactiveReason() string {
	if s.LastAsked.IsZero() {
		return s.say("Asked for earlier, and not in the last %s.", daysText(s.Days))
	}
	return s.say("Last asked for on %s, and not in the last %s.", dateText(s.LastAsked), daysText(s.Days))
}

// onlyVariant returns the variant that the configuration gives all entities. It returns nil if
// there are several variants or no variant, or if some entities get no variant.
func (s *stater) onlyVariant() *eval.VariantLayout {
	var only *eval.VariantLayout
	everybody := false
	for i := range s.layout.Segments {
		l := &s.layout.Segments[i]
		if l.Reach == eval.ReachNobody {
			continue
		}
		everybody = everybody || l.Reach == eval.ReachEverybody
		for j := range l.Given {
			g := &l.Given[j]
			if g.Buckets == 0 {
				continue
			}
			if g.Buckets != eval.Buckets || only != nil && only.VariantID != g.VariantID {
				return nil
			}
			only = g
		}
		if l.HeldOut > 0 {
			return nil
		}
	}
	if !everybody {
		return nil
	}
	return only
}

// launched checks the evaluations since the last change that affects the assignment.
func (s *stater) launched() *State {
	only := s.onlyVariant()
	if !s.Flag.Enabled || only == nil {
		return nil
	}
	var count int64
	changed := s.Timeline.Index(s.History.AssignedSnapshot)
	deadline := s.History.AssignedAt.Add(s.Refresh + clockSkew)
	for i := range s.Rows {
		r := &s.Rows[i]
		gotIt := r.VariantID == only.VariantID && (r.Outcome == datar.Matched || r.Outcome == datar.Unattributed)
		if r.Outcome == datar.Unattributed && gotIt && s.History.AssignedAt.After(s.start) {
			continue // it may be from before or after the change
		}
		if at := s.Timeline.resolveRow(r); at < changed && r.Outcome != datar.Unattributed && !time.UnixMilli(r.Last).After(deadline) {
			continue // evaluated before the change
		}
		if !gotIt {
			return nil
		}
		count += r.Count
	}
	if count == 0 {
		return nil
	}
	from := later(s.begin(), s.History.AssignedAt)
	return &State{State: StateLaunched, Since: later(s.History.AssignedAt, s.Complete.Since), Evidence: Evidence{VariantKey: only.VariantKey},
		Reason: s.say("All %s since %s got `%s`, and the configuration gives everybody `%s`.", evaluations(count), dateText(from), only.VariantKey, only.VariantKey)}
}

func (s *stater) oneSided() *State {
	if !s.Flag.Enabled || len(s.assigned) != 1 {
		return nil
	}
	var got, count int64
	for got, count = range s.assigned {
	}
	key, others := "", []string{}
	for i := range s.layout.Segments {
		l := &s.layout.Segments[i]
		for _, g := range l.Given {
			switch {
			case g.VariantID == got:
				key = g.VariantKey
			case g.Buckets > 0 && l.Reach != eval.ReachNobody && !slices.Contains(others, g.VariantKey):
				others = append(others, g.VariantKey)
			}
		}
	}
	if len(others) == 0 {
		return nil
	}
	return &State{State: StateOneSided, Evidence: Evidence{VariantKey: key},
		Reason: s.say("All %s that got a variant since %s got `%s`; the configuration can also give `%s`.",
			evaluations(count), dateText(s.begin()), key, cut(strings.Join(others, "`, `")))}
}

// canDelete checks the conditions for the deletion of a flag.
func (s *stater) canDelete() CanDelete {
	checks := []Check{s.checkCounted(), s.checkNotAsked(), s.checkAllHeard(), s.checkNoneLost(), s.checkUnchanged()}
	answer := AnswerYes
	for i := range checks {
		c := &checks[i]
		c.Answer = s.answerOf(c)
		if c.Answer == AnswerNo || answer == AnswerYes {
			answer = c.Answer
		}
	}
	return CanDelete{Answer: answer, Checks: checks}
}

// answerOf returns what a check alone says about the deletion. Evaluations by tag do not name the
// flag, so they do not forbid it.
func (s *stater) answerOf(c *Check) Answer {
	byTagOnly := s.total > 0 && s.asked.ByName == 0 && !s.askedEarlier()
	switch {
	case c.OK:
		return AnswerYes
	case c.Check == CheckNotAsked && s.askedLately() && !byTagOnly || c.Check == CheckUnchanged:
		return AnswerNo
	default:
		return AnswerUnknown
	}
}

func (s *stater) checkCounted() Check {
	c := Check{Check: CheckCounted, OK: !s.Complete.Since.IsZero() && s.countedFor >= s.lately}
	switch days := int(s.countedFor / day); {
	case s.WithoutTexts:
	case s.Complete.Since.IsZero():
		c.Text = s.text("api.check.uncounted")
	case c.OK:
		c.Text = s.text("api.check.counted", "days", days)
	default:
		c.Text = s.text("api.check.short", "span", catalog.Span(s.countedFor), "days", s.Days)
	}
	return c
}

func (s *stater) checkNotAsked() Check {
	c := Check{Check: CheckNotAsked, OK: !s.askedLately() && !s.isUnknown()}
	if s.WithoutTexts {
		return c
	}
	var name string
	args := []any{"n", s.total, "from", catalog.Day(s.begin())}
	switch {
	case c.OK:
		name = "api.check.unasked"
	case s.isUnknown():
		name = "api.check.unasked.details"
		args = append(args, "days", s.Days)
	case s.total == 0:
		c.Text = s.earlierText()
		return c
	case s.asked.Unknown == s.total:
		name = "api.check.asked"
	case s.asked.Unknown > 0:
		name = "api.check.asked.some"
		args = append(args, "name", s.asked.ByName-s.asked.Unknown, "tag", s.asked.ByTag, "unknown", s.asked.Unknown)
	case s.asked.ByTag == 0:
		name = "api.check.asked.name"
	default:
		name = "api.check.asked.both"
		if s.asked.ByName == 0 {
			name = "api.check.asked.tag"
		}
		args = append(args, "name", s.asked.ByName, "tag", s.asked.ByTag, "tags", s.tags())
	}
	c.Text = s.text(name, args...)
	return c
}

// tags names the tags of the flag.
func (s *stater) tags() catalog.Message {
	if len(s.Flag.Tags) == 0 {
		return catalog.Say("api.check.tags.none")
	}
	return catalog.Say("api.check.tags", "n", len(s.Flag.Tags), "tags", catalog.Name(cut(tagsText(s.Flag.Tags))))
}

func (s *stater) checkAllHeard() Check {
	c := Check{Check: CheckAllHeard, OK: s.Complete.Servers > 0 && s.Complete.Silent == 0}
	switch {
	case s.WithoutTexts:
	case s.Complete.Servers == 0:
		c.Text = s.text("api.check.noserver")
	case s.Complete.Silent == 0:
		c.Text = s.text("api.check.heard", "n", s.Complete.Servers, "at", catalog.Minute(s.Complete.UpTo))
	default:
		c.Text = s.text("api.check.silent", "silent", s.Complete.Silent, "n", s.Complete.Servers)
	}
	return c
}

func (s *stater) checkNoneLost() Check {
	hole := slices.IndexFunc(s.Complete.Holes, func(h Hole) bool { return h.Why == WhyDropped })
	c := Check{Check: CheckNoneLost, OK: s.Complete.Dropped == 0 && hole < 0}
	switch {
	case s.WithoutTexts:
	case c.OK:
		c.Text = s.text("api.check.kept", "days", s.Days)
	case s.Complete.Dropped == 0:
		h := s.Complete.Holes[hole]
		c.Text = s.text("api.check.doubtful", "from", catalog.Minute(h.From), "to", catalog.Minute(h.To))
	default:
		c.Text = s.text("api.check.dropped", "n", s.Complete.Dropped, "days", s.Days)
	}
	return c
}

func (s *stater) checkUnchanged() Check {
	since := s.Now.Sub(s.History.ChangedAt)
	c := Check{Check: CheckUnchanged, OK: since >= settleDays*day}
	if !s.WithoutTexts {
		c.Text = s.text("api.check.changed", "span", catalog.Span(max(since, 0)))
	}
	return c
}

func (s *stater) advice(state *State) Advice {
	deletable := state.CanDelete.Answer == AnswerYes
	switch state.State {
	case StateNotCounted:
		if s.isUnknown() && s.countedFor >= s.lately {
			return Advice{DoWait, s.text("api.advice.details", "days", int(s.Now.Sub(s.DetailsFrom)/day))}
		}
		if state.Since.IsZero() || s.Complete.Since.IsZero() {
			return Advice{DoCount, s.text("api.advice.count", "days", s.Days)}
		}
		return Advice{DoWait, s.text("api.advice.wait", "days", s.Days)}
	case StateNew:
		return Advice{DoWait, s.text("api.advice.new")}
	case StateNeverEvaluated, StateInactive:
		if deletable {
			return Advice{DoDelete, s.text("api.advice.delete")}
		}
		return Advice{DoWait, s.text("api.advice.checks")}
	case StateOffButAsked:
		return Advice{DoRemoveFromCode, s.text("api.advice.off", "days", s.Days)}
	case StateGivesNothing:
		return Advice{DoCheckTargeting, s.text("api.advice.nothing")}
	case StateChanging:
		return Advice{DoNothing, s.text("api.advice.changing")}
	case StateLaunched:
		return Advice{DoRemoveFromCode, s.text("api.advice.launched", "variant", state.Evidence.VariantKey, "days", s.Days)}
	case StateOneSided:
		return Advice{DoCheckTargeting, s.text("api.advice.one_sided")}
	default:
		return Advice{DoNothing, s.text("api.advice.none")}
	}
}
