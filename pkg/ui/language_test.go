package ui_test

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/net/html"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/pkg/ui"
)

// marked returns the English catalog with full-width letters, so that a letter of ASCII on a page
// is not of the catalog.
func marked(t *testing.T) *catalog.Catalog {
	t.Helper()
	wide := func(text string) string {
		return strings.Map(func(r rune) rune {
			if r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
				return r - '!' + '！'
			}
			return r
		}, text)
	}
	plural := regexp.MustCompile(`^\{\^?[a-z0-9]+\?`)
	name := regexp.MustCompile(`^(\{\^?[a-z0-9]+\}|</?[a-z]*/?>|<\{[a-z]+\}>)`)
	var b strings.Builder
	for line := range strings.Lines(catalog.English()) {
		key, text, ok := strings.Cut(line, " = ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		b.WriteString(key + " = ")
		for text != "" {
			kept := name.FindString(text)
			if kept == "" {
				kept = plural.FindString(text) // the words behind it are a text
			}
			if kept == "" {
				_, size := utf8.DecodeRuneInString(text)
				b.WriteString(wide(text[:size]))
				text = text[size:]
				continue
			}
			b.WriteString(kept)
			text = text[len(kept):]
		}
	}
	c, err := catalog.Parse(b.String())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// unmarked returns the words of a page that are in ASCII: those that users read, without code and
// without what users have named.
func unmarked(a answer, users *strings.Replacer) (words []string) {
	word := regexp.MustCompile(`[A-Za-z]{2,}`)
	allowed := append(entity.Operators(), "Flagr", "UTC", "Ctrl", "Alt", "Esc")
	add := func(text string) {
		for _, found := range word.FindAllString(users.Replace(text), -1) {
			if !slices.Contains(allowed, found) {
				words = append(words, found+" in "+strings.TrimSpace(text))
			}
		}
	}
	var walk func(n *html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.ElementNode && slices.Contains([]string{"code", "pre", "script", "style", "textarea", "kbd"}, n.Data) {
			return
		}
		if class, _ := attr(n, "class"); class == "notes" {
			return
		}
		if n.Type == html.TextNode {
			add(n.Data)
		}
		for _, name := range []string{"aria-label", "aria-description", "placeholder", "title", "alt", "data-away", "data-copy", "data-read"} {
			if value, ok := attr(n, name); ok {
				add(value)
			}
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c)
		}
	}
	walk(a.root)
	return words
}

// TestATranslationIsOneFile renders the pages, their errors included, from a catalog of another
// language.
func TestATranslationIsOneFile(t *testing.T) {
	t.Parallel()
	numbers := &figures{}
	f := setup(t, func(o *ui.Options) {
		numbers.m = o.Store.(*memory)
		o.Numbers, o.Statistics, o.Tail, o.Texts = numbers, numbers, true, marked(t)
	})
	users := strings.NewReplacer(
		"checkout-button", "", "dark-mode", "", "a-key-of-forty-characters-is-long-enough", "", "<script>alert(1)</script>", "", "Colour of the checkout button", "",
		"Adults in France", "", "adults in France", "", "Beta testers", "", "beta testers", "", "ada@example.com", "", "grace@example.com", "", "mei@example.com", "", "ada", "", "grace", "", "mei", "",
		"blue", "", "green", "", "web", "", "ios", "", "Deleted", "", "nothing like it", "", "nothing+like+it", "", "odd", "", "gone", "", "on", "", "Adults in Fr…", "",
		"year", "", "Nowhere", "", strings.Repeat("k", 64), "", `"IS"`, "", `{"country": "FR"}`, "", // typed, or an example
		"parsing error: tok=ILLEGAL, lit=FR", "", // the words of the parser
		"{bucket}", "", "{of}", "", "{rollout}", "", "{skipped}", "", // for the script
	)
	check := func(name string, a answer) {
		t.Helper()
		for _, one := range unmarked(a, users) {
			t.Errorf("%s: %s", name, one)
		}
	}
	for _, target := range append(everyPage(), "/ui/flags/1/traffic?compare=previous", "/ui/flags/1/traffic?by=outcome&tail=1", "/ui/flags/1/traffic?by=segment", "/ui/flags/1/traffic?by=version",
		"/ui/flags/1/traffic?bucket=year", "/ui/flags/1/traffic?tz=Nowhere", "/ui/flags/1/nothing", "/ui/unknown", "/ui/?state=gives_nothing&sort=traffic", "/ui/flags/99", "/ui/nowhere") {
		check(target, f.ask(t, http.MethodGet, target, nil))
	}
	for _, wrong := range []map[string]string{
		{"key": "a b"}, {"key": strings.Repeat("k", 64)}, {"tags": "a?"}, {"description": ""}, {"notes": "a\x00"}, {"v.0.key": ""}, {"v.1.key": "blue"}, {"s.0.rollout": "101"}, {"s.0.d.0": "49"},
		{"s.0.c.0.property": ""}, {"s.0.c.0.operator": "IS"}, {"s.0.c.0.value": "FR"}, {"s.0.c.0.value": strings.Repeat("(", 2000)}, {"v.0.attachment": strings.Repeat(`{"a":`, 101) + "1" + strings.Repeat("}", 101)},
		{"v.0.attachment": "[]"}, {"s.0.c.0.operator": "EREG", "s.0.c.0.value": `"` + strings.Repeat("a{1000}", 40) + `"`}, {"s.0.rollout": "80"},
	} {
		form := f.form(t)
		for name, value := range wrong {
			form.Set(name, value)
		}
		a := f.press(t, form, "review")
		if _, saved := wrong["s.0.rollout"]; !saved && !strings.Contains(a.body, `role="alert"`) {
			t.Errorf("%v is no error", wrong)
		}
		check(strings.Join(slices.Sorted(maps.Keys(wrong)), " "), a)
	}
	for _, do := range []string{"one", "made-up", "many"} {
		check("try "+do, f.ask(t, http.MethodPost, "/ui/flags/1/try", url.Values{"do": {do}, "id": {"1234"}, "context": {`{"country":"FR","age":"19"}`}, "many": {"1 2 3"}}))
	}
	check("create", f.ask(t, http.MethodPost, "/ui/new", url.Values{"key": {"1 2"}, "kind": {"boolean"}}))
}

// TestNamesOfUsersAreIsolated: a name that is written from right to left stands by itself, so that
// the words and numbers around it keep their order.
func TestNamesOfUsersAreIsolated(t *testing.T) {
	t.Parallel()
	const name = "מבוגרים בצרפת"
	f, _ := counted(t)
	f.flags[f.full].Segments[0].Description, f.flags[f.full].UpdatedBy, f.flags[f.full].Description = name, name, name
	f.flags[f.full].Segments[0].Constraints[0].Value = `"` + name + `"`
	form := f.form(t)
	form.Set("s.0.rollout", "80")
	form.Set("description", name+"!")
	pages := map[string]answer{"review": f.press(t, form, "review")}
	pages["try"] = f.ask(t, http.MethodPost, "/ui/flags/1/try", url.Values{"do": {"one"}, "id": {"a1234"}, "context": {`{"country":"FR"}`}})
	for _, target := range []string{"/ui/", "/ui/?q=" + url.QueryEscape(name), "/ui/?tag=" + url.QueryEscape(name), "/ui/flags/1", targeting, "/ui/flags/1/nothing", "/ui/flags/1/traffic?by=segment", "/ui/flags/1/history"} {
		pages[target] = f.ask(t, http.MethodGet, target, nil)
	}
	found := 0
	for target, a := range pages {
		var walk func(n *html.Node)
		walk = func(n *html.Node) {
			if n.Type == html.TextNode && strings.Contains(n.Data, name) {
				found++
				if !isIsolated(n, name) {
					t.Errorf("%s: not isolated in <%s>: %s", target, n.Parent.Data, n.Data)
				}
			}
			for c := n.FirstChild; c != nil; c = c.NextSibling {
				walk(c)
			}
		}
		walk(a.root)
	}
	if found < 20 {
		t.Errorf("the name is found %d times", found)
	}
}

// isIsolated reports whether an element around a name is isolated from the text around it, or has
// no other text.
func isIsolated(n *html.Node, name string) bool {
	for p := n.Parent; p != nil; p = p.Parent {
		if _, ok := attr(p, "dir"); ok || slices.Contains([]string{"bdi", "code", "pre", "option", "textarea", "title", "desc"}, p.Data) {
			return true
		}
		if class, _ := attr(p, "class"); class == "chip" {
			return true
		}
		if slices.Contains([]string{"td", "th", "div", "li", "p", "a", "text"}, p.Data) {
			return text(p) == name
		}
	}
	return false
}

// TestSetAndGotOfAllBuckets evaluates one entity of each of the 1,000 buckets. What was set is then
// what came of it, to the last digit of the page, and the numbers of a segment add up.
func TestSetAndGotOfAllBuckets(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	flag := f.flags[f.full]
	flag.Segments = flag.Segments[:1]
	s := &flag.Segments[0]
	s.Description, s.RolloutPercent, s.Constraints = "Country 1", 73, nil
	s.Distributions[0].Percent, s.Distributions[1].Percent = 33, 67
	snapshot := eval.Compile([]entity.Flag{*flag})
	rows := map[datar.Key]*datar.Row{}
	seen := map[int]bool{}
	for i := 0; len(seen) < eval.Buckets; i++ {
		id := fmt.Sprintf("user-%d", i)
		bucket := eval.BucketOf(int64(flag.ID), id)
		if seen[bucket] {
			continue
		}
		seen[bucket] = true
		r := snapshot.Evaluate(eval.Request{FlagID: int64(flag.ID), EntityID: id}, f.now, false)
		key := datar.Key{FlagID: int64(flag.ID), Outcome: datar.HeldOut, SegmentID: int64(s.ID), VariantID: r.VariantID, Version: uint16(flag.SnapshotID), Hour: datar.HourOf(f.now)}
		if r.VariantID != 0 {
			key.Outcome = datar.Matched
		}
		if rows[key] == nil {
			rows[key] = &datar.Row{Key: key, First: f.now.UnixMilli(), Last: f.now.UnixMilli()}
		}
		rows[key].Count++
	}
	in := &insight.RolloutInput{
		FlagID: int64(flag.ID), From: f.now.AddDate(0, 0, -7), To: f.now, Flags: map[int64]*entity.Flag{int64(flag.SnapshotID): flag},
		Timeline: insight.NewTimeline([]insight.Head{{SnapshotID: int64(flag.SnapshotID), At: f.now.AddDate(0, 0, -7)}}),
	}
	for _, row := range rows {
		in.Rows = append(in.Rows, *row)
	}
	numbers.rollout = insight.RolloutOf(in)
	a := f.ask(t, http.MethodGet, "/ui/flags/1", nil)
	sum, set := 0, 0.0
	var read []string
	each(a.root, func(n *html.Node) {
		if class, _ := attr(n, "class"); n.Data != "table" || class != "setgot" {
			return
		}
		each(n, func(tr *html.Node) {
			cells := map[string]string{}
			each(tr, func(td *html.Node) {
				if class, _ := attr(td, "class"); td.Data == "td" {
					cells[class] = text(td)
				}
			})
			if tr.Data != "tr" || cells["num set-c"] == "" {
				return
			}
			if cells["num set-c"] != cells["num got-c"] {
				t.Errorf("%s set and %s got", cells["num set-c"], cells["num got-c"])
			}
			count, _ := strconv.Atoi(cells["num n-c"])
			sum += count
			percent, _ := strconv.ParseFloat(strings.TrimSuffix(cells["num set-c"], " %"), 64)
			set += percent
			read = append(read, cells["num set-c"]+" "+cells["num n-c"])
		})
	})
	if want := []string{"24.1 % 241", "48.9 % 489", "27.0 % 270"}; !slices.Equal(read, want) || sum != eval.Buckets || math.Abs(set-100) > 1e-9 {
		t.Errorf("%q with a sum of %d and %.1f %%, want %q", read, sum, set, want)
	}
}

// TestWhoGetsWhat: the verb agrees with the name of the segment.
func TestWhoGetsWhat(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Country 1": "Country 1 gets blue, everybody else nothing.", "Beta testers": "Beta testers get blue,", "Adults in France": "Adults in France get blue,", "People of Rome": "People of Rome get blue,",
		"VIP": "VIP gets blue,", "Business": "Business gets blue,", "The class of users": "The class of users gets blue,", "מבוגרים": "מבוגרים gets blue,", "": "All in segment 1 get blue,",
	} {
		f := setup(t)
		flag := f.flags[f.full]
		flag.Segments = flag.Segments[:1]
		s := &flag.Segments[0]
		s.Description, s.RolloutPercent, s.Distributions[0].Percent, s.Distributions = name, 100, 100, s.Distributions[:1]
		if got := text(f.ask(t, http.MethodGet, "/ui/flags/1", nil).root); !strings.Contains(got, want) {
			t.Errorf("%q: no %q in %s", name, want, got)
		}
	}
}
