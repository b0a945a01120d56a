package browser

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

var hardScreenshots = flag.String("hard-screenshots", "", "folder to write pictures of the hard cases to; without it none are made")

// examine is a script that returns what is wrong with a page, as a list of strings: it scrolls
// sideways, moves after the first paint, shows text over text, has a target that is too small, or
// text with too little contrast.
const examine = `(async () => {
	const wrong = [];
	const shown = (e) => e.checkVisibility({checkOpacity: true, checkVisibilityCSS: true}) && !e.closest(".hide, .skip");
	const name = (e) => (e.getAttribute("name") || e.innerText || e.textContent || e.outerHTML).trim().replace(/\s+/g, " ").slice(0, 60);
	const root = document.documentElement;
	let shift = 0; // of layouts since the page was opened, also after three more frames
	new PerformanceObserver((list) => { for (const e of list.getEntries()) shift += e.value; }).observe({type: "layout-shift", buffered: true});
	for (let frames = 0; frames < 3; frames++) await new Promise(requestAnimationFrame);

	// WCAG 1.4.10: nothing scrolls sideways but tables, charts and code in boxes of their own.
	if (root.scrollWidth > innerWidth) wrong.push("it is " + root.scrollWidth + " pixels wide: " +
		[...document.querySelectorAll("body *")].filter((e) => shown(e) && e.getBoundingClientRect().right > innerWidth + 1).slice(-2).map((e) => e.outerHTML.slice(0, 120)).join(" | "));

	// Cells stand below the heads of their columns.
	const columns = (row) => [...row.cells].filter((c) => getComputedStyle(c).display !== "none").reduce((n, c) => n + c.colSpan, 0);
	for (const table of document.querySelectorAll("table")) {
		const rows = [...table.rows].filter((r) => shown(r) && getComputedStyle(r).display === "table-row").map(columns);
		if (new Set(rows).size > 1) wrong.push("rows of the table " + name(table) + " have " + [...new Set(rows)].join(" and ") + " columns");
	}

	if (shift > 0.001 && !root.dataset.examined) wrong.push("it moves by " + shift); // it may when it is laid out again
	root.dataset.examined = "true";

	// One walk through the tree collects the boxes of texts and fields, as far as ancestors do not
	// cut them off, and the texts that are pale: WCAG 1.4.3, the computed color of each text on the
	// nearest background.
	const rgb = (color) => color.match(/[\d.]+/g).map(Number);
	const luminance = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
	const cut = (r, clip, e) => ({e, left: Math.max(r.left, clip.left), top: Math.max(r.top, clip.top), right: Math.min(r.right, clip.right), bottom: Math.min(r.bottom, clip.bottom)});
	const boxes = [];
	const pale = new Set();
	const walk = (e, clip, ground) => {
		const style = getComputedStyle(e);
		if (e.matches(".hide, .skip") || style.display === "none" || ["fixed", "sticky"].includes(style.position)) return;
		const isGraphics = e instanceof SVGElement;
		if (style.overflow !== "visible" && !isGraphics && e !== document.body) clip = cut(e.getBoundingClientRect(), clip);
		const back = rgb(style.backgroundColor);
		if (back.length === 3 || back[3] === 1) ground = luminance(back);
		for (const child of e.children) walk(child, clip, ground);
		if (!e.checkVisibility({checkOpacity: true, checkVisibilityCSS: true})) return;
		if (e.matches("input, textarea, select")) boxes.push(cut(e.getBoundingClientRect(), clip, e));
		if (e.matches("textarea, option, .search kbd")) return; // the last is the key in the field
		const own = [...e.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE && n.data.trim());
		for (const node of own) {
			const range = document.createRange();
			range.selectNodeContents(node);
			for (const r of range.getClientRects()) boxes.push(cut(r, clip, e));
		}
		if (!own.length || e.matches("title, desc") || e.closest(":disabled")) return;
		if (e.matches("p") && style.display === "flex" && e.children.length) wrong.push("the sentence is in pieces: " + name(e));
		const color = luminance(rgb(isGraphics ? style.fill : style.color));
		const contrast = (Math.max(color, ground) + .05) / (Math.min(color, ground) + .05);
		if (contrast < 4.5) pale.add("the contrast of " + name(e) + " is " + contrast.toFixed(2));
	};
	const everywhere = {left: -Infinity, top: -Infinity, right: Infinity, bottom: Infinity};
	walk(document.body, everywhere, luminance(rgb(getComputedStyle(root).backgroundColor)));
	boxes.sort((a, b) => a.top - b.top);
	const over = new Set();
	boxes.forEach((a, i) => {
		for (let j = i + 1; j < boxes.length && boxes[j].top < a.bottom - 3; j++) {
			const b = boxes[j];
			if (a.e === b.e || a.e.contains(b.e) && !a.e.matches("label") || b.e.contains(a.e)) continue;
			if (Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3 && Math.min(a.right, b.right) - Math.max(a.left, b.left) > 3)
				over.add(name(a.e) + " and " + name(b.e) + " overlap");
		}
	});
	wrong.push(...over);

	// WCAG 2.5.8: targets of 24 pixels, but for links in sentences, and for those that are far
	// enough from others.
	const targets = [...document.querySelectorAll("a[href], button, summary, input:not([type=hidden]), select, textarea")].filter((e) => shown(e) && !e.disabled)
		.map((e) => ({e, r: (e.matches("[type=checkbox], [type=radio]") && e.closest("label") || e).getBoundingClientRect()}));
	const small = (t) => t.r.width < 23.5 || t.r.height < 23.5;
	const sentence = (e) => {
		if (!getComputedStyle(e).display.startsWith("inline")) return false;
		let block = e.parentElement;
		while (getComputedStyle(block).display === "inline") block = block.parentElement;
		const copy = block.cloneNode(true);
		copy.querySelectorAll("a, button, summary, .pop, .hide").forEach((a) => a.remove());
		return copy.textContent.trim() !== "";
	};
	for (const t of targets.filter((t) => small(t) && !sentence(t.e))) {
		const x = t.r.x + t.r.width / 2;
		const y = t.r.y + t.r.height / 2;
		const near = targets.find((o) => o.e !== t.e && !o.e.contains(t.e) && !t.e.contains(o.e) && (small(o)
			? Math.hypot(o.r.x + o.r.width / 2 - x, o.r.y + o.r.height / 2 - y) < 24
			: Math.hypot(Math.max(o.r.left - x, 0, x - o.r.right), Math.max(o.r.top - y, 0, y - o.r.bottom)) < 12));
		if (near) wrong.push("the target " + name(t.e) + " is " + Math.round(t.r.width) + " by " + Math.round(t.r.height) + " pixels, and near " + name(near.e));
	}

	wrong.push(...pale);
	return JSON.stringify(wrong);
})()`

// load opens a page, and waits until it has its numbers.
func (p *tab) load(path string) {
	p.t.Helper()
	p.visit(path)
	p.until("the page with its numbers", `!document.body.innerText.includes("numbers are missing") || (location.reload(), false)`)
}

// examined returns what is wrong with the open page.
func (p *tab) examined() (wrong []string) {
	p.t.Helper()
	raw, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](examine, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%v at %s", err, p.where())
	}
	if err := json.Unmarshal([]byte(raw), &wrong); err != nil {
		p.t.Fatal(err)
	}
	return wrong
}

// hardCases are flags whose pages are hard to lay out: keys of 40 characters, 30 segments, 12
// variants, Japanese, right-to-left text, a million evaluations per hour, and no evaluations.
func hardCases() []demo {
	keys := []string{"landing-page", "delivery-by-country", "session-cache", "rtl-checkout", "kuchikomi-sort", "checkout-express-payment-eu-rollout-2026", "old-banner", "checkout-button"}
	return slices.DeleteFunc(demos(), func(d demo) bool { return !slices.Contains(keys, d.key) })
}

// TestHardCases checks the layout of pages with numbers at 1280 pixels, on a phone of 320 pixels in
// the dark theme, on a tablet, in a window of 1024 pixels, at 200 % zoom, and at 1280 pixels with
// letters of twice the size.
func TestHardCases(t *testing.T) {
	t.Parallel()
	s := start(t)
	cases := hardCases()
	if len(cases) != 8 {
		t.Fatalf("%d hard cases", len(cases))
	}
	s.demonstrate(t, cases, 4*24)
	s.startOn(t)
	p := open(t, s)
	once := []string{"/ui/", "/ui/server", "/ui/unknown", "/ui/keys", "/ui/flags/1/nothing", "/ui/flags/1/try", "/ui/flags/1/delete", "/ui/flags/2/nothing", "/ui/flags/2/history"}
	charts := []string{"/ui/flags/2/targeting"}
	forms := []string{"/ui/", "/ui/flags/1/traffic", "/ui/flags/6/history"}
	for i := range cases {
		charts = append(charts, fmt.Sprintf("/ui/flags/%d", i+1), fmt.Sprintf("/ui/flags/%d/traffic", i+1))
		forms = append(forms, fmt.Sprintf("/ui/flags/%d/targeting", i+1))
	}
	screens := []struct {
		name          string
		width, height int64
		scale         float64
		letters       int64 // the font size of the browser's settings
		theme         string
		loads         bool // or is the page that was loaded on a phone, laid out again
		paths         []string
	}{
		{"desktop", 1280, 900, 1, 16, "light", true, slices.Concat(once, charts)},
		{"phone", 320, 640, 1, 16, "dark", true, slices.Concat(once, charts, forms)},
		{"zoom", 640, 450, 2, 16, "light", false, forms},
		{"tablet", 768, 1024, 1, 16, "dark", false, []string{"/ui/", "/ui/server", "/ui/flags/1", "/ui/flags/1/traffic", "/ui/flags/6/targeting"}},
		{"window", 1024, 768, 1, 16, "light", false, []string{"/ui/", "/ui/server", "/ui/flags/1", "/ui/flags/1/traffic", "/ui/flags/1/nothing", "/ui/flags/6/targeting"}},
		{"letters", 1280, 900, 1, 32, "light", false, []string{"/ui/", "/ui/server", "/ui/unknown", "/ui/flags/1", "/ui/flags/1/nothing", "/ui/flags/1/traffic", "/ui/flags/1/targeting", "/ui/flags/6/targeting"}},
	}
	paths := slices.Concat(once, charts, forms)
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		for _, screen := range screens {
			if !slices.Contains(screen.paths, path) {
				continue
			}
			call(p, page.SetFontSizes, page.SetFontSizesParams{FontSizes: &page.FontSizes{Standard: screen.letters, Fixed: screen.letters * 13 / 16}})
			call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: screen.theme}}})
			call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: screen.width, Height: screen.height, DeviceScaleFactor: screen.scale})
			if screen.loads {
				p.load(path)
			}
			if wrong := p.examined(); len(wrong) > 0 {
				t.Errorf("%s, %s: %s", screen.name, path, strings.Join(wrong[:min(len(wrong), 6)], "\n\t"))
			}
			if *hardScreenshots != "" {
				p.picture(filepath.Join(*hardScreenshots, screen.name+strings.ReplaceAll(path, "/", "-")+".png"))
			}
		}
	}
	// The script finds each kind of fault.
	p.visit("/ui/keys")
	p.value(`document.querySelector("main").insertAdjacentHTML("beforeend", "<p id=wide><button class=link>a</button><button class=link>b</button></p><p id=over>over</p><p id=pale>pale</p><table id=crooked><tr><th>a<th>b<tr><td>c</table>"),
		wide.style.width = "2000px", over.style.marginTop = "-16px", pale.style.color = "#aaaaaa", 1`)
	found := strings.Join(p.examined(), "\n")
	for _, fault := range []string{"pixels wide: ", "b and over overlap", "the target a is ", "the contrast of pale is 2.", "have 2 and 1 columns"} {
		if !strings.Contains(found, fault) {
			t.Errorf("%q is not found in:\n%s", fault, found)
		}
	}
}

// TestNarrowPages opens, on a phone, what is wider than its screen: each query of a page, the row
// of tabs, and the list of deleted flags.
func TestNarrowPages(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	s.until(t, "checkout-button") // else the list has no flags, and no queries
	p := open(t, s)
	for _, width := range []int64{320, 1280} {
		call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 900, DeviceScaleFactor: 1})
		for _, path := range []string{"/ui/", "/ui/flags/1/traffic", "/ui/flags/1/nothing"} {
			p.load(path)
			for _, name := range []string{"curl", "SQL"} {
				p.press(name)
				p.until("the open query "+name, `document.querySelector(".menu.inline[open] .pop")`)
				box := `document.querySelector(".menu.inline[open] .pop").getBoundingClientRect()`
				if got := p.value(`(({left, right}) => left >= 0 && right <= innerWidth && document.documentElement.scrollWidth <= innerWidth)(` + box + `)`); got != "true" {
					t.Errorf("%s at %d pixels: the query %s leaves the page: %s", path, width, name, p.value(`JSON.stringify(`+box+`)`))
				}
			}
			if height := `parseFloat(getComputedStyle(document.querySelector(".menu.inline[open] code")).lineHeight)`; width == 1280 {
				lines := p.value(`((code) => Math.round((code.clientHeight - 16) / ` + height + `) - code.innerText.trimEnd().split("\n").length)(document.querySelector(".menu.inline[open] code"))`)
				if lines != "0" {
					t.Errorf("%s: %s lines of the query are broken", path, lines)
				}
			}
		}
	}
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 320, Height: 900, DeviceScaleFactor: 1})
	p.visit("/ui/flags/1/history")
	p.until("the current tab on the screen", `(({left, right}) => left >= 0 && right <= innerWidth)(document.querySelector(".tabs [aria-current]").getBoundingClientRect())`)
	p.press("More")
	p.press("Delete")
	p.press("Delete anyway")
	p.has("Deleted checkout-button")
	p.visit("/ui/deleted")
	p.until("the button that restores a flag on the screen", `(({left, right}) => left >= 0 && right <= innerWidth)(document.querySelector("main .btn").getBoundingClientRect())`)
}

// TestTryItOnPhones: unsaved changes can be tried on the narrowest screens, where the bar of the
// form has no line for each button.
func TestTryItOnPhones(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	for _, width := range []int64{320, 390, 480} {
		call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 640, DeviceScaleFactor: 1, Mobile: true})
		p.visit("/ui/flags/1/targeting")
		p.fill("s.0.rollout", "80")
		p.has("Rollout")
		p.until("three buttons in one line", `((tops, boxes) => boxes.length === 3 && new Set(tops).size === 1 && boxes.every((b) => b.left >= 0 && b.right <= innerWidth && b.height >= 44))(
			[...document.querySelectorAll(".savebar .btn")].map((e) => e.getBoundingClientRect().top), [...document.querySelectorAll(".savebar .btn")].map((e) => e.getBoundingClientRect()))`)
		p.press("Try it")
		p.has("With 1 unsaved change.")
	}
}

// TestFiltersOnPhones: a narrow or enlarged page has all filters of the list (WCAG 1.4.10), and
// their menus stay on the screen.
func TestFiltersOnPhones(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	s.api(t, http.MethodPost, "/flags", object{"key": "second", "description": "Second"})
	s.until(t, "second")
	p := open(t, s)
	for _, width := range []int64{320, 390, 700} {
		call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 640, DeviceScaleFactor: 1, Mobile: true})
		p.load("/ui/")
		p.press("Columns")
		p.until("the menu on the screen", `(({left, right}) => left >= 0 && right <= innerWidth && document.documentElement.scrollWidth <= innerWidth)(document.querySelector("[name=cols]").closest(".pop").getBoundingClientRect())`)
		p.press("Columns")
		p.value(`((on) => (on.value = "off", on.dispatchEvent(new Event("input", {bubbles: true})), on.checkVisibility()))(document.querySelector("[name=on]"))`)
		p.until("the flag that is off", `document.querySelectorAll(".flags .key").length === 1 && document.querySelector(".flags .key").innerText === "second"`)
		if wrong := p.examined(); len(wrong) > 0 {
			t.Errorf("%d pixels: %s", width, strings.Join(wrong, "\n\t"))
		}
	}
}

// TestLongestNames: a flag and a variant with keys of the greatest length widen no page.
func TestLongestNames(t *testing.T) {
	t.Parallel()
	s := start(t)
	key, variant := strings.Repeat("k", 63), strings.Repeat("v", 63)
	s.api(t, http.MethodPost, "/flags", object{"key": key, "description": strings.Repeat("description", 40)})
	s.api(t, http.MethodPut, "/flags/1/definition", object{
		"snapshotID": s.definition(t, 1)["snapshotID"], "enabled": true, "dataRecordsEnabled": true, "tags": []string{strings.Repeat("t", 60)},
		"variants": []object{{"key": variant}}, "segments": []object{segment(strings.Repeat("segment", 40), 100, nil, variant, 100)},
	})
	s.until(t, key)
	s.evaluate(t, 3)
	p := open(t, s)
	for _, width := range []int64{320, 390, 1024} {
		call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 800, DeviceScaleFactor: 1})
		for _, path := range []string{"/ui/", "/ui/flags/1", "/ui/flags/1/targeting", "/ui/flags/1/traffic", "/ui/flags/1/nothing", "/ui/flags/1/delete"} {
			p.load(path)
			if got := p.value("document.documentElement.scrollWidth"); got != strconv.FormatInt(width, 10) {
				t.Errorf("%s is %s pixels wide on a screen of %d", path, got, width)
			}
		}
	}
}
