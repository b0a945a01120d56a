package entity_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
		"dotted property":          {entity.Constraint{Property: "user.tier", Operator: "EQ", Value: `"gold"`}, `(user.tier == "gold")`, []string{"user.tier"}},
		"deep property":            {entity.Constraint{Property: "a.b-c.d", Operator: "GT", Value: `1`}, `("a.b-c.d" > 1.000)`, []string{"a.b-c.d"}},
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
		"slash behind the end":     {entity.Constraint{Property: "x", Operator: "EQ", Value: `1) /`}, `(x == 1.000)`, []string{"x"}},
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

// TestLongConstraints has what would take the parser minutes, or end the process.
func TestLongConstraints(t *testing.T) {
	t.Parallel()
	list := func(n int) string {
		return "[" + strings.Repeat(`"0123456789abcdef0123456789abcdef0123", `, n-1) + `"last"]`
	}
	for name, test := range map[string]struct {
		constraint entity.Constraint
		refused    bool
	}{
		"string":                  {entity.Constraint{Property: "x", Operator: "EQ", Value: `"` + strings.Repeat("x", 1<<20) + `"`}, false},
		"string too long":         {entity.Constraint{Property: "x", Operator: "EQ", Value: `"` + strings.Repeat("x", 2<<20) + `"`}, true},
		"longest list":            {entity.Constraint{Property: "x", Operator: "IN", Value: list(32_768)}, false},
		"list too long":           {entity.Constraint{Property: "x", Operator: "IN", Value: list(32_769)}, true},
		"list behind parentheses": {entity.Constraint{Property: "x", Operator: "IN", Value: list(20_000) + ")"}, true},
		"parentheses":             {entity.Constraint{Property: "x", Operator: "EQ", Value: strings.Repeat("(", 1<<20)}, true},
		"some parentheses":        {entity.Constraint{Property: "x", Operator: "EQ", Value: strings.Repeat("(", 10_000) + "1" + strings.Repeat(")", 10_000)}, false},
		"chain":                   {entity.Constraint{Property: "x", Operator: "EQ", Value: "1" + strings.Repeat(" AND 1 == 1", 50_000)}, true},
		"pattern":                 {entity.Constraint{Property: "x", Operator: "EREG", Value: `"` + strings.Repeat(".", 1<<20) + `"`}, true},
		"long pattern":            {entity.Constraint{Property: "x", Operator: "EREG", Value: `"` + strings.Repeat("a", 1<<20) + `"`}, false},
		"variable":                {entity.Constraint{Property: "x", Operator: "EQ", Value: strings.Repeat("{a}", 200_000)}, true},
		"property":                {entity.Constraint{Property: strings.Repeat("x.", 600) + "x", Operator: "EQ", Value: "1"}, true},
		"long property":           {entity.Constraint{Property: strings.Repeat("x.", 500) + "x", Operator: "EQ", Value: "1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := test.constraint.Expr()
			if (err != nil) != test.refused || err != nil && !errors.Is(err, entity.ErrInvalid) {
				t.Fatalf("error %.200v, want ErrInvalid: %t", err, test.refused)
			}
		})
	}
}

// FuzzConstraintList compares lists that do not go through the parser with what it makes of them: it ignores what follows
// a parenthesis.
func FuzzConstraintList(f *testing.F) {
	for _, value := range []string{
		`["a", "b"]`, `[ "a" ,"a\n" ]`, `["\u00e9", "\ud800", "\/"]`, `[1, -2.5, 1e3]`, `[1E+2,0]`, `["a", 1]`, `[null]`, `["a", null]`, `[]`, `[[1]]`, `[true]`,
		"[\n1,\n2]", `["//", "/*", "` + "`" + `"]`, `[1] `, `[1],`, `[01]`, `[0x1]`, `[1_0]`, `["a]`, `["a"`, `[1e999]`, "[\"\xff\"]", `["\ufeff"]`, "[\"\ufeff\"]",
	} {
		f.Add("x", value)
		f.Add("a.b-c@d", value)
		f.Add("x} == 1 OR {y", value)
	}
	f.Fuzz(func(t *testing.T, property, value string) {
		value = strings.TrimSpace(value)
		for _, operator := range []string{"IN", "NOTIN", "CONTAINS", "EQ"} {
			got, err := (&entity.Constraint{Property: property, Operator: operator, Value: value}).Expr()
			want, wantErr := (&entity.Constraint{Property: property, Operator: operator, Value: value + ")"}).Expr()
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("error %v, want %v", err, wantErr)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	})
}

// FuzzConstraintExpr looks for texts on which the parser panics or does not come to an end.
func FuzzConstraintExpr(f *testing.F) {
	for _, value := range []string{`"FR"`, `/abc`, "/a`b/", `/a /* b/`, `/A"d+/`, `'/`, `["a", "b"]`, `[1`, `1 AND {x} > 2`, `(({y}`, `1 /a/ /b`, `{@a-b}{c} !~ /`} {
		f.Add("x", "EREG", value)
		f.Add("x", "LT", value)
	}
	f.Fuzz(func(t *testing.T, property, operator, value string) {
		expr, err := (&entity.Constraint{Property: property, Operator: operator, Value: value}).Expr()
		if (expr == nil) != (err != nil) {
			t.Errorf("got %v and error %v", expr, err)
		}
	})
}
