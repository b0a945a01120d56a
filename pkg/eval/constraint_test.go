package eval

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/zhouzhuojie/conditions"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// outcome of a constraint: true, false, or an error.
type outcome string

const (
	holds  outcome = "true"
	fails  outcome = "false"
	errors outcome = "error"
)

func ours(c *entity.Constraint, context map[string]any) outcome {
	compiled := compileConstraint(c)
	result, ok := compiled.holds(properties{values: context})
	return toOutcome(result, ok)
}

func toOutcome(result, ok bool) outcome {
	switch {
	case !ok:
		return errors
	case result:
		return holds
	default:
		return fails
	}
}

// libraryMutex keeps the library's shared value to one test at a time.
var libraryMutex sync.Mutex

// library is the answer of the conditions library, where a panic counts as an error.
func library(t testing.TB, expr conditions.Expr, context map[string]any) outcome {
	t.Helper()
	args := map[string]any{}
	for _, name := range expr.Args() {
		// The library knows no nested objects; it gets what the path leads to.
		p := property{name: name, path: strings.Split(name, ".")}
		if raw, ok := p.lookup(properties{values: context}); ok {
			args[name] = raw
		}
	}
	evaluate := func(expr conditions.Expr, args map[string]any) (result outcome) {
		defer func() {
			if recover() != nil {
				result = errors
			}
		}()
		value, err := conditions.Evaluate(expr, args)
		return toOutcome(value, err == nil)
	}
	libraryMutex.Lock()
	defer libraryMutex.Unlock()
	// A list compared with != leaves the value it shares negated. Make it false again.
	list := map[string]any{"l": []string{"x"}}
	l := &conditions.VarRef{Val: "l"}
	if evaluate(&conditions.BinaryExpr{LHS: l, Op: conditions.EQ, RHS: l}, list) == holds {
		evaluate(&conditions.BinaryExpr{LHS: l, Op: conditions.NEQ, RHS: l}, list)
	}
	return evaluate(expr, args)
}

// comparisons counts the operators that may touch the library's shared value: with two of them in one expression its
// answer is meaningless.
func comparisons(expr conditions.Expr) int {
	n := 0
	conditions.WalkFunc(expr, func(node conditions.Node) {
		if b, ok := node.(*conditions.BinaryExpr); ok && (b.Op == conditions.EQ || b.Op == conditions.NEQ) {
			n++
		}
	})
	return n
}

func compareWithLibrary(t testing.TB, c *entity.Constraint, context map[string]any) {
	t.Helper()
	expr, err := c.Expr()
	if err != nil {
		if CheckConstraint(c) == nil {
			t.Fatalf("%+v does not parse, but compiles", c)
		}
		return
	}
	got := ours(c, context)
	compiled := compileConstraint(c)
	bounded := strings.Contains(compiled.reason(properties{values: context}), "the limit is") // the library has none
	if want := library(t, expr, context); got != want && comparisons(expr) < 2 && !bounded {
		t.Errorf("%s on %#v: %s, the library says %s", expr, context, got, want)
	}
	if object := objectOf(context); object != nil {
		result, ok := compiled.holds(properties{object: object})
		if asText := toOutcome(result, ok); asText != got {
			t.Errorf("%s on %#v: %s, as JSON text %s", expr, context, got, asText)
		}
	}
	if reason := compiled.reason(properties{values: context}); (reason != "") != (got == errors) && compiled.err == nil {
		t.Errorf("%s on %#v: outcome %s has the reason %q", expr, context, got, reason)
	}
}

// objectOf gives a context as an Object, or nil if it is not like decoded JSON.
func objectOf(context map[string]any) *Object {
	text, err := encode(context)
	if err != nil || !reflect.DeepEqual(decodeText(string(text)), any(context)) {
		return nil
	}
	o := &Object{JSON: string(text)}
	for _, name := range slices.Sorted(maps.Keys(context)) {
		member, err := encode(context[name])
		if err != nil {
			return nil
		}
		o.Members = append(o.Members, Member{Name: name, Value: string(member)})
	}
	return o
}

var (
	allOperators = []string{"EQ", "NEQ", "LT", "LTE", "GT", "GTE", "EREG", "NEREG", "IN", "NOTIN", "CONTAINS", "NOTCONTAINS"}
	someValues   = []string{
		`"a"`, `""`, `"FR"`, `"日本"`, `"^a+$"`, `"["`, `/\d+/`, `//`, `0`, `1`, `-1`, `1.5`, `1000000`, `0.0000005`, `1e400`, `12345678901234567`,
		`true`, `FALSE`, `["a"]`, `["a", "b", "FR"]`, `["1"]`, `[1]`, `[1, 2, 2.0000001, -5]`, `[1e300, 0]`, `[true]`, `[]`, `["a", 1]`,
		`{q}`, `{p}`, `({q} == 1)`, `"a") OR ({q} == "b"`, `1) AND ({q} < 5`, `1) XOR ({q} CONTAINS "a"`, `"a") NAND ({q} =~ "["`, `{q}) AND ({p}`, `/abc`,
	}
	someJSON = []string{
		`null`, `true`, `false`, `0`, `-0`, `1`, `-1`, `1.0000001`, `1.00001`, `1.5`, `1000000.5`, `0.0000004`, `1e-60`, `1e400`, `12345678901234568`, `""`, `"a"`, `"b"`,
		`"FR"`, `"日本"`, `"1"`, `"["`, `[]`, `["a"]`, `["a", "b"]`, `["FR", 1]`, `[1, "a"]`, `[1]`, `[1, 2, 3]`, `[1e400, 2]`, `[null]`, `[[1]]`,
		`[true, false]`, `[1, null]`, `["a", null]`, `{}`, `{"p": 1}`, `{"t": "a", "u": {"v": [1]}}`,
	}
)

// goValues are values that Go code, rather than a client, may put into a context.
func goValues() []any {
	type named string
	return []any{
		1, int32(2), int64(3), float32(1.5), 2.5, uint(1), []string{"a"}, []string{}, []int{1}, []int32{2}, []int64{1}, []float32{1.5}, []float64{1},
		[]json.Number{"1", "x"}, []any{1.0, 2.0}, []any{1.0, "a"}, []any{1}, named("a"), []named{"a"}, json.Number("NaN"), json.Number("x"), map[string]int{"p": 1},
	}
}

func decode(t testing.TB, source string) any {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(source))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// TestConstraintLikeLibrary compares with the conditions library on every pair of a constraint and a value from the
// lists above, and on random pairs of values for constraints with two properties.
func TestConstraintLikeLibrary(t *testing.T) {
	t.Parallel()
	values := goValues()
	for _, source := range someJSON {
		values = append(values, decode(t, source))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, operator := range allOperators {
		for _, value := range someValues {
			for _, name := range []string{"p", "p.t", "p.u.v", "@p"} {
				c := &entity.Constraint{Property: name, Operator: operator, Value: value}
				compareWithLibrary(t, c, map[string]any{})
				for _, p := range values {
					compareWithLibrary(t, c, map[string]any{"p": p, "@p": p, "q": values[random.IntN(len(values))]})
				}
			}
		}
	}
}

func FuzzConstraintLikeLibrary(f *testing.F) {
	for i, value := range someValues {
		f.Add("p", uint8(i), value, fmt.Sprintf(`{"p": %s, "q": %s}`, someJSON[i], someJSON[(i*7)%len(someJSON)]))
	}
	f.Add("p.t", uint8(0), `"a"`, `{"p": {"t": "a"}}`)
	f.Fuzz(func(t *testing.T, name string, operator uint8, value, source string) {
		decoder := json.NewDecoder(strings.NewReader(source))
		decoder.UseNumber()
		var context map[string]any
		if decoder.Decode(&context) != nil {
			return
		}
		compareWithLibrary(t, &entity.Constraint{Property: name, Operator: allOperators[int(operator)%len(allOperators)], Value: value}, context)
	})
}

// TestConstraint states the answers that matter most, and those that differ from the library's.
func TestConstraint(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, property, operator, value, context string
		want                                     outcome
	}{
		{"equal strings", "p", "EQ", `"FR"`, `{"p": "FR"}`, holds},
		{"strings differ in case", "p", "EQ", `"FR"`, `{"p": "fr"}`, fails},
		{"missing property", "p", "NEQ", `"FR"`, `{}`, errors},
		{"null", "p", "NEQ", `"FR"`, `{"p": null}`, errors},
		{"number against string", "p", "EQ", `"1"`, `{"p": 1}`, errors},
		{"string against number", "p", "LT", `5`, `{"p": "1"}`, errors},
		{"nearly equal", "p", "EQ", `1`, `{"p": 1.0000001}`, holds},
		{"not nearly equal", "p", "EQ", `1`, `{"p": 1.00001}`, fails},
		{"two apart beyond 2^53", "p", "EQ", `12345678901234567`, `{"p": 12345678901234569}`, holds},
		{"nearly equal is not less", "p", "LTE", `1`, `{"p": 1.0000001}`, holds},
		{"word pattern", "p", "EREG", `"\d+"`, `{"p": "a1"}`, holds},
		{"negated pattern on a number", "p", "NEREG", `"\d+"`, `{"p": 1}`, errors},
		{"pattern that is none", "p", "NEREG", `"["`, `{"p": "a"}`, errors},
		{"not in strings", "p", "NOTIN", `["a"]`, `{"p": "b"}`, holds},
		{"nearly in numbers", "p", "IN", `[3, 2, 1]`, `{"p": 2.0000001}`, holds},
		{"mixed list", "p", "CONTAINS", `"a"`, `{"p": ["a", 1]}`, errors},
		{"empty list", "p", "NOTCONTAINS", `"a"`, `{"p": []}`, errors},
		{"list contains", "p", "CONTAINS", `"a"`, `{"p": ["b", "a"]}`, holds},
		{"list of numbers contains", "p", "CONTAINS", `1`, `{"p": [2, 1.0000001]}`, holds},
		{"member of an object", "user.tier", "EQ", `"gold"`, `{"user": {"tier": "gold"}, "user.tier": "silver"}`, holds},
		{"dotted name at the top", "user.tier", "EQ", `"gold"`, `{"user.tier": "gold"}`, errors},
		{"member of no object", "user.tier", "EQ", `"gold"`, `{"user": "gold"}`, errors},
		{"list equals nothing", "p", "EQ", `"a"`, `{"p": ["a"]}`, fails},
		{"list differs from everything", "p", "NEQ", `"a"`, `{"p": ["a"]}`, holds},
		{"and so does it twice", "p", "NEQ", `"a") AND ({p} != "b"`, `{"p": ["a"]}`, holds},
		{"two constraints in one", "p", "EQ", `1) OR ({q} == 2`, `{"p": 3, "q": 2}`, holds},
		{"no expression", "p", "EQ", `FR`, `{"p": "FR"}`, errors},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			context := decode(t, test.context).(map[string]any)
			c := &entity.Constraint{Property: test.property, Operator: test.operator, Value: test.value}
			for range 3 { // the same answer every time
				if got := ours(c, context); got != test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
			}
		})
	}
}

// TestPatternsAreBounded is about inputs that would keep the server busy: they are not evaluated, and the log says so.
func TestPatternsAreBounded(t *testing.T) {
	t.Parallel()
	const fromContext = `{q}`
	for _, test := range []struct {
		name, value, text, pattern string
		want                       outcome
		reason                     string
	}{
		{"text within the bound", `"x$"`, strings.Repeat("x", maxMatchedBytes), "", holds, ""},
		{"text beyond it", `"x$"`, strings.Repeat("x", maxMatchedBytes+1), "", errors, "a text of 65537 bytes is not compared with a pattern"},
		{"pattern of the context", fromContext, "xx", "^x{2}$", holds, ""},
		{"class of many letters in the context", fromContext, "é", `^(\pL|\PL){300}`, fails, ""},
		{"pattern of the context that is none", fromContext, "xx", "x{2000}", errors, "is not a regular expression"},
		{"long pattern of the context", fromContext, "xx", strings.Repeat("x", maxContextPattern+1), errors, "a pattern of 1025 bytes from the context"},
		{"long when written out", fromContext, "xx", strings.Repeat("x{1000}", 2), errors, "a pattern of 14 bytes from the context"},
		{"long in brackets", fromContext, "xx", "(.{100}){10,}(xy){10}|y{0,99}", errors, "repeats too much"},
	} {
		for operator, want := range map[string]outcome{"EREG": test.want, "NEREG": negated(test.want)} {
			t.Run(test.name+" "+operator, func(t *testing.T) {
				t.Parallel()
				c := &entity.Constraint{Property: "p", Operator: operator, Value: test.value}
				context := map[string]any{"p": test.text, "q": test.pattern}
				if got := ours(c, context); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				compiled := compileConstraint(c)
				reason := compiled.reason(properties{values: context})
				if !strings.Contains(reason, test.reason) || (reason == "") != (test.reason == "") {
					t.Errorf("got the reason %q, want in it %q", reason, test.reason)
				}
			})
		}
	}
}

func negated(o outcome) outcome {
	switch o {
	case holds:
		return fails
	case fails:
		return holds
	default:
		return o
	}
}

func TestHasNumber(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		scale := []float64{1e-9, 1e-6, 1, 1e3, 1e12}[random.IntN(5)]
		numbers := make([]float64, 1+random.IntN(8))
		for i := range numbers {
			numbers[i] = float64(random.IntN(7)-3) * scale
			if i > 0 && numbers[i] < numbers[i-1] {
				numbers[i] = numbers[i-1]
			}
		}
		n := numbers[random.IntN(len(numbers))] + float64(random.IntN(5)-2)*epsilon*random.Float64()
		want := false
		for _, other := range numbers {
			want = want || nearlyEqual(n, other)
		}
		if got := hasNumber(numbers, n); got != want {
			t.Fatalf("%v in %v: got %t, want %t", n, numbers, got, want)
		}
	}
}
