package notification

import (
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// TestTheLengthOfIndentedStates: it is known without the text, up to the characters around empty
// lists and objects.
func TestTheLengthOfIndentedStates(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`, `{"a":1}`, `{"a":[1,2,{"b":[]}],"c":"x,:[{\"]}\\"}`, `[[[[1,2,3]]],"\\\\",{"a":{"b":null}}]`, `{"Key":"a\"b","Tags":[],"Notes":"` + strings.Repeat(`\",`, 100) + `"}`,
	} {
		got, want := indentedBytes([]byte(text), 1<<20), len(indented([]byte(text)))
		if empty := strings.Count(text, "[]") + strings.Count(text, "{}"); got < want || got > want+20*empty {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
	if n := indentedBytes([]byte(`{"a":1,"b":2}`), 3); n <= 3 {
		t.Errorf("%d is not more than the limit", n)
	}
}

// TestLargeDifferencesAreOmitted: the indents of nested lists made 0.6 MB up to 100 times as long.
func TestLargeDifferencesAreOmitted(t *testing.T) {
	t.Parallel()
	nested := func(n int) []byte {
		return []byte(`{"a":` + strings.Repeat("[", 90) + strings.Repeat("1,", n) + "1" + strings.Repeat("]", 90) + "}")
	}
	for n, omitted := range map[int]bool{1000: false, 100_000: true} {
		c := entity.Change{Before: nested(n), After: nested(n + 1)}
		body, err := encode(c)
		if err != nil || strings.Contains(string(body), `"diff"`) == omitted || !strings.Contains(string(body), `"post_value"`) {
			t.Errorf("%d numbers: %.200s..., %v", n, body, err)
		}
		if omitted && len(body) > 3*len(c.After) {
			t.Errorf("%d numbers: %d bytes", n, len(body))
		}
	}
}

// TestDifferencesIgnoreEscapesOfHTML: snapshots of Flagr and of earlier versions have them, and new
// ones do not.
func TestDifferencesIgnoreEscapesOfHTML(t *testing.T) {
	t.Parallel()
	before := []byte(`{"Notes":"a \u003cb\u003e \u0026 \\u003c \\\u003c \n\u00e9","Key":"old"}`)
	after := []byte(`{"Notes":"a <b> & \\u003c \\< \n\u00e9","Key":"new"}`)
	got := unified(before, after)
	if !strings.Contains(got, "-  \"Key\": \"old\"\n+  \"Key\": \"new\"\n") || strings.Contains(got, "-  \"Notes\"") {
		t.Errorf("difference: %s", got)
	}
	for _, text := range []string{``, `\`, `\u00`, `\u003`, `{"a":"\u0041\\"}`} {
		if got := string(withoutHTMLEscapes([]byte(text))); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}
