package eval

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

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

func compile(c *entity.Constraint) condition {
	return compileConstraint(c, &patterns{maxPatterns, newSharedPatterns()})
}

func ours(c *entity.Constraint, context map[string]any) outcome {
	compiled := compile(c)
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

// library is the answer of the conditions library, where a panic counts as an error.
func library(expr conditions.Expr, context map[string]any) (result outcome) {
	defer func() {
		if recover() != nil {
			result = errors
		}
	}()
	value, err := conditions.Evaluate(expr, context)
	return toOutcome(value, err == nil)
}

// comparison is a constraint, as the library and as this package have it.
type comparison struct {
	expr     conditions.Expr
	compiled condition
}

// newComparison is nil for a constraint that is refused.
func newComparison(t testing.TB, c *entity.Constraint) *comparison {
	t.Helper()
	expr, err := c.Expr()
	if compiled := compile(c); err == nil {
		return &comparison{expr, compiled}
	} else if compiled.err == nil || compiled.root != nil {
		t.Fatalf("%+v does not parse, but compiles", c)
	}
	return nil
}

func (c *comparison) on(t testing.TB, context map[string]any) {
	t.Helper()
	result, ok := c.compiled.holds(properties{values: context})
	got := toOutcome(result, ok)
	reason := c.compiled.root.explain(properties{values: context})
	bounded := strings.Contains(reason, "the limit is") || strings.Contains(reason, "the product must be") // the library has none
	if want := library(c.expr, context); got != want && !bounded {
		t.Errorf("%s on %#v: %s, the library says %s", c.expr, context, got, want)
	}
	forms := []properties{{values: context, scratch: &scratch{}}}
	if object := objectOf(context); object != nil {
		forms = append(forms, properties{object: object}, properties{object: object, scratch: &scratch{}})
	}
	for _, form := range forms {
		for range 2 { // with a scratch, the second reads what the first has kept
			result, ok := c.compiled.holds(form)
			if again := toOutcome(result, ok); again != got {
				t.Errorf("%s on %#v: %s, as %+v %s", c.expr, context, got, form, again)
			}
		}
	}
	if (reason != "") != (got == errors) {
		t.Errorf("%s on %#v: outcome %s has the reason %q", c.expr, context, got, reason)
	}
	if c.compiled.err != nil && got == holds && !strings.Contains(c.expr.String(), " OR ") {
		t.Errorf("%s on %#v holds, in spite of %s", c.expr, context, c.compiled.err)
	}
}

// objectOf gives a context as an Object, or nil if it is not like decoded JSON.
func objectOf(context map[string]any) *Object {
	text, err := entity.EncodeJSON(context)
	if err != nil || !reflect.DeepEqual(entity.DecodeJSON(string(text)), any(context)) {
		return nil
	}
	o := &Object{JSON: string(text)}
	for _, name := range slices.Sorted(maps.Keys(context)) {
		member, err := entity.EncodeJSON(context[name])
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
		`"\u00e9"`, `"\x41"`, `"\d"`, `"a\"b"`, `"a\\\\b"`, `"a/\\d"`, `"a/\u0062"`, `"a b"`, `"a\tb"`, `["\u0061", "\n"]`, `{p.t}`, `{q[0]}`, `{p[-1]}`, `{p}{t}`, `@p`, `null`, `01`, `1e2`, `-2.25`, `.5`,
		`"x") AND {q}`, `"a") OR {q}`, `1) NAND ({q} < 1`, `"a") AND ({p} == "a") OR ({q} == 1`,
		`{q}`, `{p}`, `({q} == 1)`, `"a") OR ({q} == "b"`, `1) AND ({q} < 5`, `1) XOR ({q} CONTAINS "a"`, `"a") NAND ({q} =~ "["`, `{q}) AND ({p}`, `/abc`,
	}
	someJSON = []string{
		`null`, `true`, `false`, `0`, `-0`, `1`, `-1`, `1.0000001`, `1.00001`, `1.5`, `1000000.5`, `0.0000004`, `1e-60`, `1e400`, `12345678901234568`, `""`, `"a"`, `"b"`,
		`"FR"`, `"日本"`, `"1"`, `"["`, `[]`, `["a"]`, `["a", "b"]`, `["FR", 1]`, `[1, "a"]`, `[1]`, `[1, 2, 3]`, `[1e400, 2]`, `[null]`, `[[1]]`,
		`[true, false]`, `[1, null]`, `["a", null]`, `{}`, `{"p": 1}`, `{"t": "a", "u": {"v": [1]}}`, `"a\"b"`, `"a\\b"`, `"é"`, `"A"`, `"\\d"`, `"ab"`, `"a b"`, `"a\tb"`, `"a/b"`, `[{"t": "a"}, {"t": 1}]`, `["a\"b", "\n"]`, `-2.25`, `100`,
	}
)

// goValues are values that Go code, rather than a client, may put into a context.
func goValues() []any {
	type named string
	return []any{
		1, int8(1), int16(2), int32(2), int64(3), float32(1.5), 2.5, uint(1), uint8(1), uint16(1), uint32(2), uint64(1), []json.Number{}, []string{"a"}, []string{}, []int{1}, []int32{2}, []int64{1}, []float32{1.5}, []float64{1},
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

// TestConstraintLikeLibrary compares with the conditions library on every pair of a constraint and
// a value from the lists above, and on random pairs of values for constraints with two properties.
func TestConstraintLikeLibrary(t *testing.T) {
	t.Parallel()
	values := goValues()
	for _, source := range someJSON {
		values = append(values, decode(t, source))
	}
	for i, operator := range allOperators {
		t.Run(operator, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for _, value := range someValues {
				for _, name := range []string{"p", "p.t", "p.u.v", "@p", "p[0]", "p[-1].t", "p.u.v[0]", "p.0", "p-p", "p}{t", "p t"} {
					c := newComparison(t, &entity.Constraint{Property: name, Operator: operator, Value: value})
					if c == nil {
						continue
					}
					c.on(t, map[string]any{})
					for _, p := range values {
						if random.IntN(10) < map[bool]int{true: 5, false: 1}[name == "p"] {
							c.on(t, map[string]any{"p": p, "@p": p, "p-p": p, "p.t": p, "q": values[random.IntN(len(values))]})
						}
					}
				}
			}
		})
	}
}

func FuzzConstraintLikeLibrary(f *testing.F) {
	for i, value := range someValues {
		f.Add("p", uint8(i), value, fmt.Sprintf(`{"p": %s, "q": %s}`, someJSON[i%len(someJSON)], someJSON[(i*7)%len(someJSON)]))
	}
	f.Add("p.t", uint8(0), `"a"`, `{"p": {"t": "a"}}`)
	f.Fuzz(func(t *testing.T, name string, operator uint8, value, source string) {
		decoder := json.NewDecoder(strings.NewReader(source))
		decoder.UseNumber()
		var context map[string]any
		if decoder.Decode(&context) != nil {
			return
		}
		c := newComparison(t, &entity.Constraint{Property: name, Operator: allOperators[int(operator)%len(allOperators)], Value: value})
		if c != nil {
			c.on(t, context)
		}
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
		{"item of a list", "users[-1].tier", "EQ", `"gold"`, `{"users": [{}, {"tier": "gold"}]}`, holds},
		{"number after a dot", "x.0", "EQ", `1`, `{"x": [1], "x.0": 1}`, errors},
		{"other property", "p", "EQ", `{o.p}`, `{"p": "a", "o": {"p": "a"}}`, holds},
		{"list is not equal", "p", "EQ", `"a"`, `{"p": ["a"]}`, errors},
		{"nor is it not equal", "p", "NEQ", `"a"`, `{"p": ["a"]}`, errors},
		{"escaped quote", "p", "EQ", `"he said \"hey\""`, `{"p": "he said \"hey\""}`, holds},
		{"escaped backslash", "p", "CONTAINS", `"a\\b"`, `{"p": ["a\\b"]}`, holds},
		{"escapes of Go", "p", "EQ", `"\x41\u00e9\n\101"`, `{"p": "Aé\nA"}`, holds},
		{"escape that is none", "p", "EQ", `"\d\""`, `{"p": "\\d\\\""}`, holds},
		{"escape in a pattern with a slash", "p", "EREG", `"^a/\\d$"`, `{"p": "a/1"}`, holds},
		{"escape in a pattern", "p", "EREG", `"^\d$"`, `{"p": "1"}`, holds},
		{"space in a pattern", "p", "EREG", `"a b"`, `{"p": "ab"}`, holds},
		{"number out of range in a list", "p", "CONTAINS", `1`, `{"p": [1, 1e400]}`, errors},
		{"left side true", "p", "EQ", `1) OR ({q} == 2`, `{"p": 1}`, holds},
		{"left side false", "p", "EQ", `1) AND ({q} == 2`, `{"p": 2}`, fails},
		{"left side missing", "p", "EQ", `1) OR ({q} == 2`, `{"q": 2}`, errors},
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

// TestPatternsAreBounded is about inputs that would keep the server busy: they are not evaluated,
// and the log says so.
func TestPatternsAreBounded(t *testing.T) {
	t.Parallel()
	const fromContext = `{q}`
	for _, test := range []struct {
		name, value, text, pattern string
		want                       outcome
		reason                     string
	}{
		{"long text", `"x$"`, strings.Repeat("x", 1<<20), "", holds, ""},
		{"long text, literal pattern", `"yx"`, strings.Repeat("x", 1<<21) + "yx", "", holds, ""},
		{"text times pattern", `"(x?){1000}x$"`, strings.Repeat("x", 1000), "", holds, ""},
		{"text times pattern too large", `"(x?){1000}x$"`, strings.Repeat("x", 8<<10), "", errors, "a string of 8192 bytes is not matched with a pattern of 4003 instructions"},
		{"pattern of the context", fromContext, "xx", "^x{2}$", holds, ""},
		{"class of many letters in the context", fromContext, "é", `^(\pL|\PL){200}`, fails, ""},
		{"many classes in the context", fromContext, "é", strings.Repeat(`\pL`, 20), errors, "a pattern of 60 bytes from the context"},
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
				compiled := compile(c)
				reason := compiled.root.explain(properties{values: context})
				if !strings.Contains(reason, test.reason) || (reason == "") != (test.reason == "") {
					t.Errorf("got the reason %q, want in it %q", reason, test.reason)
				}
			})
		}
	}
}

// TestMatchWorkIsBounded has many patterns that together are too much for one evaluation.
func TestMatchWorkIsBounded(t *testing.T) {
	t.Parallel()
	segments := make([]entity.Segment, 200)
	for i := range segments {
		segments[i] = entity.Segment{
			Model: entity.Model{ID: uint(i + 1)}, Rank: uint(i), RolloutPercent: 100,
			Constraints: []entity.Constraint{{Property: "p", Operator: "EREG", Value: `"^(y?){500}$"`}},
		}
	}
	segments[199].Constraints[0].Value = `"^(y?){500}x$"`
	s := Compile([]entity.Flag{{Model: entity.Model{ID: 1}, Key: "f", Enabled: true, Segments: segments}})
	for length, want := range map[int]string{1: "match: bucket", 1000: "exceed 4194304"} {
		request := Request{FlagID: 1, EntityID: "e", EntityContext: map[string]any{"p": strings.Repeat("x", length)}}
		logs := s.Evaluate(request, time.Now(), true).SegmentLogs
		if len(logs) != 200 || !strings.Contains(logs[0].Message, "does not hold") || !strings.Contains(logs[199].Message, want) {
			t.Errorf("text of %d bytes: %d logs, the last %q, want in it %q", length, len(logs), logs[len(logs)-1].Message, want)
		}
	}
}

// withPatternsOfContexts has one flag, each of whose segments has the constraint {p} EREG {q}.
func withPatternsOfContexts(n int) *Snapshot {
	segments := make([]entity.Segment, n)
	for i := range segments {
		segments[i] = entity.Segment{
			Model: entity.Model{ID: uint(i + 1)}, Rank: uint(i), RolloutPercent: 100,
			Constraints: []entity.Constraint{{Property: "p", Operator: "EREG", Value: "{q}"}},
		}
	}
	return Compile([]entity.Flag{{Model: entity.Model{ID: 1}, Key: "f", Enabled: true, Segments: segments}})
}

// TestWorkOfPatternsOfContextsIsBounded compiles a short pattern of a context that takes long.
func TestWorkOfPatternsOfContextsIsBounded(t *testing.T) {
	t.Parallel()
	s := withPatternsOfContexts(1000)
	for pattern, want := range map[string]int{`(?i)` + strings.Repeat(`\pL`, 9): 131, "ab": 1000} { // 4,194,304/(32*31+32*910+910*2)
		request := Request{FlagID: 1, EntityID: "e", EntityContext: map[string]any{"p": "x", "q": pattern}}
		logs := s.Evaluate(request, time.Now(), true).SegmentLogs
		done := slices.IndexFunc(logs, func(l SegmentLog) bool { return !strings.Contains(l.Message, "does not hold") })
		if done < 0 {
			done = len(logs)
		}
		if len(logs) != 1000 || done < want-20 || done > want {
			t.Errorf("%s: %d logs, %d constraints were evaluated, want about %d", pattern, len(logs), done, want)
		}
	}
}

// TestExplanationsOfPatternsOfContextsAreBounded has a wrong pattern, which is parsed twice for
// each explanation: to match it, and to say what is wrong.
func TestExplanationsOfPatternsOfContextsAreBounded(t *testing.T) {
	t.Parallel()
	s := withPatternsOfContexts(500)
	wrong := strings.Repeat("a", 999) + "("
	request := Request{FlagID: 1, EntityID: "e", EntityContext: map[string]any{"p": "x", "q": wrong}}
	const most = maxMatchWork / (2 * 1000 * compileWork)
	for i, l := range s.Evaluate(request, time.Now(), true).SegmentLogs {
		want := "is not a regular expression"
		if i >= most {
			want = "the pattern sizes of this evaluation times the string lengths exceed"
		}
		if !strings.Contains(l.Message, want) {
			t.Fatalf("segment %d: %s, want %s", i, l.Message, want)
		}
	}
}

// TestPatternsOfAllFlags has more patterns than a snapshot keeps.
func TestPatternsOfAllFlags(t *testing.T) {
	t.Parallel()
	const limit, kept, all = 10_000, 5, 10
	flags := make([]entity.Flag, all)
	for i := range flags {
		flags[i] = entity.Flag{Model: entity.Model{ID: uint(i + 1)}, Key: fmt.Sprintf("f%d", i), Enabled: true, Segments: []entity.Segment{{
			RolloutPercent: 100, Constraints: []entity.Constraint{{Property: "p", Operator: "EREG", Value: fmt.Sprintf(`"x{900}y%d"`, i)}},
		}}}
	}
	s := (&Snapshot{maxPatterns: limit, patterns: newSharedPatterns()}).Replace(flags)
	check := func(step string, want int) {
		t.Helper()
		problems := s.Problems()
		if len(problems) != want || !strings.Contains(problems[0].Error(), "the patterns of all flags have more than") {
			t.Errorf("%s: problems %q, want %d", step, problems, want)
		}
		if got := s.Evaluate(Request{FlagID: 1, EntityContext: map[string]any{"p": "y"}}, time.Now(), true); len(got.SegmentLogs) != 1 {
			t.Errorf("%s: got the logs %v", step, got.SegmentLogs)
		}
	}
	check("all at once", all-kept)
	s = s.With(flags[kept:], nil)
	check("no room yet", all-kept)
	s = s.With(flags[kept:], []uint{2, 3})
	check("two are gone", all-kept-2)
	logs := s.Evaluate(Request{FlagID: all, EntityContext: map[string]any{"p": "y"}}, time.Now(), true).SegmentLogs
	if !strings.Contains(logs[0].Message, "the pattern is not used") {
		t.Errorf("got the explanation %q", logs[0].Message)
	}
}

// TestCheckConstraint names what is stored, as in Flagr, but never matches.
func TestCheckConstraint(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ operator, value, want string }{
		{"EREG", `"["`, "pattern cannot be used"},
		{"NEREG", `"a{2000}"`, "pattern cannot be used"},
		{"EREG", `"a/["`, "pattern cannot be used"},
		{"EQ", `"a") OR ({q} =~ "a/["`, "pattern cannot be used"},
		{"LT", `"b"`, "operator < does not take a string"},
		{"GTE", `["b"]`, "operator >= does not take a list of strings"},
		{"EQ", `["b"]`, "operator == does not take a list of strings"},
		{"IN", `1`, "operator IN does not take a number"},
		{"CONTAINS", `[1]`, "operator CONTAINS does not take a list of numbers"},
		{"EREG", `1`, "operator =~ does not take a number"},
		{"EQ", `1) AND (2`, "operator AND does not take a number"},
		{"EREG", `"` + strings.Repeat("x{1000}", 40) + `"`, "pattern is too large"},
		{"EREG", `"b"`, ""},
		{"LT", `1`, ""},
		{"EQ", `true`, ""},
		{"NOTIN", `["b"]`, ""},
		{"NOTCONTAINS", `"b"`, ""},
		{"LT", `{q}`, ""},
		{"EREG", `{q}`, ""},
		{"EQ", `1) OR (true`, ""},
	} {
		err := CheckConstraint(&entity.Constraint{Property: "p", Operator: test.operator, Value: test.value})
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %.50s: got %v, want %q", test.operator, test.value, err, test.want)
		}
	}
}

// TestConstraintsOfSegment compares segments with the library on all constraints as one text.
func TestConstraintsOfSegment(t *testing.T) {
	t.Parallel()
	values := []string{`1`, `1) OR ({q} == 1`, `1) AND ({q} == 1`, `(1)`, `1) (`, `1) XOR ({q} == 1) OR ({r} == 1`, `1) AND (true`, `1)) AND (({q} == 1`}
	random := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		var constraints []entity.Constraint
		var sources []string
		for _, property := range []string{"p", "q", "r"}[:1+random.IntN(3)] {
			value := values[random.IntN(len(values))]
			constraints = append(constraints, entity.Constraint{Property: property, Operator: "EQ", Value: value})
			sources = append(sources, fmt.Sprintf("({%s} == %s)", property, value))
		}
		expr, err := conditions.Parse(strings.Join(sources, " AND "))
		if slices.ContainsFunc(constraints, func(c entity.Constraint) bool { _, err := c.Expr(); return err != nil }) || err != nil {
			expr = nil
		}
		var problems []error
		compiled := segment{conditions: compileConstraints(constraints, &patterns{maxPatterns, newSharedPatterns()}, knownConditions{}, func(format string, args ...any) {
			problems = append(problems, fmt.Errorf(format, args...))
		})}
		if (expr == nil) != (len(problems) > 0) {
			t.Errorf("%s: problems %v", sources, problems)
		}
		for i := range 8 {
			context := map[string]any{"p": float64(i & 1), "q": float64(i >> 1 & 1), "r": float64(i >> 2)}
			want := fails
			if expr != nil && library(expr, context) == holds {
				want = holds
			}
			matched, _ := compiled.matches(properties{values: context}, true)
			if got := toOutcome(matched, true); got != want {
				t.Errorf("%s on %v: got %s, want %s", sources, context, got, want)
			}
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
