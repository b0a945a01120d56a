package browser

import (
	"fmt"
	"net/http"
	"regexp"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// printedAddress is the address of the pages in the log line about the start.
func (s *server) printedAddress(t *testing.T) string {
	t.Helper()
	found := regexp.MustCompile(` ui=(http://\S+)`).FindStringSubmatch(s.out.String())
	if found == nil {
		t.Fatalf("no address of the pages in\n%s", s.out)
	}
	return found[1]
}

// TestAPersonsPath follows a new user: from the printed address to an A/B flag that works, its
// numbers, the reason why some entities got no variant, and the deletion of the flag. Every page
// must work with JavaScript and without.
func TestAPersonsPath(t *testing.T) {
	t.Parallel()
	for name, without := range map[string]bool{"with JavaScript": false, "without JavaScript": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			p := open(t, s)
			call(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: without})
			p.run(chromedp.Navigate(s.printedAddress(t)))
			p.createAnABFlag()
			p.tryIt()
			p.follow("Overview", "/ui/flags/1")
			p.has("no evaluations yet")
			p.has("curl -X POST " + s.url + "/api/v1/evaluation") // the command that evaluates the flag
			p.value(`document.querySelector("button[role=switch]").click(), 1`)
			p.has("Switched on.")
			s.until(t, "pay-button")
			for i := range 60 { // an application evaluates for 40 users in France and 20 elsewhere
				country := "FR"
				if i >= 40 {
					country = "DE"
				}
				s.api(t, http.MethodPost, "/evaluation", object{"flagKey": "pay-button", "entityID": fmt.Sprint("user-", i), "entityContext": object{"country": country}})
			}
			p.readResults()
			p.follow("Overview", "/ui/flags/1")
			p.press("More")
			p.press("Delete")
			p.has("Not yet") // the flag is asked for
			p.press("Delete anyway")
			p.has("Deleted pay-button")
			p.has("All flags are deleted: restore one, or make a new one.")
		})
	}
}

func (p *tab) createAnABFlag() {
	p.t.Helper()
	p.has("No flags yet.")
	p.fill("key", "pay-button")
	p.press("Create with your own variants")
	p.has("No segments yet")
	for i, key := range []string{"blue", "green"} {
		p.press("Add variant")
		p.fill(fmt.Sprintf("v.%d.key", i), key)
	}
	p.press("Add segment")
	p.fill("s.0.description", "People in France")
	p.press("Add constraint")
	p.fill("s.0.c.0.property", "country")
	p.fill("s.0.c.0.value", "FR")
	p.press("Review and save")
	p.has("must be in double quotes") // the page shows the error and the correction
	p.fill("s.0.c.0.value", `"FR"`)
	p.save()
	p.has("People in France get blue or green, half and half, everybody else nothing.")
}

func (p *tab) tryIt() {
	p.t.Helper()
	p.follow("Try", "/ui/flags/1/try")
	for _, one := range []struct{ context, says string }{
		{`{"country": "FR"}`, "of 1,000."},
		{`{"country": "DE"}`, `Nothing. No segment matches ada.`},
	} {
		p.fill("id", "ada")
		p.fill("context", one.context)
		p.value(`document.querySelector("button[value=one]").click(), 1`)
		p.has(one.says)
		p.has("The flag is off, so it assigns no variant now.")
	}
}

// readResults reads the shares and the reasons. Counts appear within a second, when the page is
// reloaded.
func (p *tab) readResults() {
	p.t.Helper()
	p.visit("/ui/flags/1")
	count := `[...document.querySelectorAll(".setgot tbody tr")].map((r) => [r.querySelector("th code")?.innerText, Number(r.querySelector(".n-c")?.innerText)])`
	p.until("60 evaluations", `document.readyState === "complete" && (document.querySelector(".answer").innerText.includes("60 evaluations") || (location.reload(), false))`)
	p.until("the shares of both variants", `((rows) => rows.some(([key, n]) => key === "blue" && n > 0) && rows.some(([key, n]) => key === "green" && n > 0) &&
		rows.reduce((sum, [key, n]) => sum + (key ? n : 0), 0) === 40)(`+count+`)`)
	p.follow("Why nothing", "/ui/flags/1/nothing")
	p.has("20 of 60 evaluations gave no variant")
	p.has("No segment matched")
	p.until("the constraint that stopped them", `document.readyState === "complete" && (document.querySelector("#stops")?.innerText.includes('country EQ "FR"') || (location.reload(), false))`)
}

// hold delays the requests of the page until letGo is called, so that the server seems slow.
func (p *tab) hold() {
	p.t.Helper()
	p.value(`(() => {
		const fetched = window.fetch;
		const gate = new Promise((done) => { window.letGo = done; });
		window.fetch = async (...args) => { await gate; return fetched(...args); };
		return 1;
	})()`)
}

func (p *tab) letGo() {
	p.t.Helper()
	p.value(`letGo(), 1`)
}

// TestClicksBeforeTheResponse presses buttons faster than the server responds. None may be lost,
// and each must act on the part where it was pressed, even if earlier ones have moved it.
func TestClicksBeforeTheResponse(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/flags/1/targeting")
	names := `[...document.querySelectorAll("[data-segment] [name$='.description']")].map((e) => e.value).join()`
	p.until("two segments", names+` === "Adults in France,Beta testers"`)
	p.hold()
	for _, button := range []string{"down.0", "remove-constraint.1.0", "remove-segment.0", "add-segment", "add-segment"} {
		p.value(fmt.Sprintf("document.querySelector(\"button[value='%s']\").click(), 1", button))
	}
	p.letGo()
	// The first segment moved down, the second lost its constraint, the first was removed, and two
	// were added.
	p.until("all of them", names+` === "Beta testers,,"`)
	p.until("no constraint", `!document.querySelector("[name='s.0.c.0.property']")`)
	p.save()
	if segments := s.definition(t, 1)["segments"].([]any); len(segments) != 3 || segments[0].(object)["description"] != "Beta testers" {
		t.Errorf("segments are %v", segments)
	}
}

// TestNoInputDuringASave checks that the page accepts no input until the response arrives, because
// it would be lost.
func TestNoInputDuringASave(t *testing.T) {
	t.Parallel()
	_, p := reviewRollout(t)
	p.hold()
	p.press("Save new version")
	p.until("a page that takes no input", `document.getElementById("main").inert`)
	p.sent(http.MethodPost)
	p.value(`document.querySelector("button[value='add-segment']").click(), 1`) // as a script or a shortcut can
	p.letGo()
	p.has("Saved. Servers follow within")
	if n := p.sent(http.MethodPost); n != 1 {
		t.Errorf("%d requests, want only the save", n)
	}
	if p.value(`document.getElementById("main").inert`) != "false" {
		t.Error("the saved page accepts no input")
	}
}
