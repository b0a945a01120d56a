package browser

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// keys presses keys one after another.
func (p *tab) keys(keys ...string) {
	p.t.Helper()
	for _, key := range keys {
		p.run(chromedp.KeyEvent(key))
	}
}

// TestKeys checks the keys that the page of keys lists.
func TestKeys(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	s.api(t, http.MethodPost, "/flags", object{"key": "second", "description": "Second", "template": "simple_boolean_flag"})
	s.until(t, "second")
	p := open(t, s)
	p.visit("/ui/?sort=key")
	p.until("the list", `document.querySelectorAll(".flags .key").length === 2`)
	row := `document.activeElement === document.querySelectorAll(".flags .key")`
	p.keys("j", "j")
	p.until("the second row", row+"[1]")
	p.keys("k")
	p.until("the first row", row+"[0]")
	// A key press as one event: KeyEvent also inserts the text of keys that a page handles.
	call(p, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: "/", Text: "/"})
	p.until("the search", `document.activeElement.id === "q"`)
	p.keys("g", "s", "?")
	p.until("keys as text in a field", `document.querySelector("#q").value === "gs?" && location.pathname === "/ui/"`)
	for _, one := range []struct{ keys, path string }{{"gu", "/ui/unknown"}, {"gs", "/ui/server"}, {"gf", "/ui/"}} {
		p.visit("/ui/keys")
		p.keys(one.keys[:1], one.keys[1:])
		p.until(one.path, fmt.Sprintf("location.pathname === %q", one.path))
	}
	p.visit("/ui/flags/1/history")
	for i, tab := range []string{"", "/targeting", "/traffic", "/nothing", "/try", "/history"} {
		p.keys(fmt.Sprint(i + 1))
		p.until("the tab "+tab, fmt.Sprintf("location.pathname === %q", "/ui/flags/1"+tab))
	}
	p.keys("t")
	p.until("the tab /try", `location.pathname === "/ui/flags/1/try"`)
	p.visit("/ui/")
	p.keys("?")
	p.until("the list of keys", `location.pathname === "/ui/keys" && document.querySelector("[data-keys-switch] input:checked")`)
	// Single keys can be switched off (WCAG 2.1.4).
	p.run(chromedp.Click("[data-keys-switch] input"))
	p.visit("/ui/")
	p.keys("/")
	p.until("no search", `localStorage.getItem("flagr.keys") === "off" && document.activeElement === document.body`)
	p.visit("/ui/keys")
	p.run(chromedp.Click("[data-keys-switch] input"))
	p.visit("/ui/")
	p.keys("/")
	p.until("the search again", `document.activeElement.id === "q"`)
}

// TestKeysOfTheEditor orders segments, opens and closes the review, and leaves the page with an
// edit that is not saved.
func TestKeysOfTheEditor(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	asked := make(chan bool, 4) // gets a value when the browser asks whether to leave the page; the answer is no
	if err := chromedp.Listen(p.ctx, func(event any) {
		if _, ok := event.(*page.EventJavascriptDialogOpening); ok {
			go func() {
				_, _ = chromedp.Call(p.ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: false})
				asked <- true
			}()
		}
	}); err != nil {
		t.Fatal(err)
	}
	p.visit("/ui/flags/1/targeting")
	first := `document.querySelector("[name='s.0.description']").value`
	p.until("the form", first+` === "Adults in France"`)
	p.value(`document.querySelector("[name='s.0.rollout']").focus(), 1`)
	p.run(chromedp.KeyEvent(kb.ArrowDown, chromedp.KeyModifiers(chromedp.ModifierAlt)))
	p.until("the segment below, with the focus", first+` === "Beta testers" && document.activeElement.closest("[data-segment]").dataset.segment === "1"`)
	p.run(chromedp.KeyEvent(kb.ArrowUp, chromedp.KeyModifiers(chromedp.ModifierAlt)))
	p.until("the segment above, with the focus", first+` === "Adults in France" && document.activeElement.closest("[data-segment]").dataset.segment === "0"`)
	p.until("no change", `document.querySelector("[data-savebar]").hidden`)

	p.value(`document.querySelector("[name='s.0.rollout']").select(), document.querySelector("[name='s.0.rollout']").focus(), 1`)
	p.keys("8", "0")
	p.has("50 % → 80 %")
	p.run(chromedp.KeyEvent("s", chromedp.KeyModifiers(chromedp.ModifierCtrl)))
	p.until("the review", `document.querySelector("dialog[open]")?.contains(document.activeElement)`)
	p.keys(kb.Escape)
	p.until("the page with the edit", `!document.querySelector("dialog") && document.activeElement.matches(".savebar .primary") && document.querySelector("[name='s.0.rollout']").value === "80"`)

	leave := func(by string) {
		t.Helper()
		select {
		case <-asked:
		case <-time.After(patience):
			t.Fatalf("%s: the browser does not ask before it leaves an edit that is not saved", by)
		}
	}
	p.keys("g", "u")
	leave("keys")
	for _, by := range []string{"a form", "the form again"} { // it was not sent, so it may be sent
		p.value(`document.querySelector("[name=zone][value=utc]").click(), 1`)
		leave(by)
	}
	p.until("the same page", `location.pathname === "/ui/flags/1/targeting" && document.querySelector("[name='s.0.rollout']").value === "80"`)
	p.save()
	p.keys("g", "u") // without a question, whose answer would be no
	p.until("the page of unknown keys", `location.pathname === "/ui/unknown"`)
}

// TestFocusIsNotBehindTheSaveBar moves the focus through the form while it has an edit, in a low
// window and on a phone (WCAG 2.4.11).
func TestFocusIsNotBehindTheSaveBar(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/flags/1/targeting")
	p.fill("s.0.rollout", "80")
	p.has("50 % → 80 %")
	for _, size := range [][2]int64{{1280, 400}, {320, 640}} {
		call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: size[0], Height: size[1], DeviceScaleFactor: 1})
		p.value(`document.querySelector("#main").focus(), 1`)
		fields := 0
		for range 150 {
			p.keys(kb.Tab)
			// what is drawn in the middle of the element that has the focus
			what := p.value(`(() => {
				const e = document.activeElement;
				if (e.closest(".savebar")) return "end";
				const r = e.getBoundingClientRect();
				return document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2)?.closest(".savebar") || r.bottom > innerHeight || r.top < 0 ? e.outerHTML : "seen";
			})()`)
			if what == "end" {
				break
			}
			fields++
			if what != "seen" {
				t.Errorf("at %d pixels the focus is hidden on %.200s", size[0], what)
			}
		}
		if fields < 20 || fields == 150 {
			t.Errorf("%d fields before the save bar", fields)
		}
	}
}

// TestChartCursor reads buckets with the keyboard.
func TestChartCursor(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/flags/1/traffic")
	p.until("the chart", `document.querySelector(".chart").tabIndex === 0`)
	usual := p.value(`document.querySelector(".readout").textContent`)
	p.value(`document.querySelector(".chart").focus(), 1`)
	buckets := `[...document.querySelectorAll(".chart g.bucket")]`
	for _, one := range []struct{ key, bucket string }{
		{kb.ArrowLeft, "-1"}, {kb.ArrowLeft, "-2"}, {kb.ArrowRight, "-1"}, {kb.ArrowRight, "-1"}, {kb.Home, "0"}, {kb.ArrowLeft, "0"}, {kb.ArrowRight, "1"}, {kb.End, "-1"},
	} {
		p.keys(one.key)
		p.until("the bucket "+one.bucket, fmt.Sprintf(`((b) => document.querySelector(".readout").textContent === b.dataset.read && b.dataset.read.length > 5 && b.querySelector(".cursor-bar.at"))(%s.at(%s))`, buckets, one.bucket))
	}
	if n := p.value(`document.querySelectorAll(".cursor-bar.at").length`); n != "1" {
		t.Errorf("%s cursors", n)
	}
	p.value(`document.activeElement.blur(), 1`)
	p.until("the sentence without a cursor", fmt.Sprintf(`document.querySelector(".readout").textContent === %q`, usual))
}

// TestReducedMotion: motion takes at most 150 ms, and nothing moves if the user prefers reduced
// motion.
func TestReducedMotion(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	longest := `Math.max(...[...document.querySelectorAll("*")].flatMap((e) => ["", "::before", "::after"].map((part) => getComputedStyle(e, part)))
		.flatMap((style) => (style.transitionDuration + "," + (style.animationName === "none" ? "0s" : style.animationDuration)).split(",").map((time) => parseFloat(time) * (time.includes("ms") ? 1 : 1000))))`
	for _, one := range []struct{ motion, want string }{{"no-preference", longest + " > 0 && " + longest + " <= 150"}, {"reduce", longest + " === 0"}} {
		call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-reduced-motion", Value: one.motion}}})
		p.visit("/ui/flags/1/targeting")
		if p.value(one.want) != "true" {
			t.Errorf("with %s, motion takes %s ms", one.motion, p.value(longest))
		}
	}
}
