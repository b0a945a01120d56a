package entity

import (
	"errors"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
)

// MaxPatternSize is the maximum PatternSize of a pattern in a constraint. Such a pattern takes
// about 2 MB when compiled, and several times as much during compilation.
const MaxPatternSize = 1 << 15

// The size of a character class in a pattern, in instructions.
const (
	unicodeClassSize = 100  // such as \pL: some 1,300 runes
	foldedClassSize  = 1000 // a class in brackets under (?i)
	// foldedRunes is how many runes of a range under (?i) count as one instruction. The compiler
	// looks at each of them, up to lastFolded: [a-\x{1e942}] takes it milliseconds.
	foldedRunes = 16
	lastFolded  = 0x1e943
)

// PatternSize estimates the instructions of a pattern's program, with its repetitions expanded.
// Character classes count by their cost to parse and store: 100 for a Unicode class, such as \pL.
// In a pattern that ignores case, a class in brackets counts 1,000, and each range of a class one
// for 16 characters. A match takes time proportional to at most the size times the length of the
// string. A pattern beyond the limit may not be parsed; its size is then any number beyond the
// limit. The error is from regexp/syntax. The pattern is parsed as if it did not ignore case, which
// is quick and finds almost all of these errors.
func PatternSize(pattern string, limit int) (int, error) {
	classes := unicodeClassSize * (strings.Count(pattern, `\p`) + strings.Count(pattern, `\P`))
	source := withCase(pattern)
	if source != pattern {
		classes += foldedClassSize*strings.Count(pattern, "[") + foldedRanges(pattern)
	}
	if size := classes + len(pattern); size > limit {
		return size, nil
	}
	parsed, err := syntax.Parse(source, syntax.Perl)
	if wrong, ok := errors.AsType[*syntax.Error](err); ok {
		if at := strings.Index(source, wrong.Expr); at >= 0 {
			wrong.Expr = pattern[at : at+len(wrong.Expr)]
		}
		return 0, wrong
	}
	if err != nil {
		return 0, err
	}
	return classes + instructions(parsed), nil
}

// foldedRanges estimates the size of all ranges in classes of a pattern that ignores case. An
// escaped end counts as the highest character of the pattern, a start as \x{61} as the lowest.
func foldedRanges(pattern string) int {
	_, classes, _ := strings.Cut(pattern, "[")
	highest := rune(0)
	for _, r := range classes {
		highest = max(highest, r)
	}
	for rest := classes; ; {
		_, after, found := strings.Cut(rest, `\x{`)
		if !found {
			break
		}
		digits, _, _ := strings.Cut(after, "}")
		if code, err := strconv.ParseUint(digits, 16, 31); err == nil { // others are not valid
			highest = max(highest, rune(code))
		}
		rest = after
	}
	size := 0
	for at, r := range classes {
		if r != '-' {
			continue
		}
		first, _ := utf8.DecodeLastRuneInString(classes[:at])
		last, _ := utf8.DecodeRuneInString(classes[at+1:])
		if first == '}' { // of \x{
			first = 0
		}
		if last == '\\' {
			last = highest
		}
		size += int(max(0, min(last, lastFolded)-first)) / foldedRunes
	}
	return size
}

// withCase replaces the flag i in groups such as (?i) or (?s-i: by the flag U, which changes
// neither the size of the pattern nor whether it is valid.
func withCase(pattern string) string {
	flags := []byte(pattern)
	for at := 0; ; {
		group := strings.Index(pattern[at:], "(?")
		if group < 0 {
			return string(flags)
		}
		for at += group + len("(?"); at < len(flags) && strings.IndexByte("imsU-", flags[at]) >= 0; at++ {
			if flags[at] == 'i' {
				flags[at] = 'U'
			}
		}
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
		return beyondLimit("api.pattern.large", "most", catalog.Digits(MaxPatternSize), "class", unicodeClassSize, "folded", catalog.Digits(foldedClassSize), "runes", foldedRunes)
	}
	return nil
}
