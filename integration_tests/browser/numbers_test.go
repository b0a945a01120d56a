package browser

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// evaluate evaluates the flag 1 for so many entities.
func (s *server) evaluate(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		s.api(t, http.MethodPost, "/evaluation", object{"flagID": 1, "entityID": fmt.Sprint("e", i), "entityContext": object{"beta": "true"}})
	}
}

func TestLiveTail(t *testing.T) {
	t.Parallel()
	s := start(t, "FLAGR_RECORDER_DATAR_TAIL_ENABLED=true")
	s.abFlag(t)
	s.until(t, "checkout-button")
	p := open(t, s)
	p.visit("/ui/flags/1/traffic?days=7")
	p.press("Live tail")
	p.has("Connected, no evaluations yet")
	rows := `document.querySelectorAll("#tail tbody tr")`
	s.evaluate(t, 3)
	p.until("three rows", rows+`.length === 3`)
	p.until("what is in a row", `((cells) => cells[1].querySelector("code").innerText === "green" && cells[2].innerText === "Segment 2" && cells[3].innerText.startsWith("bucket "))(`+rows+`[0].cells)`)
	p.until("the counts, announced", `document.querySelector("#tail [role=status]").innerText === "3 received, 0 skipped"`)
	// Paused with the keyboard: new evaluations are counted, and shown once the tail continues.
	p.run(chromedp.KeyEvent("p"))
	p.has("Paused")
	s.evaluate(t, 2)
	p.run(chromedp.KeyEvent(kb.Tab))
	if n := p.value(rows + `.length`); n != "3" {
		t.Errorf("%s rows while it is paused", n)
	}
	p.press("Pause")
	p.until("five rows", rows+`.length === 5`)
	p.value(`document.querySelector("#c-days").value = "30", document.querySelector("#c-days").dispatchEvent(new Event("change", {bubbles: true})), 1`)
	p.until("the tail, with another window", `location.search.includes("days=30") && document.querySelector("#tail")`)
	p.press("Close")
	p.until("the page without the tail", `!document.querySelector("#tail") && location.search.includes("days=30")`)
}

// TestLiveTailThatIsOff checks that the section names the setting, and that the page sends no
// request to the API.
func TestLiveTailThatIsOff(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	s.until(t, "checkout-button")
	p := open(t, s)
	p.visit("/ui/flags/1/traffic")
	p.press("Live tail")
	p.has("FLAGR_RECORDER_DATAR_TAIL_ENABLED=true")
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.requests {
		if r == "GET /api/v1/datar/flags/1/tail" {
			t.Error("the page requested a stream that is off")
		}
	}
}

// TestHolesOfAFlag turns records off, which makes a hole. The Server page must list it with the
// flag and the user.
func TestHolesOfAFlag(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	s.until(t, "checkout-button")
	p := open(t, s)
	p.visit("/ui/flags/1/targeting")
	p.value(`document.querySelector("[name=records]").click(), 1`)
	p.save()
	p.visit("/ui/server")
	p.until("the hole", `(() => {
		const row = [...document.querySelectorAll("tr")].find((r) => r.cells[0].innerText === "checkout-button");
		return row ? row.cells[2].innerText === "still off" && row.cells[3].innerText.startsWith("records off") : (location.reload(), false);
	})()`)
}

// opened returns the texts of the popover of a number, or fails if it is not open, leaves the
// screen, or lacks a command.
const opened = `(() => {
	const pop = document.getElementById("number");
	const box = pop.getBoundingClientRect();
	if (!pop.matches(":popover-open") || box.left < 0 || box.right > document.documentElement.clientWidth) return "";
	return [...pop.querySelectorAll("p, pre")].every((e) => e.innerText.trim() && !/[{}]/.test(e.matches("pre") ? "" : e.innerText)) && pop.querySelector("pre").innerText.startsWith("curl ") ? pop.innerText : "";
})()`

// openNumbers starts a server with the counts of two flags, some hours of them, a sample of
// reasons, and one unknown key.
func openNumbers(t *testing.T, hours int, unknown string) *tab {
	t.Helper()
	s := start(t)
	s.demonstrate(t, slices.DeleteFunc(hardCases(), func(d demo) bool { return d.key != "checkout-button" && d.key != "landing-page" }), hours)
	s.startOn(t)
	s.sample(t, 2)
	s.api(t, http.MethodPost, "/evaluation", object{"flagKey": unknown, "entityID": "e"})
	p := open(t, s)
	poll(t, "the unknown key", func() bool {
		list, _ := s.api(t, http.MethodGet, "/datar/unknown", nil)["unknown"].([]any)
		return len(list) == 1
	})
	return p
}

// TestEveryNumberOpens clicks each number of each page, in a wide window and on a phone.
func TestEveryNumberOpens(t *testing.T) {
	t.Parallel()
	p := openNumbers(t, 3*24, "no-flag-has-$&")
	for _, width := range []int64{1280, 320} {
		call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 800, DeviceScaleFactor: 1})
		for path, least := range map[string]int{"/ui/": 4, "/ui/flags/1": 30, "/ui/flags/2": 15, "/ui/flags/2/targeting": 6, "/ui/flags/2/traffic": 20, "/ui/flags/2/nothing": 8, "/ui/flags/2/delete": 1, "/ui/unknown": 1, "/ui/server": 8} {
			p.load(path)
			wrong := p.value(`(() => {
				const numbers = [...document.querySelectorAll("[data-source] :is([data-n], td.num, dd)")]
					.filter((e) => e.checkVisibility() && /\d/.test(e.innerText) && !e.querySelector("[data-n]") && !e.closest("a, th, summary, label"));
				const wrong = numbers.filter((e) => { e.click(); return !` + opened + ` || document.getElementById("number-value").innerText !== e.innerText.replace(/\s+/g, " ").trim(); });
				document.getElementById("number").hidePopover();
				return numbers.length < ` + fmt.Sprint(least) + ` ? numbers.length + " numbers" : wrong.map((e) => e.outerHTML.slice(0, 100)).join("\n");
			})()`)
			if wrong != "" {
				t.Errorf("%s at %d pixels: %s", path, width, wrong)
			}
			if n := p.value(`[...document.querySelectorAll("[data-source]")].filter((e) => e.querySelectorAll("button.n").length > 1).length`); n != "0" {
				t.Errorf("%s: %s lists have more than one stop for Tab", path, n)
			}
		}
	}
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 1280, Height: 800, DeviceScaleFactor: 1})
	p.load("/ui/flags/2/traffic")
	p.value(`[...document.querySelectorAll("g.bucket")].at(-1).querySelector(".cursor-bar").dispatchEvent(new MouseEvent("click", {bubbles: true})), 1`)
	p.until("a bar of the chart", opened+`.includes("/series?")`)
	p.keys(kb.Escape)
	p.until("the closed popover", `!document.querySelector("#number:popover-open")`)
	p.value(`document.querySelector(".chart").focus(), 1`)
	p.keys(kb.ArrowLeft, kb.Enter)
	p.until("a bar of the chart, with the keyboard", opened+`.includes("nothing")`)
}

// TestNumbersWithTheKeyboard: Tab reaches one number of each list, arrow keys the others, Enter
// opens, and Escape returns.
func TestNumbersWithTheKeyboard(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	s.until(t, "checkout-button")
	s.evaluate(t, 4)
	p := open(t, s)
	p.visit("/ui/flags/1")
	p.until("the share", reloadUntil("100.0"))
	p.until("numbers", `document.querySelector(".setgot button.n")`)
	for range 60 {
		p.keys(kb.Tab)
		if p.value(`Boolean(document.activeElement.closest(".setgot"))`) == "true" {
			break
		}
	}
	if got := p.value(`document.activeElement.matches(".setgot button.n") && document.activeElement.getAttribute("aria-haspopup")`); got != "dialog" {
		t.Fatalf("the focus is on %s", p.value(`document.activeElement.outerHTML.slice(0, 200)`))
	}
	p.keys(kb.End)
	p.until("the last number", `document.activeElement === document.querySelector(".setgot tbody:last-child tr:last-child td:last-child button.n")`)
	p.keys(kb.ArrowUp)
	p.until("the number above", `document.activeElement.closest("td").matches(".seg td") && document.activeElement.closest("tbody:last-child")`)
	p.keys(kb.ArrowDown, kb.Home, kb.End, kb.ArrowLeft)
	p.until("the number before", `document.activeElement.closest("td.got-c") && document.activeElement.innerText.includes("100.0")`)
	p.keys(kb.Enter)
	p.until("what the number counts", opened+`.replace(/[\u2066-\u2069]/g, "").includes("Of the evaluations that matched segment 2, the share that got green.")`)
	p.until("its commands", opened+`.includes("/datar/flags/1/rollout?from=") && `+opened+`.includes("SELECT")`)
	p.until("its window", opened+`.includes("since version") && `+opened+`.includes("Times are in")`)
	p.until("the focus in the popover", `document.activeElement.closest("#number")`)
	p.keys(kb.Escape)
	p.until("the focus back on the number", `!document.querySelector("#number:popover-open") && document.activeElement.matches(".setgot td.got-c button.n")`)
	p.value(`getSelection().selectAllChildren(document.querySelector(".answer")), document.activeElement.dispatchEvent(new MouseEvent("click", {bubbles: true, detail: 1})), 1`)
	if got := p.value(`Boolean(document.querySelector("#number:popover-open"))`); got != "false" {
		t.Error("a click that selected text opened a number")
	}
	p.keys(kb.Enter)
	p.until("the number, while text is selected", opened+` !== ""`)
	p.keys(kb.Escape)
	p.value(`getSelection().empty(), 1`)
	// A dialog is above the page, so what opens in it is part of it.
	p.press("More")
	p.press("Delete")
	p.until("a number of the dialog", `(document.querySelector("dialog [data-n] button.n").focus(), document.activeElement.matches("dialog button.n"))`)
	p.keys(kb.Enter)
	p.until("the popover in the dialog", `document.querySelector("dialog #number:popover-open")`)
	p.keys(kb.Escape)
	p.until("the dialog without the popover", `document.querySelector("dialog[open]") && !document.querySelector("#number:popover-open")`)
}

// TestNumbersWithoutJavaScript: the commands of each section are behind a summary, which Tab
// reaches.
func TestNumbersWithoutJavaScript(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	s.until(t, "checkout-button")
	s.evaluate(t, 4)
	p := open(t, s)
	p.visit("/ui/flags/1")
	p.until("the share", reloadUntil("100.0"))
	call(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	p.visit("/ui/flags/1")
	if p.value(`document.querySelectorAll("button.n").length`) != "0" {
		t.Fatal("scripts run")
	}
	for _, id := range []string{"src", "src-chart", "src-setgot"} {
		p.run(chromedp.Focus("#"+id+" summary"), chromedp.KeyEvent(kb.Enter))
		p.until("the command of "+id, fmt.Sprintf(`document.querySelector("#%s details[open] .note").checkVisibility()`, id))
	}
}

// TestCommandsOfNumbersGetThem runs the curl of each count of a table, whose response must have the
// count. Sums of a row or column are not in it.
func TestCommandsOfNumbersGetThem(t *testing.T) {
	t.Parallel()
	p := openNumbers(t, 20*24, "no-flag-has-it")
	for _, path := range []string{"/ui/", "/ui/?days=30", "/ui/flags/1", "/ui/flags/2", "/ui/flags/2/traffic", "/ui/flags/2/nothing", "/ui/unknown", "/ui/server"} {
		p.load(path)
		raw := p.value(`JSON.stringify([...document.querySelectorAll("[data-source] tbody tr:not(.sum) td.num:not(.figures td:last-child)")].filter((e) => /^[\d,]+$/.test(e.innerText.trim())).map((e) => {
			e.click();
			return {count: e.innerText.trim().replaceAll(",", ""), command: document.querySelector("#number pre").innerText};
		}))`)
		var numbers []struct{ Count, Command string }
		if err := json.Unmarshal([]byte(raw), &numbers); err != nil || len(numbers) == 0 {
			t.Fatalf("%s: no numbers: %v", path, err)
		}
		responses := map[string]string{}
		for _, one := range numbers {
			if one.Count == "0" {
				continue
			}
			if responses[one.Command] == "" {
				responses[one.Command] = curl(t, one.Command)
			}
			if !regexp.MustCompile(`[:\[,]` + one.Count + `[,}\]]`).MatchString(responses[one.Command]) {
				t.Errorf("%s shows %s, which is not in the response to %s:\n%.1500s", path, one.Count, one.Command, responses[one.Command])
				break
			}
		}
	}
}

// TestCommandOfAForecast sends the draft of a review to the API, whose forecast must have the
// numbers of the review.
func TestCommandOfAForecast(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.demonstrate(t, slices.DeleteFunc(hardCases(), func(d demo) bool { return d.key != "checkout-button" }), 10*24)
	s.startOn(t)
	p := open(t, s)
	p.load("/ui/flags/1/targeting")
	p.fill("s.0.rollout", "80")
	p.press("Review and save")
	p.has("Save 1 change as a new version?")
	command := p.value(`document.querySelector("#src-forecast .note").textContent`)
	target, draft, ok := strings.Cut(strings.TrimSuffix(command, "'"), "-d '")
	if !ok {
		t.Fatal(command)
	}
	response, err := http.Post(strings.Split(target, "'")[1], "application/json", strings.NewReader(strings.ReplaceAll(draft, `'\''`, "'")))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s %v", command, response.StatusCode, body, err)
	}
	numbers := strings.Fields(p.value(`[...document.querySelectorAll("[data-review] tbody td:not(:last-child)")].map((e) => e.innerText.replaceAll(",", "")).join(" ")`))
	for _, n := range numbers {
		if !strings.Contains(string(body), ":"+n) {
			t.Errorf("the review has %s, and the API\n%s", n, body)
		}
	}
	if len(numbers) != 6 {
		t.Errorf("the review has the numbers %q", numbers)
	}
}

// curl runs the commands of a page. Its result also has the sums of the last 7 days of flags, which
// the list shows.
func curl(t *testing.T, commands string) (result string) {
	t.Helper()
	for command := range strings.Lines(commands) {
		_, target, _ := strings.Cut(strings.Trim(strings.TrimSpace(command), "'"), "'")
		response, err := http.Get(target)
		if err != nil {
			t.Fatal(command, err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s %v", command, response.StatusCode, body, err)
		}
		result += string(body)
		var states struct{ Flags []struct{ Spark []int } }
		_ = json.Unmarshal(body, &states)
		for _, flag := range states.Flags {
			sum := 0
			for _, n := range flag.Spark[max(0, len(flag.Spark)-7):] {
				sum += n
			}
			result += fmt.Sprint(",", sum, ",")
		}
	}
	return result
}
