package browser

import (
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestFootAndCopiedLinks: every page ends with links to the keys and to the API, at any width and
// below no save bar, and a link can be copied.
func TestFootAndCopiedLinks(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	for _, width := range []int64{1280, 320} {
		call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 800, DeviceScaleFactor: 1})
		for _, page := range []string{"/ui/", "/ui/flags/1/targeting", "/ui/server"} {
			p.visit(page)
			p.until("the foot", `[...document.querySelectorAll("footer > .wrap > a")].map((a) => a.innerText).join() === "Keys,API documentation"`)
			if page == "/ui/flags/1/targeting" {
				p.fill("description", "other")
				p.has("1 change not saved.")
			}
			p.until("links that nothing covers", `(() => {
				window.scrollTo(0, document.body.scrollHeight);
				return [...document.querySelectorAll("footer > .wrap > a")].every((a) => {
					const r = a.getBoundingClientRect();
					return document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2) === a;
				});
			})()`)
		}
	}
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 1280, Height: 900, DeviceScaleFactor: 1})
	p.visit("/ui/server")
	p.follow("API documentation", "/api/v1/docs")

	// The clipboard of the browser, and what is copied without one.
	for name, clipboard := range map[string]string{
		"clipboard": `navigator.clipboard.writeText = async (text) => { document.body.dataset.copied = text }`,
		"copy": `Object.defineProperty(navigator, "clipboard", { value: undefined });
			document.addEventListener("copy", () => { document.body.dataset.copied = document.activeElement.value })`,
	} {
		p.visit("/ui/flags/1/traffic")
		p.until("the page", `document.querySelector("a[data-copy]")`)
		p.value(clipboard + "; 1")
		p.press("More")
		p.run(chromedp.Click("a[data-copy]")) // of a user, without whom nothing is copied
		p.has("The link is copied.")
		p.until("the link by "+name, `document.body.dataset.copied === new URL("/ui/flags/1", location).href && location.pathname === "/ui/flags/1/traffic"`)
		p.until("the focus on the menu", `document.activeElement.matches(".actions summary")`)
	}
}

// TestChangeMarksByKeyboard: Tab reaches the marks of a chart after the chart, shows the focus, and
// Enter follows the link.
func TestChangeMarksByKeyboard(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/flags/1/traffic")
	p.until("a mark of the change", `document.querySelector(".marks a") && document.querySelector(".chart").tabIndex === 0`)
	p.value(`document.querySelector(".chart").focus(), 1`)
	p.run(chromedp.KeyEvent(kb.Tab))
	p.until("the focus on the mark", `document.activeElement === document.querySelector(".marks a") && getComputedStyle(document.querySelector(".marks a .mark-box")).strokeWidth === "2px"`)
	p.run(chromedp.KeyEvent(kb.Enter))
	p.until("the version", `location.pathname === "/ui/flags/1/history" && location.hash === "#v2"`)
}
