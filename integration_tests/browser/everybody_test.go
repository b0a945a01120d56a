package browser

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

var mainPages = []string{"/ui/", "/ui/new", "/ui/flags/1", "/ui/flags/1/targeting", "/ui/flags/1/traffic", "/ui/flags/1/nothing", "/ui/flags/1/try", "/ui/flags/1/history", "/ui/flags/1/delete", "/ui/unknown", "/ui/server", "/ui/deleted", "/ui/keys"}

func TestWithoutJavaScript(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	call(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	click := func(selector string) {
		t.Helper()
		p.run(chromedp.WaitVisible(selector), chromedp.Click(selector))
	}
	see := func(selector, text string) {
		t.Helper()
		p.until(fmt.Sprintf("%q in %s", text, selector), fmt.Sprintf(`document.querySelector(%q)?.innerText.replace(/\s+/g, " ").includes(%q)`, selector, text))
	}
	p.visit("/ui/flags/1/targeting")
	p.run(chromedp.SetValue(`[name="s.0.rollout"]`, "80"))
	click(`button[value="add-segment"]`)
	p.run(chromedp.WaitVisible(`[name="s.2.description"]`), chromedp.SendKeys(`[name="s.2.description"]`, "Everybody"))
	click(`.savebar button[value="review"]`)
	see("[data-review] .rows", "50 % → 80 %")
	click(`[data-review] button[value="save"]`)
	see(".notice", "Saved.")
	segments := s.definition(t, 1)["segments"].([]any)
	if len(segments) != 3 || segments[0].(object)["rolloutPercent"] != 80.0 {
		t.Errorf("segments are %v", segments)
	}
	p.visit("/ui/flags/1/delete")
	see(".dialog", "are deleted with it")
	click(".dialog .danger")
	see(".notice", "Deleted")
	s.api(t, http.MethodPost, "/flags", object{"key": "another", "description": "Another"})
	s.until(t, "another")
	p.visit("/ui/?q=another")
	click("#filters button:not([name])")
	see(".flags .key", "another")
}

func TestKeyboardOnly(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := open(t, s)
	p.visit("/ui/new")
	// to moves the focus with Tab to the element of a selector.
	to := func(selector string) {
		t.Helper()
		for range 200 {
			if p.value(fmt.Sprintf(`document.activeElement.matches(%q)`, selector)) == "true" {
				return
			}
			p.run(chromedp.KeyEvent(kb.Tab))
		}
		t.Fatalf("Tab does not reach %s; the focus is on %s", selector, p.value(`document.activeElement.outerHTML`))
	}
	p.run(chromedp.KeyEvent(kb.Tab))
	if p.value(`document.activeElement.className`) != "skip" {
		t.Error("the first element is not the link to the content")
	}
	to("[name=key]")
	p.run(chromedp.KeyEvent("by-keyboard"))
	to("button[value=boolean]")
	p.run(chromedp.KeyEvent(kb.Enter))
	p.has("Created by-keyboard")
	to(`[name="s.0.rollout"]`)
	p.run(chromedp.SetValue(`[name="s.0.rollout"]`, ""), chromedp.KeyEvent("40"))
	p.has("100 % → 40 %")
	to(`.savebar button[value="review"]`)
	hidden := p.value(`(() => { const f = document.activeElement.getBoundingClientRect(); return f.bottom > innerHeight || f.top < 0 })()`)
	if hidden == "true" {
		t.Error("the focus is outside the window")
	}
	p.run(chromedp.KeyEvent(kb.Enter))
	p.until("the dialog", `document.querySelector("dialog[open]")?.contains(document.activeElement)`)
	to(`dialog button[value="save"]`)
	p.run(chromedp.KeyEvent(kb.Enter))
	p.has("Saved. Servers follow within")
	p.visit("/ui/flags/1")
	to("summary.btn")
	p.run(chromedp.KeyEvent(kb.Enter))
	to("a[data-dialog]")
	p.run(chromedp.KeyEvent(kb.Enter))
	p.until("the question", `document.querySelector("dialog[open]")?.contains(document.activeElement)`)
	to("dialog .danger")
	p.run(chromedp.KeyEvent(kb.Enter))
	p.has("Deleted by-keyboard")
}

// TestSmallScreens checks that no page is wider than 320 pixels.
func TestSmallScreens(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	s.api(t, http.MethodPost, "/flags", object{"key": strings.Repeat("long-key-", 6) + "end", "description": strings.Repeat("long words ", 20), "template": "simple_boolean_flag"})
	p := open(t, s)
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 320, Height: 640, DeviceScaleFactor: 1, Mobile: true})
	for _, path := range append(slices.Clone(mainPages), "/ui/flags/2", "/ui/flags/2/targeting") {
		p.visit(path)
		if got := p.value(`document.documentElement.scrollWidth`); got != "320" {
			t.Errorf("%s is %s pixels wide: %s", path, got, p.value(`[...document.querySelectorAll("main *")].filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > 321 && !e.closest(".scroll, .tabs, pre, svg")).slice(0, 3).map((e) => e.outerHTML.slice(0, 120)).join("\n")`))
		}
	}
}

// TestNamesOfTheAccessibilityTree checks the names and landmarks that a screen reader gets.
func TestNamesOfTheAccessibilityTree(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	named := []string{"button", "link", "textbox", "searchbox", "combobox", "checkbox", "switch", "spinbutton", "img", "table"}
	for _, path := range mainPages {
		p.visit(path)
		nodes := call(p, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes
		landmarks := map[string]int{}
		for _, n := range nodes {
			if n.Ignored || n.Role == nil {
				continue
			}
			role := strings.Trim(string(n.Role.Value), `"`)
			name := ""
			if n.Name != nil {
				name = strings.Trim(string(n.Name.Value), `"`)
			}
			landmarks[role]++
			if slices.Contains(named, role) && role != "table" && name == "" {
				t.Errorf("%s: a %s without a name", path, role)
			}
		}
		if landmarks["main"] != 1 || landmarks["banner"] != 1 || landmarks["navigation"] == 0 {
			t.Errorf("%s: landmarks %v", path, landmarks)
		}
	}
}

// TestNothingMovesAfterTheFirstPaint checks the layout shifts that the browser reports.
func TestNothingMovesAfterTheFirstPaint(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	for _, path := range mainPages {
		p.visit(path)
		shift, err := chromedp.Run(p.ctx, chromedp.Evaluate[float64](`new Promise((done) => { let sum = 0; new PerformanceObserver((list) => { for (const e of list.getEntries()) sum += e.value }).observe({type: "layout-shift", buffered: true}); requestAnimationFrame(() => requestAnimationFrame(() => done(sum))) })`, chromedp.EvalAwaitPromise))
		if err != nil {
			t.Fatal(err)
		}
		if shift > 0.001 {
			t.Errorf("%s moves by %f", path, shift)
		}
	}
}
