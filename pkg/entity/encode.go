package entity

import (
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// EncodeFlag is AppendFlag into new memory.
func EncodeFlag(f *Flag) []byte { return AppendFlag(make([]byte, 0, FlagBytes(f)), f) }

// FlagBytes is the approximate length of a flag as JSON.
func FlagBytes(f *Flag) int {
	const perPart = 300 // keys, times and numbers of a part, about
	size := 2*perPart + len(f.Notes) + len(f.Notes)/16 + len(f.Description) + perPart*len(f.Tags)
	for i := range f.Variants {
		size += perPart + len(f.Variants[i].Attachment.JSON())
	}
	for i := range f.Segments {
		s := &f.Segments[i]
		size += perPart * (1 + len(s.Constraints) + len(s.Distributions))
		for j := range s.Constraints {
			size += len(s.Constraints[j].Value)
		}
	}
	return size
}

// AppendFlag appends a flag with all its parts, as exports and snapshots contain it. It writes the
// bytes of EncodeJSON without reflection, and copies attachments as they are. A time that RFC 3339
// cannot represent becomes null; EncodeJSON fails.
func AppendFlag(b []byte, f *Flag) []byte {
	b = appendModel(b, &f.Model)
	b = AppendString(append(b, `,"Key":`...), f.Key)
	b = AppendString(append(b, `,"Description":`...), f.Description)
	b = AppendString(append(b, `,"CreatedBy":`...), f.CreatedBy)
	b = AppendString(append(b, `,"UpdatedBy":`...), f.UpdatedBy)
	b = strconv.AppendBool(append(b, `,"Enabled":`...), f.Enabled)
	b = appendNullableList(append(b, `,"Segments":`...), f.Segments, appendSegment)
	b = appendNullableList(append(b, `,"Variants":`...), f.Variants, appendVariant)
	b = appendNullableList(append(b, `,"Tags":`...), f.Tags, appendTag)
	b = appendNumber(append(b, `,"SnapshotID":`...), f.SnapshotID)
	b = AppendString(append(b, `,"Notes":`...), f.Notes)
	b = strconv.AppendBool(append(b, `,"DataRecordsEnabled":`...), f.DataRecordsEnabled)
	b = AppendString(append(b, `,"EntityType":`...), f.EntityType)
	return append(b, '}')
}

func appendSegment(b []byte, s *Segment) []byte {
	b = appendModel(b, &s.Model)
	b = appendNumber(append(b, `,"FlagID":`...), s.FlagID)
	b = AppendString(append(b, `,"Description":`...), s.Description)
	b = appendNumber(append(b, `,"Rank":`...), s.Rank)
	b = appendNumber(append(b, `,"RolloutPercent":`...), s.RolloutPercent)
	b = appendNullableList(append(b, `,"Constraints":`...), s.Constraints, appendConstraint)
	b = appendNullableList(append(b, `,"Distributions":`...), s.Distributions, appendDistribution)
	return append(b, '}')
}

func appendConstraint(b []byte, c *Constraint) []byte {
	b = appendModel(b, &c.Model)
	b = appendNumber(append(b, `,"SegmentID":`...), c.SegmentID)
	b = AppendString(append(b, `,"Property":`...), c.Property)
	b = AppendString(append(b, `,"Operator":`...), c.Operator)
	b = AppendString(append(b, `,"Value":`...), c.Value)
	return append(b, '}')
}

func appendDistribution(b []byte, d *Distribution) []byte {
	b = appendModel(b, &d.Model)
	b = appendNumber(append(b, `,"SegmentID":`...), d.SegmentID)
	b = appendNumber(append(b, `,"VariantID":`...), d.VariantID)
	b = AppendString(append(b, `,"VariantKey":`...), d.VariantKey)
	b = appendNumber(append(b, `,"Percent":`...), d.Percent)
	return append(b, '}')
}

func appendVariant(b []byte, v *Variant) []byte {
	b = appendModel(b, &v.Model)
	b = appendNumber(append(b, `,"FlagID":`...), v.FlagID)
	b = AppendString(append(b, `,"Key":`...), v.Key)
	b = append(append(b, `,"Attachment":`...), v.Attachment.JSON()...)
	return append(b, '}')
}

func appendTag(b []byte, t *Tag) []byte {
	b = appendModel(b, &t.Model)
	b = AppendString(append(b, `,"Value":`...), t.Value)
	return append(b, `,"Flags":null}`...) // never set
}

// appendModel appends the first fields of a row.
func appendModel(b []byte, m *Model) []byte {
	b = appendNumber(append(b, `{"ID":`...), m.ID)
	b = appendTime(append(b, `,"CreatedAt":`...), m.CreatedAt)
	b = appendTime(append(b, `,"UpdatedAt":`...), m.UpdatedAt)
	b = append(b, `,"DeletedAt":`...)
	if !m.DeletedAt.Valid {
		return append(b, "null"...)
	}
	return appendTime(b, m.DeletedAt.Time)
}

// appendTime appends a time, or null if RFC 3339 cannot represent it, for example after the year
// 9999.
func appendTime(b []byte, t time.Time) []byte {
	start := len(b)
	if b, err := t.AppendText(append(b, '"')); err == nil {
		return append(b, '"')
	}
	return append(b[:start], "null"...)
}

// appendNullableList is AppendList, but a nil list becomes null.
func appendNullableList[T any](b []byte, list []T, one func([]byte, *T) []byte) []byte {
	if list == nil {
		return append(b, "null"...)
	}
	return AppendList(b, list, one)
}

// AppendList appends a list. A list without elements becomes [], even if it is nil.
func AppendList[T any](b []byte, list []T, one func([]byte, *T) []byte) []byte {
	b = append(b, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, &list[i])
	}
	return append(b, ']')
}

func appendNumber(b []byte, n uint) []byte { return strconv.AppendUint(b, uint64(n), 10) }

// AppendString appends s as a JSON string, with the same bytes as encoding/json without escaping
// HTML.
func AppendString(b []byte, s string) []byte {
	start := len(b)
	b = append(b, '"')
	for rest := s; ; {
		plain := plainLength(rest)
		b = append(b, rest[:plain]...)
		if plain == len(rest) {
			return append(b, '"')
		}
		switch c := rest[plain]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default: // rare
			encoded, _ := EncodeJSON(s) // encoding a string cannot fail
			return append(b[:start], encoded...)
		}
		rest = rest[plain+1:]
	}
}

// IsPlain reports whether a string is the same in JSON. It must be valid UTF-8 without control
// characters, quotes and backslashes, and without line and paragraph separators, which
// encoding/json escapes for JavaScript.
func IsPlain(s string) bool { return plainLength(s) == len(s) }

// plainLength gives the length of a beginning of s that IsPlain. A quote, a backslash or what
// IsPlain excludes comes after it.
func plainLength(s string) int {
	plain := PlainASCII(s)
	if plain == len(s) || s[plain] < utf8.RuneSelf {
		return plain
	}
	end := plain
	for end < len(s) && s[end] >= ' ' && s[end] != '"' && s[end] != '\\' {
		end++
	}
	if text := s[plain:end]; !utf8.ValidString(text) || strings.ContainsAny(text, "\u2028\u2029") {
		return plain
	}
	return end
}

// unescaped returns the length of the prefix of s that can be a part of a JSON string as it is: up
// to the first control character, quote or backslash.
func unescaped(s string) int {
	n := PlainASCII(s)
	for n < len(s) && s[n] >= utf8.RuneSelf {
		for n++; n < len(s) && s[n] >= utf8.RuneSelf; n++ {
		}
		n += PlainASCII(s[n:])
	}
	return n
}

// specialLength returns how many bytes belong to a character after unescaped: a backslash escapes
// the next one. A control character is not valid.
func specialLength(c byte) int {
	if c == '\\' {
		return 2
	}
	return 1
}

// PlainASCII returns the length of the prefix of s before the first character that is not ASCII, a
// control character, a quote or a backslash. It checks eight characters at a time.
func PlainASCII(s string) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	rest := s
	for ; len(rest) >= 8; rest = rest[8:] {
		x := uint64(rest[0]) | uint64(rest[1])<<8 | uint64(rest[2])<<16 | uint64(rest[3])<<24 |
			uint64(rest[4])<<32 | uint64(rest[5])<<40 | uint64(rest[6])<<48 | uint64(rest[7])<<56
		// Top bits are those of bytes beyond ASCII; x-ones*n sets them where a byte is below n, as
		// far as the rest is ASCII. Borrowing can set them in bytes above such a one, but not
		// below, and only the lowest counts.
		special := (x | (x - ones*' ') | (x ^ ones*'"' - ones) | (x ^ ones*'\\' - ones)) & tops
		if special != 0 {
			return len(s) - len(rest) + bits.TrailingZeros64(special)/8
		}
	}
	for i := range len(rest) {
		if c := rest[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return len(s) - len(rest) + i
		}
	}
	return len(s)
}
