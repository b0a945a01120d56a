package entity_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/zhouzhuojie/conditions"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

func TestConstraintExpr(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		constraint entity.Constraint
		want       string // of the expression; empty for an error
		variables  []string
	}{
		"string":                   {entity.Constraint{Property: "country", Operator: "EQ", Value: ` "FR" `}, `(country == "FR")`, []string{"country"}},
		"dotted property":          {entity.Constraint{Property: "user.tier", Operator: "EQ", Value: `"gold"`}, `(user.tier == "gold")`, []string{"user"}},
		"deep property":            {entity.Constraint{Property: "a.b.c[-1].d", Operator: "GT", Value: `1`}, `(a.b.c[-1].d > 1.000)`, []string{"a"}},
		"number after a dot":       {entity.Constraint{Property: "x.0", Operator: "EQ", Value: `1`}, "", nil},
		"dash after a dot":         {entity.Constraint{Property: "a.b-c", Operator: "EQ", Value: `1`}, "", nil},
		"dash":                     {entity.Constraint{Property: "a-b", Operator: "EQ", Value: `1`}, `("a-b" == 1.000)`, []string{"a-b"}},
		"property as value":        {entity.Constraint{Property: "x", Operator: "EQ", Value: `{o.p}`}, `(x == o.p)`, []string{"x", "o"}},
		"escapes":                  {entity.Constraint{Property: "x", Operator: "EQ", Value: `"\x41\""`}, `(x == "A\"")`, []string{"x"}},
		"odd escape":               {entity.Constraint{Property: "x", Operator: "EQ", Value: `"\d\""`}, `(x == "\\d\\\"")`, []string{"x"}},
		"pattern with a star":      {entity.Constraint{Property: "x", Operator: "EREG", Value: `"*"`}, "", nil},
		"pattern with a space":     {entity.Constraint{Property: "x", Operator: "EREG", Value: `"a b"`}, `(x =~ "ab")`, []string{"x"}},
		"injected property":        {entity.Constraint{Property: "@ts_hour", Operator: "LT", Value: `12`}, `("@ts_hour" < 12.000)`, []string{"@ts_hour"}},
		"quoted pattern":           {entity.Constraint{Property: "x", Operator: "EREG", Value: `"\d+"`}, `(x =~ "\\d+")`, []string{"x"}},
		"regex literal":            {entity.Constraint{Property: "x", Operator: "NEREG", Value: `/\d+/`}, `(x !~ "\\d+")`, []string{"x"}},
		"regex literal left open":  {entity.Constraint{Property: "x", Operator: "EREG", Value: `/abc`}, "", nil},
		"second one left open":     {entity.Constraint{Property: "x", Operator: "EREG", Value: `/a/ OR {y} == /b`}, "", nil},
		"string left open in one":  {entity.Constraint{Property: "x", Operator: "EREG", Value: `/A"d+/`}, "", nil},
		"raw string open in one":   {entity.Constraint{Property: "x", Operator: "EREG", Value: "/a`b/"}, "", nil},
		"comment open in one":      {entity.Constraint{Property: "x", Operator: "EREG", Value: "/a /* ` b/"}, "", nil},
		"comment left open":        {entity.Constraint{Property: "x", Operator: "EQ", Value: "1 /*"}, "", nil},
		"line comment":             {entity.Constraint{Property: "x", Operator: "EREG", Value: "//"}, "", nil},
		"regex out of place":       {entity.Constraint{Property: "x", Operator: "EQ", Value: "1 /a"}, "", nil},
		"closed regex there":       {entity.Constraint{Property: "x", Operator: "EQ", Value: "1 /a/"}, "", nil},
		"slash behind the end":     {entity.Constraint{Property: "x", Operator: "EQ", Value: `1) /`}, "", nil},
		"comment behind the end":   {entity.Constraint{Property: "x", Operator: "EQ", Value: `1) /*`}, `(x == 1.000)`, []string{"x"}},
		"string left open":         {entity.Constraint{Property: "x", Operator: "EQ", Value: `"`}, "", nil},
		"list left open":           {entity.Constraint{Property: "x", Operator: "IN", Value: `["a"`}, "", nil},
		"parenthesis left open":    {entity.Constraint{Property: "x", Operator: "EQ", Value: `("a"`}, "", nil},
		"string without quotes":    {entity.Constraint{Property: "x", Operator: "EQ", Value: `FR`}, "", nil},
		"no value":                 {entity.Constraint{Property: "x", Operator: "EQ", Value: ``}, "", nil},
		"no property":              {entity.Constraint{Property: "", Operator: "EQ", Value: `1`}, "", nil},
		"property ending in a dot": {entity.Constraint{Property: "x.", Operator: "EQ", Value: `1`}, "", nil},
		"unknown operator":         {entity.Constraint{Property: "x", Operator: "LIKE", Value: `1`}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			type outcome struct {
				text      string
				variables []string
				err       error
			}
			parsed := make(chan outcome, 1)
			go func() {
				expr, err := test.constraint.Expr()
				if err != nil {
					parsed <- outcome{err: err}
					return
				}
				parsed <- outcome{expr.String(), expr.Args(), nil}
			}()
			select {
			case got := <-parsed:
				if (got.err != nil) != (test.want == "") || got.err != nil && !errors.Is(got.err, entity.ErrInvalid) {
					t.Fatalf("error %v, want ErrInvalid: %t", got.err, test.want == "")
				}
				if got.text != test.want || !cmp.Equal(got.variables, test.variables) {
					t.Errorf("got %s of %q, want %s of %q", got.text, got.variables, test.want, test.variables)
				}
			case <-time.After(time.Minute):
				t.Fatal("the parser does not come to an end")
			}
		})
	}
}

// TestLongConstraints has what would take the parser long, fill standard error, or end the process.
func TestLongConstraints(t *testing.T) {
	t.Parallel()
	list := func(n int) string {
		return "[" + strings.Repeat(`"0123456789abcdef0123456789abcdef0123", `, n-1) + `"last"]`
	}
	for name, test := range map[string]struct {
		operator, value string
		want            string // in the error
	}{
		"string":                 {"EQ", `"` + strings.Repeat("x", 1<<20) + `"`, ""},
		"string of odd escapes":  {"EQ", `"` + strings.Repeat(`\d`, 1<<18) + `"`, ""},
		"string too long":        {"EQ", `"` + strings.Repeat("x", 2<<20) + `"`, "more than the 2097152 allowed"},
		"longest list":           {"IN", list(32_767), ""},
		"list too long":          {"IN", list(32_769), "value is a list of 32769 members, more than the 32768 allowed"},
		"two lists":              {"IN", list(20_000) + ") OR ({y} IN " + list(20_000), ""},
		"parentheses":            {"EQ", strings.Repeat("(", 1<<20), "levels of parentheses"},
		"some parentheses":       {"EQ", strings.Repeat("(", 900) + "1" + strings.Repeat(")", 900), ""},
		"many parts":             {"EQ", strings.Repeat("a ", 1<<19), "parts allowed"},
		"chain":                  {"EQ", "1" + strings.Repeat(" AND 1 == 1", 5_000), "too many operators"},
		"short chain":            {"EQ", "1" + strings.Repeat(" AND 1 == 1", 500), ""},
		"malformed numbers":      {"EQ", strings.Repeat("0x ", 10), "malformed"},
		"malformed, in a list":   {"IN", "[" + strings.Repeat(`"\d",`, 10) + `"x"]`, "malformed"},
		"pattern of odd numbers": {"EREG", `"^(` + strings.Repeat("08|09|", 100) + `0)$"`, ""},
		"raw one":                {"EREG", `/^(` + strings.Repeat("08|09|", 100) + `0)$/`, ""},
		"pattern":                {"EREG", `"` + strings.Repeat("a|", 10_000) + `"`, ""},
		"long pattern":           {"EREG", `"` + strings.Repeat("a", 1<<15+1) + `"`, "at most 32768 instructions"},
		"long literal pattern":   {"NEREG", `/` + strings.Repeat("a", 1<<15+1) + `/`, "at most 32768 instructions"},
		"repetitions":            {"EREG", `"` + strings.Repeat("a{1000}", 40) + `"`, "at most 32768 instructions"},
		"hidden repetitions":     {"EQ", `1) OR ({y} !~ ("` + strings.Repeat("a{1000}", 40) + `")`, "at most 32768 instructions"},
		"Unicode classes":        {"EREG", `"` + strings.Repeat(`\pL`, 7_000) + `"`, "at most 32768 instructions"},
		"some Unicode classes":   {"EREG", `"` + strings.Repeat(`\pL`, 300) + `"`, ""},
		"classes without case":   {"EREG", `"(?s-i)(?mi:` + strings.Repeat(`[B-\x{1e942}]`, 100) + `)"`, "at most 32768 instructions"},
		"classes with case":      {"EREG", `"(?s-m)` + strings.Repeat(`[B-\x{1e942}]`, 100) + `"`, ""},
		"ranges without case":    {"EREG", `"(?i)[` + strings.Repeat(`b-\x{1e942}`, 2_900) + `]"`, "at most 32768 instructions"},
		"ranges in a class":      {"EREG", `"(?i:a[]` + strings.Repeat(`가-힣`, 100) + `])"`, "at most 32768 instructions"},
		"Korean without case":    {"EREG", `"(?i)^[a-z0-9가-힣ㄱ-ㅎ_-]+$"`, ""},
		"Latin without case":     {"EREG", `"(?i)^(?:[a-zà-üÀ-Ü]+-[a-z0-9]+){20}\x{20}$"`, ""},
		"ranges with case":       {"EREG", `"[` + strings.Repeat(`b-\x{1e942}`, 2_900) + `]"`, ""},
		"variable":               {"EQ", strings.Repeat("{a}", 200_000), "parts allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := (&entity.Constraint{Property: "x", Operator: test.operator, Value: test.value}).Expr()
			if (err != nil) != (test.want != "") || err != nil && (!errors.Is(err, entity.ErrInvalid) || !errors.Is(err, entity.ErrBeyondLimit) || !strings.Contains(err.Error(), test.want)) {
				t.Fatalf("error %.300v, want in it %q", err, test.want)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
	for length, refused := range map[int]bool{500: false, 600: true} {
		c := entity.Constraint{Property: strings.Repeat("x.", length) + "x", Operator: "EQ", Value: "1"}
		if _, err := c.Expr(); (err != nil) != refused {
			t.Errorf("property of %d steps: error %v, want one: %t", length, err, refused)
		}
	}
}

// FuzzConstraintExpr compares with the library, which is given the same text, and looks for texts
// on which it panics or does not come to an end.
func FuzzConstraintExpr(f *testing.F) {
	for _, value := range []string{
		`"FR"`, `/abc`, "/a`b/", `/a /* b/`, `/A"d+/`, `'/`, `["a", "b"]`, `[1`, `1 AND {x} > 2`, `(({y}`, `1 /a/ /b`, `{@a-b}{c} !~ /`, `{a.b[-1].c}`, `{a.0}`,
		`"a\"b"`, `"\d\""`, `"\\"`, `"\"`, `"\x4"`, "\"a\nb\"", `"a b"`, `"a"b"`, `/a b/`, `/a"b c"d/`, `//`, `"`, `""`, `["\u00e9", "\ud800", "\/"]`, `[1, -2.5, 1e3]`,
		`["a", 1]`, `[[1]]`, "[\n1,\n2]", `[01]`, "[\"\xff\"]", "\"\xff\\d\"", "\"\x00\"", `1) OR ({y} == "b"`, `"a") AND (`, `08`, `"08"`,
	} {
		for _, property := range []string{"x", "a.b-c@d", "x[0]", "x[", "x} == 1 OR {y", `x"`, "x y", ""} {
			f.Add(property, "EREG", value)
			f.Add(property, "LT", value)
		}
	}
	f.Fuzz(func(t *testing.T, property, operator, value string) {
		tokens := map[string]string{"EQ": "==", "LT": "<", "EREG": "=~", "NEREG": "!~", "IN": "IN", "NOTCONTAINS": "NOT CONTAINS"}
		got, err := (&entity.Constraint{Property: property, Operator: operator, Value: value}).Expr()
		value = strings.TrimSpace(value)
		if strings.HasSuffix(operator, "EREG") && len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' && !strings.Contains(value, "/") {
			value = "/" + value[1:len(value)-1] + "/"
		}
		if (got == nil) != (err != nil) || tokens[operator] == "" || err != nil && !strings.Contains(err.Error(), "make no condition") {
			return
		}
		want, wantErr := conditions.Parse("({" + property + "} " + tokens[operator] + " " + value + ")")
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("error %v, want %v", err, wantErr)
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}
