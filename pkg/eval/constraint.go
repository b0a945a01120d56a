package eval

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/zhouzhuojie/conditions"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// The conditions library parses constraints, but does not evaluate them here: its evaluator
// allocates literals for each call and keeps every pattern that a context has ever had. This code
// returns the same results with limited work. FuzzConstraintLikeLibrary compares the two.

// epsilon is the tolerance of the constraint language when it compares numbers.
const epsilon = 1e-6

// Limits of patterns. The cost of a match is proportional to the length of the string and the size
// of the pattern. A pattern from the context is compiled for each evaluation.
const (
	// maxMatchWork limits the pattern sizes times the bytes of the strings that they are matched
	// with, summed over one evaluation. At 60 ns each, the worst case, this is a quarter of a
	// second.
	maxMatchWork = 4 << 20
	// maxContextPattern is the maximum size of a pattern from a context.
	maxContextPattern = 1 << 10
	// compileWork is the part of maxMatchWork that a byte of a pattern from a context uses, and an
	// instruction of it, because it is compiled for each constraint.
	compileWork = 32
	// maxExplained is the length in bytes of the longest pattern that an explanation repeats.
	maxExplained = 256
	// maxPatterns limits the sizes of all compiled patterns of a snapshot. An instruction takes
	// about 50 bytes.
	maxPatterns = 3 << 20
)

// condition is a compiled constraint.
type condition struct {
	root node  // nil if the constraint does not compile
	err  error // the reason, or the reason why a part can never be evaluated
	// never is set if it therefore does not hold for any context.
	never bool
	// matches reports whether a part compares with a pattern.
	matches   bool
	operators int    // also of a comparison
	text      string // of at most about 1,000 bytes
	// name is a property of the context, if the condition only compares it with a plain string for
	// equality, whose JSON is in json, or with a number.
	name, json string
}

// CheckConstraint reports, as entity.ErrInvalid, a constraint that does not parse, or a part of
// which can never be evaluated: a pattern that is not a regular expression, or an operator that
// does not accept the type of its operand. As in Flagr, only constraints that do not parse are
// rejected when they are stored.
func CheckConstraint(c *entity.Constraint) error {
	return compileConstraint(c, &patterns{left: maxPatterns}).err
}

// DefinitionWarnings returns the first warnings about constraints of a definition, up to a number.
// Each begins with the position of the constraint.
func DefinitionWarnings(d *entity.Definition, most int) (warnings []string) {
	for i := range d.Segments {
		for j := range d.Segments[i].Constraints {
			c := &d.Segments[i].Constraints[j]
			for _, warning := range Warnings(&entity.Constraint{Property: c.Property, Operator: c.Operator, Value: c.Value}) {
				if len(warnings) == most {
					return warnings
				}
				warnings = append(warnings, fmt.Sprintf("segments[%d].constraints[%d]: %s", i, j, warning))
			}
		}
	}
	return warnings
}

// Warnings reports what is doubtful in a constraint that can be stored: see CheckConstraint. It
// also reports white space around a pattern that is not part of the pattern.
func Warnings(c *entity.Constraint) []string {
	var warnings []string
	if err := CheckConstraint(c); err != nil {
		warnings = append(warnings, err.Error())
	}
	if c.DropsSpaces() {
		warnings = append(warnings, `white space in a pattern is skipped: write \s or [[:space:]]`)
	}
	return warnings
}

func compileConstraint(c *entity.Constraint, p *patterns) condition {
	source := fmt.Sprintf("{%s} %s %s", c.Property, c.Operator, strings.TrimSpace(c.Value))
	expr, err := c.Expr()
	if err != nil {
		return condition{text: entity.Shorten(source), err: err, never: true}
	}
	return compileExpr(source, expr, p)
}

// compileExpr subtracts the sizes of the patterns that it compiles from p.left.
func compileExpr(source string, expr conditions.Expr, p *patterns) condition {
	compiler := compiler{patterns: p}
	compiled := condition{text: entity.Shorten(source), root: compiler.node(expr)}
	compiled.matches, compiled.operators = compiler.matches, compiler.operators
	compiled.err, compiled.never = compiler.err, compiler.err != nil && !compiler.alternatives
	if b, ok := compiled.root.(*binary); ok && b.property != nil && len(b.property.steps) == 0 && b.constant != nil {
		switch constant := &b.constant.value; {
		case b.op == conditions.EQ && constant.kind == text && entity.IsPlain(constant.text):
			compiled.name, compiled.json = b.property.root, `"`+constant.text+`"`
		case constant.kind == number:
			compiled.name = b.property.root
		}
	}
	return compiled
}

// holds reports whether the condition is true. Its second result is false if the condition cannot
// be evaluated.
func (c *condition) holds(context properties) (holds, ok bool) {
	if c.root == nil {
		return false, false
	}
	if c.name != "" && context.object != nil {
		if raw := context.object.find(c.name); len(raw) <= longValue {
			if holds, ok := c.holdsFor(raw); ok {
				return holds, true
			}
		}
	}
	v := c.root.resolve(context)
	return v.truth, v.kind == boolean
}

// holdsFor is holds for the JSON of the only property in the condition. It supports plain strings
// and positive numbers, which most values are; for others its second result is false.
func (c *condition) holdsFor(raw string) (holds, ok bool) {
	switch {
	case raw == "": // the property does not exist
		return false, false
	case raw == c.json:
		return true, true
	case c.json != "":
		return false, raw[0] == '"' && strings.IndexByte(raw, '\\') < 0
	case raw[0]-'0' > 9:
		return false, false
	}
	f, ok := parseNumber(raw)
	if !ok {
		return false, false
	}
	b := c.root.(*binary)
	v := b.apply(&value{kind: number, number: f}, &b.constant.value, properties{})
	return v.truth, v.kind == boolean
}

// reason explains why holds could not evaluate the condition. The context must be decoded.
func (c *condition) reason(context properties) string {
	if c.root == nil {
		return c.err.Error()
	}
	if s := context.scratch; s != nil { // explanations have an equal share of work
		used := s.work
		s.work = s.reasons
		defer func() { s.work, s.reasons = used, s.work }()
	}
	if reason := c.root.explain(context); reason != "" {
		return reason
	}
	return fmt.Sprintf("the pattern sizes of this evaluation times the string lengths exceed %d", maxMatchWork)
}

type kind uint8

// The kinds of values in the constraint language. An unusable value is invalid, and so is
// everything that depends on it.
const (
	invalid kind = iota
	boolean
	number
	text
	numberList
	textList
)

func (k kind) String() string {
	return [...]string{"an unusable value", "a boolean", "a number", "a string", "a list of numbers", "a list of strings"}[k]
}

type value struct {
	kind   kind
	truth  bool
	number float64
	text   string
	list   *list // for a numberList or a textList
}

// list is either from the context and has items: float64 or json.Number for a numberList, string
// for a textList. Or it is from a constraint, and may be long.
type list struct {
	items   []any
	texts   map[string]struct{}
	numbers []float64 // sorted
}

func truth(b bool) value { return value{kind: boolean, truth: b} }

// node is a part of a compiled constraint. Nodes never change.
type node interface {
	resolve(context properties) value
	// explain returns why resolve returned an invalid value, or an empty string if it did not. The
	// context must be decoded.
	explain(context properties) string
}

// compiler converts expressions to nodes.
type compiler struct {
	patterns  *patterns
	err       error // the first part that can never be evaluated
	matches   bool  // a part compares with a pattern
	operators int
	// alternatives is set if the expression can hold although a part of it cannot be evaluated.
	alternatives bool
}

func (c *compiler) fault(format string, args ...any) {
	if c.err == nil {
		c.err = entity.Invalid(format, args...)
	}
}

func (c *compiler) node(expr conditions.Expr) node {
	switch e := expr.(type) {
	case *conditions.ParenExpr:
		return c.node(e.Expr)
	case *conditions.BinaryExpr:
		return c.binary(e)
	case *conditions.VarRef:
		return newProperty(e.Val, nil)
	case *conditions.PathRef:
		return newProperty(e.Root, e.Steps)
	case *conditions.BooleanLiteral:
		return &constant{truth(e.Val)}
	case *conditions.NumberLiteral:
		return &constant{value{kind: number, number: e.Val}}
	case *conditions.StringLiteral:
		return &constant{value{kind: text, text: e.Val}}
	case *conditions.SliceNumberLiteral:
		return &constant{value{kind: numberList, list: &list{numbers: slices.Sorted(slices.Values(e.Val))}}}
	case *conditions.SliceStringLiteral:
		texts := make(map[string]struct{}, len(e.Val))
		for _, s := range e.Val {
			texts[s] = struct{}{}
		}
		return &constant{value{kind: textList, list: &list{texts: texts}}}
	default:
		c.fault("constraint has a part of unknown type %T", expr)
		return &constant{}
	}
}

func (c *compiler) binary(e *conditions.BinaryExpr) node {
	compiled := &binary{op: e.Op, left: c.node(e.LHS), right: c.node(e.RHS)}
	compiled.property, _ = compiled.left.(*property)
	compiled.constant, _ = compiled.right.(*constant)
	c.matches = c.matches || isMatch(e.Op)
	c.operators++
	c.alternatives = c.alternatives || e.Op == conditions.OR || e.Op == conditions.NAND || e.Op == conditions.XOR
	switch constant := compiled.constant; {
	case constant == nil:
	case !takes(e.Op, constant.value.kind):
		c.fault("operator %s does not take %s: the comparison never holds", e.Op, constant.value.kind)
	case isMatch(e.Op):
		compiled.pattern, compiled.size = c.pattern(constant.value.text)
	}
	return compiled
}

// pattern returns nil and size 0 for an unusable pattern.
func (c *compiler) pattern(source string) (*regexp.Regexp, int) {
	size, err := entity.PatternSize(source, entity.MaxPatternSize)
	if err == nil && size > c.patterns.left {
		c.fault("pattern is not used: the patterns of all flags have more than %d instructions", maxPatterns)
		return nil, 0
	}
	var compiled *regexp.Regexp
	if err == nil && c.patterns.shared != nil {
		compiled, err = c.patterns.shared.compile(source, size)
	}
	if err != nil {
		c.fault("pattern cannot be used, so that the comparison never holds: %s", err)
		return nil, 0
	}
	c.patterns.left -= size
	if compiled == nil {
		return nil, size
	}
	if _, literal := compiled.LiteralPrefix(); literal {
		size = 1 // compares only a string
	}
	return compiled, size
}

func isMatch(op conditions.Token) bool { return op == conditions.EREG || op == conditions.NEREG }

// takes reports whether an operator accepts a right operand of that kind.
func takes(op conditions.Token, right kind) bool {
	switch op {
	case conditions.EQ, conditions.NEQ:
		return right == text || right == number || right == boolean
	case conditions.LT, conditions.LTE, conditions.GT, conditions.GTE:
		return right == number
	case conditions.EREG, conditions.NEREG:
		return right == text
	case conditions.IN, conditions.NOTIN:
		return right == textList || right == numberList
	case conditions.CONTAINS, conditions.NOTCONTAINS:
		return right == text || right == number
	default:
		return right == boolean
	}
}

// constant is a value in the constraint.
type constant struct{ value value }

func (c *constant) resolve(properties) value  { return c.value }
func (c *constant) explain(properties) string { return "" }

// property is a value of the entity context, or a value below it that steps lead to.
type property struct {
	root  string
	steps []conditions.PathStep
	key   string // differs from those of all other properties
}

func newProperty(root string, steps []conditions.PathStep) *property {
	p := &property{root: root, steps: steps, key: root}
	if len(steps) > 0 {
		p.key = "\x00" + p.String() // no name has this character
	}
	return p
}

func (p *property) String() string {
	if len(p.steps) == 0 {
		return p.root
	}
	return (&conditions.PathRef{Root: p.root, Steps: p.steps}).String()
}

func (p *property) equal(other *property) bool {
	return p.root == other.root && slices.Equal(p.steps, other.steps)
}

func (p *property) lookup(values map[string]any) (raw any, ok bool) {
	if raw, ok = values[p.root]; !ok {
		return nil, false
	}
	return p.walk(raw)
}

// walk takes the steps from the value of the root.
func (p *property) walk(raw any) (_ any, ok bool) {
	ok = true
	for i := 0; ok && i < len(p.steps); i++ {
		raw, ok = step(raw, &p.steps[i])
	}
	return raw, ok
}

// step resolves one step into an object or a list. Negative indexes count from the end.
func step(raw any, s *conditions.PathStep) (any, bool) {
	if !s.IsIndex {
		object, ok := raw.(map[string]any)
		if !ok {
			return nil, false
		}
		member, ok := object[s.Key]
		return member, ok
	}
	items, ok := raw.([]any)
	index := s.Index
	if index < 0 {
		index += len(items)
	}
	if !ok || index < 0 || index >= len(items) {
		return nil, false
	}
	return items[index], true
}

func (p *property) resolve(context properties) value {
	if context.object != nil {
		return context.object.resolve(p, context.scratch)
	}
	raw, ok := p.lookup(context.values)
	if !ok {
		return value{}
	}
	return context.scratch.valueOf(p, raw)
}

// valueOf converts a value of a context.
func valueOf(raw any) value {
	switch v := raw.(type) {
	case string:
		return value{kind: text, text: v}
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return value{}
		}
		return value{kind: number, number: f}
	case bool:
		return truth(v)
	case float64:
		return value{kind: number, number: v}
	case []any:
		return listOf(v)
	default:
		return goValue(raw)
	}
}

func (p *property) explain(context properties) string {
	raw, ok := p.lookup(context.values)
	switch {
	case !ok:
		return fmt.Sprintf("entityContext has no %q", p)
	case context.scratch.valueOf(p, raw).kind != invalid:
		return ""
	}
	switch v := raw.(type) {
	case nil:
		return fmt.Sprintf("%q is null", p)
	case json.Number:
		return fmt.Sprintf("%q is a number that cannot be represented", p)
	case map[string]any:
		return fmt.Sprintf("%q is an object", p)
	case []any:
		if len(v) == 0 {
			return fmt.Sprintf("%q is an empty list", p)
		}
		return fmt.Sprintf("%q is neither a list of strings nor a list of numbers that can be represented", p)
	default:
		return fmt.Sprintf("%q has the unusable type %T", p, raw)
	}
}

// listOf converts a decoded JSON array. An empty array is invalid, because it could be of either
// kind.
func listOf(items []any) value {
	if len(items) == 0 {
		return value{}
	}
	switch items[0].(type) {
	case string:
		if allOf[string](items) {
			return value{kind: textList, list: &list{items: items}}
		}
	case json.Number:
		if !slices.ContainsFunc(items, isNoNumber) {
			return value{kind: numberList, list: &list{items: items}}
		}
	case float64:
		if allOf[float64](items) {
			return value{kind: numberList, list: &list{items: items}}
		}
	}
	return value{}
}

func allOf[T any](items []any) bool {
	for _, item := range items {
		if _, ok := item.(T); !ok {
			return false
		}
	}
	return true
}

// isNoNumber reports whether an item is not a json.Number that can be represented.
func isNoNumber(item any) bool {
	n, ok := item.(json.Number)
	if !ok || n == "" {
		return true
	}
	_, ok = parseNumber(string(n))
	return !ok
}

// goValue converts values that a Go program may put into a context, other than decoded JSON.
func goValue(raw any) value {
	switch v := raw.(type) {
	case int:
		return value{kind: number, number: float64(v)}
	case int8:
		return value{kind: number, number: float64(v)}
	case int16:
		return value{kind: number, number: float64(v)}
	case int32:
		return value{kind: number, number: float64(v)}
	case int64:
		return value{kind: number, number: float64(v)}
	case uint:
		return value{kind: number, number: float64(v)}
	case uint8:
		return value{kind: number, number: float64(v)}
	case uint16:
		return value{kind: number, number: float64(v)}
	case uint32:
		return value{kind: number, number: float64(v)}
	case uint64:
		return value{kind: number, number: float64(v)}
	case float32:
		return value{kind: number, number: float64(v)}
	case []string:
		return value{kind: textList, list: &list{items: boxed(v, func(s string) any { return s })}}
	case []json.Number:
		items := boxed(v, func(n json.Number) any { return n })
		if slices.ContainsFunc(items, isNoNumber) {
			return value{}
		}
		return value{kind: numberList, list: &list{items: items}}
	case []int:
		return value{kind: numberList, list: &list{items: boxed(v, toFloat[int])}}
	case []int32:
		return value{kind: numberList, list: &list{items: boxed(v, toFloat[int32])}}
	case []int64:
		return value{kind: numberList, list: &list{items: boxed(v, toFloat[int64])}}
	case []float32:
		return value{kind: numberList, list: &list{items: boxed(v, toFloat[float32])}}
	case []float64:
		return value{kind: numberList, list: &list{items: boxed(v, toFloat[float64])}}
	default:
		return value{}
	}
}

func boxed[T any](items []T, box func(T) any) []any {
	list := make([]any, len(items))
	for i, item := range items {
		list[i] = box(item)
	}
	return list
}

func toFloat[T int | int32 | int64 | float32 | float64](n T) any { return float64(n) }

// binary is an operator with two operands.
type binary struct {
	op          conditions.Token
	left, right node
	// property and constant are left and right again if they have these types, which saves a call
	// in most cases.
	property *property
	constant *constant
	pattern  *regexp.Regexp // if the right operand is a pattern
	size     int            // of the pattern
}

func (b *binary) resolve(context properties) value {
	var l value
	if b.property != nil {
		l = b.property.resolve(context)
	} else {
		l = b.left.resolve(context)
	}
	if l.kind == invalid {
		return value{}
	}
	if b.op == conditions.AND || b.op == conditions.OR {
		return b.combineLazily(l, context)
	}
	if b.constant != nil {
		return b.apply(&l, &b.constant.value, context)
	}
	r := b.right.resolve(context)
	if r.kind == invalid {
		return value{}
	}
	return b.apply(&l, &r, context)
}

// combineLazily does not evaluate the right operand if the left one decides.
func (b *binary) combineLazily(l value, context properties) value {
	if l.kind != boolean {
		return value{}
	}
	if l.truth == (b.op == conditions.OR) {
		return l
	}
	r := b.right.resolve(context)
	if r.kind != boolean {
		return value{}
	}
	return r
}

// apply evaluates any operator except AND and OR for two valid values.
func (b *binary) apply(l, r *value, context properties) value {
	switch b.op {
	case conditions.EQ:
		return equal(l, r)
	case conditions.NEQ:
		return not(equal(l, r))
	case conditions.IN:
		return member(l, r)
	case conditions.NOTIN:
		return not(member(l, r))
	case conditions.CONTAINS:
		return member(r, l)
	case conditions.NOTCONTAINS:
		return not(member(r, l))
	case conditions.EREG:
		return b.match(l, r, context)
	case conditions.NEREG:
		return not(b.match(l, r, context))
	default:
		switch {
		case l.kind == number && r.kind == number:
			return b.compare(l.number, r.number)
		case l.kind == boolean && r.kind == boolean:
			return b.combine(l.truth, r.truth)
		default:
			return value{}
		}
	}
}

func (b *binary) compare(l, r float64) value {
	switch b.op {
	case conditions.LT:
		return truth(l < r)
	case conditions.LTE:
		return truth(l < r || nearlyEqual(l, r))
	case conditions.GT:
		return truth(l > r)
	case conditions.GTE:
		return truth(l > r || nearlyEqual(l, r))
	default:
		return value{}
	}
}

func (b *binary) combine(l, r bool) value {
	switch b.op {
	case conditions.XOR:
		return truth(l != r)
	case conditions.NAND:
		return truth(!l || !r)
	default:
		return value{}
	}
}

func (b *binary) match(l, r *value, context properties) value {
	if l.kind != text || r.kind != text {
		return value{}
	}
	pattern, size := b.pattern, b.size
	if b.constant == nil {
		pattern, size = contextPattern(r.text, context)
	}
	if pattern == nil || !context.spend(size*(len(l.text)+1)) {
		return value{}
	}
	return truth(pattern.MatchString(l.text))
}

// contextPattern compiles a pattern from a context; it returns nil if the pattern is invalid or too
// large, or if there is no work left for it.
func contextPattern(source string, context properties) (*regexp.Regexp, int) {
	if !context.spend(len(source) * compileWork) {
		return nil, 0
	}
	size, err := entity.PatternSize(source, maxContextPattern)
	if err != nil || size > maxContextPattern || !context.spend(size*compileWork) {
		return nil, 0
	}
	pattern, err := regexp.Compile(source)
	if err != nil {
		return nil, 0
	}
	return pattern, size
}

func (b *binary) explain(context properties) string {
	if reason := b.left.explain(context); reason != "" {
		return reason
	}
	l := b.left.resolve(context)
	if l.kind == boolean && (b.op == conditions.AND && !l.truth || b.op == conditions.OR && l.truth) {
		return ""
	}
	if reason := b.right.explain(context); reason != "" {
		return reason
	}
	if b.resolve(context).kind != invalid {
		return ""
	}
	r := b.right.resolve(context)
	if !isMatch(b.op) || l.kind != text || r.kind != text {
		return fmt.Sprintf("operator %s does not take %s and %s", b.op, l.kind, r.kind)
	}
	return b.explainMatch(l.text, r.text, context)
}

func (b *binary) explainMatch(text, pattern string, context properties) string {
	limit := entity.MaxPatternSize
	if b.constant == nil {
		limit = maxContextPattern
		if !context.spend(len(pattern) * compileWork) {
			return ""
		}
	}
	switch size, err := entity.PatternSize(pattern, limit); {
	case err != nil && len(pattern) > maxExplained:
		return fmt.Sprintf("a pattern of %d bytes is not a regular expression", len(pattern))
	case err != nil:
		return fmt.Sprintf("%q is not a regular expression: %s", pattern, err)
	case size > limit:
		return fmt.Sprintf("a pattern of %d bytes from the context is too long, or repeats too much: the limit is %d instructions", len(pattern), limit)
	case b.constant != nil && b.pattern == nil:
		return fmt.Sprintf("the pattern is not used, because the patterns of all flags have more than %d instructions", maxPatterns)
	case size*(len(text)+1) <= maxMatchWork: // there was not enough left for it
		return ""
	default:
		return fmt.Sprintf("a string of %d bytes is not matched with a pattern of %d instructions: the product must be at most %d", len(text), size, maxMatchWork)
	}
}

func not(v value) value {
	v.truth = !v.truth
	return v
}

// equal compares values of one kind. Lists cannot be compared.
func equal(l, r *value) value {
	switch {
	case l.kind != r.kind || l.kind == textList || l.kind == numberList:
		return value{}
	case l.kind == text:
		return truth(l.text == r.text)
	case l.kind == number:
		return truth(nearlyEqual(l.number, r.number))
	default:
		return truth(l.truth == r.truth)
	}
}

// member reports whether item is in list.
func member(item, list *value) value {
	switch {
	case item.kind == text && list.kind == textList:
		if list.list.texts != nil {
			_, found := list.list.texts[item.text]
			return truth(found)
		}
		for _, other := range list.list.items {
			if other == item.text {
				return truth(true)
			}
		}
		return truth(false)
	case item.kind == number && list.kind == numberList:
		if list.list.items == nil {
			return truth(hasNumber(list.list.numbers, item.number))
		}
		for _, other := range list.list.items {
			if nearlyEqual(item.number, asFloat(other)) {
				return truth(true)
			}
		}
		return truth(false)
	default:
		return value{}
	}
}

// hasNumber reports whether a number is nearly equal to n. It checks all numbers within twice the
// tolerance, so that rounding at the ends of this range cannot hide one.
func hasNumber(sorted []float64, n float64) bool {
	start, _ := slices.BinarySearch(sorted, n-2*epsilon)
	for _, other := range sorted[start:] {
		if other > n+2*epsilon {
			break
		}
		if nearlyEqual(n, other) {
			return true
		}
	}
	return false
}

// asFloat converts an element of a numberList.
func asFloat(item any) float64 {
	if f, ok := item.(float64); ok {
		return f
	}
	n, _ := item.(json.Number)
	f, _ := parseNumber(string(n))
	return f
}

// nearlyEqual allows for a small absolute difference that is also small relative to the numbers.
// Near zero, hardly any numbers are nearly equal.
func nearlyEqual(a, b float64) bool {
	if a == b {
		return true
	}
	difference := math.Abs(a - b)
	switch {
	case difference > epsilon:
		return false
	case a == 0 || b == 0:
		return difference < epsilon*math.SmallestNonzeroFloat32
	default:
		return difference/max(math.Abs(a), math.Abs(b)) < epsilon
	}
}
