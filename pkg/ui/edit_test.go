package ui_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/ui"
)

const targeting = "/ui/flags/1/targeting"

// form is the targeting form as it is saved.
func (f *fixture) form(t *testing.T) url.Values {
	t.Helper()
	return fields(t, f.ask(t, http.MethodGet, targeting, nil), "edit")
}

func (f *fixture) press(t *testing.T, form url.Values, do string) answer {
	t.Helper()
	form.Set("do", do)
	return f.ask(t, http.MethodPost, targeting, form)
}

// words are the items of the review.
func words(a answer) []string {
	var all []string
	each(a.root, func(n *html.Node) {
		if class, _ := attr(n, "class"); class == "rows" {
			for c := n.FirstChild; c != nil; c = c.NextSibling {
				if c.Type == html.ElementNode {
					all = append(all, strings.TrimSuffix(text(c), "Undo"))
				}
			}
		}
	})
	return all
}

func TestOneSaveForAPage(t *testing.T) {
	t.Parallel()
	f := setup(t)
	form := f.form(t)
	if a := f.press(t, form, "review"); len(words(a)) != 0 || f.writes != 0 {
		t.Fatalf("an untouched form has changes: %q", words(a))
	}
	form.Set("s.0.rollout", "80")
	form.Set("s.1.c.0.value", "true")
	form.Set("v.0.key", "navy")
	form.Set("tags", "web, tv")
	review := f.press(t, form, "review")
	want := []string{
		"Tags: ios, web → tv, web.", "Rollout of segment 1, “Adults in France”: 50 % → 80 %.", `Constraint of segment 2, “Beta testers”: beta EQ "true" → beta EQ true.`, "Key of a variant: blue → navy.",
	}
	got := words(review)
	for i := range got {
		got[i] = strings.ReplaceAll(got[i], "\u00a0", " ")
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("review:\n%s", strings.Join(got, "\n"))
	}
	if !strings.Contains(review.body, "is not quoted, so only a boolean matches") {
		t.Error("no warning of the value without quotes")
	}
	if f.writes != 0 {
		t.Fatal("a review has saved something")
	}
	// The review's own form is what is saved.
	hidden := fields(t, review, "")
	hidden.Set("do", "save")
	if a := f.ask(t, http.MethodPost, targeting, hidden); a.status != http.StatusSeeOther || a.header.Get("Location") != "targeting" {
		t.Fatalf("save: %d %s", a.status, a.header.Get("Location"))
	}
	saved := f.flags[1]
	if f.writes != 1 || saved.Segments[0].RolloutPercent != 80 || saved.Segments[1].Constraints[0].Value != "true" || saved.Variants[0].Key != "navy" || saved.UpdatedBy != "ada@example.com" {
		t.Errorf("%d changes; saved is %+v", f.writes, saved)
	}
	if len(saved.Segments[0].Distributions) != 2 || saved.Notes == "" || !saved.Variants[0].Attachment.HasMembers() {
		t.Errorf("something is lost: %+v", saved)
	}
}

// A form that is sent while its page still arrives lacks what comes later: that is no wish to
// remove it.
func TestAFormOfHalfAPageChangesNothing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, path := range []string{targeting, "/ui/flags/1/try"} {
		for _, do := range []string{"review", "save", "add-segment", "draft"} {
			if path != targeting && do != "draft" {
				continue
			}
			form := f.form(t)
			for name := range form {
				if strings.HasPrefix(name, "s.1.") || strings.HasPrefix(name, "v.") || name == "whole" {
					form.Del(name)
				}
			}
			form.Set("do", do)
			a := f.ask(t, http.MethodPost, path, form)
			if a.status != http.StatusSeeOther || a.header.Get("Location") != "targeting" || !strings.Contains(a.header.Get("Set-Cookie"), "notice.partial") {
				t.Errorf("%s, %s: %d %v", path, do, a.status, a.header)
			}
		}
	}
	if f.writes != 0 {
		t.Errorf("%d changes were saved", f.writes)
	}
}

func TestEveryChangeCanBeUndone(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for name, change := range map[string]func(form url.Values){
		"rollout":            func(form url.Values) { form.Set("s.0.rollout", "80") },
		"switch":             func(form url.Values) { form.Del("enabled") },
		"records":            func(form url.Values) { form.Del("records") },
		"key":                func(form url.Values) { form.Set("key", "other") },
		"description":        func(form url.Values) { form.Set("description", "other") },
		"notes":              func(form url.Values) { form.Set("notes", "other") },
		"entity type":        func(form url.Values) { form.Set("entity", "shop") },
		"tags":               func(form url.Values) { form.Set("tags", "") },
		"segment name":       func(form url.Values) { form.Set("s.1.description", "") },
		"constraint":         func(form url.Values) { form.Set("s.0.c.1.value", "21") },
		"shares":             func(form url.Values) { form.Set("s.0.d.0", "40"); form.Set("s.0.d.1", "60") },
		"variant key":        func(form url.Values) { form.Set("v.1.key", "red") },
		"attachment":         func(form url.Values) { form.Set("v.1.attachment", `{"a": 1}`) },
		"byte order mark":    func(form url.Values) { form.Set("v.1.attachment", "\xef\xbb\xbf"+`{"a": 1}`) },
		"order":              func(form url.Values) { form.Set("do", "down.0") },
		"new segment":        func(form url.Values) { form.Set("do", "add-segment") },
		"removed segment":    func(form url.Values) { form.Set("do", "remove-segment.0") },
		"removed constraint": func(form url.Values) { form.Set("do", "remove-constraint.0.0") },
	} {
		form := f.form(t)
		change(form)
		if do := form.Get("do"); do != "" {
			form = fields(t, f.press(t, form, do), "edit")
		}
		review := f.press(t, form, "review")
		if len(words(review)) != 1 {
			t.Errorf("%s: changes are %q", name, words(review))
			continue
		}
		undone := f.press(t, fields(t, review, ""), "undo.0")
		if len(words(undone)) != 0 || !strings.Contains(undone.body, "There is nothing to save") {
			t.Errorf("%s: after Undo there is %q", name, words(undone))
		}
	}
	if f.writes != 0 {
		t.Errorf("%d changes were saved", f.writes)
	}
}

func TestButtonsWorkWithoutScripts(t *testing.T) {
	t.Parallel()
	f := setup(t)
	form := f.form(t)
	form.Set("description", "typed before")
	for _, do := range []string{"add-variant", "add-segment", "add-constraint.2", "up.2", "up.1", "split.0", "remove-segment.2"} {
		a := f.press(t, form, do)
		form = fields(t, a, "edit")
		if form.Get("description") != "typed before" {
			t.Fatalf("%s: what was typed is lost", do)
		}
	}
	form.Set("v.2.key", "red")
	form.Set("s.0.description", "VIP")
	form.Set("s.0.c.0.property", "tier")
	form.Set("s.0.c.0.value", `"gold"`)
	if got := []string{form.Get("s.0.d.0"), form.Get("s.0.d.1"), form.Get("s.0.d.2")}; strings.Join(got, " ") != "34 33 33" {
		t.Errorf("split evenly: %q", got)
	}
	if a := f.press(t, form, "save"); a.status != http.StatusSeeOther {
		t.Fatalf("save: %d %s", a.status, text(a.root))
	}
	saved := f.flags[1]
	if len(saved.Segments) != 2 || saved.Segments[0].Description != "VIP" || saved.Segments[1].Description != "Adults in France" || len(saved.Variants) != 3 || len(saved.Segments[0].Distributions) != 3 {
		t.Errorf("saved is %+v", saved)
	}
}

func TestErrorsStandAtTheirFields(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		field, value string
		at, message  string // the message stands at the field, and with the field's name in the summary
	}{
		"sum":         {"s.0.d.0", "49", "f-s.0.shares", "Segment 1, shares: the percents add up to 99"},
		"share":       {"s.1.d.1", "x", "f-s.1.d.1", "Segment 2, share of variant 2: “x” is not a whole number"},
		"percent":     {"s.0.rollout", "101", "f-s.0.rollout", "Segment 1, rollout: “101” is not a whole number from 0 to 100"},
		"no percent":  {"s.0.rollout", "", "f-s.0.rollout", "Segment 1, rollout: “” is not a whole number"},
		"no quotes":   {"s.0.c.0.value", "FR", "f-s.0.c.0.value", "Segment 1, constraint 1, value: A string must be in double quotes."},
		"one quote":   {"s.0.c.1.value", `"18`, "f-s.0.c.1.value", "Segment 1, constraint 2, value: Property, operator and value do not form a condition. A string must be in double quotes"},
		"property":    {"s.0.c.1.property", "", "f-s.0.c.1.property", "Segment 1, constraint 2, property: must not be empty"},
		"variant key": {"v.0.key", "a b", "f-v.0.key", `Variant 1, key: key "a b" is not accepted; want one or more ASCII letters`},
		"same key":    {"v.0.key", "green", "f-v.1.key", "Variant 2, key: another variant"},
		"attachment":  {"v.0.attachment", "{\n  \"a\": 1,\n}", "f-v.0.attachment", "Variant 1, attachment: Line 3, column 1"},
		"no object":   {"v.0.attachment", "[1]", "f-v.0.attachment", "Variant 1, attachment: Want a JSON object"},
		"description": {"description", "", "f-description", "Description: must not be empty"},
		"key":         {"key", "a b", "f-key", `Key: key "a b" is not accepted; want one or more ASCII letters`},
		"tags":        {"tags", "ok, a;b", "f-tags", `Tags: value "a;b" is not accepted; want one or more ASCII letters`},
		"entity type": {"entity", "a b", "f-entity", `Entity type: key "a b" is not accepted; want one or more ASCII letters`},
	} {
		f := setup(t)
		form := f.form(t)
		form.Set(test.field, test.value)
		a := f.press(t, form, "review")
		_, message, _ := strings.Cut(test.message, ": ")
		if page := text(a.root); !strings.Contains(a.body, `id="`+test.at+`"`) || !strings.Contains(a.body, `href="#`+test.at+`"`) || !strings.Contains(page, test.message) || strings.Count(page, message[1:]) < 2 { // it begins with a capital where it stands alone
			t.Errorf("%s: no %q with a link to %s in\n%s", name, test.message, test.at, page)
		}
		if name == "share" && strings.Contains(text(a.root), "percents add up to") {
			t.Errorf("%s: the sum is an error as well", name)
		}
		if again := fields(t, a, "edit"); again.Get(test.field) != test.value {
			t.Errorf("%s: %q was typed, and is %q", name, test.value, again.Get(test.field))
		}
		if saved := f.press(t, form, "save"); saved.status != http.StatusBadRequest || f.writes != 0 {
			t.Errorf("%s: save answers %d", name, saved.status)
		}
	}
}

func TestNewPartsAreNoErrorsBeforeTheReview(t *testing.T) {
	t.Parallel()
	f := setup(t)
	form := f.form(t)
	for _, button := range []string{"add-variant", "add-variant", "add-constraint.0", "add-constraint.1"} {
		a := f.press(t, form, button)
		if page := text(a.root); strings.Contains(page, "another look") || strings.Contains(page, "must not be empty") || strings.Contains(page, "Unreachable") {
			t.Errorf("%s reports errors in\n%s", button, page)
		}
		form = fields(t, a, "edit")
	}
	a := f.press(t, form, "review")
	page := text(a.root)
	for _, field := range []string{"v.2.key", "v.3.key", "s.0.c.2.property", "s.1.c.1.value"} {
		if !strings.Contains(a.body, `href="#f-`+field+`"`) {
			t.Errorf("the review reports no error of %s in\n%s", field, page)
		}
	}
	form.Set("v.2.key", "a b")
	if a := f.press(t, form, "add-variant"); !strings.Contains(a.body, `href="#f-v.2.key"`) {
		t.Error("a key that was typed has no error")
	}
}

func TestTwoBrowsersEditOneFlag(t *testing.T) {
	t.Parallel()
	f := setup(t)
	mine, theirs := f.form(t), f.form(t)
	theirs.Set("s.0.rollout", "70")
	if a := f.press(t, theirs, "save"); a.status != http.StatusSeeOther {
		t.Fatalf("theirs: %d", a.status)
	}
	mine.Set("s.1.rollout", "10")
	a := f.press(t, mine, "save")
	if a.status != http.StatusConflict || f.writes != 1 {
		t.Fatalf("mine: %d, %d changes", a.status, f.writes)
	}
	page := strings.ReplaceAll(text(a.root), "\u00a0", " ")
	for _, want := range []string{"ada changed this flag", "“Adults in France”: 50 % → 70 %", "“Beta testers”: 100 % → 10 %", "Discard mine"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in the conflict", want)
		}
	}
	if again := fields(t, a, "edit"); again.Get("s.1.rollout") != "10" {
		t.Error("what was typed is lost")
	}
	// The choice: mine, against theirs, which the review shows in full.
	review := f.press(t, fields(t, a, ""), "review")
	if got := words(review); len(got) != 2 {
		t.Errorf("mine against theirs: %q", got)
	}
	hidden := fields(t, review, "")
	if a := f.press(t, hidden, "save"); a.status != http.StatusSeeOther || f.flags[1].Segments[1].RolloutPercent != 10 {
		t.Errorf("after the choice: %d %+v", a.status, f.flags[1].Segments)
	}
}

// TestMineWithPartsThatTheyRemoved: parts that another user removed are added again with the choice
// of mine.
func TestMineWithPartsThatTheyRemoved(t *testing.T) {
	t.Parallel()
	for removed, want := range map[string]string{
		"remove-segment.0":      `New segment 1, “Adults in France”: country EQ "FR" and age GTE 18, rollout 10 %, blue 50 %, green 50 %.`,
		"remove-constraint.0.0": `New constraint of segment 1, “Adults in France”: country EQ "FR".`,
		"remove-variant.0":      "New variant blue.",
	} {
		f := setup(t)
		mine := f.form(t)
		theirs := fields(t, f.press(t, f.form(t), removed), "edit")
		if removed == "remove-variant.0" {
			theirs.Set("s.0.d.0", "100")
		}
		if a := f.press(t, theirs, "save"); a.status != http.StatusSeeOther {
			t.Fatalf("%s: theirs: %d %s", removed, a.status, text(a.root))
		}
		mine.Set("s.0.rollout", "10")
		conflict := f.press(t, mine, "save")
		if again := fields(t, conflict, "edit"); conflict.status != http.StatusConflict || again.Get("s.0.id") != mine.Get("s.0.id") || again.Get("s.0.c.0.id") != mine.Get("s.0.c.0.id") {
			t.Errorf("%s: mine: %d, the form is %v", removed, conflict.status, again)
		}
		review := f.press(t, fields(t, conflict, ""), "review")
		if got := words(review); !slices.Contains(got, want) {
			t.Errorf("%s: no %q in %q\n%s", removed, want, got, text(review.root))
			continue
		}
		a := f.press(t, fields(t, review, ""), "save")
		s := f.flags[1].Segments
		if a.status != http.StatusSeeOther || len(f.flags[1].Variants) != 2 || len(s) != 2 || s[0].RolloutPercent != 10 || len(s[0].Constraints) != 2 || len(s[0].Distributions) != 2 {
			t.Errorf("%s: after the choice: %d %+v", removed, a.status, f.flags[1])
		}
	}
}

// TestErrorsWithoutAField: the ID of a part is not a field that a user can change, so its error has
// neither a name nor a link.
func TestErrorsWithoutAField(t *testing.T) {
	t.Parallel()
	for field, want := range map[string]string{
		"s.0.id":     "Segment 99 does not belong to flag 1",
		"v.1.id":     "Variant 99 does not belong to flag 1",
		"s.0.c.1.id": "Constraint 99 does not belong to segment",
		"tags":       "More than 10000 variants, segments, constraints, distributions and tags in all",
	} {
		f := setup(t)
		form := f.form(t)
		form.Set(field, "99")
		if field == "tags" {
			form.Set(field, strings.Repeat("a,", 10_001))
		}
		a := f.press(t, form, "review")
		if page := text(a.root); !strings.Contains(page, want) || strings.Contains(page, "edit.at.") {
			t.Errorf("%s: no %q in\n%s", field, want, page)
		}
		for _, m := range regexp.MustCompile(`href="#(f-[^"]*)"`).FindAllStringSubmatch(a.body, -1) {
			if !strings.Contains(a.body, `id="`+m[1]+`"`) {
				t.Errorf("%s: the link to %s leads nowhere", field, m[1])
			}
		}
	}
}

func TestADeadDatabaseLosesNothingThatWasTyped(t *testing.T) {
	t.Parallel()
	f := setup(t)
	form := f.form(t)
	form.Set("s.0.rollout", "80")
	f.err = errDatabase
	for _, do := range []string{"check", "save"} {
		a := f.press(t, form, do)
		if again := fields(t, a, "edit"); again.Get("s.0.rollout") != "80" {
			t.Errorf("%s: what was typed is lost (%d)", do, a.status)
		}
		if strings.Contains(a.body, "postgres") {
			t.Errorf("%s: the page shows the error of the database", do)
		}
		if do == "save" && (a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "nothing was saved")) {
			t.Errorf("save: %d", a.status)
		}
	}
	for _, target := range []string{"/ui/", "/ui/flags/1", targeting} {
		if a := f.ask(t, http.MethodGet, target, nil); a.status != http.StatusOK || !strings.Contains(a.body, "checkout-button") {
			t.Errorf("%s without a database: %d", target, a.status)
		}
	}
	f.err = budget.ErrExhausted
	for _, target := range []string{"/ui/flags/1/history", "/ui/flags/1", targeting} { // the flag in memory would make as large a page
		if a := f.ask(t, http.MethodGet, target, nil); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") != "1" || !strings.Contains(a.body, "The server is busy") {
			t.Errorf("%s without memory: %d, Retry-After %q", target, a.status, a.header.Get("Retry-After"))
		}
	}
	f.err = nil
	if a := f.press(t, form, "save"); a.status != http.StatusSeeOther {
		t.Errorf("later: %d", a.status)
	}
}

func TestCreateDuplicateDeleteRestore(t *testing.T) {
	t.Parallel()
	f := setup(t)
	post := func(target string, v url.Values, want int, location string) answer {
		t.Helper()
		a := f.ask(t, http.MethodPost, target, v)
		if a.status != want || location != "" && !strings.HasPrefix(a.header.Get("Location"), location) {
			t.Errorf("POST %s: %d to %q, want %d to %q", target, a.status, a.header.Get("Location"), want, location)
		}
		return a
	}
	post("/ui/new", url.Values{"key": {"new-flag"}, "kind": {"boolean"}}, 303, "flags/")
	a := post("/ui/new", url.Values{"key": {"new-flag"}, "description": {"typed"}, "kind": {"blank"}}, 400, "")
	if !strings.Contains(a.body, `value="typed"`) || !strings.Contains(a.body, "has this key") {
		t.Error("a refused key loses what was typed, or does not say why")
	}
	post("/ui/new", url.Values{"kind": {"blank"}}, 400, "")
	made, err := f.CreateFlag(t.Context(), "", "deleted-key", "d", false)
	if err != nil || f.DeleteFlag(t.Context(), "", int64(made.ID)) != nil {
		t.Fatal("no deleted flag", err)
	}
	gone := fmt.Sprintf("Deleted flag %d has this key. Restore it from “Deleted flags”, or choose another key.", made.ID)
	for target, v := range map[string]url.Values{"/ui/new": {"key": {"deleted-key"}}, "/ui/flags/1/duplicate": {"key": {"deleted-key"}}} {
		if a := post(target, v, 400, ""); !strings.Contains(text(a.root), gone) {
			t.Errorf("%s does not name the deleted flag: %s", target, text(a.root))
		}
	}
	if a := f.ask(t, http.MethodGet, "/ui/key?key=deleted-key", nil); !strings.Contains(text(a.root), gone) {
		t.Errorf("the hint is %s", text(a.root))
	}
	delete(f.flags, made.ID)
	post("/ui/flags/1/duplicate", url.Values{"key": {"copy"}, "description": {"d"}}, 303, "../")
	question := f.ask(t, http.MethodGet, "/ui/flags/1/delete", nil)
	if !strings.Contains(text(question.root), "2 segments, 2 variants and 2 tags are deleted with it") || f.flags[1].DeletedAt.Valid {
		t.Error("the question does not say what goes, or has deleted the flag")
	}
	post("/ui/flags/1/delete", url.Values{}, 303, "../../")
	if !f.flags[1].DeletedAt.Valid {
		t.Error("the flag is not deleted")
	}
	if a := f.ask(t, http.MethodGet, "/ui/deleted", nil); !strings.Contains(a.body, "checkout-button") {
		t.Error("a deleted flag is not listed")
	}
	asked := f.ask(t, http.MethodGet, "/ui/deleted/1", nil)
	for _, want := range []string{"Restore checkout-button?", "It was on", "2 segments, 2 variants and 2 tags come back with it", "by ada"} {
		if !strings.Contains(text(asked.root), want) {
			t.Errorf("the question lacks %q: %s", want, text(asked.root))
		}
	}
	if !f.flags[1].DeletedAt.Valid {
		t.Error("the question has restored the flag")
	}
	post("/ui/deleted/1", url.Values{}, 303, "../flags/1")
	if a := f.ask(t, http.MethodGet, "/ui/deleted/1", nil); a.status != http.StatusNotFound {
		t.Errorf("the question about a flag that is not deleted: %d", a.status)
	}
	if f.flags[1].DeletedAt.Valid {
		t.Error("the flag is not restored")
	}
}

// grow gives a flag 120 variants and segments.
func grow(flag *entity.Flag) {
	for i := range 120 {
		v := entity.Variant{Key: fmt.Sprint("variant-", i)}
		v.ID = uint(1000 + i)
		flag.Variants = append(flag.Variants, v)
		s := entity.Segment{RolloutPercent: 100, Distributions: []entity.Distribution{{VariantID: 1000, VariantKey: "variant-0", Percent: 100}}}
		s.ID = uint(2000 + i)
		flag.Segments = append(flag.Segments, s)
	}
}

// TestFlagsThatAreTooLargeToEdit: a flag with more fields than a form can have is not rendered as
// one.
func TestFlagsThatAreTooLargeToEdit(t *testing.T) {
	t.Parallel()
	f := setup(t)
	flag := f.flags[f.full]
	grow(flag)
	a := f.ask(t, http.MethodGet, targeting, nil)
	checkPage(t, f, targeting, a)
	if page := text(a.root); a.status != http.StatusOK || len(a.body) > 20_000 || !strings.Contains(page, "This flag has 15,") || !strings.Contains(page, "the page edits at most 10,000") ||
		!strings.Contains(a.body, "/api/v1/flags/1/definition") {
		t.Errorf("%d, %d bytes: %.2000s", a.status, len(a.body), page)
	}
	flag.Segments = flag.Segments[:70]
	form := f.form(t)
	count := 2 // the button and the mark of a script
	for _, values := range form {
		count += len(values)
	}
	if saved := 11 + 3*122 + 3*70 + 4*3 + 122*70; count != saved { // as the limit counts them
		t.Errorf("a form has %d fields, want %d", count, saved)
	}
	if a := f.press(t, form, "review"); a.status != http.StatusOK {
		t.Errorf("the form of %d fields: %d", count, a.status)
	}
}

// TestFlagsThatAreTooLargeToShow: a read-only server has neither a form nor an operation that
// changes flags.
func TestFlagsThatAreTooLargeToShow(t *testing.T) {
	t.Parallel()
	f := setup(t, func(o *ui.Options) { o.Store = nil })
	grow(f.flags[f.full])
	a := f.ask(t, http.MethodGet, targeting, nil)
	checkPage(t, f, targeting, a)
	if page := text(a.root); a.status != http.StatusOK || !strings.Contains(page, "the page shows at most 10,000") || strings.Contains(page, "Use the API to change") ||
		!strings.Contains(a.body, "/api/v1/export/eval_cache/json?ids=1\"") {
		t.Errorf("%d: %.2000s", a.status, page)
	}
}

// TestVersionsThatAreTooLargeToRestore: no button of their form could be accepted.
func TestVersionsThatAreTooLargeToRestore(t *testing.T) {
	t.Parallel()
	f := setup(t)
	small := *f.flags[f.full]
	large := small
	grow(&large)
	f.record(&large, "ada@example.com")
	f.flags[f.full] = &small
	f.record(&small, "ada@example.com")
	version := strconv.FormatUint(uint64(large.SnapshotID), 10)
	a := f.ask(t, http.MethodPost, "/ui/flags/1/history", url.Values{"version": {version}})
	if page := text(a.root); a.status != http.StatusBadRequest || len(a.body) > 20_000 || !strings.Contains(page, "The version has 15,") || !strings.Contains(page, "the page edits at most 10,000") {
		t.Errorf("%d, %d bytes: %.2000s", a.status, len(a.body), page)
	}
}

// TestScriptsGetNoRedirect: a script cannot distinguish a redirect after a save from one to a
// login.
func TestScriptsGetNoRedirect(t *testing.T) {
	t.Parallel()
	f := setup(t)
	form := f.form(t)
	form.Set("s.0.rollout", "80")
	form.Set("script", "1")
	if a := f.press(t, form, "save"); a.status != http.StatusNoContent || !strings.Contains(a.header.Get("Set-Cookie"), "notice.saved") || f.flags[1].Segments[0].RolloutPercent != 80 {
		t.Errorf("%d %v, %+v", a.status, a.header, f.flags[1].Segments[0])
	}
}

// TestNoFlagsAfterADeletion: a server whose flags are all deleted offers to restore one; a new one
// has none to restore.
func TestNoFlagsAfterADeletion(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, flag := range f.flags {
		flag.DeletedAt.Valid = true
	}
	flags := f.flags
	for _, test := range []struct {
		flags     map[uint]*entity.Flag
		err       error
		has, lack string
	}{
		{flags, nil, "No flags.All flags are deleted: restore one, or make a new one.", "No flags yet."},
		{flags, errDatabase, "No flags yet.", "restore"},
		{nil, nil, "No flags yet.", "restore"},
	} {
		f.flags, f.err = test.flags, test.err
		if page := text(f.ask(t, http.MethodGet, "/ui/", nil).root); !strings.Contains(page, test.has) || strings.Contains(page, test.lack) {
			t.Errorf("no %q, or %q, in\n%s", test.has, test.lack, page)
		}
	}
}

func TestSwitchesAskForTheVersionOfThePage(t *testing.T) {
	t.Parallel()
	f := setup(t)
	a := f.ask(t, http.MethodPost, "/ui/flags/1/enabled", url.Values{"enabled": {"false"}, "snapshot": {"1"}})
	if a.status != http.StatusSeeOther || !f.flags[1].Enabled {
		t.Errorf("an old page has switched the flag off: %d", a.status)
	}
	a = f.ask(t, http.MethodPost, "/ui/flags/1/enabled", url.Values{"enabled": {"false"}, "snapshot": {"2"}, "back": {"flags/1/history"}})
	if a.status != http.StatusSeeOther || f.flags[1].Enabled || a.header.Get("Location") != "../../flags/1/history" {
		t.Errorf("%d to %q, on: %t", a.status, a.header.Get("Location"), f.flags[1].Enabled)
	}
	f.ask(t, http.MethodPost, "/ui/flags/1/records", url.Values{"records": {"false"}, "snapshot": {fmt.Sprint(f.flags[1].SnapshotID)}})
	if f.flags[1].DataRecordsEnabled {
		t.Error("records are on")
	}
}

func TestHistoryInWordsAndBack(t *testing.T) {
	t.Parallel()
	f := setup(t)
	form := f.form(t)
	form.Set("s.0.rollout", "80")
	form = fields(t, f.press(t, form, "remove-segment.1"), "edit")
	f.press(t, form, "save")
	page := f.ask(t, http.MethodGet, "/ui/flags/1/history?snapshot=2", nil)
	body := strings.ReplaceAll(text(page.root), "\u00a0", " ")
	for _, want := range []string{"Rollout of segment 1, “Adults in France”: 50 % → 80 %.", "Removed segment 2, “Beta testers”.", "Created.", `"rolloutPercent": 80`} {
		if !strings.Contains(body, want) {
			t.Errorf("history lacks %q", want)
		}
	}
	old := f.flags[1].Segments[0].ID
	review := f.ask(t, http.MethodPost, "/ui/flags/1/history", url.Values{"version": {"2"}})
	if got := words(review); len(got) != 2 || f.writes != 1 {
		t.Fatalf("putting back: %q, %d changes", got, f.writes)
	}
	if a := f.press(t, fields(t, review, ""), "save"); a.status != http.StatusSeeOther {
		t.Fatalf("save: %d %s", a.status, text(a.root))
	}
	saved := f.flags[1]
	if len(saved.Segments) != 2 || saved.Segments[0].ID != old || saved.Segments[0].RolloutPercent != 50 || saved.Segments[1].Description != "Beta testers" {
		t.Errorf("put back is %+v", saved.Segments)
	}
}

func TestTryExplainsAndCountsNothing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ask := func(context, do string) string {
		a := f.ask(t, http.MethodPost, "/ui/flags/1/try", url.Values{"do": {do}, "id": {"a1234"}, "context": {context}})
		return strings.ReplaceAll(text(a.root), "\u00a0", " ")
	}
	for context, want := range map[string]string{
		`{"country":"FR","age":"19"}`: `stopped at age GTE 18, because age is "19", which is of another type`,
		`{"country":"DE","age":19}`:   `stopped at country EQ "FR", because country is "DE"`,
		`{"beta":"false"}`:            `stopped at country EQ "FR", because country is missing`,
		`{"beta":"true"}`:             "a1234 gets green from segment 2",
		`{"country":"FR","age":19}`:   "of 1,000",
		`{`:                           "Line 1, column",
		`[1]`:                         "JSON object",
	} {
		if got := ask(context, "one"); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in %s", context, want, got)
		}
	}
	if got := ask(`{"country":"FR","age":19}`, "made-up"); !strings.Contains(got, "Who got what") {
		t.Error("20 random IDs show no split")
	}
	many := func(many string) string {
		a := f.ask(t, http.MethodPost, "/ui/flags/1/try", url.Values{"do": {"many"}, "context": {`{"country":"FR","age":19}`}, "many": {many}})
		checkPage(t, f, "/ui/flags/1/try", a)
		return strings.ReplaceAll(text(a.root), "\u00a0", " ")
	}
	for batch, want := range map[string]string{
		"a b": "/api/v1/flags/1/try",
		`{"entities": [{"entityID": "x", "entityContext": {"beta": "true"}}, {"entityID": "y", "entityContext": {"country": "DE"}}], "flagIDs": [7]}`: "x gets green from segment 2",
		`{"entityID": "z", "entityContext": {"beta": "true"}, "flagID": 7}`:                                                                           "z gets green from segment 2",
		`{"entityContext": {"beta": "true"}}`:                    "gets green from segment 2", // an ID is made up
		`[{"entityID": "l", "entityContext": {"beta": "true"}}]`: "l gets green from segment 2",
		`["a"]`:            "JSON is of type string, want object",
		`{"entities": []}`: "0 entities: want 1 to 1,000.",
		`{"entities": [` + strings.Repeat(`{}, `, 1000) + `{}]}`: "1,001 entities: want 1 to 1,000.",
		`{"entities": [{}, null]}`:                               "Entity 2 is null",
		`{"entities": [{"entityID": 1}]}`:                        "entities.entityID is of type number, want string",
		`{"entities": [{}]} x`:                                   "data after the JSON object",
		"{\n\"entities\": [}":                                    "Line 2, column 14",
		`{"entityContext": ` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`: "The context of entity 1 nests more than 100 levels deep.",
	} {
		if got := many(batch); !strings.Contains(got, want) {
			t.Errorf("%.80s: no %q in %s", batch, want, got)
		}
	}
	draft := f.form(t)
	draft.Set("s.1.c.0.value", `"yes"`)
	draft.Set("do", "draft")
	page := f.ask(t, http.MethodPost, "/ui/flags/1/try", draft)
	form := fields(t, page, "")
	form.Set("context", "\xef\xbb\xbf"+`{"beta":"yes"}`) // with a byte order mark, as some editors write
	form.Set("id", "x")
	form.Set("do", "one")
	if got := text(f.ask(t, http.MethodPost, "/ui/flags/1/try", form).root); !strings.Contains(got, "x gets green") || !strings.Contains(got, "1 unsaved change") {
		t.Errorf("the draft: %s", got)
	}
	if f.writes != 0 {
		t.Error("trying has changed something")
	}
}

// TestPlainTextIsStoredAsAPattern saves constraints with the operators for plain text, and shows
// them as such again.
func TestPlainTextIsStoredAsAPattern(t *testing.T) {
	t.Parallel()
	f := setup(t)
	form := f.form(t)
	form.Set("s.1.c.0.operator", "HASTEXT")
	form.Set("s.1.c.0.value", "free (v1.2) / it's")
	form.Set("s.0.c.0.operator", "LACKSTEXT")
	form.Set("s.0.c.0.value", "")
	if a := f.press(t, form, "save"); a.status != http.StatusBadRequest || !strings.Contains(text(a.root), "Enter the text to look for.") {
		t.Errorf("no text: %d", a.status)
	}
	form.Set("s.0.c.0.value", `"FR"`)
	quoted := f.press(t, form, "check")
	if !strings.Contains(text(quoted.root), "The quotes are part of the text. Did you mean FR?") {
		t.Error("no hint about quotes")
	}
	form = fields(t, f.press(t, form, "unquote.0.0"), "edit")
	review := strings.Join(words(f.press(t, form, "review")), "\n")
	for _, want := range []string{`beta EQ "true" → beta contains text "free (v1.2) / it's".`, `country EQ "FR" → country does not contain text "FR".`} {
		if !strings.Contains(review, want) {
			t.Errorf("no %q in %s", want, review)
		}
	}
	if a := f.press(t, form, "save"); a.status != http.StatusSeeOther {
		t.Fatalf("save: %d %s", a.status, text(a.root))
	}
	saved := f.flags[1]
	if c := saved.Segments[1].Constraints[0]; c.Operator != "EREG" || c.Value != `"free\x{20}\(v1\.2\)\x{20}\x{2f}\x{20}it\x{27}s"` {
		t.Errorf("stored: %s %s", c.Operator, c.Value)
	}
	if c := saved.Segments[0].Constraints[0]; c.Operator != "NEREG" || c.Value != `"FR"` {
		t.Errorf("stored: %s %s", c.Operator, c.Value)
	}
	if form = f.form(t); form.Get("s.1.c.0.operator") != "HASTEXT" || form.Get("s.1.c.0.value") != "free (v1.2) / it's" {
		t.Errorf("read back: %s %s", form.Get("s.1.c.0.operator"), form.Get("s.1.c.0.value"))
	}
	if a := f.press(t, form, "review"); len(words(a)) != 0 {
		t.Errorf("an untouched form has changes: %q", words(a))
	}
	if got := text(f.ask(t, http.MethodGet, "/ui/flags/1/history", nil).root); !strings.Contains(got, `beta contains text "free (v1.2) / it's"`) {
		t.Errorf("history: %s", got)
	}
	form.Set("s.1.c.0.value", "other")
	undone := f.press(t, fields(t, f.press(t, form, "review"), ""), "undo.0")
	if len(words(undone)) != 0 || fields(t, undone, "edit").Get("s.1.c.0.value") != "free (v1.2) / it's" {
		t.Errorf("undo: %q", words(undone))
	}
}

// TestLineEndsOfNotesAreKept: browsers send CRLF for every line end, so a form cannot tell which
// ones were saved.
func TestLineEndsOfNotesAreKept(t *testing.T) {
	t.Parallel()
	for name, notes := range map[string]string{"CRLF": "one\r\ntwo\r\n", "LF": "\none\ntwo", "both": "one\r\ntwo\nthree", "CR": "one\rtwo"} {
		f := setup(t)
		f.flags[1].Notes = notes
		form := f.form(t)
		lines := strings.NewReplacer("\r\n", "\r\n", "\n", "\r\n", "\r", "\r\n")
		form.Set("notes", lines.Replace(form.Get("notes"))) // as a browser does
		if a := f.press(t, form, "review"); len(words(a)) != 0 {
			t.Errorf("%s: an untouched form has changes: %q", name, words(a))
		}
		form.Set("description", "other")
		if a := f.press(t, form, "save"); a.status != http.StatusSeeOther || f.flags[1].Notes != notes || f.flags[1].Description != "other" {
			t.Errorf("%s: saved %q, status %d", name, f.flags[1].Notes, a.status)
		}
		form = f.form(t)
		form.Set("notes", "three\r\nfour")
		if f.press(t, form, "save"); f.flags[1].Notes != "three\nfour" {
			t.Errorf("%s: new notes are %q", name, f.flags[1].Notes)
		}
	}
}

// TestFormsThatAreTooLargeSaySo: parts that a form cannot hold are not removed in silence.
func TestFormsThatAreTooLargeSaySo(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		grow func(form url.Values)
		want string
	}{
		"fields":   {func(form url.Values) { form["x"] = make([]string, 10_000) }, "at most 10,000 fields"},
		"escapes":  {nil, "cannot be read"},
		"one more": {func(form url.Values) { repeat(form, "s.%d.rollout", 1000); form.Set("do", "add-segment") }, "1,000 segments"},
		"variants": {func(form url.Values) { repeat(form, "v.%d.key", 1001) }, "at most 1,000 variants"},
		"segments": {func(form url.Values) { repeat(form, "s.%d.rollout", 1001) }, "1,000 segments"},
		"shares":   {func(form url.Values) { repeat(form, "v.%d.key", 200); repeat(form, "s.%d.rollout", 200) }, "at most 10,000 shares"},
		"split": {func(form url.Values) {
			repeat(form, "v.%d.key", 200)
			repeat(form, "s.%d.rollout", 200)
			form.Set("do", "remove-variant.3")
		}, "at most 10,000 shares"},
		"constraints": {func(form url.Values) { repeat(form, "s.1.c.%d.property", 1001) }, "1,000 constraints of a segment"},
	} {
		f := setup(t)
		for _, target := range []string{targeting, "/ui/flags/1/try"} {
			form := f.form(t)
			form.Set("draft", "on")
			form.Set("do", "save")
			var a answer
			if test.grow != nil {
				test.grow(form)
				a = f.ask(t, http.MethodPost, target, form)
			} else {
				a = f.ask(t, http.MethodPost, target+"?%zz", form)
			}
			if name == "one more" && target != targeting {
				continue // a try has no such button
			}
			if a.status != http.StatusBadRequest || !strings.Contains(text(a.root), test.want) || f.writes != 0 {
				t.Errorf("%s: %d, %d changes, no %q in %s", name, a.status, f.writes, test.want, text(a.root))
			}
		}
	}
}

func repeat(form url.Values, name string, n int) {
	for i := range n {
		if at := fmt.Sprintf(name, i); !form.Has(at) {
			form.Set(at, "1")
		}
	}
}

// TestATryIsLimitedLikeABatch: FLAGR_EVAL_BATCH_SIZE also limits the entities of a try.
func TestATryIsLimitedLikeABatch(t *testing.T) {
	t.Parallel()
	f := setup(t, func(o *ui.Options) { o.Trials.Entities = 2 })
	for many, want := range map[string]string{"a b": "Who got what", "a b c": "3 entities: want 1 to 2.", `{"entities": [{}, {}, {}]}`: "3 entities: want 1 to 2."} {
		a := f.ask(t, http.MethodPost, "/ui/flags/1/try", url.Values{"do": {"many"}, "many": {many}})
		if !strings.Contains(text(a.root), want) {
			t.Errorf("%s: no %q", many, want)
		}
	}
}

func TestATryOfTooMuchTextSaysSo(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for field, form := range map[string]url.Values{
		"many":    {"do": {"many"}, "many": {"[" + strings.Repeat("[],", 1<<20/3) + "[]]"}},
		"context": {"do": {"one"}, "id": {"a"}, "context": {`{"a":"` + strings.Repeat("x", 1<<20) + `"}`}},
	} {
		if a := f.ask(t, http.MethodPost, "/ui/flags/1/try", form); !strings.Contains(text(a.root), "want at most 1,048,576") {
			t.Errorf("%s: status %d, and no limit is named", field, a.status)
		}
	}
}

// TestNoticesAreForPages: a request of a script between a form and its next page does not take the
// notice.
func TestNoticesAreForPages(t *testing.T) {
	t.Parallel()
	f := setup(t)
	cookie := "flagr_notice=notice.created+dark-mode"
	for _, mode := range []string{"cors", "same-origin"} {
		a := f.ask(t, http.MethodGet, "/ui/key?key=free", nil, "Cookie", cookie, "Sec-Fetch-Mode", mode)
		if a.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %s", mode, a.header.Get("Set-Cookie"))
		}
	}
	for _, mode := range []string{"navigate", ""} {
		a := f.ask(t, http.MethodGet, targeting, nil, "Cookie", cookie, "Sec-Fetch-Mode", mode)
		if !strings.Contains(text(a.root), "Created dark-mode.") || !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") {
			t.Errorf("%q: no notice, or it is not removed: %s", mode, a.header.Get("Set-Cookie"))
		}
	}
}

// TestButtonsRefuseToGrowAFormBeyondItsLimit: the next submit of a larger form could not be read,
// so the button names the limit, and the form is as before.
func TestButtonsRefuseToGrowAFormBeyondItsLimit(t *testing.T) {
	t.Parallel()
	f := setup(t)
	flag := f.flags[f.full]
	grow(flag)
	flag.Segments = flag.Segments[:76]
	for _, button := range []string{"add-segment", "add-variant", "add-constraint.0"} {
		form := f.form(t)
		form.Set("description", "typed")
		form.Set("s.0.rollout", "33")
		if button == "add-constraint.0" { // 26 more
			for i := range 26 {
				for _, field := range []string{"id", "property", "operator", "value"} {
					form.Set(fmt.Sprintf("s.0.c.%d.%s", i+2, field), "")
				}
			}
		}
		for n := 0; ; n++ { // until the button is refused
			a := f.press(t, form, button)
			next := fields(t, a, "edit")
			if a.status == http.StatusOK {
				if count := len(next) + 2; count > 10_000 || len(next) <= len(form) {
					t.Fatalf("%s: the form grows from %d to %d fields", button, len(form)+2, count)
				}
				form = next
				continue
			}
			if (n == 0) != (button == "add-segment") || a.status != http.StatusBadRequest || len(next)+1 != len(form) || next.Get("description") != "typed" || next.Get("s.0.rollout") != "33" {
				t.Errorf("%s after %d times: %d, %d of %d fields, description %q", button, n, a.status, len(next), len(form), next.Get("description"))
			}
			alert := ""
			each(a.root, func(n *html.Node) {
				if id, _ := attr(n, "id"); id == "errors" {
					alert = text(n)
				}
			})
			if !strings.Contains(alert, "Nothing was added") || !strings.Contains(alert, "at most 10,000") {
				t.Errorf("%s: the error is %q", button, alert)
			}
			if a := f.press(t, next, "review"); a.status != http.StatusOK {
				t.Errorf("%s: the form cannot be sent any more: %d", button, a.status)
			}
			break
		}
	}
}

// TestErrorsOfSharesAreAtTheirVariants: shares that are empty are not in the definition, whose
// problems have other places.
func TestErrorsOfSharesAreAtTheirVariants(t *testing.T) {
	t.Parallel()
	f := setup(t)
	form := f.form(t)
	for i := range 3 {
		form = fields(t, f.press(t, form, "add-variant"), "edit")
		form.Set(fmt.Sprintf("v.%d.key", i+2), fmt.Sprint("new-", i))
	}
	for place, share := range []string{"", "40", "", "20", "40"} {
		form.Set(fmt.Sprintf("s.0.d.%d", place), share)
	}
	form.Set("v.4.key", "new-1") // so the share of the fifth variant is for a key that the fourth has
	a := f.press(t, form, "review")
	var where []string
	each(a.root, func(n *html.Node) {
		if href, ok := attr(n, "href"); ok && n.Data == "a" && strings.HasPrefix(href, "#f-s.0.") {
			where = append(where, href+" "+text(n))
		}
	})
	if len(where) != 1 || !strings.HasPrefix(where[0], "#f-s.0.d.4 Segment 1, share of variant 5: ") {
		t.Errorf("the errors are at %q in %s", where, text(a.root))
	}
}

// TestUnreachableSegmentsAreMarkedDuringEditing: a segment that no entity can match is marked at
// once, and the review warns of it.
func TestUnreachableSegmentsAreMarkedDuringEditing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	marked := func(a answer) (all []string) {
		each(a.root, func(n *html.Node) {
			if name, _ := attr(n, "data-live"); strings.HasPrefix(name, "unreachable-") && !hasAttr(n, "hidden") {
				all = append(all, name)
			}
		})
		return all
	}
	form := f.form(t)
	if all := marked(f.press(t, form, "check")); len(all) > 0 {
		t.Errorf("saved segments are marked: %q", all)
	}
	form.Set("s.0.c.1.property", "country") // it is also "FR"
	form.Set("s.0.c.1.operator", "EQ")
	form.Set("s.0.c.1.value", `"DE"`)
	if all := marked(f.press(t, form, "check")); !slices.Equal(all, []string{"unreachable-0"}) {
		t.Errorf("a segment for two countries at once: marked are %q", all)
	}
	warning := ""
	each(f.press(t, form, "review").root, func(n *html.Node) {
		if class, _ := attr(n, "class"); class == "box warn row" {
			warning += text(n)
		}
	})
	if !strings.Contains(warning, "Adults in France") {
		t.Errorf("the review warns: %q", warning)
	}
}

// TestLineEndsInFieldsOfOneLine: browsers remove them, and the form keeps them.
func TestLineEndsInFieldsOfOneLine(t *testing.T) {
	t.Parallel()
	f := setup(t)
	saved := f.flags[1]
	saved.Description, saved.Segments[1].Description = "one\r\ntwo", "three\nfour"
	saved.Segments[0].Constraints[0].Operator, saved.Segments[0].Constraints[0].Value = "IN", "[\"FR\",\n\"DE\"]"
	form := f.form(t)
	for _, values := range form {
		for i := range values {
			values[i] = strings.NewReplacer("\r", "", "\n", "").Replace(values[i])
		}
	}
	form.Set("s.0.rollout", "80")
	form.Set("s.0.description", "other")
	form.Set("do", "save")
	if a := f.ask(t, http.MethodPost, targeting, form); a.status != http.StatusSeeOther {
		t.Fatalf("save: %d\n%s", a.status, text(a.root))
	}
	got := f.flags[1]
	if got.Segments[0].RolloutPercent != 80 || got.Segments[0].Description != "other" {
		t.Errorf("the changes are not saved: %+v", got.Segments[0])
	}
	for name, one := range map[string][2]string{
		"description": {got.Description, "one\r\ntwo"}, "segment": {got.Segments[1].Description, "three\nfour"}, "value": {got.Segments[0].Constraints[0].Value, "[\"FR\",\n\"DE\"]"},
	} {
		if one[0] != one[1] {
			t.Errorf("the %s is %q, want %q", name, one[0], one[1])
		}
	}
}
