package ui

import (
	"cmp"
	"context"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/pkg/ui/chart"
)

const (
	// overviewDays is the period of the sentence and of the shares, chartDays the period of the
	// chart.
	overviewDays = 7
	chartDays    = 30
)

type overviewData struct {
	Head          flagHead
	Answer, Under template.HTML
	Curl, SQL     string
	Ask           string // the command that evaluates the flag, if there was no evaluation
	Missing       template.HTML
	RecordsOff    bool
	Findings      []findingView
	Chart         *chartView
	SetGot        *setGotView
	About         []aboutRow
	Variants      []variantRow
	Notes         template.HTML
}

type findingView struct {
	Class    string
	Word     template.HTML
	Text     template.HTML
	Link     string
	LinkWord template.HTML
}

type aboutRow struct{ Name, Value template.HTML }

type variantRow struct{ Class, Key, Attachment string }

// lately is a window of the last days.
func lately(now time.Time, days int) insight.Window {
	from := now.Add(-time.Duration(days) * 24 * time.Hour)
	return insight.Window{From: &from}
}

// overview is the first page of a flag: its results and its settings.
func (u *UI) overview(rw http.ResponseWriter, r *http.Request) error {
	f, stale, err := u.flag(r)
	if err != nil {
		return err
	}
	p, head := u.flagPage(r, f, "overview")
	head.Stale, head.Checked = stale, u.o.LastCheck()
	d := &overviewData{Head: head, Answer: u.who(f), Notes: markdown(f.Notes)}
	if !f.Enabled {
		d.Answer = u.text.say("answer.off")
	}
	part := u.text.attachmentPart()
	for i, v := range f.Variants {
		attachment, _ := part.shown(v.Attachment)
		d.Variants = append(d.Variants, variantRow{chart.Class(i), v.Key, attachment})
	}
	var state *insight.State
	if d.Missing = u.missing(p, f, nil); d.Missing == "" && !stale {
		if state, err = u.overviewNumbers(r, p, f, d); err != nil {
			d.Missing = u.missing(p, f, err)
		}
	}
	d.RecordsOff = !u.counts(f) && u.o.Numbers != nil && !p.ReadOnly
	u.about(p, f, d, state)
	p.Data = d
	u.render(rw, r, http.StatusOK, "overview.html", p)
	return nil
}

func (u *UI) overviewNumbers(r *http.Request, p *page, f *entity.Flag, d *overviewData) (*insight.State, error) {
	id, now := int64(f.ID), u.o.Now()
	state, err := u.o.Numbers.State(r.Context(), id, nil)
	if err != nil {
		return nil, err
	}
	outcomes, err := u.o.Numbers.Outcomes(r.Context(), id, lately(now, overviewDays))
	if err != nil {
		return state, err
	}
	d.Answer = u.stateAnswer(p, f, state, outcomes)
	if outcomes.Total == 0 && !everAsked(state) && u.counts(f) {
		d.Ask = u.askCurl(r, f.Key)
	}
	d.Under = u.text.say("overview.under", "from", p.Time(outcomes.From, ""), "upto", u.upTo(p, outcomes.Complete))
	d.Curl = u.curl(r, fmt.Sprintf("/datar/flags/%d/outcomes?from=%s", id, outcomes.From.UTC().Format(time.RFC3339)))
	d.SQL = u.sql(datar.GroupOutcome|datar.GroupVariant, f, outcomes.From, nil)
	rollout, err := u.o.Numbers.Rollout(r.Context(), id, lately(now, overviewDays))
	if err != nil {
		return state, err
	}
	d.Findings = u.findings(p, f, rollout.Findings)
	if len(rollout.Versions) > 0 {
		d.SetGot = u.setGot(p, f, rollout, state.Evidence.ChangedAt)
		d.SetGot.Curl, d.SetGot.SQL = u.rolloutSources(r, f)
	}
	query := insight.SeriesQuery{Window: lately(now, chartDays), Bucket: "day", Zone: p.ZoneName, By: "variant"}
	series, err := u.o.Numbers.Series(r.Context(), id, query)
	if err != nil {
		return state, err
	}
	if seriesTotal(&series.Buckets) > 0 {
		d.Chart = u.chart(p, f, series, 168, 736, 7)
		d.Chart.Curl, d.Chart.SQL = u.seriesSources(r, f, series, query)
	}
	return state, nil
}

// stateAnswer is the first sentence of the page.
func (u *UI) stateAnswer(p *page, f *entity.Flag, state *insight.State, o *insight.Outcomes) template.HTML {
	name := u.text.plain("state." + string(state.State))
	if state.State == insight.StateNotCounted && o.Total > 0 {
		name = u.text.plain("answer.counted", "at", p.format(later(state.Since, o.From), "day"))
	}
	if o.Total == 0 {
		if !u.counts(f) {
			return u.text.say("answer.recordsoff")
		}
		if !everAsked(state) {
			return u.text.say("answer.never", "state", name)
		}
		if state.Evidence.Last.IsZero() {
			return u.text.say("answer.unknown", "state", name)
		}
		return u.text.say("answer.none", "state", name, "ago", p.Ago(state.Evidence.Last))
	}
	given := variantTotals(f, o)
	nothing := o.Total
	for _, g := range given {
		nothing -= g.Count
	}
	share := func(n int64) percent { return percent(float64(n) / float64(o.Total)) }
	why := "flags/" + strconv.FormatUint(uint64(f.ID), 10) + "/nothing"
	args := []any{"state", name, "n", o.Total, "nothing", share(nothing), "link", p.Root + why}
	for i, g := range given {
		args = append(args, "v"+strconv.Itoa(i+1), code(g.VariantKey), "s"+strconv.Itoa(i+1), share(g.Count))
	}
	key := "answer.many"
	switch {
	case len(given) == 0:
		key = "answer.nothing"
	case len(given) == 1 && nothing == 0:
		key = "answer.all"
	case len(given) <= 3:
		key = "answer." + strconv.Itoa(len(given))
	default:
		args = append(args, "others", len(given)-1, "low", share(given[len(given)-1].Count), "high", share(given[1].Count))
	}
	if nothing > 0 && len(given) > 0 {
		return u.text.say(key+".some", args...)
	}
	return u.text.say(key, args...)
}

// everAsked reports whether the flag was ever requested. The time of the last request can be
// unknown.
func everAsked(state *insight.State) bool {
	return !state.Evidence.Last.IsZero() || state.Evidence.Count > 0 || state.State == insight.StateInactive
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// variantTotals returns the assigned variants, highest count first, or in the order of the flag if
// there are few.
func variantTotals(f *entity.Flag, o *insight.Outcomes) []insight.VariantOutcome {
	counts := slices.Clone(o.Unattributed)
	for _, s := range o.Segments {
		counts = append(counts, s.Variants...)
	}
	sums := map[int64]*insight.VariantOutcome{}
	for _, v := range counts {
		if sums[v.VariantID] == nil {
			sums[v.VariantID] = &insight.VariantOutcome{VariantID: v.VariantID, VariantKey: v.VariantKey}
		}
		sums[v.VariantID].Count += v.Count
	}
	all := make([]insight.VariantOutcome, 0, len(sums))
	for _, v := range sums {
		if v.VariantID != 0 {
			all = append(all, *v)
		}
	}
	few := len(all) <= 3
	slices.SortFunc(all, func(a, b insight.VariantOutcome) int {
		byPlace := cmp.Compare(variantPlace(f, a.VariantID), variantPlace(f, b.VariantID))
		if few {
			return cmp.Or(byPlace, cmp.Compare(a.VariantID, b.VariantID))
		}
		return cmp.Or(cmp.Compare(b.Count, a.Count), byPlace)
	})
	return all
}

func (u *UI) findings(p *page, f *entity.Flag, all []insight.Finding) []findingView {
	const most = 20
	classes := map[insight.Severity]string{insight.Contradiction: "bad", insight.Warning: "warn", insight.Note: "note"}
	base := p.Root + "flags/" + strconv.FormatUint(uint64(f.ID), 10)
	var views []findingView
	for _, one := range all[:min(most, len(all))] {
		v := findingView{Class: classes[one.Severity], Word: u.text.say("finding." + string(one.Severity)), Text: u.message(p, f, one.Text)}
		switch one.Rule {
		case insight.RuleNeverMatched, insight.RuleUnevaluable:
			v.Link, v.LinkWord = base+"/nothing", u.text.say("finding.why")
		case insight.RuleUnreachable, insight.RuleOneSided:
			v.Link, v.LinkWord = base+"/targeting", u.text.say("tab.targeting")
		default:
			v.Link, v.LinkWord = base+"/traffic?by=version", u.text.say("finding.rows")
		}
		views = append(views, v)
	}
	return views
}

// setGotView is the table of configured and actual shares.
type setGotView struct {
	Curl, SQL string
	Since     template.HTML
	Segments  []setGotSegment
	Middle    string
	End       string
	Foot      template.HTML
}

type setGotSegment struct {
	Number      string
	Name        string
	Constraints []string
	Came        template.HTML
	Rows        []setGotRow
}

type setGotRow struct {
	Class, Key string
	Bar        template.HTML
	Set, Got   string
	Count      string
	Zero       bool
}

// sinceChange adds up the versions since the last change of the assignment.
func sinceChange(r *insight.Rollout, changed time.Time) *insight.VersionRollout {
	last := r.Versions[len(r.Versions)-1]
	last.Segments = slices.Clone(last.Segments)
	for i := range last.Segments {
		last.Segments[i].Given = slices.Clone(last.Segments[i].Given)
	}
	for i := len(r.Versions) - 2; i >= 0; i-- {
		v := &r.Versions[i]
		if v.From.Before(changed) && !changed.IsZero() || changed.IsZero() {
			break
		}
		last.From = v.From
		last.Count += v.Count
		last.Unassigned += v.Unassigned
		for j := range last.Segments {
			addSegment(&last.Segments[j], v.Segments)
		}
	}
	return &last
}

func addSegment(to *insight.SegmentRollout, from []insight.SegmentRollout) {
	for i := range from {
		if from[i].SegmentID != to.SegmentID {
			continue
		}
		to.Count += from[i].Count
		for _, g := range from[i].Given {
			for k := range to.Given {
				if to.Given[k].VariantID == g.VariantID && to.Given[k].HeldOut == g.HeldOut {
					to.Given[k].Count += g.Count
				}
			}
		}
	}
}

func (u *UI) setGot(p *page, f *entity.Flag, r *insight.Rollout, changed time.Time) *setGotView {
	v := sinceChange(r, changed)
	since := "setgot.since"
	if !v.From.After(r.From) { // the version is older than the window
		since = "setgot.window"
	}
	view := &setGotView{Since: u.text.say(since, "version", strconv.FormatInt(v.SnapshotID, 10), "at", p.Time(v.From, ""))}
	largest := 0.0
	for i := range v.Segments {
		for _, g := range v.Segments[i].Given {
			largest = max(largest, g.Set, ratio(g.Count, v.Segments[i].Count))
		}
	}
	scale := chart.Scale(largest)
	view.Middle, view.End = points1(scale/2), points1(scale)
	left := v.Count
	for i := range v.Segments {
		s := &v.Segments[i]
		if s.SegmentID == 0 || s.Rank < 0 && s.Count == 0 {
			continue
		}
		one := setGotSegment{Number: strconv.Itoa(s.Rank + 1), Name: shown(s.Description)}
		for j := range f.Segments {
			if int64(f.Segments[j].ID) == s.SegmentID {
				for k := range f.Segments[j].Constraints {
					one.Constraints = append(one.Constraints, clip(u.text.constraint(&f.Segments[j].Constraints[k])))
				}
			}
		}
		if one.Name == "" && len(one.Constraints) == 0 {
			one.Name = u.text.plain("setgot.everybody")
		}
		one.Came = u.text.say("setgot.matched", "n", s.Count)
		if len(one.Constraints) > 0 {
			one.Came = u.text.say("setgot.matchedof", "n", s.Count, "rest", max(0, left-s.Count))
		}
		unknown := s.Count == 0 && r.Unattributed > 0
		if unknown {
			one.Came = u.text.say("setgot.unknown")
		}
		left -= s.Count
		for _, g := range s.Given {
			got := ratio(g.Count, s.Count)
			row := setGotRow{Class: chart.None, Key: g.VariantKey, Set: percent(g.Set).String(), Got: "–", Count: number(g.Count), Zero: g.Count == 0}
			if s.Count > 0 {
				row.Got = percent(got).String()
			}
			if unknown {
				row.Count = "–"
			}
			if !g.HeldOut {
				row.Class = chart.Class(max(0, variantPlace(f, g.VariantID)))
			} else if g.Buckets == 0 && g.Count == 0 {
				continue
			} else {
				row.Key = ""
			}
			row.Bar = chart.SetGot(chart.Share{Class: row.Class, Set: g.Set, Got: got, Scale: scale, NoGot: s.Count == 0})
			one.Rows = append(one.Rows, row)
		}
		view.Segments = append(view.Segments, one)
	}
	view.Foot = u.text.say("setgot.foot")
	if scale < 1 {
		view.Foot = u.text.say("setgot.foot.scale", "end", view.End)
	}
	if r.Unattributed > 0 {
		view.Foot += " " + u.text.say("setgot.foot.unknown", "n", r.Unattributed)
	}
	return view
}

func ratio(n, of int64) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}

// points1 formats the end of a scale: 25 %, 12.5 %.
func points1(share float64) string { return strconv.FormatFloat(share*100, 'f', -1, 64) + "\u00a0%" }

// about is the sidebar.
func (u *UI) about(p *page, f *entity.Flag, d *overviewData, state *insight.State) {
	add := func(name string, value template.HTML) {
		d.About = append(d.About, aboutRow{u.text.say("about." + name), value})
	}
	id := p.Root + "flags/" + strconv.FormatUint(uint64(f.ID), 10)
	if state != nil {
		if !state.Evidence.Last.IsZero() {
			add("last", p.Ago(state.Evidence.Last))
		}
		if c := state.Complete; c != nil && !c.Since.IsZero() {
			counted := u.text.say("about.counted.text", "at", p.Time(c.Since, "day"))
			if len(c.Holes) > 0 {
				counted = u.text.say("about.counted.holes", "at", p.Time(c.Since, "day"), "n", len(c.Holes), "link", id+"/traffic")
			}
			add("counted", counted)
		}
	}
	add("records", u.text.say(map[bool]string{true: "on", false: "off"}[f.DataRecordsEnabled]))
	if f.EntityType != "" {
		add("entity", u.text.say("about.code", "x", code(f.EntityType)))
	}
	if u.o.Store != nil {
		version := strconv.FormatUint(uint64(f.SnapshotID), 10)
		add("version", u.text.say("about.version.text", "version", version, "link", id+"/history?snapshot="+version+"#v"+version, "at", p.Time(f.UpdatedAt, "")))
	}
	if f.UpdatedBy != "" {
		add("by", u.text.say("about.by.text", "x", catalog.Name(f.UpdatedBy)))
	}
	if state != nil && u.o.Store != nil {
		add("delete", u.text.say("about.delete."+string(state.CanDelete.Answer), "link", id+"/delete"))
	}
}

// curl returns the command that fetches the same numbers.
func (u *UI) curl(r *http.Request, path string) string {
	return fmt.Sprintf("curl '%s%s/api/v1%s'", origin(r), strings.TrimSuffix(u.o.Prefix, "/"), path)
}

func origin(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// rolloutSources returns the commands that get what came of each segment in the last days.
func (u *UI) rolloutSources(r *http.Request, f *entity.Flag) (curl, sql string) {
	from := hourOf(u.o.Now(), overviewDays)
	return u.curl(r, fmt.Sprintf("/datar/flags/%d/rollout?from=%s", f.ID, from.Format(time.RFC3339))),
		u.sql(datar.GroupVersion|datar.GroupSegment|datar.GroupVariant|datar.GroupOutcome, f, from, nil)
}

// came returns the results of each segment in the last days, for the bars of Targeting.
func (u *UI) came(r *http.Request, f *entity.Flag) cameOf {
	if u.o.Numbers == nil {
		return nil
	}
	rollout, err := u.o.Numbers.Rollout(r.Context(), int64(f.ID), lately(u.o.Now(), overviewDays))
	if err != nil || len(rollout.Versions) == 0 {
		return nil
	}
	came := cameOf{}
	for _, v := range rollout.Versions {
		if v.SnapshotID != int64(f.SnapshotID) {
			continue
		}
		for i := range v.Segments {
			s := &v.Segments[i]
			one := segmentCame{counts: map[uint]int64{}, unknown: rollout.Unattributed > 0}
			for _, g := range s.Given {
				one.counts[uint(g.VariantID)] += g.Count
				one.total += g.Count
			}
			came[uint(s.SegmentID)] = one
		}
	}
	return came
}

type forecastView struct {
	Curl string
	Rows []forecastRow
	Text template.HTML
}

type forecastRow struct{ Class, Key, Now, Then, Difference string }

// draftOf returns a definition as the draft of the API. Its lists are complete, also if they are
// empty: an omitted list is the saved one.
func draftOf(d *entity.Definition) any {
	type segment struct {
		entity.SegmentDefinition
		Constraints   []entity.ConstraintDefinition   `json:"constraints"`
		Distributions []entity.DistributionDefinition `json:"distributions"`
	}
	segments := make([]segment, len(d.Segments))
	for i := range d.Segments {
		segments[i] = segment{d.Segments[i], d.Segments[i].Constraints, d.Segments[i].Distributions}
	}
	return map[string]any{"enabled": d.Enabled, "variants": d.Variants, "segments": segments}
}

// forecastWait is how long a page waits for the turn of its forecast. After that, it has no
// forecast.
const forecastWait = 2 * time.Second

// forecast returns nil without numbers, without a turn in time, and if the segments do not change.
func (u *UI) forecast(r *http.Request, f *entity.Flag, d *entity.Definition) *forecastView {
	if u.o.Numbers == nil {
		return nil
	}
	waits, cancel := context.WithTimeout(r.Context(), forecastWait)
	defer cancel()
	if budget.Resume(waits) != nil {
		return nil
	}
	forecast, err := u.o.Numbers.Forecast(r.Context(), int64(f.ID), d)
	if err != nil {
		return nil
	}
	view := &forecastView{Curl: u.postCurl(r, fmt.Sprintf("/datar/flags/%d/forecast", f.ID), map[string]any{"draft": draftOf(d)})}
	then := map[int64]int64{}
	keys := map[int64]string{}
	var order []int64
	for _, e := range slices.Concat(forecast.Now, forecast.Then) {
		if _, ok := keys[e.VariantID]; !ok {
			order = append(order, e.VariantID)
		}
		keys[e.VariantID] = e.VariantKey
	}
	for _, e := range forecast.Then {
		then[e.VariantID] = e.PerDay
	}
	now := map[int64]int64{}
	changed := forecast.Moved+forecast.Gained+forecast.Lost > 0
	for _, e := range forecast.Now {
		now[e.VariantID] = e.PerDay
	}
	slices.SortStableFunc(order, func(a, b int64) int { return cmp.Compare(placeOrLast(f, a), placeOrLast(f, b)) })
	for _, id := range order {
		class := chart.None
		if id != 0 {
			class = chart.Class(max(0, variantPlace(f, id)))
		}
		view.Rows = append(view.Rows, forecastRow{class, keys[id], number(now[id]), number(then[id]), signed(then[id] - now[id])})
	}
	unknown := 0
	for _, s := range forecast.Segments {
		if s.Unknown {
			unknown++
		}
	}
	if !changed && unknown == 0 {
		return nil
	}
	if !changed {
		view.Rows = nil
	}
	view.Text = u.forecastWords(forecast, unknown)
	return view
}

// forecastWords returns the sentences of a forecast: which buckets change, and what it does not
// include.
func (u *UI) forecastWords(f *insight.Forecast, unknown int) template.HTML {
	var sentences []string
	add := func(name string, n int64) {
		if n > 0 {
			sentences = append(sentences, string(u.text.say(name, "n", n)))
		}
	}
	if f.Moved+f.Gained+f.Lost > 0 {
		sentences = append(sentences, string(u.text.say("forecast.days")))
		if f.Moved == 0 {
			sentences = append(sentences, string(u.text.say("forecast.kept")))
		}
		add("forecast.moved", int64(f.Moved))
		add("forecast.gained", int64(f.Gained))
		add("forecast.lost", int64(f.Lost))
		add("forecast.unattributed", f.Unattributed)
	}
	add("forecast.unknown", int64(unknown))
	return template.HTML(strings.Join(sentences, " ")) //nolint:gosec // texts of the catalog
}

func placeOrLast(f *entity.Flag, id int64) int {
	if id == 0 {
		return len(f.Variants) + 1
	}
	if place := variantPlace(f, id); place >= 0 {
		return place
	}
	return len(f.Variants)
}

func signed(n int64) string {
	if n > 0 {
		return "+" + number(n)
	}
	return number(n)
}

// countedDays returns the number of days of which a state has evaluations, begun ones included: a
// new flag has fewer than others. If the flag is counted since a hole, it was also counted before
// it.
func countedDays(s *insight.State, created, now time.Time) int64 {
	since := created
	if c := s.Complete; c != nil && !c.Since.IsZero() && !slices.ContainsFunc(c.Holes, func(h insight.Hole) bool { return h.To.Equal(c.Since) }) {
		since = c.Since
	}
	const day = 24 * time.Hour
	return min(latelyDays, max(1, 1+int64((now.Sub(since)-1)/day)))
}

// deletionChecks sets the checks of a deletion; failed checks come first.
func (u *UI) deletionChecks(r *http.Request, p *page, f *entity.Flag, d *deleteData) {
	var state *insight.State
	missing := u.missing(p, f, nil)
	if missing == "" {
		var err error
		if state, err = u.o.Numbers.State(r.Context(), int64(f.ID), nil); err != nil {
			missing = u.missing(p, f, err)
		}
	}
	if missing != "" {
		d.Checks = append(d.Checks, checkView{"warn", u.text.say("delete.check.unknown"), missing})
		return
	}
	d.Curl = u.curl(r, fmt.Sprintf("/datar/flags/%d/state", f.ID))
	d.SQL = u.sql(datar.GroupOutcome, f, hourOf(u.o.Now(), latelyDays), nil)
	if n := state.Evidence.Count; n > 0 {
		d.Title = u.text.say("delete.title.asked", "key", code(f.Key), "n", max(1, n/countedDays(state, f.CreatedAt, p.Now)))
	}
	d.Sure = state.CanDelete.Answer == insight.AnswerYes
	order := []string{"no", "unknown", "ok"}
	classes := map[string]string{"no": "bad", "unknown": "warn", "ok": "good"}
	for _, kind := range order {
		for _, c := range state.CanDelete.Checks {
			is := string(c.Answer)
			if c.OK {
				is = "ok"
			}
			if is == kind {
				d.Checks = append(d.Checks, checkView{classes[kind], u.text.say("delete.check." + kind), u.message(p, f, c.Text)})
			}
		}
	}
	if do := state.Advice.Do; !d.Sure && !state.Advice.Text.IsZero() && do != insight.DoDelete && do != insight.DoNothing {
		d.Instead = u.message(p, f, state.Advice.Text)
	}
}
