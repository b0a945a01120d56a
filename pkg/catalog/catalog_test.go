package catalog_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
)

func TestCatalogEscapesArguments(t *testing.T) {
	t.Parallel()
	c, err := catalog.Parse("a = **{n}** {n?flag|flags} of {who} in `{who}`, [see]{link} <{link}>here</> <arrow/>\n# a comment\nb = {list}\n")
	if err != nil {
		t.Fatal(err)
	}
	const evil = `<i>"&`
	want := `<b><span data-n>1,234</span></b> flags of &lt;i&gt;&#34;&amp; in <code>&lt;i&gt;&#34;&amp;</code>, <a href="?a=&#34;">see</a> <a class="quiet" href="?a=&#34;">here</a> <span class="arr">→</span>`
	if got := c.HTML("a", "n", 1234, "who", evil, "link", `?a="`); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := c.Plain("a", "n", 1, "who", catalog.Code("x"), "link", ""); got != "1 flag of x in x, see here " {
		t.Errorf("plain: %q", got)
	}
	if _, err := catalog.Parse("a = 1\na = 2"); err == nil {
		t.Error("a name that is there twice is accepted")
	}
	if got := c.HTML("missing"); got != "missing" {
		t.Errorf("a text that is missing is %q", got)
	}
}

// TestMessagesOfTheAPI: numbers, names, plurals and nested messages, in English and on a page.
func TestMessagesOfTheAPI(t *testing.T) {
	t.Parallel()
	c, err := catalog.Parse(catalog.English())
	if err != nil {
		t.Fatal(err)
	}
	day := catalog.Day(time.Date(2026, 1, 3, 23, 0, 0, 0, time.UTC))
	for want, m := range map[string]catalog.Message{
		"1 evaluation was held out by segment 23, all of whose buckets give a variant under version 1117.":         catalog.Say("api.finding.impossible_hold_out", "n", int64(1), "segment", catalog.Segment(23), "version", catalog.Digits(1117)),
		`1,234 evaluations got "blue" under version 7, in which the flag was off.`:                                 catalog.Say("api.finding.assigned_off", "n", int64(1234), "variant", catalog.Code("blue"), "version", catalog.Digits(7)),
		"5 evaluations got variant 61 under version 7, in which the flag was off.":                                 catalog.Say("api.finding.assigned_off", "n", 5, "variant", catalog.Say("api.variant.number", "id", catalog.Digits(61)), "version", catalog.Digits(7)),
		"Segment 23 can match no entity. Segment 1 is tried before and has no constraints, so it takes everybody.": catalog.Say("api.finding.unreachable", "segment", catalog.Segment(23), "why", catalog.Say("api.reach.taken", "segment", catalog.Segment(1))),
		"Asked for once since 3 January 2026, by name.":                                                            catalog.Say("api.check.asked.name", "n", int64(1), "from", day),
		"Asked for 2,000 times since 3 January 2026, by name.":                                                     catalog.Say("api.check.asked.name", "n", int64(2000), "from", day),
		"Last changed 90 minutes ago.":                                                                             catalog.Say("api.check.changed", "span", catalog.Span(90*time.Minute)),
		"Last changed 1 second ago.":                                                                               catalog.Say("api.check.changed", "span", catalog.Span(time.Second)),
		"not of the {catalog}":                                                                                     catalog.Literal("not of the {catalog}"),
		"":                                                                                                         {},
	} {
		if got := m.String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	m := catalog.Say("api.advice.launched", "variant", "<on>", "days", 30)
	if got := c.HTML(m.Name, m.Args...); got != "Make <code>&lt;on&gt;</code> the only way in the code. When the flag has not been asked for in <span data-n>30</span> days, delete it." {
		t.Errorf("got %s", got)
	}
	if got := c.HTML("segment.named", "n", "1", "name", catalog.Name("<שלום>")); got != "segment 1, “<bdi>&lt;שלום&gt;</bdi>”" {
		t.Errorf("got %s", got)
	}
}

type spoken struct{}

func (spoken) Error() string            { return "in English" }
func (spoken) Message() catalog.Message { return catalog.Say("api.advice.none") }

func TestMessageOfAnError(t *testing.T) {
	t.Parallel()
	if got := catalog.Of(fmt.Errorf("save: %w", spoken{})); got.Name != "api.advice.none" {
		t.Errorf("got %+v", got)
	}
	if got := catalog.Of(errors.New("a parser's words")); got.String() != "a parser's words" {
		t.Errorf("got %q", got)
	}
}
