package entity_test

import (
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// got evaluates a flag with one constraint on the property x.
func got(t *testing.T, operator, value, x string) bool {
	t.Helper()
	c := entity.Constraint{Property: "x", Operator: operator, Value: value}
	if _, err := c.Expr(); err != nil {
		t.Fatalf("%s %s: %v", operator, value, err)
	}
	f := entity.Flag{Key: "f", Enabled: true, Variants: []entity.Variant{{Key: "on"}}}
	f.ID, f.Variants[0].ID = 1, 1
	f.Segments = []entity.Segment{{RolloutPercent: 100, Constraints: []entity.Constraint{c}, Distributions: []entity.Distribution{{VariantID: 1, VariantKey: "on", Percent: 100}}}}
	f.Segments[0].ID = 1
	r := eval.Compile([]entity.Flag{f}).Evaluate(eval.Request{FlagID: 1, EntityID: "a", EntityContext: map[string]any{"x": x}}, time.Unix(0, 0), false)
	return r.VariantID == 1
}

// TestPlainText compares the patterns with strings.Contains, as the server evaluates them.
func TestPlainText(t *testing.T) {
	t.Parallel()
	texts := []string{
		"FR", "a b", " a", "it's", `say "hi"`, "1/2", `C:\temp`, "a.b", "a*b", "*", "^a$", "(a|b)", "[a]", "{3}", "a+?", "`", "08 09 08 09 08 09", "0x 1e 0b", "//", "/* a", "\t\n\r",
		"Ünïcode", "日本語", "😀", "e\u0301", "\u00a0", "\u200b", "{x}", "$$", "AND (true)", strings.Repeat("a (", 500),
	}
	for _, text := range texts {
		pattern := entity.TextPattern(text)
		if back, ok := entity.PlainText(pattern); !ok || back != text {
			t.Errorf("%q has the pattern %s, which is read as %q, %t", text, pattern, back, ok)
		}
		for _, x := range append([]string{"xx " + text + " yy", "axb", "ab", ""}, texts...) {
			want := strings.Contains(x, text)
			if got(t, "EREG", pattern, x) != want || got(t, "NEREG", pattern, x) == want {
				t.Errorf("%q in %q: want %t", text, x, want)
			}
		}
	}
}

// TestPatternsStayPatterns checks that only what TextPattern returns is plain text.
func TestPatternsStayPatterns(t *testing.T) {
	t.Parallel()
	for _, value := range []string{
		"", `""`, `"`, `"a b"`, `"a.b"`, `"^a"`, `"\d+"`, `"(?i)a"`, `"a/b"`, `"a|b"`, `"[a]"`, `/abc/`, `"\x20"`, `"\x{020}"`, `"a{1}"`, `"\"`, `"("`, "18", `["a"]`, `"` + strings.Repeat("a", 10_000) + `"`,
	} {
		if text, ok := entity.PlainText(value); ok {
			t.Errorf("%s is read as the text %q", value, text)
		}
	}
}
