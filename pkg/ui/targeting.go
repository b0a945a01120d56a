package ui

import (
	"cmp"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/ui/chart"
)

// targetingData is the form of a flag, its changes and its errors.
type targetingData struct {
	Head          flagHead
	Answer, Under template.HTML
	Curl, SQL     string // of the counts beside the segments
	Form          *form
	Segments      []segmentView
	Variants      []variantView
	Operators     []option
	Errors        map[string]string
	Summary       []fieldError
	Changed       map[string]bool
	Changes       []change
	SaveWords     template.HTML
	EntityTypes   []string
	FixedTypes    bool
	TagChoices    []string
	Review        *reviewData
	Conflict      *conflictData
	Notes         template.HTML // as they are displayed
	TooLarge      template.HTML // instead of a form with too many fields
}

type segmentView struct {
	Place, Number int
	Segment       formSegment
	First, Last   bool
	Constraints   []constraintView
	Shares        []shareView
	None          shareView
	Came          template.HTML
	Unreachable   template.HTML
	Sum           int
	SumWrong      bool
}

type constraintView struct {
	Place int
	C     formConstraint
	Hint  template.HTML
	// Quoted and Unquoted offer the value with quotes, or without.
	Quoted, Unquoted bool
}

type shareView struct {
	Key, Class string
	Place      int
	Percent    string
	Bar        template.HTML
	Numbers    template.HTML
}

type variantView struct {
	Place int
	Class string
	V     formVariant
	Lines int
	InUse template.HTML
}

// Number is the displayed place, from 1.
func (v variantView) Number() int { return v.Place + 1 }

type reviewData struct {
	Changes  []reviewChange
	Warnings []template.HTML
	Errors   []fieldError
	Hidden   []option
	Seconds  int
	Action   string
	Forecast *forecastView
}

type reviewChange struct {
	Words template.HTML
	Undo  string
}

type conflictData struct {
	By           catalog.Name
	At           template.HTML
	Theirs, Ours []change
	Current      uint
	Hidden       []option
	Action       string
}

// targeting shows the form of the saved flag.
func (u *UI) targeting(rw http.ResponseWriter, r *http.Request) error {
	f, stale, err := u.flag(r)
	if err != nil {
		return err
	}
	if !isEditable(f) {
		return u.tooLarge(rw, r, f, stale, "edit.err.texts", "edit.err.texts.readonly", "most", maxEditedTexts)
	}
	saved := formOf(f)
	if n := saved.fields(); n > maxFormFields {
		return u.tooLarge(rw, r, f, stale, "edit.err.fields", "edit.err.fields.readonly", "n", n, "most", maxFormFields)
	}
	p, d := u.targetingPage(r, f, saved, stale)
	p.Data = d
	u.render(rw, r, http.StatusOK, "targeting.html", p)
	return nil
}

// tooLarge shows the named message instead of a form that a browser cannot send, or the one for
// read-only servers.
func (u *UI) tooLarge(rw http.ResponseWriter, r *http.Request, f *entity.Flag, stale bool, name, readOnly string, args ...any) error {
	p, head := u.flagPage(r, f, "targeting")
	head.Stale, head.Checked = stale, u.o.LastCheck()
	path := fmt.Sprintf("flags/%d/definition", f.ID)
	if p.ReadOnly {
		name, path = readOnly, fmt.Sprintf("export/eval_cache/json?ids=%d", f.ID)
	}
	p.Data = &targetingData{Head: head, Answer: u.who(f), TooLarge: u.text.say(name, append(args, "json", p.Root+"../api/v1/"+path)...)}
	u.render(rw, r, http.StatusOK, "targeting.html", p)
	return nil
}

// edit handles the form. Its buttons change the form, review it, or save it; only "save" saves.
func (u *UI) edit(rw http.ResponseWriter, r *http.Request) error {
	if err := u.readForm(r); err != nil {
		return err
	}
	f, stale, err := u.flag(r)
	if err != nil {
		return err
	}
	if !r.PostForm.Has(wholeField) {
		u.notify(rw, "notice.partial", "")
		seeOther(rw, "targeting")
		return nil
	}
	typed := parseForm(r.PostForm)
	if err := u.checkSize(typed); err != nil {
		return err
	}
	action := cmp.Or(r.PostForm.Get("do"), "review")
	base := u.baseOf(r, f, typed.Snapshot)
	if err := u.checkEditable(base); err != nil {
		return err
	}
	typed.keepLines(base)
	if err := typed.convert(r.Context(), u.o.Turns, u.text); err != nil {
		return err
	}
	before := typed.fields()
	if place, ok := strings.CutPrefix(action, "undo."); ok {
		u.undo(base, typed, place)
		action = "review"
	} else {
		typed.act(action)
	}
	if typed.fields() > before { // the button has added a part
		if full := u.checkGrown(typed); full != nil {
			attachments := typed.attachments
			typed = parseForm(r.PostForm)
			typed.keepLines(base)
			typed.attachments = attachments
			p, d := u.targetingPage(r, base, typed, stale)
			p.Data = d
			d.omitErrorsOfNewParts()
			d.Summary = append([]fieldError{{"", u.text.problem(full)}}, d.Summary...)
			u.render(rw, r, http.StatusBadRequest, "targeting.html", p)
			return nil
		}
	}
	if action == "save" {
		return u.save(rw, r, f, typed)
	}
	p, d := u.targetingPage(r, base, typed, stale)
	p.Data = d
	if action == "review" {
		if len(d.Changes) > 0 && len(d.Summary) == 0 {
			u.review(r, base, typed, d)
		} else if len(d.Summary) == 0 {
			p.Notice = u.text.say("edit.nothing")
		}
	} else {
		d.omitErrorsOfNewParts()
	}
	u.render(rw, r, http.StatusOK, "targeting.html", p)
	return nil
}

// omitErrorsOfNewParts removes the errors of parts that were added and are still empty. The review
// reports them.
func (d *targetingData) omitErrorsOfNewParts() {
	isNew := map[string]bool{}
	for i, v := range d.Form.Variants {
		isNew[fmt.Sprintf("v.%d.key", i)] = v == formVariant{}
	}
	for i, s := range d.Form.Segments {
		for j, c := range s.Constraints {
			for _, field := range []string{"property", "value"} {
				isNew[fmt.Sprintf("s.%d.c.%d.%s", i, j, field)] = c.ID == 0 && c.Property == "" && c.Value == ""
			}
		}
	}
	d.Summary = slices.DeleteFunc(d.Summary, func(e fieldError) bool { return isNew[e.Field] })
	maps.DeleteFunc(d.Errors, func(field, _ string) bool { return isNew[field] })
}

// baseOf returns the version that the form was created from, or else the current one.
func (u *UI) baseOf(r *http.Request, f *entity.Flag, snapshot uint) *entity.Flag {
	if snapshot == f.SnapshotID || u.o.Store == nil {
		return f
	}
	if base := u.snapshot(r, int64(f.ID), snapshot); base != nil {
		return base
	}
	return f
}

func (u *UI) undo(base *entity.Flag, typed *form, place string) {
	i, err := strconv.Atoi(place)
	if err != nil {
		return
	}
	after, _ := u.applied(base, typed)
	if changes := u.changesBetween(base, after); i >= 0 && i < len(changes) && changes[i].undo != nil {
		changes[i].undo(typed)
	}
}

// applied returns the flag with the changes of a form, and the errors by field name.
func (u *UI) applied(base *entity.Flag, typed *form) (*entity.Flag, []fieldError) {
	d, errs := typed.definition(u.text)
	seen := map[string]bool{}
	for _, e := range errs {
		seen[e.Field] = true
		if segment, _, ok := strings.Cut(e.Field, ".d."); ok { // their sum is not another error
			seen[segment+".shares"] = true
		}
	}
	after, problems := d.Apply(base)
	for _, problem := range problems {
		field := typed.placed(fieldOf(problem.Path))
		if field == "" || !seen[field] {
			seen[field] = true
			errs = append(errs, fieldError{field, u.problemWords(typed, field, problem.Message)})
		}
	}
	if len(problems) > 0 { // references are broken: compare without them
		after = typedFlag(base, d)
	}
	return after, errs
}

// problemWords returns the message of a problem without the words of a parser, of which users need
// not know.
func (u *UI) problemWords(typed *form, field string, m catalog.Message) string {
	if m.Name != "api.constraint.nonsense" && m.Name != "api.constraint.unreadable" {
		return u.text.message(m)
	}
	var i, j int
	if _, err := fmt.Sscanf(field, "s.%d.c.%d.value", &i, &j); err == nil && isUnquoted(typed.Segments[i].Constraints[j].Value) {
		return u.text.plain("edit.err.quotes")
	}
	return u.text.plain("edit.err.condition")
}

// isUnquoted reports whether an invalid value may be a string without its quotes.
func isUnquoted(value string) bool { return value != "" && !strings.ContainsAny(value, `"[]`) }

// typedFlag returns the flag of an invalid definition, only for comparison and display.
func typedFlag(base *entity.Flag, d entity.Definition) *entity.Flag {
	f := *base
	f.Key, f.Description, f.Notes, f.EntityType = *d.Key, *d.Description, *d.Notes, *d.EntityType
	f.Enabled, f.DataRecordsEnabled = *d.Enabled, *d.DataRecordsEnabled
	f.Tags = make([]entity.Tag, len(d.Tags))
	for i, tag := range d.Tags {
		f.Tags[i].Value = tag
	}
	f.Variants = make([]entity.Variant, len(d.Variants))
	for i, v := range d.Variants {
		f.Variants[i] = entity.Variant{Key: v.Key, Attachment: v.Attachment}
		f.Variants[i].ID = v.ID
		if v.Attachment == "" {
			if at := slices.IndexFunc(base.Variants, func(o entity.Variant) bool { return o.ID == v.ID }); at >= 0 {
				f.Variants[i].Attachment = base.Variants[at].Attachment
			}
		}
	}
	f.Segments = make([]entity.Segment, len(d.Segments))
	for i, s := range d.Segments {
		one := entity.Segment{Description: s.Description, RolloutPercent: s.RolloutPercent, Rank: uint(i)}
		one.ID = s.ID
		for _, c := range s.Constraints {
			constraint := entity.Constraint{Property: c.Property, Operator: c.Operator, Value: c.Value}
			constraint.ID = c.ID
			one.Constraints = append(one.Constraints, constraint)
		}
		for _, share := range s.Distributions {
			one.Distributions = append(one.Distributions, entity.Distribution{VariantID: share.VariantID, VariantKey: share.VariantKey, Percent: share.Percent})
		}
		f.Segments[i] = one
	}
	return &f
}

// withIDs numbers new parts, without conflicts with real IDs, so that a layout can distinguish
// them.
func withIDs(f *entity.Flag) *entity.Flag {
	const unreal = 1 << 40
	g := *f
	g.Variants = slices.Clone(f.Variants)
	keys := map[string]uint{}
	for i := range g.Variants {
		if g.Variants[i].ID == 0 {
			g.Variants[i].ID = unreal + uint(i)
		}
		keys[g.Variants[i].Key] = g.Variants[i].ID
	}
	g.Segments = slices.Clone(f.Segments)
	for i := range g.Segments {
		s := &g.Segments[i]
		if s.ID == 0 {
			s.ID = unreal + uint(i)
		}
		s.Rank = uint(i)
		s.Constraints = slices.Clone(s.Constraints)
		for j := range s.Constraints {
			if s.Constraints[j].ID == 0 {
				s.Constraints[j].ID = unreal + uint(j)
			}
		}
		s.Distributions = slices.Clone(s.Distributions)
		for j := range s.Distributions {
			if s.Distributions[j].VariantID == 0 {
				s.Distributions[j].VariantID = keys[s.Distributions[j].VariantKey]
			}
		}
	}
	return &g
}

func (u *UI) targetingPage(r *http.Request, base *entity.Flag, typed *form, stale bool) (*page, *targetingData) {
	p, head := u.flagPage(r, base, "targeting")
	head.Stale, head.Checked = stale, u.o.LastCheck()
	head.Editing = !p.ReadOnly
	head.Enabled, head.SwitchChanged = typed.Enabled, typed.Enabled != base.Enabled
	after, errs := u.applied(base, typed)
	d := &targetingData{
		Head: head, Form: typed, Operators: u.operators(), Errors: map[string]string{}, Changed: map[string]bool{}, Summary: errs,
		Changes: u.changesBetween(base, after), Answer: u.who(base), FixedTypes: len(u.o.EntityTypes) > 0, EntityTypes: u.o.EntityTypes,
	}
	d.Under = u.text.say("edit.under", "version", strconv.FormatUint(uint64(base.SnapshotID), 10))
	for _, e := range errs {
		d.Errors[e.Field] = u.text.plain("edit.err.alone", "what", e.Message)
	}
	d.Notes = markdown(typed.Notes)
	u.markChanged(d, base)
	if u.o.Store != nil && !stale {
		u.suggestions(r, d)
	}
	came := u.came(r, base)
	if came != nil {
		d.Curl, d.SQL = u.rolloutSources(r, base)
	}
	u.segmentViews(p, d, base, after, came)
	u.variantViews(d)
	d.SaveWords = u.saveWords(d.Changes)
	return p, d
}

// operators are the operators of the API, and those for plain text.
func (u *UI) operators() []option {
	var all []option
	for _, name := range entity.Operators() {
		all = append(all, option{Value: name, Name: name})
	}
	return append(all, option{Value: hasText, Name: u.text.plain("edit.op.hastext")}, option{Value: lacksText, Name: u.text.plain("edit.op.lackstext")})
}

// suggestions returns tags and entity types in use. A page works without them.
func (u *UI) suggestions(r *http.Request, d *targetingData) {
	const most = 500
	tags, err := u.o.Store.Tags(r.Context())
	if err == nil {
		d.TagChoices = tags[:min(len(tags), most)]
	}
	if d.FixedTypes {
		return
	}
	if types, err := u.o.Store.EntityTypes(r.Context()); err == nil {
		d.EntityTypes = types[:min(len(types), most)]
	}
}

// markChanged compares the form with the form of the saved flag, field by field.
func (u *UI) markChanged(d *targetingData, base *entity.Flag) {
	saved := map[string]string{}
	savedForm := formOf(base)
	for _, field := range savedForm.values() {
		saved[field.Name] = field.Value
	}
	reorder := map[string]string{} // names in the saved form by names in the submitted one
	savedSegments := savedForm.Segments
	for i, s := range d.Form.Segments {
		if at := slices.IndexFunc(savedSegments, func(o formSegment) bool { return o.ID == s.ID && s.ID != 0 }); at >= 0 {
			reorder[fmt.Sprintf("s.%d.", i)] = fmt.Sprintf("s.%d.", at)
		}
	}
	for _, field := range d.Form.values() {
		name := field.Name
		if strings.HasPrefix(name, "s.") {
			parts := strings.SplitN(name, ".", 3)
			from, ok := reorder["s."+parts[1]+"."]
			if !ok {
				continue
			}
			name = from + parts[2]
		}
		was, ok := saved[name]
		if ok && was != field.Value || !ok && field.Value != "" && !strings.HasSuffix(name, ".id") && !strings.HasSuffix(name, ".operator") {
			d.Changed[field.Name] = true
		}
	}
}

func (u *UI) saveWords(changes []change) template.HTML {
	if len(changes) == 0 {
		return ""
	}
	const shown = 3
	words := make([]string, 0, shown)
	for _, c := range changes[:min(shown, len(changes))] {
		words = append(words, string(c.Words))
	}
	return u.text.say("edit.changes", "n", len(changes), "words", template.HTML(strings.Join(words, " "))) //nolint:gosec // texts of the catalog
}

// who describes in words who gets what.
func (u *UI) who(f *entity.Flag) template.HTML {
	if len(f.Segments) == 0 {
		return u.text.say("who.nosegments")
	}
	const shown = 3
	var sentences []string
	everybody := false
	for i := range f.Segments {
		if i == shown {
			sentences = append(sentences, string(u.text.say("who.more", "n", len(f.Segments)-shown)))
			everybody = true
			break
		}
		s := &f.Segments[i]
		sentences = append(sentences, string(u.whoSegment(s, i, everybody)))
		if len(s.Constraints) == 0 {
			everybody = true
			break
		}
	}
	words := strings.Join(sentences, ". ")
	if everybody {
		words += "."
	} else {
		words += string(u.text.say("who.else"))
	}
	return template.HTML(words) //nolint:gosec // texts of the catalog
}

func (u *UI) whoSegment(s *entity.Segment, place int, _ bool) template.HTML {
	name := "who.some"
	args := []any{"who", catalog.Name(s.Description), "lower", catalog.Name(lowerFirst(s.Description)), "many", u.text.countOf(s.Description), "n", strconv.Itoa(place + 1), "percent", points(s.RolloutPercent)}
	switch {
	case len(s.Constraints) == 0 && place == 0:
		name = "who.everybody"
	case len(s.Constraints) == 0:
		name = "who.others"
	case s.Description == "":
		name = "who.unnamed"
	}
	what := u.whatTheyGet(s)
	args = append(args, "what", what)
	switch {
	case s.RolloutPercent == 0 || what == "":
		name += ".none"
	case s.RolloutPercent < 100:
		name += ".part"
	}
	return u.text.say(name, args...)
}

// countOf returns 2 if a name is in the plural, as far as its words show it, and else 1.
func (c *texts) countOf(name string) int {
	words := strings.Fields(strings.ToLower(name))
	prepositions := strings.Fields(c.plain("who.prepositions"))
	if at := slices.IndexFunc(words, func(word string) bool { return slices.Contains(prepositions, word) }); at >= 0 {
		words = words[:at]
	}
	if len(words) == 0 {
		return 1
	}
	endsAs := func(endings string) bool {
		return slices.ContainsFunc(strings.Fields(c.plain(endings)), func(ending string) bool { return strings.HasSuffix(words[len(words)-1], ending) })
	}
	if endsAs("who.plural") && !endsAs("who.singular") {
		return 2
	}
	return 1
}

// lowerFirst is for the middle of a sentence: "Adults in France" becomes "adults in France", and
// "VIP" stays.
func lowerFirst(text string) string {
	if len(text) > 1 && text[0] >= 'A' && text[0] <= 'Z' && text[1] >= 'a' && text[1] <= 'z' {
		return strings.ToLower(text[:1]) + text[1:]
	}
	return text
}

func (u *UI) whatTheyGet(s *entity.Segment) template.HTML {
	var given []entity.Distribution
	equal := true
	for _, share := range s.Distributions {
		if share.Percent > 0 {
			given = append(given, share)
			equal = equal && share.Percent == given[0].Percent
		}
	}
	switch {
	case len(given) == 0:
		return ""
	case len(given) == 1:
		return u.text.say("what.one", "a", code(given[0].VariantKey))
	case len(given) == 2 && equal:
		return u.text.say("what.half", "a", code(given[0].VariantKey), "b", code(given[1].VariantKey))
	case len(given) > 4:
		return u.text.say("what.many", "n", len(given))
	}
	var parts []string
	for _, share := range given {
		parts = append(parts, string(u.text.say("what.share", "a", code(share.VariantKey), "percent", points(share.Percent))))
	}
	return template.HTML(strings.Join(parts, ", ")) //nolint:gosec // texts of the catalog
}

// cameOf has the results of segments by their IDs. It is nil if they are unknown.
type cameOf map[uint]segmentCame

// segmentCame is the result of a segment.
type segmentCame struct {
	counts  map[uint]int64 // evaluations that matched it, by variant; variant 0 stands for those without a variant
	total   int64          // their sum
	unknown bool           // there are evaluations whose segment and version are unknown
}

func (u *UI) segmentViews(p *page, d *targetingData, base, after *entity.Flag, came cameOf) {
	laidOut := withIDs(after)
	now, then := eval.LayoutOf(base), eval.LayoutOf(laidOut)
	saved := map[int64]*eval.SegmentLayout{}
	for i := range now.Segments {
		saved[now.Segments[i].SegmentID] = &now.Segments[i]
	}
	for i, s := range d.Form.Segments {
		v := segmentView{Place: i, Number: i + 1, Segment: s, First: i == 0, Last: i == len(d.Form.Segments)-1}
		isValid := true // else what the segment matches is unknown
		for j, c := range s.Constraints {
			at := fmt.Sprintf("s.%d.c.%d.", i, j)
			isValid = isValid && d.Errors[at+"property"] == "" && d.Errors[at+"value"] == ""
			v.Constraints = append(v.Constraints, u.constraintView(j, c, d.Errors[at+"value"]))
		}
		var layout *eval.SegmentLayout
		if i < len(then.Segments) && i < len(laidOut.Segments) {
			layout = &then.Segments[i]
			if isValid && layout.Reach == eval.ReachNobody {
				v.Unreachable = u.text.say("edit.unreachable")
			}
		}
		v.Came = u.cameWords(p, s.ID, came)
		u.shareViews(&v, laidOut, layout, saved[int64(s.ID)], came[s.ID])
		v.SumWrong = d.Errors[fmt.Sprintf("s.%d.shares", i)] != ""
		d.Segments = append(d.Segments, v)
	}
}

func (u *UI) cameWords(_ *page, id uint, came cameOf) template.HTML {
	one, ok := came[id]
	switch {
	case !ok:
		return u.text.say("edit.shares")
	case one.unknown && one.total == 0:
		return u.text.say("edit.shares.unknown")
	case one.unknown:
		return u.text.say("edit.shares.atleast", "n", one.total)
	default:
		return u.text.say("edit.shares.came", "n", one.total)
	}
}

// shareViews draws a bar for each variant and one for the rest.
func (u *UI) shareViews(v *segmentView, f *entity.Flag, layout, saved *eval.SegmentLayout, came segmentCame) {
	got := func(id uint) float64 { return ratio(came.counts[id], came.total) }
	largest := 0.0
	for _, l := range []*eval.SegmentLayout{layout, saved} {
		if l != nil {
			largest = max(largest, float64(l.HeldOut)/eval.Buckets)
			for _, g := range l.Given {
				largest = max(largest, float64(g.Buckets)/eval.Buckets)
			}
		}
	}
	for id := range came.counts {
		largest = max(largest, got(id))
	}
	scale := chart.Scale(largest)
	view := func(key, class string, place int, percentText string, id uint, then, now int) shareView {
		set, was := float64(then)/eval.Buckets, float64(now)/eval.Buckets
		one := shareView{Key: shown(key), Class: class, Place: place, Percent: percentText}
		changed := saved != nil && then != now
		one.Bar = chart.SetGot(chart.Share{Class: class, Set: set, Got: got(id), Scale: scale, NoGot: came.total == 0, NoSet: layout == nil, Changed: changed})
		if changed {
			one.Numbers = u.text.say("edit.setchanged", "from", percent(was), "to", percent(set))
		} else {
			one.Numbers = u.text.say("edit.set", "set", percent(set))
		}
		return one
	}
	for j, variant := range f.Variants {
		share := ""
		if j < len(v.Segment.Shares) {
			share = v.Segment.Shares[j]
		}
		if n, err := strconv.Atoi(share); err == nil {
			v.Sum += n
		}
		v.Shares = append(v.Shares, view(variant.Key, chart.Class(j), j, share, variant.ID, bucketsOf(layout, variant.ID), bucketsOf(saved, variant.ID)))
	}
	held, was := 0, 0
	if layout != nil {
		held = layout.HeldOut
	}
	if saved != nil {
		was = saved.HeldOut
	}
	v.None = view("", chart.None, -1, "", 0, held, was)
}

func bucketsOf(l *eval.SegmentLayout, id uint) int {
	if l == nil {
		return 0
	}
	for _, g := range l.Given {
		if g.VariantID == int64(id) {
			return g.Buckets
		}
	}
	return 0
}

// constraintView adds warnings about values that are valid but rarely intended.
func (u *UI) constraintView(place int, c formConstraint, problem string) constraintView {
	v := constraintView{Place: place, C: c}
	switch value := c.Value; {
	case patternOf[c.Operator] != "":
		if text := unquoted(value); text != value {
			v.Hint, v.Unquoted = u.text.say("edit.hint.plain", "text", code(text)), true
		}
	case value == "true" || value == "false":
		v.Hint, v.Quoted = u.text.say("edit.hint.boolean", "value", code(value), "quoted", code(strconv.Quote(value))), true
	case problem != "" && isUnquoted(value):
		v.Hint, v.Quoted = u.text.say("edit.hint.quote", "quoted", code(strconv.Quote(value))), true
	case isNumber(value) && strings.HasPrefix(c.Operator, "EREG"):
		v.Hint = u.text.say("edit.hint.pattern")
	case strings.Contains(c.Operator, "CONTAINS") && !strings.HasPrefix(value, "["):
		v.Hint = u.text.say("edit.hint.contains", "property", code(c.Property))
	case strings.HasPrefix(c.Property, "@ts"):
		v.Hint = u.text.say("edit.hint.ts")
	}
	return v
}

func isNumber(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return err == nil
}

func (u *UI) variantViews(d *targetingData) {
	for i, v := range d.Form.Variants {
		var users []string
		for j, s := range d.Form.Segments {
			if i < len(s.Shares) && s.Shares[i] != "" && s.Shares[i] != "0" {
				users = append(users, strconv.Itoa(j+1))
			}
		}
		one := variantView{Place: i, Class: chart.Class(i), V: v, Lines: min(12, 1+strings.Count(v.Attachment, "\n"))}
		if len(users) > 0 {
			one.InUse = u.text.say("edit.inuse", "n", len(users), "segments", strings.Join(users, ", "))
		}
		d.Variants = append(d.Variants, one)
	}
}

// review shows the changes to save, in words.
func (u *UI) review(r *http.Request, base *entity.Flag, typed *form, d *targetingData) {
	review := &reviewData{Hidden: typed.values(), Seconds: seconds(u.o.RefreshInterval), Action: "targeting"}
	for i, c := range d.Changes {
		one := reviewChange{Words: c.Words}
		if c.undo != nil {
			one.Undo = "undo." + strconv.Itoa(i)
		}
		review.Changes = append(review.Changes, one)
	}
	for _, s := range d.Segments {
		for _, c := range s.Constraints {
			if c.Hint != "" && d.Changed[fmt.Sprintf("s.%d.c.%d.value", s.Place, c.Place)] {
				review.Warnings = append(review.Warnings, c.Hint)
			}
		}
		if s.Unreachable != "" {
			review.Warnings = append(review.Warnings, u.text.say("edit.review.unreachable", "segment", segmentName(u.text, s.Place, s.Segment.Description)))
		}
	}
	if typed.Key != base.Key {
		review.Warnings = append(review.Warnings, u.text.say("edit.review.key", "key", code(base.Key)))
	}
	definition, _ := typed.definition(u.text)
	review.Forecast = u.forecast(r, base, &definition)
	d.Review = review
}

// save writes the form, unless the flag was changed by another request.
func (u *UI) save(rw http.ResponseWriter, r *http.Request, f *entity.Flag, typed *form) error {
	base := u.baseOf(r, f, typed.Snapshot)
	definition, errs := typed.definition(u.text)
	var err error
	if len(errs) == 0 {
		_, err = u.o.Store.ReplaceDefinition(r.Context(), u.o.Actor(r), int64(f.ID), definition)
		if err == nil {
			u.saved(rw, r, "notice.saved", f.Key, "targeting")
			return nil
		}
	}
	p, d := u.targetingPage(r, base, typed, false)
	p.Data = d
	status := http.StatusBadRequest
	var conflict *entity.ConflictError
	switch {
	case errors.As(err, &conflict):
		status = http.StatusConflict
		ours := d.Changes
		d.Conflict = &conflictData{
			By: catalog.Name(shortName(conflict.Current.UpdatedBy)), At: p.Time(conflict.Current.UpdatedAt, ""), Ours: ours, Current: conflict.Current.SnapshotID, Action: "targeting",
		}
		if conflict.Base != nil {
			d.Conflict.Theirs = u.changesBetween(conflict.Base, conflict.Current)
		}
		mine := *typed
		mine.Snapshot = conflict.Current.SnapshotID
		forgetGone(&mine, conflict.Current)
		d.Conflict.Hidden = mine.values()
	case errors.Is(err, entity.ErrDuplicateKey):
		d.Errors["key"] = u.taken(r.Context(), typed.Key)
		d.Summary = append(d.Summary, fieldError{"key", d.Errors["key"]})
	case errors.Is(err, entity.ErrInvalid), errors.Is(err, entity.ErrNotFound):
		if len(d.Summary) == 0 {
			d.Summary = append(d.Summary, fieldError{"", u.text.problem(err)})
		}
	case err != nil: // no input is lost
		status = http.StatusServiceUnavailable
		u.o.Logger.Error("definition was not saved", "flag", f.ID, "error", err)
		d.Summary = append(d.Summary, fieldError{"", u.text.plain("edit.err.database")})
	}
	u.render(rw, r, status, "targeting.html", p)
	return nil
}
