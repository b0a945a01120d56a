package ui_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

func hasAttr(n *html.Node, name string) bool {
	_, ok := attr(n, name)
	return ok
}

// within returns the nearest of n and its ancestors for which is returns true, or nil.
func within(n *html.Node, is func(*html.Node) bool) *html.Node {
	for ; n != nil; n = n.Parent {
		if n.Type == html.ElementNode && is(n) {
			return n
		}
	}
	return nil
}

// isNumber reports whether a script makes an element open what it counts: see numbers.js.
func isNumber(n *html.Node) bool {
	class, _ := attr(n, "class")
	return hasAttr(n, "data-n") || n.Data == "dd" || n.Data == "td" && strings.Contains(" "+class+" ", " num ")
}

// TestEveryNumberHasASource: each count and each share of a page is in a section that names the
// element with the command that gets it. Without scripts, that element opens by itself. A number of
// a table has a sentence in the header of its column.
func TestEveryNumberHasASource(t *testing.T) {
	t.Parallel()
	f, _ := counted(t)
	form := f.form(t)
	form.Set("s.0.rollout", "80")
	pages := map[string]answer{"the review": f.press(t, form, "review"), "the question": f.ask(t, http.MethodGet, "/ui/flags/1/delete", nil)}
	for _, target := range []string{"/ui/", "/ui/flags/1", targeting, "/ui/flags/1/traffic", "/ui/flags/1/traffic?by=outcome&compare=previous", "/ui/flags/1/traffic?by=segment", "/ui/flags/1/nothing", "/ui/unknown", "/ui/deleted", "/ui/server"} {
		pages[target] = f.ask(t, http.MethodGet, target, nil)
	}
	tried := fields(t, f.ask(t, http.MethodGet, "/ui/flags/1/try", nil), "")
	tried.Set("do", "made-up")
	pages["tried"] = f.ask(t, http.MethodPost, "/ui/flags/1/try", tried)
	for name, page := range pages {
		checkSources(t, name, page)
	}
}

func checkSources(t *testing.T, name string, page answer) {
	t.Helper()
	commands := map[string]bool{}
	each(page.root, func(n *html.Node) {
		if id, ok := attr(n, "id"); ok && strings.HasPrefix(id, "src") {
			each(n, func(c *html.Node) {
				if c.Data == "code" && strings.HasPrefix(text(c), "curl ") {
					commands[id] = within(c, func(p *html.Node) bool { return p.Data == "details" }) != nil
				}
			})
		}
	})
	counts := regexp.MustCompile(`^[−+]?[0-9][0-9,.]*(\x{a0}%)?$`)
	numbers := 0
	each(page.root, func(n *html.Node) {
		says, ok := attr(n, "data-says")
		if ok && (says == "" || strings.Contains(says, "%!")) {
			t.Errorf("%s: a column says %q", name, says)
		}
		number := isNumber(n)
		if !number || !counts.MatchString(strings.TrimSpace(text(n))) {
			return
		}
		group := within(n, func(p *html.Node) bool { return hasAttr(p, "data-source") })
		if group == nil {
			if n.Data == "td" {
				t.Errorf("%s: the number %q has no source", name, text(n))
			}
			return
		}
		numbers++
		source, _ := attr(group, "data-source")
		if !commands[source] {
			t.Errorf("%s: the number %q names the source %q, which has no curl", name, text(n), source)
		}
		if n.Data == "td" && !hasSentence(n) {
			t.Errorf("%s: the number %q of a table has no sentence", name, text(n))
		}
	})
	if numbers == 0 {
		t.Errorf("%s: no number", name)
	}
}

// hasSentence reports whether a header of the table has a sentence.
func hasSentence(n *html.Node) (found bool) {
	each(within(n, func(p *html.Node) bool { return p.Data == "table" }), func(c *html.Node) { found = found || c.Data == "th" && hasAttr(c, "data-says") })
	return found
}

// TestTheCommandOfTheListHasItsFlags: the API lists the flags that the page does, as far as it has
// the same filters and orders.
func TestTheCommandOfTheListHasItsFlags(t *testing.T) {
	t.Parallel()
	f, _ := counted(t)
	for query, want := range map[string]string{
		"":                              "sort=updated",
		"q=a,b&tag=web&on=off&sort=key": "enabled=false&q=a%2Cb&sort=key&tags=web",
		"state=active&sort=traffic":     "sort=traffic&state=active",
		"page=3&sort=last":              "offset=200&sort=last",
		"sort=id&on=on":                 "enabled=true&limit=1000",
		"state=unasked&page=2":          "limit=1000",
	} {
		found := ""
		each(f.ask(t, http.MethodGet, "/ui/?"+query, nil).root, func(n *html.Node) {
			if _, after, ok := strings.Cut(text(n), "/datar/states?"); ok && n.Data == "code" {
				found, _, _ = strings.Cut(after, "'")
			}
		})
		if found != want {
			t.Errorf("%s: the command has %q, want %q", query, found, want)
		}
	}
}
