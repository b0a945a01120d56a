package browser

import "testing"

// TestDocumentation opens the API reference. A request to another host, a script or a violation of
// its policy fails the test.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := open(t, s)
	p.visit("/api/v1/docs")
	p.has("Evaluate")
	p.has("/evaluation/batch")
	if got := p.value(`getComputedStyle(document.querySelector("nav")).position`); got != "sticky" {
		t.Errorf("the style of the page is not applied: nav is %s", got)
	}
	if dead := p.value(`[...document.querySelectorAll('a[href^="#"]')].filter((a) => !document.getElementById(a.getAttribute("href").slice(1))).length`); dead != "0" {
		t.Errorf("%s links of the page have no target", dead)
	}
	if scripts := p.value(`document.scripts.length`); scripts != "0" {
		t.Errorf("the page has %s scripts", scripts)
	}
	if n := p.sent("GET"); n != 1 {
		t.Errorf("the page sent %d requests, want 1", n)
	}
	p.value(`document.querySelector("main a[href$='swagger.json']").click(), 1`)
	p.has(`"swagger"`)
}
