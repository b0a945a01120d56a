package ui_test

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/flagr-datar/flagr-datar/pkg/ui"
)

// everyPage lists the pages that there are, in all their states.
func everyPage() []string {
	return []string{
		"/ui/", "/ui/?q=button%2C+web&tag=web&on=on&sort=key&days=30", "/ui/?q=nothing+like+it", "/ui/?cols=state", "/ui/new", "/ui/new?key=a-b", "/ui/key?key=free", "/ui/keys",
		"/ui/deleted", "/ui/deleted/18", "/ui/server", "/ui/server?settings=all", "/ui/flags/1", "/ui/flags/1/targeting", "/ui/flags/1/try", "/ui/flags/1/history", "/ui/flags/1/history?snapshot=1",
		"/ui/flags/1/duplicate", "/ui/flags/1/delete", "/ui/flags/9", "/ui/flags/9/targeting",
	}
}

// TestEveryPageIsWellMade checks the tree of every page.
func TestEveryPageIsWellMade(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, target := range everyPage() {
		a := f.ask(t, http.MethodGet, target, nil)
		if a.status != http.StatusOK {
			t.Errorf("%s: %d", target, a.status)
			continue
		}
		checkPage(t, f, target, a)
	}
	edited := fields(t, f.ask(t, http.MethodGet, "/ui/flags/1/targeting", nil), "edit")
	edited.Set("s.0.rollout", "80")
	edited.Set("s.1.c.0.value", "true")
	edited.Set("v.0.attachment", "{")
	for _, do := range []string{"check", "review", "add-segment", "add-variant", "add-constraint.0"} {
		edited.Set("do", do)
		checkPage(t, f, "/ui/flags/1/targeting", f.ask(t, http.MethodPost, "/ui/flags/1/targeting", edited))
	}
	edited.Set("v.0.attachment", "{}")
	edited.Set("do", "review")
	checkPage(t, f, "/ui/flags/1/targeting", f.ask(t, http.MethodPost, "/ui/flags/1/targeting", edited))
	for _, do := range []string{"one", "made-up", "many"} {
		checkPage(t, f, "/ui/flags/1/try", f.ask(t, http.MethodPost, "/ui/flags/1/try", url.Values{"do": {do}, "id": {"a1234"}, "context": {`{"country":"FR","age":"19"}`}, "many": {"a b c"}}))
	}
	checkPage(t, f, "/ui/flags/99", f.ask(t, http.MethodGet, "/ui/flags/99", nil))
}

func checkPage(t *testing.T, f *fixture, target string, a answer) {
	t.Helper()
	if csp := a.header.Get("Content-Security-Policy"); csp != "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'" {
		t.Errorf("%s: policy %q", target, csp)
	}
	ids := map[string]bool{}
	labels := map[string]bool{}
	each(a.root, func(n *html.Node) {
		if id, ok := attr(n, "id"); ok {
			if ids[id] || id == "" {
				t.Errorf("%s: id %q is there twice, or empty", target, id)
			}
			ids[id] = true
		}
		if n.Data == "label" {
			if of, ok := attr(n, "for"); ok {
				labels[of] = true
			}
		}
	})
	headings := 0
	level := 0
	each(a.root, func(n *html.Node) {
		for _, one := range n.Attr {
			if one.Key == "style" || strings.HasPrefix(one.Key, "on") {
				t.Errorf("%s: <%s> has the attribute %s", target, n.Data, one.Key)
			}
			if (one.Key == "aria-labelledby" || one.Key == "aria-describedby") && !ids[one.Val] {
				t.Errorf("%s: %s names %q, which is not there", target, one.Key, one.Val)
			}
		}
		switch n.Data {
		case "style", "iframe", "base":
			t.Errorf("%s: has <%s>", target, n.Data)
		case "script":
			if _, ok := attr(n, "src"); !ok {
				t.Errorf("%s: has an inline script", target)
			}
		case "h1", "h2", "h3":
			depth := int(n.Data[1] - '0')
			if depth == 1 {
				headings++
			}
			if depth > level+1 {
				t.Errorf("%s: %s %q follows a heading of level %d", target, n.Data, text(n), level)
			}
			level = depth
		case "input", "select", "textarea":
			checkField(t, target, n, labels)
		case "table":
			headers := 0
			each(n, func(c *html.Node) {
				if c.Data == "th" {
					headers++
				}
			})
			if headers == 0 {
				t.Errorf("%s: a table without headers", target)
			}
		case "button", "a":
			label, _ := attr(n, "aria-label")
			if hidden, _ := attr(n, "aria-hidden"); text(n) == "" && label == "" && hidden != "true" {
				t.Errorf("%s: a %s without a name", target, n.Data)
			}
			if href, ok := attr(n, "href"); ok {
				checkLink(t, f, target, href)
			}
		case "link":
			if href, _ := attr(n, "href"); strings.Contains(href, "//") || strings.HasPrefix(href, "/") {
				t.Errorf("%s: link %q is not relative", target, href)
			}
		case "img":
			t.Errorf("%s: has an image", target)
		}
	})
	if headings != 1 {
		t.Errorf("%s: %d h1", target, headings)
	}
	if strings.Contains(a.body, "<script>alert") || strings.Contains(a.body, "&lt;nil") || strings.Contains(a.body, "%!") {
		t.Errorf("%s: an escape or a format is missing", target)
	}
}

func checkField(t *testing.T, target string, n *html.Node, labels map[string]bool) {
	t.Helper()
	if kind, _ := attr(n, "type"); kind == "hidden" {
		return
	}
	for p := n.Parent; p != nil; p = p.Parent {
		if p.Data == "label" {
			return
		}
	}
	id, _ := attr(n, "id")
	if _, ok := attr(n, "aria-label"); !ok && !labels[id] {
		name, _ := attr(n, "name")
		t.Errorf("%s: field %s has no label", target, name)
	}
}

// checkLink follows what leads below /ui/: a page must be there.
func checkLink(t *testing.T, f *fixture, from, href string) {
	t.Helper()
	if strings.HasPrefix(href, "https://example.com") || href == "" || strings.HasPrefix(href, "#") {
		return
	}
	if strings.HasPrefix(href, "/") || strings.Contains(href, ":") {
		t.Errorf("%s: link %q is not relative", from, href)
		return
	}
	base, err := url.Parse(from)
	if err != nil {
		t.Fatal(err)
	}
	to, err := base.Parse(href)
	if err != nil {
		t.Errorf("%s: link %q: %v", from, href, err)
		return
	}
	if f.followed[to.RequestURI()] {
		return
	}
	f.followed[to.RequestURI()] = true
	want := http.StatusOK
	if strings.HasPrefix(to.Path, "/api/v1/") {
		want = http.StatusTeapot // the handler behind the pages
	}
	if status := f.ask(t, http.MethodGet, to.RequestURI(), nil).status; status != want {
		t.Errorf("%s: link %q leads to %d", from, href, status)
	}
}

// TestCostlyNotesArePlainText: notes whose formatting takes seconds are shown as they are, and
// ordinary ones are formatted.
func TestCostlyNotesArePlainText(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		notes string
		plain bool
	}{
		"quotes":         {strings.Repeat(">", 60_000), true},
		"quotes, spaces": {"A\n\n" + strings.Repeat("> ", 30_000) + "a", true},
		"numbered lists": {strings.Repeat("1. ", 20_000) + "a", true},
		"mixed":          {strings.Repeat("> - ", 15_000) + "a", true},
		"open links":     {strings.Repeat("[a](", 15_000), true},
		"stars, lines":   {strings.Repeat("*a ", 10_000) + strings.Repeat("a_ ", 11_000), true},
		"brackets":       {strings.Repeat("[", 32_000) + strings.Repeat("]", 32_000), true},
		"tildes":         {strings.Repeat("~a*", 10_000), true},
		"backquotes":     {strings.Repeat("\\```\n", 3000), true},
		"code, lines":    {strings.Repeat("``\\", 600) + strings.Repeat("a\n", 14_000), true},
		"tags":           {strings.Repeat("<a ", 10_000), true},
		"long":           {strings.Repeat("a ", 40_000), true},
		"missing cells":  {strings.Repeat("a|", 500) + "\n" + strings.Repeat("-|", 500) + strings.Repeat("\na", 100), true},
		"a table":        {strings.Repeat("a|", 10) + "\n" + strings.Repeat("-|", 10) + strings.Repeat("\na|b", 400), false},
		"a nested list":  {"- a\n  - b\n    1. c\n\n> > quote\n\n" + strings.Repeat("-", 80) + "\n\n" + strings.Repeat("- a\n", 900), false},
		"links":          {strings.Repeat("- [a](https://example.com/b)\n", 900), false},
	} {
		f := setup(t)
		f.flags[f.full].Notes = test.notes
		if a := f.ask(t, http.MethodGet, "/ui/flags/1", nil); strings.Contains(a.body, `<div class="notes" dir="auto"><pre>`) != test.plain {
			t.Errorf("%s: plain text is %t", name, !test.plain)
		}
	}
}

func TestNotesLoadNothing(t *testing.T) {
	t.Parallel()
	a := setup(t).ask(t, http.MethodGet, "/ui/flags/1", nil)
	for _, bad := range []string{"<img", "<b onclick", "javascript:", "onclick=x"} {
		if strings.Contains(a.body, bad) {
			t.Errorf("notes have %s", bad)
		}
	}
	for _, want := range []string{"<strong>7 February</strong>", `href="https://example.com/plan.png"`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("notes lack %s", want)
		}
	}
}

func TestListFindsAndSorts(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for query, want := range map[string][]string{
		"sort=key":                {"a-key-of-forty-characters-is-long-enough", "checkout-button", "dark-mode", "odd"},
		"q=CHECKOUT":              {"checkout-button"},
		"q=button,web":            {"checkout-button"},
		"q=button,dark":           nil,
		"q=%231":                  {"checkout-button"},
		"tag=ios":                 {"checkout-button"},
		"on=off&sort=key":         {"a-key-of-forty-characters-is-long-enough", "dark-mode", "odd"},
		"on=on":                   {"checkout-button"},
		"page=99&sort=key&q=dark": {"dark-mode"},
	} {
		var got []string
		each(f.ask(t, http.MethodGet, "/ui/?"+query, nil).root, func(n *html.Node) {
			if class, _ := attr(n, "class"); class == "key" {
				got = append(got, text(n))
			}
		})
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	csv := f.ask(t, http.MethodGet, "/ui/flags.csv?q=button", nil)
	if lines := strings.Split(strings.TrimSpace(csv.body), "\r\n"); len(lines) != 2 || !strings.HasPrefix(lines[1], "1,checkout-button,") {
		t.Errorf("CSV: %q", csv.body)
	}
}

func TestNothingThatWritesIsAGet(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, pattern := range ui.Routes() {
		method, target, _ := strings.Cut(pattern, " ")
		if method == http.MethodGet {
			f.ask(t, http.MethodGet, strings.NewReplacer("{id}", "1", "{$}", "").Replace(target), nil)
		}
	}
	if f.writes != 0 {
		t.Errorf("%d changes were made by reading", f.writes)
	}
}

func TestOtherOriginsCannotPost(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, pattern := range ui.Routes() {
		method, target, _ := strings.Cut(pattern, " ")
		if method != http.MethodPost {
			continue
		}
		target = strings.ReplaceAll(target, "{id}", "1")
		a := f.ask(t, method, target, url.Values{"snapshot": {"2"}, "enabled": {"false"}}, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example.com")
		if a.status != http.StatusForbidden {
			t.Errorf("%s: %d", pattern, a.status)
		}
	}
	if f.writes != 0 {
		t.Errorf("%d changes were made", f.writes)
	}
}

// TestOnlyFormsAreRead checks that other bodies get a short text instead of a page, for all methods
// that can change something.
func TestOnlyFormsAreRead(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, target := range []string{"/ui/new", "/ui/flags/1/enabled", "/ui/flags", "/ui/nothing"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
			for _, kind := range []string{"application/json", "text/plain", ""} {
				a := f.ask(t, method, target, url.Values{"key": {"new"}, "snapshot": {"2"}, "enabled": {"false"}}, "Content-Type", kind)
				if a.status != http.StatusUnsupportedMediaType || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") ||
					!strings.Contains(a.body, strconv.Quote(kind)) || !strings.Contains(a.body, "application/x-www-form-urlencoded") {
					t.Errorf("%s %s as %q: %d %s", method, target, kind, a.status, a.body)
				}
			}
		}
	}
	if f.writes != 0 {
		t.Errorf("%d changes were made", f.writes)
	}
	if a := f.ask(t, http.MethodPost, "/ui/preferences", url.Values{"theme": {"dark"}}, "Content-Type", "application/x-www-form-urlencoded; charset=UTF-8"); a.status != http.StatusSeeOther {
		t.Errorf("a form with a charset: %d", a.status)
	}
}

func TestReadOnlyServersShowFlagsAndChangeNothing(t *testing.T) {
	t.Parallel()
	f := setup(t, func(o *ui.Options) { o.Store = nil })
	for target, want := range map[string]int{
		"/ui/": 200, "/ui/flags/1": 200, "/ui/flags/1/targeting": 200, "/ui/flags/1/try": 200, "/ui/server": 200,
		"/ui/new": 501, "/ui/flags/1/history": 501, "/ui/flags/1/delete": 501, "/ui/deleted": 501, "/ui/deleted/18": 501, "/ui/flags/99": 404,
	} {
		a := f.ask(t, http.MethodGet, target, nil)
		if a.status != want {
			t.Errorf("%s: %d, want %d", target, a.status, want)
		}
		if want == 200 && (strings.Contains(a.body, `value="save"`) || strings.Contains(a.body, `value="review"`) && !strings.Contains(a.body, "<fieldset disabled>")) {
			t.Errorf("%s: has a form that saves", target)
		}
	}
	if a := f.ask(t, http.MethodPost, "/ui/flags/1/enabled", url.Values{"enabled": {"false"}, "snapshot": {"2"}}); a.status != http.StatusNotImplemented || f.writes != 0 {
		t.Errorf("POST: %d, %d changes", a.status, f.writes)
	}
}

func TestPathsThatAreNotPagesAreForTheAPI(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for target, want := range map[string]int{
		"/api/v1/flags": 418, "/uix": 418, "/static/x": 418, "/ui/../api": 418, "/ui//flags/1": 418, "/ui/flags%2f1": 418,
		"/ui/nothing/here": 404, "/ui": 303, "/static/ui/0/ui.css": 404,
	} {
		if a := f.ask(t, http.MethodGet, target, nil); a.status != want {
			t.Errorf("%s: %d, want %d", target, a.status, want)
		}
	}
}

func TestStaticFilesAreImmutable(t *testing.T) {
	t.Parallel()
	f := setup(t)
	page := f.ask(t, http.MethodGet, "/ui/flags/1/targeting", nil)
	found := 0
	each(page.root, func(n *html.Node) {
		href, _ := attr(n, "href")
		if src, ok := attr(n, "src"); ok {
			href = src
		}
		if n.Data != "link" && n.Data != "script" {
			return
		}
		found++
		a := f.ask(t, http.MethodGet, path.Join("/ui/flags/1/", href), nil)
		if a.status != http.StatusOK || !strings.Contains(a.header.Get("Cache-Control"), "immutable") || a.header.Get("Content-Type") == "" {
			t.Errorf("%s: %d %q %q", href, a.status, a.header.Get("Cache-Control"), a.header.Get("Content-Type"))
		}
	})
	if found != 4 {
		t.Errorf("%d files", found)
	}
}

func TestRootHasNoDataAndLeadsToThePages(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for target, want := range map[string]string{"/": "ui/"} {
		a := f.ask(t, http.MethodGet, target, nil)
		if a.status != http.StatusOK || !strings.Contains(a.body, fmt.Sprintf(`id="to" href="%s"`, want)) {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
		if strings.Contains(a.body, "checkout") {
			t.Errorf("%s shows a flag", target)
		}
	}
}

func TestPreferencesAreKept(t *testing.T) {
	t.Parallel()
	f := setup(t)
	a := f.ask(t, http.MethodPost, "/ui/preferences", url.Values{"theme": {"dark"}, "back": {"flags/1?x=1"}})
	if a.status != http.StatusSeeOther || a.header.Get("Location") != "./flags/1?x=1" || !strings.Contains(a.header.Get("Set-Cookie"), "flagr_theme=dark; Path=/ui/") {
		t.Errorf("%d %v", a.status, a.header)
	}
	for _, back := range []string{"//evil.example.com", "https://evil.example.com", "/x", `\evil`, "flags/1?x=" + strings.Repeat("x", 2000)} {
		if location := f.ask(t, http.MethodPost, "/ui/preferences", url.Values{"back": {back}}).header.Get("Location"); location != "./" {
			t.Errorf("back %q leads to %q", back, location)
		}
	}
	for cookie, want := range map[string]string{
		"flagr_theme=dark": `data-theme="dark"`, "flagr_tz=Asia%2FTokyo": "today 19:42", "flagr_zone=utc; flagr_tz=Asia%2FTokyo": "today 10:42", "flagr_tz=../etc": "today 10:42",
	} {
		if page := f.ask(t, http.MethodGet, "/ui/flags/1", nil, "Cookie", cookie); !strings.Contains(page.body, want) {
			t.Errorf("%s: no %s", cookie, want)
		}
	}
}

// TestColumnsOfTheList: each column but the key can be hidden, also where there are no numbers.
func TestColumnsOfTheList(t *testing.T) {
	t.Parallel()
	shown := map[string]string{
		"onoff": "On or off", "id": "checkout-button #1", "description": "Colour of the checkout button", "tags": "webios", "state": "Gives nothing", "traffic": "Evaluations, 7 days",
		"last": "Last asked", "changed": "Changed ↓", "findings": "1 contradiction",
	}
	for _, withNumbers := range []bool{true, false} {
		f := setup(t)
		if withNumbers {
			f, _ = counted(t)
		}
		names := values(f.ask(t, http.MethodGet, "/ui/", nil), "cols")
		if want := 9; !withNumbers {
			if !slices.Equal(names, []string{"onoff", "id", "description", "tags", "changed"}) {
				t.Errorf("without numbers: %q", names)
			}
		} else if len(names) != want {
			t.Errorf("columns to choose from: %q", names)
		}
		for _, hidden := range append(names, "") {
			query := url.Values{"cols": slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == hidden })}
			var table string
			each(f.ask(t, http.MethodGet, "/ui/?"+query.Encode(), nil).root, func(n *html.Node) {
				if n.Data == "table" {
					table = text(n)
				}
			})
			for _, name := range names {
				if strings.Contains(table, shown[name]) != (name != hidden) {
					t.Errorf("without %q: %q is shown: %t\n%.300s", hidden, name, name == hidden, table)
				}
			}
			if !strings.Contains(table, "checkout-button") {
				t.Errorf("without %q: no key", hidden)
			}
		}
	}
}

// values are those of the fields with a name.
func values(a answer, name string) (all []string) {
	each(a.root, func(n *html.Node) {
		if of, _ := attr(n, "name"); of == name {
			value, _ := attr(n, "value")
			all = append(all, value)
		}
	})
	return all
}
