package browser

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
)

var update = flag.Bool("update", false, "write the golden file of the accessibility tree anew")

const goldenTree = "testdata/accessibility.txt"

// roles are the roles in the golden file: elements that users jump to, read or press. Elements
// around and between them differ between versions of Chromium.
var roles = []string{
	"banner", "navigation", "main", "contentinfo", "search", "region", "form", "group", "dialog", "alert", "status", "heading", "link", "button", "textbox", "searchbox",
	"combobox", "checkbox", "switch", "spinbutton", "DisclosureTriangle", "image", "img", "table", "columnheader", "rowheader",
}

// states are the properties in the golden file, for the roles that can have them.
var states = []string{"level", "checked", "pressed", "disabled", "expanded", "invalid", "required"}

// moments match texts that differ from day to day, and the numbers of settings. The first day of a
// window is whole if the hour of the test is the first of a day.
var moments = regexp.MustCompile(`((Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?(today |\d{1,2}\x{00a0}[A-Z][a-z]{2} )?\d{2}:\d{2}(:\d{2})?|((Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?\d{1,2}\x{00a0}[A-Z][a-z]{2}( not whole)?|Show all \d+`)

// text is the value of a property or name as a screen reader reads it.
func text(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	var plain string
	if json.Unmarshal([]byte(v.Value), &plain) != nil { // a number or a boolean
		return string(v.Value)
	}
	return plain
}

// tree writes the nodes of the golden file, each one below its nearest ancestor among them.
func (p *tab) tree() string {
	p.t.Helper()
	nodes := map[accessibility.NodeID]*accessibility.Node{}
	all := call(p, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes
	for _, n := range all {
		nodes[n.NodeID] = n
	}
	var b strings.Builder
	last := ""
	var walk func(n *accessibility.Node, depth int)
	walk = func(n *accessibility.Node, depth int) {
		if role := text(n.Role); !n.Ignored && slices.Contains(roles, role) {
			var line strings.Builder
			fmt.Fprintf(&line, "%s%s %q", strings.Repeat("  ", depth), role, moments.ReplaceAllString(text(n.Name), "(varies)"))
			for _, property := range n.Properties {
				if value := text(property.Value); slices.Contains(states, string(property.Name)) && value != "false" {
					fmt.Fprintf(&line, " %s=%s", property.Name, value)
				}
			}
			line.WriteString("\n")
			if line.String() != last { // rows of days repeat
				b.WriteString(line.String())
			}
			last = line.String()
			depth++
		}
		for _, id := range n.ChildIDs {
			if child := nodes[id]; child != nil {
				walk(child, depth)
			}
		}
	}
	walk(all[0], 0)
	return b.String()
}

// TestTheAccessibilityTree compares the accessibility tree of the main pages, a review and a
// confirmation with a golden file. Run it with -update after an intended change of the pages, and
// read the difference like a user who cannot see them.
func TestTheAccessibilityTree(t *testing.T) {
	t.Parallel()
	s := start(t, "FLAGR_RECORDER_DATAR_TAIL_ENABLED=true", "FLAGR_RECORDER_DATAR_SERVER_NAME=flagr-0")
	s.abFlag(t)
	s.until(t, "checkout-button")
	p := open(t, s)
	var b strings.Builder
	add := func(name string) {
		t.Helper()
		fmt.Fprintf(&b, "== %s\n%s\n", name, p.tree())
	}
	for _, path := range []string{"/ui/", "/ui/flags/1", "/ui/flags/1/traffic", "/ui/flags/1/traffic?tail=1", "/ui/flags/1/nothing", "/ui/flags/1/try", "/ui/server"} {
		p.visit(path)
		p.until("the page with its numbers", `document.readyState === "complete" && (!document.body.innerText.includes("numbers are missing") || (location.reload(), false))`)
		add(path)
	}
	p.visit("/ui/flags/1")
	p.press("More")
	p.press("Delete")
	p.has("Delete checkout-button?")
	add("delete")
	p.visit("/ui/flags/1/targeting")
	add("/ui/flags/1/targeting")
	p.fill("s.0.rollout", "80")
	p.fill("v.0.attachment", "{")
	p.has("Line 1, column")
	p.press("Review and save")
	p.has("Nothing was saved")
	add("targeting with an error")
	p.fill("v.0.attachment", "{}")
	p.press("Review and save")
	p.has("Save 2 changes as a new version?")
	add("review")
	got := b.String()
	if *update {
		if err := os.WriteFile(goldenTree, []byte(got), 0o644); err != nil { // a golden file
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(goldenTree)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		if i >= len(gotLines) || i >= len(wantLines) || gotLines[i] != wantLines[i] {
			from := max(0, i-3)
			t.Fatalf("line %d of %s differs; from there on it is\n%s\nwant\n%s\n(run the test with -update if this is intended)", i+1, goldenTree,
				strings.Join(gotLines[min(from, len(gotLines)):min(i+8, len(gotLines))], "\n"), strings.Join(wantLines[min(from, len(wantLines)):min(i+8, len(wantLines))], "\n"))
		}
	}
}
