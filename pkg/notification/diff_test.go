package notification

import (
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// TestTheLengthOfIndentedStates: it is known without the text, up to the characters around empty lists and objects.
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
