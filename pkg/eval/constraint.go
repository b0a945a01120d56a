package eval

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/zhouzhuojie/conditions"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// The conditions library parses constraints, but does not evaluate them here. Its evaluator compiles a regular expression
// on every call, panics on operands it did not expect, and negates a value that all goroutines share when a list is
// compared with !=. What follows gives the same answers, an error where the library panics, and false and true where
// it answers == and != on a list from that shared value. FuzzConstraintLikeLibrary holds the two together.

// epsilon is the tolerance of the constraint language when it compares numbers.
const epsilon = 1e-6

// A pattern takes time in proportion to the text and to its own length, and one that comes with the context is compiled for each
// evaluation. Without these bounds a client could have the server busy for seconds with one request.
const (
	maxMatchedBytes   = 64 << 10
	maxContextPattern = 1 << 10 // bytes, and parts with repetitions written out
)

// condition is a compiled constraint.
type condition struct {
	root node  // nil when the constraint does not compile
	err  error // why it never matches, if it does not compile or has a pattern that does not
	text string
	// name is a property of the context, if the condition says no more than that it equals a plain text, whose JSON is in
	// json, or that it is in some relation to a number.
	name, json string
}

// CheckConstraint reports, as entity.ErrInvalid, a constraint that can never match, because it does not parse or because
// its pattern is no regular expression.
func CheckConstraint(c *entity.Constraint) error { return compileConstraint(c).err }

func compileConstraint(c *entity.Constraint) condition {
	compiled := condition{text: fmt.Sprintf("{%s} %s %s", c.Property, c.Operator, strings.TrimSpace(c.Value))}
	expr, err := c.Expr()
	if err != nil {
		compiled.err = err
		return compiled
	}
	compiled.root, compiled.err = compileNode(expr)
	if b, ok := compiled.root.(*binary); ok && b.property != nil && len(b.property.path) == 1 && b.constant != nil {
		switch constant := &b.constant.value; {
		case b.op == conditions.EQ && constant.kind == text && IsPlain(constant.text):
			compiled.name, compiled.json = b.property.name, `"`+constant.text+`"`
		case constant.kind == number:
			compiled.name = b.property.name
		}
	}
	return compiled
}

// holds tells whether the condition is true. Its second result is false when the condition cannot be evaluated.
func (c *condition) holds(context properties) (holds, ok bool) {
	if c.root == nil {
		return false, false
	}
	if c.name != "" && context.object != nil {
		if holds, ok := c.holdsFor(context.object.find(c.name)); ok {
			return holds, true
		}
	}
	v := c.root.resolve(context)
	return v.truth, v.kind == boolean
}

// holdsFor is holds for the JSON of the one property that the condition is about. It knows plain texts and positive
// numbers, which most are; of others its second result is false.
func (c *condition) holdsFor(raw string) (holds, ok bool) {
	switch {
	case raw == "": // there is no such property
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
	v := b.apply(&value{kind: number, number: f}, &b.constant.value)
	return v.truth, v.kind == boolean
}

// reason tells a person why holds could not evaluate the condition. The context must be decoded.
func (c *condition) reason(context properties) string {
	switch {
	case c.err != nil:
		return c.err.Error()
	case c.root == nil:
		return "it cannot be used"
	default:
		return c.root.explain(context)
	}
}

type kind uint8

// The kinds of value in the constraint language. A value that cannot be used is invalid, and so is all that depends on it.
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
	list   *list // if a numberList or a textList
}

// list is one of the context, which has items: float64 or json.Number if a numberList, string if a textList. Or it is one
// written in a constraint, which may be long.
type list struct {
	items   []any
	texts   map[string]struct{}
	numbers []float64 // sorted
}

func truth(b bool) value { return value{kind: boolean, truth: b} }

// node is a part of a compiled constraint. Nodes never change.
type node interface {
	resolve(context properties) value
	// explain tells why resolve gave an invalid value; it is empty when resolve did not. The context must be decoded.
	explain(context properties) string
}

func compileNode(expr conditions.Expr) (node, error) {
	switch e := expr.(type) {
	case *conditions.ParenExpr:
		return compileNode(e.Expr)
	case *conditions.BinaryExpr:
		return compileBinary(e)
	case *conditions.VarRef:
		// A dot leads into a nested object.
		return &property{name: e.Val, path: strings.Split(e.Val, ".")}, nil
	case *conditions.BooleanLiteral:
		return &constant{truth(e.Val)}, nil
	case *conditions.NumberLiteral:
		return &constant{value{kind: number, number: e.Val}}, nil
	case *conditions.StringLiteral:
		return &constant{value{kind: text, text: e.Val}}, nil
	case *conditions.SliceNumberLiteral:
		return &constant{value{kind: numberList, list: &list{numbers: slices.Sorted(slices.Values(e.Val))}}}, nil
	case *conditions.SliceStringLiteral:
		texts := make(map[string]struct{}, len(e.Val))
		for _, s := range e.Val {
			texts[s] = struct{}{}
		}
		return &constant{value{kind: textList, list: &list{texts: texts}}}, nil
	default:
		return nil, entity.Invalid("constraint has a part of unknown type %T", expr)
	}
}

func compileBinary(e *conditions.BinaryExpr) (node, error) {
	left, err := compileNode(e.LHS)
	if left == nil {
		return nil, err
	}
	right, rightErr := compileNode(e.RHS)
	if right == nil {
		return nil, rightErr
	}
	if err == nil {
		err = rightErr
	}
	compiled := &binary{op: e.Op, left: left, right: right}
	compiled.property, _ = left.(*property)
	compiled.constant, _ = right.(*constant)
	if literal, ok := e.RHS.(*conditions.StringLiteral); ok && (e.Op == conditions.EREG || e.Op == conditions.NEREG) {
		pattern, patternErr := regexp.Compile(literal.Val)
		if patternErr != nil && err == nil {
			err = entity.Invalid("pattern cannot be used: %s", patternErr)
		}
		compiled.pattern, compiled.broken = pattern, patternErr != nil
	}
	return compiled, err
}

// constant is a value written in the constraint.
type constant struct{ value value }

func (c *constant) resolve(properties) value  { return c.value }
func (c *constant) explain(properties) string { return "" }

// property is a value of the entity context.
type property struct {
	name string
	path []string
}

func (p *property) lookup(context properties) (raw any, ok bool) {
	last, values := len(p.path)-1, context.values
	for _, name := range p.path[:last] {
		if values, ok = values[name].(map[string]any); !ok {
			return nil, false
		}
	}
	raw, ok = values[p.path[last]]
	return raw, ok
}

func (p *property) resolve(context properties) value {
	if context.object != nil {
		return context.object.resolve(p)
	}
	raw, ok := p.lookup(context)
	if !ok {
		return value{}
	}
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
	raw, ok := p.lookup(context)
	switch {
	case !ok:
		return fmt.Sprintf("entityContext has no %q", p.name)
	case p.resolve(context).kind != invalid:
		return ""
	}
	switch v := raw.(type) {
	case nil:
		return fmt.Sprintf("%q is null", p.name)
	case json.Number:
		return fmt.Sprintf("%q is a number that cannot be represented", p.name)
	case map[string]any:
		return fmt.Sprintf("%q is an object", p.name)
	case []any:
		if len(v) == 0 {
			return fmt.Sprintf("%q is an empty list", p.name)
		}
		return fmt.Sprintf("%q is neither a list of strings nor a list of numbers", p.name)
	default:
		return fmt.Sprintf("%q has the unusable type %T", p.name, raw)
	}
}

// listOf takes a decoded JSON array. An empty one is invalid, because it could be of either kind.
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
		if allOf[json.Number](items) {
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

// goValue takes what a Go program may put into a context, other than decoded JSON.
func goValue(raw any) value {
	switch v := raw.(type) {
	case int:
		return value{kind: number, number: float64(v)}
	case int32:
		return value{kind: number, number: float64(v)}
	case int64:
		return value{kind: number, number: float64(v)}
	case float32:
		return value{kind: number, number: float64(v)}
	case []string:
		return value{kind: textList, list: &list{items: boxed(v, func(s string) any { return s })}}
	case []json.Number:
		return value{kind: numberList, list: &list{items: boxed(v, func(n json.Number) any { return n })}}
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

// binary is an operator between two parts.
type binary struct {
	op          conditions.Token
	left, right node
	// property and constant are left and right again, if they are that: most are, and so need no call to find out.
	property *property
	constant *constant
	pattern  *regexp.Regexp // when the right part is a literal
	broken   bool           // that literal is no pattern
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
	if b.constant != nil {
		return b.apply(&l, &b.constant.value)
	}
	r := b.right.resolve(context)
	if r.kind == invalid {
		return value{}
	}
	return b.apply(&l, &r)
}

// apply takes two values that are not invalid.
func (b *binary) apply(l, r *value) value {
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
		return b.match(l, r)
	case conditions.NEREG:
		return not(b.match(l, r))
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
	case conditions.AND:
		return truth(l && r)
	case conditions.OR:
		return truth(l || r)
	case conditions.XOR:
		return truth(l != r)
	case conditions.NAND:
		return truth(!l || !r)
	default:
		return value{}
	}
}

func (b *binary) match(l, r *value) value {
	if l.kind != text || r.kind != text || b.broken {
		return value{}
	}
	if len(l.text) > maxMatchedBytes {
		return value{}
	}
	pattern := b.pattern
	if pattern == nil {
		if isLongPattern(r.text) {
			return value{}
		}
		var err error
		if pattern, err = regexp.Compile(r.text); err != nil {
			return value{}
		}
	}
	return truth(pattern.MatchString(l.text))
}

// isLongPattern tells whether a pattern has too many parts for one that comes with a request, its repetitions written out.
func isLongPattern(pattern string) bool {
	if len(pattern) > maxContextPattern {
		return true
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	return err == nil && parts(parsed) > maxContextPattern
}

func parts(pattern *syntax.Regexp) int {
	n := 1
	if pattern.Op == syntax.OpLiteral {
		n = len(pattern.Rune)
	}
	for _, sub := range pattern.Sub {
		n += parts(sub)
	}
	if pattern.Op == syntax.OpRepeat {
		n *= max(pattern.Min, pattern.Max, 1)
	}
	return n
}

func (b *binary) explain(context properties) string {
	if reason := b.left.explain(context); reason != "" {
		return reason
	}
	if reason := b.right.explain(context); reason != "" {
		return reason
	}
	if b.resolve(context).kind != invalid {
		return ""
	}
	l, r := b.left.resolve(context), b.right.resolve(context)
	if l.kind == text && r.kind == text && (b.op == conditions.EREG || b.op == conditions.NEREG) {
		switch {
		case len(l.text) > maxMatchedBytes:
			return fmt.Sprintf("a text of %d bytes is not compared with a pattern: the limit is %d", len(l.text), maxMatchedBytes)
		case b.pattern == nil && isLongPattern(r.text):
			return fmt.Sprintf("a pattern of %d bytes from the context is too long, or repeats too much: the limit is %d",
				len(r.text), maxContextPattern)
		}
		return fmt.Sprintf("%q is not a regular expression", r.text)
	}
	return fmt.Sprintf("operator %s does not take %s and %s", b.op, l.kind, r.kind)
}

func not(v value) value {
	v.truth = !v.truth
	return v
}

// equal compares values of one kind. A list equals nothing.
func equal(l, r *value) value {
	switch {
	case l.kind == textList || l.kind == numberList:
		return truth(false)
	case l.kind != r.kind:
		return value{}
	case l.kind == text:
		return truth(l.text == r.text)
	case l.kind == number:
		return truth(nearlyEqual(l.number, r.number))
	default:
		return truth(l.truth == r.truth)
	}
}

// member tells whether item is in list.
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

// hasNumber looks for a number nearly equal to n. It looks at all those within twice the tolerance, so that the rounding
// of the window's ends cannot hide one.
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

// asFloat takes a member of a numberList. One that is too large counts as infinite.
func asFloat(item any) float64 {
	if f, ok := item.(float64); ok {
		return f
	}
	n, _ := item.(json.Number)
	f, _ := n.Float64()
	return f
}

// nearlyEqual allows for a small absolute difference that is also small in relation to the numbers. Next to zero hardly
// anything is nearly equal.
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
		return difference/(math.Abs(a)+math.Abs(b)) < epsilon
	}
}
