package ui

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/pkg/ui/chart"
)

const (
	// triedInFull is the number of entities that are explained.
	triedInFull = 20
	// triedInCurl is the number of entities in the curl command.
	triedInCurl = 3
	// maxCurlBytes limits the body of a command, which the page then does not show.
	maxCurlBytes = 64 << 10
	// maxExampleBytes limits the keys and values of an example for a context.
	maxExampleBytes = 16 << 10
	madeUp          = 20
	// maxTriedBytes limits the text of entities and context. bytesPerTriedByte is what a byte of it
	// can take once it is decoded.
	maxTriedBytes, bytesPerTriedByte = 1 << 20, 48
	// exampleBatch is shown in the empty field for many entities.
	exampleBatch = `{"entities": [{"entityID": "a1234", "entityContext": {"country": "FR"}}]}`
)

type tryData struct {
	Head            flagHead
	Entity, Context string
	Many            string
	Example, Curl   string
	Error           string
	Draft, Off      bool
	DraftWords      template.HTML
	Hidden          []option
	Results         []triedView
	Split           []splitView
	Answer          template.HTML
}

type triedView struct {
	Entity string
	Class  string
	Answer template.HTML
	Bucket int
	Map    template.HTML
	Steps  []template.HTML
	Attach string
}

type splitView struct {
	Class, Key string
	Count      int
	Share      string
	Bar        template.HTML
}

// tryForm is the form for an entity.
func (u *UI) tryForm(rw http.ResponseWriter, r *http.Request) error {
	f, stale, err := u.flag(r)
	if err != nil {
		return err
	}
	p, head := u.flagPage(r, f, "try")
	head.Stale, head.Checked = stale, u.o.LastCheck()
	d := &tryData{Head: head, Example: exampleBatch, Entity: r.URL.Query().Get("id"), Context: exampleContext(f), Answer: u.text.say("try.answer")}
	p.Data = d
	u.render(rw, r, http.StatusOK, "try.html", p)
	return nil
}

// exampleContext has the properties of the constraints, with values that make the first constraints
// hold. It omits long ones.
func exampleContext(f *entity.Flag) string {
	context, left := map[string]json.RawMessage{}, maxExampleBytes
	for i := range f.Segments {
		for j := range f.Segments[i].Constraints {
			c := constraintForm(&f.Segments[i].Constraints[j])
			if _, ok := context[c.Property]; ok || strings.HasPrefix(c.Property, "@") {
				continue
			}
			text, err := json.Marshal(exampleValue(c))
			if size := len(c.Property) + len(text); err == nil && string(text) != "null" && size <= left {
				context[c.Property] = text
				left -= size
			}
		}
	}
	text, err := json.Marshal(context)
	if err != nil {
		return "{}"
	}
	return string(text)
}

// exampleValue returns a value for which the constraint holds, or nil.
func exampleValue(c formConstraint) any {
	switch c.Operator {
	case hasText:
		return c.Value
	case lacksText:
		return ""
	}
	var value any
	if json.Unmarshal([]byte(c.Value), &value) != nil {
		return nil
	}
	if all, ok := value.([]any); ok && len(all) > 0 {
		value = all[0]
	}
	if c.Operator == "CONTAINS" || c.Operator == "NOTCONTAINS" {
		value = []any{value}
	}
	return value
}

// try evaluates without counting, recording or logging anything.
func (u *UI) try(rw http.ResponseWriter, r *http.Request) error {
	if err := u.readForm(r); err != nil {
		return err
	}
	draft := r.PostForm.Has("draft") || r.PostForm.Get("do") == "draft"
	if draft && !r.PostForm.Has(wholeField) {
		u.notify(rw, "notice.partial", "")
		seeOther(rw, "targeting")
		return nil
	}
	if !resume(rw, r) {
		return nil
	}
	f, stale, err := u.flag(r)
	if err != nil {
		return err
	}
	p, head := u.flagPage(r, f, "try")
	head.Stale, head.Checked = stale, u.o.LastCheck()
	d := &tryData{Head: head, Example: exampleBatch, Entity: strings.TrimSpace(r.PostForm.Get("id")), Context: r.PostForm.Get("context"), Many: r.PostForm.Get("many"), Answer: u.text.say("try.answer")}
	p.Data = d
	tried := f
	if draft {
		if err := u.checkEditable(f); err != nil {
			return err
		}
		typed := parseForm(r.PostForm)
		if err := u.checkSize(typed); err != nil {
			return err
		}
		typed.keepLines(f)
		if err := typed.convert(r.Context(), u.o.Turns, u.text); err != nil {
			return err
		}
		after, errs := u.applied(f, typed)
		d.Draft, d.Hidden = true, typed.values()
		d.DraftWords = u.text.say("try.draft", "n", len(u.changesBetween(f, after)))
		if len(errs) > 0 {
			d.Error = errs[0].Message
			if where := u.text.where(errs[0].Field); where != "" {
				d.Error = u.text.plain("edit.err.at", "where", where, "what", d.Error)
			}
		}
		tried = withIDs(after)
		if r.PostForm.Get("do") == "draft" {
			d.Context = exampleContext(tried)
		}
	}
	if r.PostForm.Get("do") != "draft" && d.Error == "" {
		if err := u.tryAll(r, d, tried); err != nil {
			d.Error = err.Error()
			if errors.Is(err, budget.ErrExhausted) {
				d.Error = u.text.plain("error.busy.text")
			}
		}
	}
	u.render(rw, r, http.StatusOK, "try.html", p)
	return nil
}

func (u *UI) tryAll(r *http.Request, d *tryData, f *entity.Flag) error {
	entities, err := u.triedEntities(r, d)
	if err != nil {
		return err
	}
	live := *f
	live.Enabled = true // the result once it is on is useful before it is turned on
	trial, err := insight.NewTrial(&live, entities, u.o.Trials)
	if err != nil {
		return u.trialError(err)
	}
	d.Off = !f.Enabled
	if !d.Draft {
		d.Curl = u.tryCurl(r, f, entities)
	}
	layout := eval.LayoutOf(&live)
	counts := map[int64]int{}
	tried := 0
	err = trial.Each(r.Context(), u.o.Now(), func(t insight.Tried) (kept int, err error) {
		counts[t.VariantID]++
		if tried < triedInFull {
			d.Results = append(d.Results, u.tried(&live, layout, &t))
			kept = d.Results[tried].bytes()
		}
		tried++
		return kept, nil
	})
	if errors.Is(err, budget.ErrExhausted) {
		return err
	}
	if err != nil {
		return errors.New(u.text.plain("try.err.time", "n", tried, "of", len(entities)))
	}
	if len(entities) > 1 {
		u.split(d, &live, counts, len(entities))
	}
	return nil
}

// trialError describes why a trial is rejected, in words of the page.
func (u *UI) trialError(err error) error {
	if size, ok := errors.AsType[*insight.TrialSizeError](err); ok {
		return errors.New(u.text.plain("try.err.many", "n", size.Entities, "most", size.Most))
	}
	if deep, ok := errors.AsType[*insight.TrialDepthError](err); ok {
		return errors.New(u.text.plain("try.err.depth", "n", deep.Entity+1, "most", entity.MaxJSONDepth))
	}
	if long, ok := errors.AsType[*insight.TrialAnswerError](err); ok {
		return errors.New(u.text.plain("try.err.answer", "n", long.Entities, "segments", long.Segments, "bytes", long.Bytes, "most", long.Most))
	}
	return err
}

// triedEntities returns the entities that the button of the form tries.
func (u *UI) triedEntities(r *http.Request, d *tryData) ([]eval.Entity, error) {
	// The values in an escaped form are not counted while its body is read.
	size := len(d.Many) + len(d.Context)
	if size > maxTriedBytes {
		return nil, errors.New(u.text.plain("try.err.large", "n", size, "most", maxTriedBytes))
	}
	if err := budget.Add(r.Context(), int64(size)*bytesPerTriedByte); err != nil {
		return nil, err
	}
	var ids []string
	button, many := r.PostForm.Get("do"), strings.TrimSpace(d.Many)
	switch {
	case button == "made-up":
		for i := range madeUp {
			ids = append(ids, fmt.Sprintf("user-%d", i+1))
		}
	case button == "many" && strings.IndexAny(many, "{[") == 0:
		return parseEntities(many, u.text)
	case button == "many":
		ids = strings.Fields(strings.ReplaceAll(many, ",", " "))
	default:
		ids = []string{d.Entity}
	}
	context, err := parseContext(d.Context, u.text)
	if err != nil {
		return nil, err
	}
	entities := make([]eval.Entity, len(ids))
	for i, id := range ids {
		entities[i] = eval.Entity{EntityID: id, EntityContext: context}
	}
	return entities, nil
}

// triedEntity is an entity in the body of POST /evaluation, POST /evaluation/batch and POST
// /flags/{flagID}/try.
type triedEntity struct {
	ID      string `json:"entityID"`
	Type    string `json:"entityType,omitempty"`
	Context any    `json:"entityContext,omitempty"`
}

// parseEntities parses the JSON of one entity, of a list of entities, or of an object with such a
// list. It ignores all other members, such as the flags of a batch.
func parseEntities(text string, words *texts) ([]eval.Entity, error) {
	var body struct {
		triedEntity
		Entities []*triedEntity `json:"entities"`
	}
	into := any(&body)
	if text[0] == '[' {
		into = &body.Entities
	}
	if err := parseJSON(text, into, words); err != nil {
		return nil, err
	}
	if body.Entities == nil {
		body.Entities = []*triedEntity{&body.triedEntity}
	}
	entities := make([]eval.Entity, len(body.Entities))
	for i, e := range body.Entities {
		if e == nil {
			return nil, errors.New(words.plain("try.err.null", "n", i+1))
		}
		entities[i] = eval.Entity{EntityID: e.ID, EntityType: e.Type, EntityContext: e.Context}
	}
	return entities, nil
}

// tryCurl returns the command that tries the same entities, or the first of many.
func (u *UI) tryCurl(r *http.Request, f *entity.Flag, entities []eval.Entity) string {
	var body struct {
		Entities []triedEntity `json:"entities"`
	}
	for _, e := range entities[:min(triedInCurl, len(entities))] {
		body.Entities = append(body.Entities, triedEntity{e.EntityID, e.EntityType, e.EntityContext})
	}
	return u.postCurl(r, fmt.Sprintf("/flags/%d/try", f.ID), body)
}

// postCurl returns the command that sends a body as JSON, or "" if JSON cannot represent the body,
// or only with more than maxCurlBytes.
func (u *UI) postCurl(r *http.Request, path string, body any) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(body) != nil || b.Len() > maxCurlBytes {
		return ""
	}
	return fmt.Sprintf("%s \\\n  -H 'Content-Type: application/json' \\\n  -d '%s'", u.curl(r, path), strings.ReplaceAll(strings.TrimSpace(b.String()), "'", `'\''`))
}

// parseContext parses a JSON object; an empty string is an empty object.
func parseContext(text string, words *texts) (any, error) {
	if strings.TrimSpace(text) == "" {
		return map[string]any{}, nil
	}
	var context any
	if err := parseJSON(text, &context, words); err != nil {
		return nil, err
	}
	if _, ok := context.(map[string]any); !ok {
		return nil, errors.New(words.plain("edit.err.object", "example", `{"country": "FR"}`))
	}
	return context, nil
}

// jsonTypes maps the types of triedEntity to their names in JSON.
var jsonTypes = map[reflect.Kind]string{reflect.String: "string", reflect.Struct: "object", reflect.Pointer: "object", reflect.Slice: "array"}

// parseJSON decodes exactly one JSON value, with numbers as they are written. The error has line
// and column.
func parseJSON(text string, into any, words *texts) error {
	text = strings.TrimPrefix(text, entity.ByteOrderMark)
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	err := decoder.Decode(into)
	if err == nil {
		if _, extra := decoder.Token(); extra == io.EOF {
			return nil
		}
		err = errors.New(words.plain("try.err.extra"))
	}
	offset, why := 0, err.Error()
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = int(syntax.Offset)
	} else if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		offset, why = int(kind.Offset), words.plain("try.err.kind", "field", cmp.Or(kind.Field, "JSON"), "got", kind.Value, "want", jsonTypes[kind.Type.Kind()])
	}
	line, column := position(text, offset)
	return errors.New(words.plain("edit.err.json", "line", line, "column", column, "why", why))
}

func variantPlace(f *entity.Flag, id int64) int {
	return slices.IndexFunc(f.Variants, func(v entity.Variant) bool { return int64(v.ID) == id })
}

func (u *UI) tried(f *entity.Flag, layout *eval.Layout, tried *insight.Tried) triedView {
	result, id := tried.Result, shown(tried.Request.EntityID)
	v := triedView{Entity: id, Class: chart.None, Bucket: -1}
	if result.VariantID != 0 {
		v.Class = chart.Class(max(0, variantPlace(f, result.VariantID)))
		v.Attach, _ = u.text.attachmentPart().shown(result.VariantAttachment)
	}
	if result.Reason == eval.NoSegments {
		v.Answer = u.text.say("try.nosegments")
		return v
	}
	v.Bucket = tried.Bucket
	place := len(result.SegmentLogs) - 1 // of the last segment that was tried
	stops := stopsOf(f, result, place)
	matched := len(stops) <= place
	switch {
	case result.VariantID != 0:
		v.Answer = u.text.say("try.gets", "entity", code(id), "variant", code(result.VariantKey), "segment", segmentName(u.text, place, f.Segments[place].Description), "bucket", v.Bucket)
	case matched:
		v.Answer = u.text.say("try.heldout", "entity", code(id), "segment", segmentName(u.text, place, f.Segments[place].Description), "bucket", v.Bucket, "percent", points(f.Segments[place].RolloutPercent))
	default:
		v.Answer = u.text.say("try.nothing", "entity", code(id))
	}
	values := map[string]string{}
	for _, stop := range stops {
		v.Steps = append(v.Steps, u.step(f, stop, func(property string) string {
			if _, ok := values[property]; !ok {
				values[property] = valueOf(result, property)
			}
			return values[property]
		}))
	}
	if matched && place < len(layout.Segments) {
		v.Map = bucketMap(f, &layout.Segments[place], v.Bucket)
	}
	return v
}

// bytes returns the memory of the view, and of its part of the page.
func (v *triedView) bytes() int {
	n := len(v.Entity) + len(v.Answer) + len(v.Map) + len(v.Attach)
	for _, step := range v.Steps {
		n += len(step)
	}
	return 2 * n
}

// stopsOf returns where the segments that did not match stopped.
func stopsOf(f *entity.Flag, result *eval.Result, place int) []eval.Stop {
	for _, n := range []int{place + 1, place} { // all that were tried, or all but the last, which matched
		before := *f
		before.Segments = f.Segments[:max(0, min(n, len(f.Segments)))]
		tried := eval.Compile([]entity.Flag{before}).Evaluate(result.Request, result.Timestamp, false)
		if unmatched, ok := eval.NewUnmatched(tried); ok {
			if stops := unmatched.Stops(); len(stops) == n {
				return stops
			}
		}
	}
	return nil
}

// step explains why a segment did not match. valueOf returns the value of a property in the
// context.
func (u *UI) step(f *entity.Flag, stop eval.Stop, valueOf func(property string) string) template.HTML {
	for place := range f.Segments {
		s := &f.Segments[place]
		if int64(s.ID) != stop.SegmentID {
			continue
		}
		for i := range s.Constraints {
			if c := &s.Constraints[i]; int64(c.ID) == stop.ConstraintID {
				return u.text.say("try.stop."+map[eval.Cause]string{eval.CauseFalse: "false", eval.CauseMissing: "missing", eval.CauseOtherType: "type"}[stop.Cause],
					"segment", segmentName(u.text, place, s.Description), "constraint", code(u.text.constraint(c)), "property", code(c.Property), "value", code(valueOf(c.Property)))
			}
		}
	}
	return ""
}

// valueOf returns the value of a dotted property in the context, as JSON.
func valueOf(result *eval.Result, property string) string {
	value := result.Request.EntityContext
	for part := range strings.SplitSeq(property, ".") {
		object, ok := value.(map[string]any)
		if !ok {
			return ""
		}
		value = object[part]
	}
	text, err := json.Marshal(value)
	if err != nil {
		return ""
	}
	return clip(string(text))
}

func bucketMap(f *entity.Flag, layout *eval.SegmentLayout, mark int) template.HTML {
	classes := make([]string, len(layout.ByBucket))
	for i, id := range layout.ByBucket {
		classes[i] = chart.None
		if id != 0 {
			classes[i] = chart.Class(max(0, variantPlace(f, id)))
		}
	}
	return chart.BucketMap(classes, mark)
}

func (u *UI) split(d *tryData, f *entity.Flag, counts map[int64]int, total int) {
	add := func(class, key string, n int) {
		share := float64(n) / float64(total)
		d.Split = append(d.Split, splitView{class, key, n, percent(share).String(), chart.Bar("split-"+strconv.Itoa(len(d.Split)), chart.Part{Class: class, Share: share})})
	}
	for i, v := range f.Variants {
		add(chart.Class(i), v.Key, counts[int64(v.ID)])
	}
	add(chart.None, "", counts[0])
}
