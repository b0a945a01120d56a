package browser

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// Each feature of Flagr's pages has a test:
//
//	list, its columns, order and filters; search; rows that open       TestList
//	deleted flags, restore; the confirmation of a deletion              TestADeletionThatIsCancelledSendsNothing
//	create, with a check of the key during input                        TestCreate
//	a flag's settings, notes, tags, entity types, enabling              TestSettingsOfAFlag, TestFixedEntityTypes
//	variants and attachments                                            TestVariants
//	segments, constraints and shares                                    TestSegmentsConstraintsAndShares
//	one save, with a review that can be canceled and undone            TestReviewCanBeLeftAndUndone, TestTwoBrowsersEditOneFlag
//	Try, in place of the debug console                                  TestTryIsNotCounted, TestTryADraft
//	history, links to versions, duplicates                              TestHistoryAndDuplicate
//	documentation, and the source of each number                        TestDocumentation, TestNumbersHaveTheirSource
//	flags from a document, without a database                           TestEvalOnly
//	no style sheet of another host, and a dark theme                    open, in every test; TestThemes

func TestList(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	for i := range 3 {
		s.api(t, http.MethodPost, "/flags", object{"key": fmt.Sprintf("flag-%d", i), "description": fmt.Sprintf("Number %d", i), "template": "simple_boolean_flag"})
	}
	s.until(t, "flag-2")
	p := open(t, s)
	p.visit("/ui/")
	p.until("the columns", `["State", "Last asked", "Changed ↓", "Findings"].every((c) => [...document.querySelectorAll("th")].some((h) => h.innerText.trim() === c))`)
	rows := `document.querySelectorAll(".flags tbody tr").length`
	p.visit("/ui/?sort=key")
	p.until("the order of keys", `document.querySelector(".flags .key").innerText === "checkout-button"`)
	p.fill("q", "button, web")
	p.until("one flag", rows+` === 1 && location.search.includes("q=button")`)
	for _, text := range []string{"flag-1", "Number 1", "3"} { // key, description, ID
		p.fill("q", text)
		p.until("one flag for "+text, rows+` === 1 && document.querySelector(".flags .key").innerText === "flag-1"`)
	}
	p.press("Columns")
	p.value(`document.querySelector("[name=cols][value=changed]").click(), 1`)
	p.until("a list without a column", `location.search.includes("cols=state") && ![...document.querySelectorAll("th")].some((h) => h.innerText.startsWith("Changed"))`)
	p.value(`document.querySelector("[name=cols][value=changed]").click(), 1`)
	p.until("the column", `[...document.querySelectorAll("th")].some((h) => h.innerText.startsWith("Changed"))`)
	s.api(t, http.MethodPost, "/evaluation", object{"flagKey": "nothing like it", "entityID": "x"})
	p.visit("/ui/?q=like+it")
	p.until("keys that do not exist", reloadUntil("Applications ask for keys that do not exist:"))
	p.has("nothing like it Applications asked for it 1 time in 7 days.")
	p.fill("q", "nothing like that")
	p.has("No flag matches")
	p.press("Show all flags")
	p.until("all flags", rows+" > 1")
	p.fill("on", "on")
	p.until("the flag that is on", rows+` === 1 && document.querySelector(".flags .key").innerText === "checkout-button"`)
	// Rows open with the keyboard.
	p.visit("/ui/?sort=key")
	p.run(chromedp.KeyEvent("j"), chromedp.KeyEvent(kb.Enter))
	p.until("the flag's page", `location.pathname === "/ui/flags/1"`)
}

func TestCreate(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := open(t, s)
	p.visit("/")
	p.until("the pages", `location.pathname === "/ui/"`)
	p.has("No flags yet.")
	p.fill("key", "a b")
	p.has("Not a valid key")
	p.fill("key", "first-flag")
	p.has("Free, and a valid key.")
	p.press("Create a boolean flag")
	p.has("Created first-flag")
	if d := s.definition(t, 1); len(d["variants"].([]any)) != 1 || d["key"] != "first-flag" || d["dataRecordsEnabled"] != true {
		t.Errorf("created %v", d)
	}
	for range 3 {
		s.api(t, http.MethodPost, "/evaluation", object{"flagKey": "second", "entityID": "x"})
	}
	p.visit("/ui/new?key=second")
	p.until("how often it was asked for", reloadUntil("asked for it 3 times in 7 days"))
	p.visit("/ui/new")
	p.fill("key", "first-flag")
	p.has("has this key")
	p.fill("key", "second")
	p.has("asked for it 3 times in 7 days")
	p.fill("description", "Another")
	p.press("Create with your own variants")
	p.has("No segments yet")
}

// TestWithoutCounts checks that pages name the settings of Datar if it is off, and that new flags
// have no data records.
func TestWithoutCounts(t *testing.T) {
	t.Parallel()
	s := start(t, "FLAGR_RECORDER_ENABLED=false")
	p := open(t, s)
	p.visit("/ui/")
	p.fill("key", "first-flag")
	p.press("Create a boolean flag")
	p.has("Created first-flag")
	if d := s.definition(t, 1); d["dataRecordsEnabled"] != false {
		t.Errorf("created %v", d)
	}
	for _, path := range []string{"/ui/", "/ui/flags/1", "/ui/flags/1/traffic", "/ui/flags/1/nothing", "/ui/unknown", "/ui/server"} {
		p.visit(path)
		p.has("FLAGR_RECORDER_ENABLED=true")
		p.has("FLAGR_RECORDER_TYPE=datar")
	}
}

// TestEvalOnly checks that pages show and try flags from a document, without forms that change
// them.
func TestEvalOnly(t *testing.T) {
	t.Parallel()
	source := start(t)
	source.abFlag(t)
	source.until(t, "checkout-button")
	document, err := json.Marshal(source.api(t, http.MethodGet, "/export/eval_cache/json", nil))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "flags.json")
	if err := os.WriteFile(file, document, 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, "FLAGR_DB_DBDRIVER=json_file", "FLAGR_DB_DBCONNECTIONSTR="+file, "FLAGR_RECORDER_ENABLED=false")
	p := open(t, s)
	for path, text := range map[string]string{
		"/ui/": "checkout-button", "/ui/flags/1": "Beta testers get green", "/ui/flags/1/targeting": "checkout-button", "/ui/flags/1/try": "checkout-button", "/ui/server": "FLAGR_DB_DBDRIVER",
	} {
		p.visit(path)
		p.has(text)
		if n := p.value(`[...document.querySelectorAll("form[method=post]")].filter((f) => !f.action.endsWith("/try") && !f.action.endsWith("/preferences") && f.querySelector("button:enabled")).length`); n != "0" {
			t.Errorf("%s: %s forms that change something", path, n)
		}
	}
	p.visit("/ui/flags/1/try")
	p.fill("id", "a1234")
	p.fill("context", `{"country":"FR","age":19}`)
	p.value(`document.querySelector("button[value=one]").click()`)
	p.has("segment 1")
}

func TestSettingsOfAFlag(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/flags/1/targeting")
	p.fill("key", "pay-button")
	p.fill("description", "New words")
	p.fill("notes", "Ends **soon**")
	p.until("the preview of the notes", `document.querySelector("[data-live=notes] strong")?.innerText === "soon"`)
	p.fill("entity", "user")
	p.fill("tags", "web, ")
	p.until("proposals behind the first tag", `[...document.getElementById("f-tags").list.options].some((o) => o.value === "web, ios")`)
	p.fill("tags", "web, tv")
	p.value(`document.querySelector("[name=records]").click(), 1`)
	p.value(`document.querySelector("[name=enabled]").click(), 1`)
	p.has("7 changes not saved.")
	p.save()
	d := s.definition(t, 1)
	for name, want := range map[string]any{"key": "pay-button", "description": "New words", "notes": "Ends **soon**", "entityType": "user", "enabled": false, "dataRecordsEnabled": false} {
		if d[name] != want {
			t.Errorf("%s is %v, want %v", name, d[name], want)
		}
	}
	if tags := fmt.Sprint(d["tags"]); tags != "[web tv]" {
		t.Errorf("tags are %s", tags)
	}
	p.visit("/ui/flags/1")
	p.until("the notes", `document.querySelector(".notes strong")?.innerText === "soon"`)
	p.value(`document.querySelector("button[role=switch]").click(), 1`)
	p.has("Switched on.")
	if s.definition(t, 1)["enabled"] != true {
		t.Error("the switch has not enabled the flag")
	}
}

func TestVariants(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/flags/1/targeting")
	p.has("Given by segments 1, 2")
	p.press("Add variant")
	p.fill("v.2.key", "red")
	p.fill("v.2.attachment", "{\"a\": 1,}")
	p.has("Line 1, column 9")
	p.press("Review and save")
	p.has("Nothing was saved")
	p.fill("v.2.attachment", `{"a": 1}`)
	p.press("Review and save")
	p.press("Keep editing")
	p.until("a page without the errors of before", `!document.getElementById("errors") && !document.body.innerText.includes("Line 1, column 9")`)
	p.save()
	variants := s.definition(t, 1)["variants"].([]any)
	if len(variants) != 3 || fmt.Sprint(variants[2].(object)["attachment"]) != "map[a:1]" {
		t.Fatalf("variants are %v", variants)
	}
	p.until("the button that removes it", `document.querySelector("button[value='remove-variant.2']")`)
	p.value(`document.querySelector("button[value='remove-variant.2']").click(), 1`)
	p.has("1 change not saved.")
	p.save()
	if n := len(s.definition(t, 1)["variants"].([]any)); n != 2 {
		t.Errorf("%d variants", n)
	}
}

func TestSegmentsConstraintsAndShares(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/flags/1/targeting")
	p.fill("s.0.rollout", "80")
	p.has("25.0 % → 40.0 %")
	p.fill("s.1.c.0.value", "true")
	p.has(`Did you mean "true"?`)
	p.press("Use it")
	p.until("the quotes", `document.querySelector("[name='s.1.c.0.value']").value === '"true"'`)
	p.fill("s.0.c.0.value", "DE")
	p.has("must be in double quotes")
	p.fill("s.0.c.0.value", `"DE"`)
	p.fill("s.0.d.0", "70")
	p.has("add up to 120")
	p.value(`document.querySelector("button[value='split.0']").click(), 1`)
	p.until("an even split", `document.querySelector("[name='s.0.d.0']").value === "50"`)
	p.fill("s.0.d.0", "100")
	p.fill("s.0.d.1", "0")
	p.press("Add segment")
	p.fill("s.2.description", "Everybody")
	p.value(`document.querySelector("button[value='up.2']").click(), 1`)
	p.until("the order", `document.querySelector("[name='s.1.description']").value === "Everybody"`)
	p.has("Unreachable: an earlier segment matches everybody")
	p.press("Review and save")
	p.has("Rollout of segment 1, “Adults in France”: 50 % → 80 %.")
	p.has("New segment 2, “Everybody”: everybody, rollout 100 %, blue 50 %, green 50 %.")
	p.press("Save new version")
	p.has("Saved. Servers follow within")
	segments := s.definition(t, 1)["segments"].([]any)
	if len(segments) != 3 || segments[1].(object)["description"] != "Everybody" || segments[0].(object)["rolloutPercent"] != 80.0 {
		t.Errorf("segments are %v", segments)
	}
	if shares := segments[0].(object)["distributions"].([]any); len(shares) != 2 || shares[1].(object)["percent"] != 0.0 {
		t.Errorf("shares are %v, want one of 0 %%, too", shares)
	}
}

func TestReviewCanBeLeftAndUndone(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	before := fmt.Sprint(s.definition(t, 1))
	p := open(t, s)
	p.visit("/ui/flags/1/targeting")
	p.fill("s.0.rollout", "80")
	p.fill("s.1.rollout", "10")
	p.press("Review and save")
	p.has("Save 2 changes as a new version?")
	p.press("Keep editing")
	p.until("the marks of what is changed", `document.querySelector("[name='s.0.rollout']").classList.contains("changed") && document.querySelector("[name='s.0.c.0.property']").classList.contains("code")`)
	p.until("the form", `!document.querySelector("dialog[open]") && document.querySelector("[name='s.1.rollout']").value === "10"`)
	p.press("Review and save")
	p.press("Undo")
	p.has("Save 1 change as a new version?")
	p.run(chromedp.KeyEvent(kb.Escape))
	p.until("the form", `!document.querySelector("dialog[open]") && document.querySelector("[name='s.0.rollout']").value === "50"`)
	if after := fmt.Sprint(s.definition(t, 1)); after != before {
		t.Errorf("something was saved: %s", after)
	}
	p.press("Undo all")
	p.until("no change", `document.querySelector(".savebar")?.hidden`)
}

func TestADeletionThatIsCancelledSendsNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/flags/1")
	p.press("More")
	p.press("Delete")
	p.has("Delete checkout-button?")
	p.sent("POST")
	p.press("Keep it")
	p.until("the dialog to be gone", `!document.querySelector("dialog[open]")`)
	p.press("More")
	p.press("Delete")
	p.has("are deleted with it")
	p.run(chromedp.KeyEvent(kb.Escape))
	p.until("the dialog to be gone", `!document.querySelector("dialog[open]")`)
	if n := p.sent("POST"); n != 0 {
		t.Errorf("%d requests that change something", n)
	}
	if s.definition(t, 1)["key"] != "checkout-button" {
		t.Error("the flag is gone")
	}
	p.press("More")
	p.press("Delete")
	p.press("Delete anyway")
	p.has("Deleted checkout-button")
	p.visit("/ui/deleted")
	p.has("checkout-button")
	p.sent("")
	p.press("Restore checkout-button")
	p.has("2 segments, 2 variants and 2 tags come back with it.")
	p.press("Leave it deleted")
	p.until("the dialog to be gone", `!document.querySelector("dialog[open]")`)
	if n := p.sent("POST"); n != 0 {
		t.Errorf("%d requests that change something before the question is answered", n)
	}
	p.press("Restore checkout-button")
	p.press("Restore")
	p.has("Restored checkout-button")
	if s.definition(t, 1)["key"] != "checkout-button" {
		t.Error("the flag is not restored")
	}
}

// TestTryADraft evaluates the unsaved state of the form.
func TestTryADraft(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/flags/1/targeting")
	p.fill("s.0.rollout", "0")
	p.has("1 change not saved.")
	p.press("Try it")
	p.has("With 1 unsaved change.")
	p.fill("id", "ada")
	p.fill("context", `{"country":"FR","age":19}`)
	p.value(`document.querySelector("button[value=one]").click(), 1`)
	p.has("is outside the rollout of 0 %")
	if s.definition(t, 1)["segments"].([]any)[0].(object)["rolloutPercent"] != 50.0 {
		t.Error("Try has saved the draft")
	}
}

// TestNumbersHaveTheirSource opens the command and the SQL statement of the numbers on each page
// that shows them.
func TestNumbersHaveTheirSource(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	s.until(t, "checkout-button")
	s.evaluate(t, 3)
	p := open(t, s)
	for _, path := range []string{"/ui/flags/1", "/ui/flags/1/traffic", "/ui/flags/1/nothing"} {
		p.visit(path)
		p.press("curl")
		p.has("curl '" + s.url + "/api/v1/datar/flags/1/")
		p.press("SQL")
		p.has("FROM datar_hourly_details")
	}
}

func TestFixedEntityTypes(t *testing.T) {
	t.Parallel()
	s := start(t, "FLAGR_UI_POSSIBLE_ENTITY_TYPES=user,shop")
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/flags/1/targeting")
	p.until("the two types, and none", `[...document.querySelectorAll("[name=entity] option")].map((o) => o.value).join() === ",user,shop"`)
	p.fill("entity", "shop")
	p.has("1 change not saved.")
	p.save()
	if got := s.definition(t, 1)["entityType"]; got != "shop" {
		t.Errorf("the entity type is %v", got)
	}
}

func TestTryIsNotCounted(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/flags/1/try")
	p.fill("id", "a1234")
	p.fill("context", `{"country":"FR","age":"19"}`)
	p.value(`document.querySelector("button[value=one]").click(), 1`)
	p.until("the answer", `document.querySelector("main").innerText.includes("of another type")`)
	p.press("Try 20 random IDs")
	p.has("Who got what")
	if status := s.api(t, http.MethodGet, "/datar/status", nil); status["recorded"] != nil && status["recorded"] != 0.0 {
		t.Errorf("Try was counted: %v", status)
	}
}

func TestHistoryAndDuplicate(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/#/flags/1?tab=history&snapshot=1")
	p.until("the history", `location.pathname === "/ui/flags/1/history" && location.search === "?snapshot=1"`)
	p.has(`New segment 1, “Adults in France”: country EQ "FR" and age GTE 18, rollout 50 %, blue 50 %, green 50 %.`)
	p.visit("/ui/flags/1/targeting")
	p.fill("s.0.rollout", "80")
	p.save()
	p.visit("/ui/flags/1/history")
	p.until("a button", `document.querySelector(".version form button")`)
	p.value(`document.querySelector(".version form button").click(), 1`)
	p.has("Rollout of segment 1, “Adults in France”: 80 % → 50 %.")
	p.press("Save new version")
	p.has("Saved. Servers follow within")
	if s.definition(t, 1)["segments"].([]any)[0].(object)["rolloutPercent"] != 50.0 {
		t.Error("the version is not restored")
	}
	p.visit("/ui/flags/1/duplicate")
	p.fill("key", "copy")
	p.press("Duplicate")
	p.has("Duplicated as copy")
	if d := s.definition(t, 2); d["key"] != "copy" || len(d["segments"].([]any)) != 2 {
		t.Errorf("the copy is %v", d)
	}
}

func TestTwoBrowsersEditOneFlag(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	mine, theirs := open(t, s), open(t, s)
	for _, p := range []*tab{mine, theirs} {
		p.visit("/ui/flags/1/targeting")
	}
	theirs.fill("s.0.rollout", "70")
	theirs.save()
	mine.fill("s.1.rollout", "10")
	mine.press("Review and save")
	mine.press("Save new version")
	mine.has("while you were editing")
	mine.has("“Adults in France”: 50 % → 70 %.")
	mine.has("“Beta testers”: 100 % → 10 %.")
	if s.definition(t, 1)["segments"].([]any)[1].(object)["rolloutPercent"] != 100.0 {
		t.Error("the second save has overwritten the first")
	}
	mine.press("Review mine against theirs")
	mine.has("70 % → 50 %")
	mine.press("Save new version")
	mine.has("Saved. Servers follow within")
}

func TestThemes(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	color := `getComputedStyle(document.documentElement).backgroundColor`
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
	p.visit("/ui/")
	if got := p.value(color); got != "rgb(18, 20, 23)" {
		t.Errorf("dark system: %s", got)
	}
	p.press("System theme")
	p.press("Light theme")
	p.until("the light theme", color+` === "rgb(255, 255, 255)"`)
	p.visit("/ui/server")
	if got := p.value(color); got != "rgb(255, 255, 255)" {
		t.Errorf("the theme is not kept: %s", got)
	}
}
