package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/ui/chart"
)

const (
	// maxTried is the maximum number of entities of one try.
	maxTried = 1000
	// triedInFull is the number of entities that are explained.
	triedInFull = 20
	madeUp      = 20
)

type tryData struct {
	Head            flagHead
	Entity, Context string
	Many            string
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
	d := &tryData{Head: head, Entity: r.URL.Query().Get("id"), Context: exampleContext(f), Answer: u.text.say("try.answer")}
	p.Data = d
	u.render(rw, r, http.StatusOK, "try.html", p)
	return nil
}

// exampleContext has the properties of the constraints, with values that make the first constraints hold.
func exampleContext(f *entity.Flag) string {
	context := map[string]any{}
	for i := range f.Segments {
		for j := range f.Segments[i].Constraints {
			c := constraintForm(&f.Segments[i].Constraints[j])
			if _, ok := context[c.Property]; ok || strings.HasPrefix(c.Property, "@") {
				continue
			}
			if c.Operator == hasText {
				context[c.Property] = c.Value
				continue
			}
			var value any
			if json.Unmarshal([]byte(c.Value), &value) != nil {
				continue
			}
			if all, ok := value.([]any); ok && len(all) > 0 {
				value = all[0]
			}
			if c.Operator == "CONTAINS" || c.Operator == "NOTCONTAINS" {
				value = []any{value}
			}
			context[c.Property] = value
		}
	}
	text, err := json.Marshal(context)
	if err != nil {
		return "{}"
	}
	return string(text)
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
	f, stale, err := u.flag(r)
	if err != nil {
		return err
	}
	p, head := u.flagPage(r, f, "try")
	head.Stale, head.Checked = stale, u.o.LastCheck()
	d := &tryData{Head: head, Entity: strings.TrimSpace(r.PostForm.Get("id")), Context: r.PostForm.Get("context"), Many: r.PostForm.Get("many"), Answer: u.text.say("try.answer")}
	p.Data = d
	tried := f
	if draft {
		typed, err := u.parseForm(r.PostForm)
		if err != nil {
			return err
		}
		typed.keepLines(f)
		after, errs := u.applied(f, typed)
		d.Draft, d.Hidden = true, typed.values()
		d.DraftWords = u.text.say("try.draft", "n", len(u.changesBetween(f, after)))
		if len(errs) > 0 {
			d.Error = errs[0].Message
		}
		tried = withIDs(after)
		if r.PostForm.Get("do") == "draft" {
			d.Context = exampleContext(tried)
		}
	}
	if r.PostForm.Get("do") != "draft" && d.Error == "" {
		if err := u.tryAll(r, d, tried); err != nil {
			d.Error = err.Error()
		}
	}
	u.render(rw, r, http.StatusOK, "try.html", p)
	return nil
}

func (u *UI) tryAll(r *http.Request, d *tryData, f *entity.Flag) error {
	ids := []string{d.Entity}
	switch r.PostForm.Get("do") {
	case "made-up":
		ids = nil
		for i := range madeUp {
			ids = append(ids, fmt.Sprintf("user-%d", i+1))
		}
	case "many":
		ids = strings.Fields(strings.ReplaceAll(d.Many, ",", " "))
	}
	if len(ids) == 0 || len(ids) > maxTried {
		return errors.New(u.text.plain("try.err.many", "n", len(ids), "most", maxTried))
	}
	context, err := parseContext(d.Context, u.text)
	if err != nil {
		return err
	}
	live := *f
	live.DeletedAt = entity.DeletedAt{}
	d.Off, live.Enabled = !live.Enabled, true // the result once it is on is useful before it is turned on
	snapshot := eval.Compile([]entity.Flag{live})
	layout := eval.LayoutOf(&live)
	counts := map[int64]int{}
	for i, id := range ids {
		result := snapshot.Evaluate(eval.Request{FlagID: int64(f.ID), EntityID: id, EntityType: f.EntityType, EntityContext: context}, u.o.Now(), true)
		counts[result.VariantID]++
		if i < triedInFull {
			d.Results = append(d.Results, u.tried(&live, layout, result))
		}
	}
	if len(ids) > 1 {
		u.split(d, &live, counts, len(ids))
	}
	return nil
}

// parseContext parses a JSON object; an empty string is an empty object.
func parseContext(text string, words *catalog) (any, error) {
	if strings.TrimSpace(text) == "" {
		return map[string]any{}, nil
	}
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.UseNumber()
	var context any
	err := decoder.Decode(&context)
	if err == nil {
		if _, extra := decoder.Token(); extra != io.EOF {
			err = errors.New("data after the JSON object")
		}
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line, column := position(text, int(syntax.Offset))
		return nil, errors.New(words.plain("edit.err.json", "line", line, "column", column, "why", syntax.Error()))
	}
	if err != nil {
		return nil, errors.New(words.plain("edit.err.json", "line", 1, "column", 1, "why", err.Error()))
	}
	if _, ok := context.(map[string]any); !ok {
		return nil, errors.New(words.plain("edit.err.object", "example", `{"country": "FR"}`))
	}
	return context, nil
}

func variantPlace(f *entity.Flag, id int64) int {
	return slices.IndexFunc(f.Variants, func(v entity.Variant) bool { return int64(v.ID) == id })
}

func (u *UI) tried(f *entity.Flag, layout *eval.Layout, result *eval.Result) triedView {
	id := result.Request.EntityID
	v := triedView{Entity: id, Class: chart.None, Bucket: -1}
	if result.VariantID != 0 {
		v.Class = chart.Class(max(0, variantPlace(f, result.VariantID)))
		v.Attach = attachmentText(result.VariantAttachment)
	}
	if result.Reason == eval.NoSegments {
		v.Answer = u.text.say("try.nosegments")
		return v
	}
	v.Bucket = eval.BucketOf(int64(f.ID), id)
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
	for _, stop := range stops {
		v.Steps = append(v.Steps, u.step(f, stop, result))
	}
	if matched && place < len(layout.Segments) {
		v.Map = bucketMap(f, &layout.Segments[place], v.Bucket)
	}
	return v
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

// step explains why a segment did not match.
func (u *UI) step(f *entity.Flag, stop eval.Stop, result *eval.Result) template.HTML {
	for place := range f.Segments {
		s := &f.Segments[place]
		if int64(s.ID) != stop.SegmentID {
			continue
		}
		for i := range s.Constraints {
			if c := &s.Constraints[i]; int64(c.ID) == stop.ConstraintID {
				return u.text.say("try.stop."+map[eval.Cause]string{eval.CauseFalse: "false", eval.CauseMissing: "missing", eval.CauseOtherType: "type"}[stop.Cause],
					"segment", segmentName(u.text, place, s.Description), "constraint", code(u.text.constraint(c)), "property", code(c.Property), "value", code(valueOf(result, c.Property)))
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
