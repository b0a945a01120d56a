package entity

import (
	"regexp/syntax"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
)

// MaxPatternSize is the maximum PatternSize of a pattern in a constraint. Such a pattern takes
// about 2 MB when compiled, and several times as much during compilation.
const MaxPatternSize = 1 << 15

// The size of a character class in a pattern, in instructions.
const (
	unicodeClassSize = 100  // such as \pL: some 1,300 runes
	foldedClassSize  = 1000 // [a-\x{1e942}] under (?i) takes milliseconds to parse
)

// PatternSize estimates the instructions of a pattern's program, with its repetitions expanded.
// Character classes count by their cost to parse and store: 100 for a Unicode class, such as \pL,
// and 1,000 for a class in brackets in a pattern that ignores case. A match takes time proportional
// to at most the size times the length of the string. A pattern beyond the limit may not be parsed;
// its size is then any number beyond the limit. The error is from regexp/syntax.
func PatternSize(pattern string, limit int) (int, error) {
	classes := unicodeClassSize * (strings.Count(pattern, `\p`) + strings.Count(pattern, `\P`))
	if ignoresCase(pattern) {
		classes += foldedClassSize * strings.Count(pattern, "[")
	}
	if size := classes + len(pattern); size > limit {
		return size, nil
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0, err
	}
	return classes + instructions(parsed), nil
}

// ignoresCase reports whether a pattern has a group with the flag i, such as (?i) or (?s-i:.
func ignoresCase(pattern string) bool {
	for rest := pattern; ; {
		_, after, found := strings.Cut(rest, "(?")
		if !found {
			return false
		}
		flags := after[:len(after)-len(strings.TrimLeft(after, "imsU-"))]
		if strings.Contains(flags, "i") {
			return true
		}
		rest = after
	}
}

func instructions(pattern *syntax.Regexp) int {
	n := 1
	if pattern.Op == syntax.OpLiteral {
		n = len(pattern.Rune)
	}
	for _, sub := range pattern.Sub {
		n += instructions(sub)
	}
	if pattern.Op == syntax.OpRepeat {
		n *= max(pattern.Min, pattern.Max, 1)
	}
	return n
}

// checkPattern reports, as ErrInvalid, a pattern that is too large. An invalid regular expression
// is not an error.
func checkPattern(pattern string) error {
	if size, err := PatternSize(pattern, MaxPatternSize); err == nil && size > MaxPatternSize {
		return beyondLimit("api.pattern.large", "most", catalog.Digits(MaxPatternSize), "class", unicodeClassSize, "folded", catalog.Digits(foldedClassSize))
	}
	return nil
}
