package ui

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
)

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestBudgets(t *testing.T) {
	t.Parallel()
	sizes := map[string]int{}
	names, err := fs.Glob(staticFiles, "static/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		sizes[name[strings.LastIndex(name, "."):]] += len(read(t, name))
	}
	if sizes[".css"] == 0 || sizes[".css"] > 30_000 {
		t.Errorf("%d bytes of CSS, at most 30,000", sizes[".css"])
	}
	if sizes[".js"] == 0 || sizes[".js"] > 40_000 {
		t.Errorf("%d bytes of JavaScript, at most 40,000", sizes[".js"])
	}
}

// tokens are the colors of the style sheet, by name, light and dark.
func tokens(t *testing.T) map[string][2]string {
	t.Helper()
	all := map[string][2]string{}
	css := read(t, "static/ui.css")
	for _, m := range regexp.MustCompile(`--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)`).FindAllStringSubmatch(css, -1) {
		all[m[1]] = [2]string{m[2], m[3]}
	}
	for _, m := range regexp.MustCompile(`--(v[1-8]): (#[0-9a-f]{6})`).FindAllStringSubmatch(css, -1) {
		all[m[1]] = [2]string{m[2], m[2]}
	}
	return all
}

// luminance and contrast are those of WCAG 2.2.
func luminance(color string) float64 {
	channel := func(hex string) float64 {
		n, _ := strconv.ParseUint(hex, 16, 8)
		c := float64(n) / 255
		if c <= .04045 {
			return c / 12.92
		}
		return math.Pow((c+.055)/1.055, 2.4)
	}
	return .2126*channel(color[1:3]) + .7152*channel(color[3:5]) + .0722*channel(color[5:7])
}

func contrast(a, b string) float64 {
	x, y := luminance(a), luminance(b)
	return (max(x, y) + .05) / (min(x, y) + .05)
}

// textPairs are the colors of texts, each with its backgrounds.
func textPairs() map[string][]string {
	backgrounds := []string{"surface", "raised", "hover"}
	return map[string][]string{
		"text": slices.Concat(backgrounds, []string{"good-tint", "warn-tint", "bad-tint"}), "muted": backgrounds, "accent": backgrounds,
		"good": append([]string{"good-tint"}, backgrounds...), "warn": append([]string{"warn-tint"}, backgrounds...), "bad": append([]string{"bad-tint"}, backgrounds...), "on-accent": {"accent"},
	}
}

// TestContrast computes every pair of tokens that the pages use, in both themes: 4.5 for text, 3
// for what is not.
func TestContrast(t *testing.T) {
	t.Parallel()
	colors := tokens(t)
	backgrounds := []string{"surface", "raised", "hover"}
	pairs := textPairs()
	shapes := map[string][]string{"control": backgrounds}
	for i := 1; i <= 8; i++ {
		shapes["v"+strconv.Itoa(i)] = backgrounds
	}
	for least, all := range map[float64]map[string][]string{4.5: pairs, 3: shapes} {
		for name, others := range all {
			for _, other := range others {
				for theme, word := range []string{"light", "dark"} {
					a, b := colors[name][theme], colors[other][theme]
					if a == "" || b == "" {
						t.Fatalf("no token %s or %s", name, other)
					}
					if got := contrast(a, b); got < least {
						t.Errorf("%s on %s, %s: %.2f, want %.1f", name, other, word, got, least)
					}
				}
			}
		}
	}
}

// TestPairsOfTheStyleSheetHaveContrast: colors that a rule uses together are among the pairs of
// TestContrast. A browser computes those that come together on a page.
func TestPairsOfTheStyleSheetHaveContrast(t *testing.T) {
	t.Parallel()
	pairs := textPairs()
	rule := regexp.MustCompile(`([^{}]+){([^{}]*)}`)
	color := regexp.MustCompile(`(?:^|[;\s])color: var\(--([a-z0-9-]+)\)`)
	background := regexp.MustCompile(`background(?:-color)?: (?:[^;]*\s)?var\(--([a-z0-9-]+)\)`)
	found, backgrounds := 0, map[string]bool{}
	for _, m := range rule.FindAllStringSubmatch(read(t, "static/ui.css"), -1) {
		b := background.FindStringSubmatch(m[2])
		if b == nil {
			continue
		}
		backgrounds[b[1]] = true
		c := color.FindStringSubmatch(m[2])
		if c == nil {
			continue
		}
		found++
		if !slices.Contains(pairs[c[1]], b[1]) {
			t.Errorf("%s: %s on %s is not in TestContrast", strings.TrimSpace(m[1]), c[1], b[1])
		}
	}
	if found < 5 {
		t.Errorf("%d rules have both a color and a background", found)
	}
	for name := range backgrounds { // without a color, the text is in the color of the page; three are shapes without text
		if !slices.Contains(pairs["text"], name) && !slices.Contains([]string{"accent", "control", "warn"}, name) {
			t.Errorf("the background %s is not in TestContrast", name)
		}
	}
}

func TestStyleSheetNamesTokensOnly(t *testing.T) {
	t.Parallel()
	css := read(t, "static/ui.css")
	rules := css[strings.Index(css, ":root[data-theme"):]
	for _, m := range regexp.MustCompile(`#[0-9a-fA-F]{3,8}\b`).FindAllString(rules, -1) {
		t.Errorf("color %s is written outside of the tokens", m)
	}
	for _, m := range regexp.MustCompile(`var\(--([a-z0-9-]+)\)`).FindAllStringSubmatch(css, -1) {
		if !strings.Contains(css, "--"+m[1]+":") {
			t.Errorf("token %s is not there", m[1])
		}
	}
	if strings.Contains(css, "url(http") || strings.Contains(css, "@import") {
		t.Error("the style sheet asks for another file")
	}
}

// TestStyleSheetHasNoDeadClasses: a template, a script or the code has every class of the style
// sheet.
func TestStyleSheetHasNoDeadClasses(t *testing.T) {
	t.Parallel()
	source := ""
	for _, pattern := range []string{"pages/*.html", "*.go", "chart/*.go", "static/*.js", "../catalog/*.go"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatal(pattern, err)
		}
		for _, name := range names {
			if !strings.HasSuffix(name, "_test.go") {
				source += read(t, name)
			}
		}
	}
	css := regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(read(t, "static/ui.css"), "")
	found := map[string]bool{}
	for _, selectors := range regexp.MustCompile(`([^{}]+){`).FindAllString(css, -1) {
		for _, m := range regexp.MustCompile(`\.([a-z][a-z0-9-]*)`).FindAllStringSubmatch(selectors, -1) {
			found[m[1]] = true
		}
	}
	if len(found) < 50 {
		t.Fatalf("%d classes", len(found))
	}
	for class := range found {
		if strings.HasPrefix(class, "v") && len(class) == 2 { // the colors of variants by their numbers
			continue
		}
		if !regexp.MustCompile(`(^|[^\w-])` + class + `($|[^\w-])`).MatchString(source) {
			t.Errorf("nothing has the class %s", class)
		}
	}
}

// TestCatalogIsComplete finds every name that templates and code use, and every unused text.
func TestCatalogIsComplete(t *testing.T) {
	t.Parallel()
	names := englishNames(t)
	used := map[string]bool{}
	var prefixes []string
	collect := func(name, source string, patterns ...string) {
		for _, pattern := range patterns {
			for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(source, -1) {
				key := m[1]
				if strings.HasSuffix(key, ".") {
					prefixes = append(prefixes, key)
					continue
				}
				used[key] = true
				if !slices.Contains(names, key) {
					t.Errorf("%s uses %q, which the catalog does not have", name, key)
				}
			}
		}
	}
	pageNames, _ := fs.Glob(os.DirFS("."), "pages/*.html")
	for _, name := range pageNames {
		collect(name, read(t, name), `\btp? "([a-z0-9._]+)"`)
	}
	goNames, _ := fs.Glob(os.DirFS("."), "*.go")
	for _, name := range goNames {
		if !strings.HasSuffix(name, "_test.go") {
			collect(name, read(t, name), `(?:say|plain)\("([a-z0-9._]+)"`, `"([a-z0-9._]+\.)"`)
		}
	}
	source := ""
	for _, name := range goNames {
		source += read(t, name)
	}
	for _, name := range messageSources(t) { // of other packages, which the API has as well
		text := read(t, name)
		source += text
		collect(name, text, `"((?:api|segment)\.[a-z0-9._]+)"`)
	}
	for _, key := range names {
		mentioned := used[key] || strings.Contains(source, `"`+key+`"`) || slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
		for _, ending := range []string{".title", ".text", ".none", ".part"} {
			mentioned = mentioned || strings.HasSuffix(key, ending) && strings.Contains(source, `"`+strings.TrimSuffix(key, ending)+`"`)
		}
		if !mentioned {
			t.Errorf("the text %s is not used", key)
		}
	}
}

func englishNames(t *testing.T) []string {
	t.Helper()
	c, err := catalog.Parse(catalog.English())
	if err != nil {
		t.Fatal(err)
	}
	return c.Names()
}

// messageSources are the files of the packages that return messages of the catalog.
func messageSources(t *testing.T) (files []string) {
	t.Helper()
	for _, folder := range []string{"catalog", "entity", "eval", "insight", "store"} {
		names, err := fs.Glob(os.DirFS(".."), folder+"/*.go")
		if err != nil || len(names) == 0 {
			t.Fatal(folder, err)
		}
		for _, name := range names {
			if !strings.HasSuffix(name, "_test.go") {
				files = append(files, "../"+name)
			}
		}
	}
	return files
}

// scriptTexts returns the literals of a script that users would read: sentences, and what is
// assigned to texts and names of elements.
func scriptTexts(script string) (found []string) {
	script = regexp.MustCompile(`(?m)^\s*(//|/?\*).*$|\s//\s.*$`).ReplaceAllString(script, "")
	for _, pattern := range []string{
		"[\"'`]([A-Z][a-z]+[ ,.:!?][^\"'`]*)[\"'`]",
		"(?:textContent|innerText|innerHTML|title|placeholder|alt|ariaLabel)(?: = |: )[\"'`]([^\"'`]*[A-Za-z][^\"'`]*)[\"'`]",
		"(?:alert|confirm|prompt|say|tell|append|createTextNode)\\([\"'`]([^\"'`]*[A-Za-z][^\"'`]*)[\"'`]",
		"\"(?:aria-label|aria-description|title|placeholder|alt)\", [\"'`]([^\"'`]*[A-Za-z][^\"'`]*)[\"'`]",
	} {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(script, -1) {
			found = append(found, m[1])
		}
	}
	return found
}

// TestScriptsHaveNoTexts keeps the words that scripts show in the catalog.
func TestScriptsHaveNoTexts(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(staticFiles, "static/*.js")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		if found := scriptTexts(read(t, name)); len(found) > 0 {
			t.Errorf("%s has the texts %q", name, found)
		}
	}
	for _, line := range []string{
		`const text = "Nothing was saved.";`, `note.textContent = "saved";`, `Object.assign(note, { role: "alert", textContent: "saved" });`, `button.setAttribute("aria-label", "close");`,
		`field.title = 'close';`, "if (confirm(`Delete ${key}?`)) return;", `say("paused");`,
	} {
		if len(scriptTexts(line)) == 0 {
			t.Errorf("the text of %s is not found", line)
		}
	}
}

// TestTemplatesHaveNoTexts keeps every word of the pages in the catalog.
func TestTemplatesHaveNoTexts(t *testing.T) {
	t.Parallel()
	action := regexp.MustCompile(`(?s){{.*?}}`)
	word := regexp.MustCompile(`[A-Za-z]{2,}`)
	allowed := []string{"Flagr", "Ctrl", "Alt", "Esc"}
	names, _ := fs.Glob(os.DirFS("."), "pages/*.html")
	for _, name := range names {
		root, err := html.Parse(strings.NewReader(action.ReplaceAllString(read(t, name), "")))
		if err != nil {
			t.Fatal(err)
		}
		var walk func(*html.Node)
		walk = func(n *html.Node) {
			check := func(text string) {
				for _, found := range word.FindAllString(text, -1) {
					if !slices.Contains(allowed, found) {
						t.Errorf("%s has the word %q", name, found)
					}
				}
			}
			if n.Type == html.TextNode && n.Parent.Data != "noscript" {
				check(n.Data)
			}
			for _, a := range n.Attr {
				if slices.Contains([]string{"aria-label", "aria-description", "aria-roledescription", "aria-valuetext", "placeholder", "title", "alt", "label", "data-away", "data-copy"}, a.Key) {
					check(a.Val)
				}
			}
			for c := n.FirstChild; c != nil; c = c.NextSibling {
				walk(c)
			}
		}
		walk(root)
	}
}

func TestDiffLines(t *testing.T) {
	t.Parallel()
	lines := func(text string) []string { return strings.Split(text, " ") }
	for _, tc := range []struct {
		name        string
		a, b        string
		pairs, left int
		want        string
	}{
		{"one line", "a b c d e f g h i", "a b c d x f g h i", 10, 9, " b, c, d,-e,+x, f, g, h, …"},
		{"a line between two others", "1 a b c 2", "3 a x c 4", 25, 0, "-1,+3, a,-b,+x, c,-2,+4"},
		{"more pairs than are left", "0 1 a b c 2", "0 3 a x c 4", 24, 24, " 0,-1,-a,-b,-c,-2,+3,+a,+x,+c,+4"},
	} {
		var got []string
		pairs := tc.pairs
		for _, l := range diffLines(lines(tc.a), lines(tc.b), &pairs) {
			got = append(got, l.Kind+l.Text)
		}
		if strings.Join(got, ",") != tc.want || pairs != tc.left {
			t.Errorf("%s: %q with %d pairs left, want %q and %d", tc.name, strings.Join(got, ","), pairs, tc.want, tc.left)
		}
	}
}

// A page of versions whose lines all differ compares no more pairs than it may, however many
// versions there are.
func TestDiffsOfAPageAreBoundedTogether(t *testing.T) {
	t.Parallel()
	versions := make([][]string, historyPage+1)
	for v := range versions {
		for i := range maxDiffLines + 10 {
			versions[v] = append(versions[v], fmt.Sprintf("%s %d %d", strings.Repeat("x", 100), v, i))
		}
	}
	pairs := maxDiffPairs
	for i := range historyPage {
		if got := diffLines(versions[i], versions[i+1], &pairs); len(got) != 2*maxDiffLines || pairs < 0 {
			t.Fatalf("version %d: %d lines, %d pairs left", i, len(got), pairs)
		}
	}
	if pairs != 0 {
		t.Errorf("%d pairs are left", pairs)
	}
}
