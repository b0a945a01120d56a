package entity_test

import (
	"errors"
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
			case <-time.After(10 * time.Second):
				t.Fatal("the parser does not come to an end")
			}
		})
	}
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
