package insight

import (
	"strconv"
	"time"
)

// grouped formats a number with commas between groups of three digits.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func evaluations(n int64) string { return counted(n, "evaluation") }

// counted formats a number and a noun, which gets an s unless the number is 1.
func counted(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return grouped(n) + " " + noun + "s"
}

// times returns "once", or text such as "3 times".
func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return grouped(n) + " times"
}

// spanText formats a duration in the unit that fits.
func spanText(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return counted(int64(d/day), "day")
	case d >= 2*time.Hour:
		return counted(int64(d/time.Hour), "hour")
	case d >= 2*time.Minute:
		return counted(int64(d/time.Minute), "minute")
	default:
		return counted(int64(d/time.Second), "second")
	}
}

// dateText formats a date for a sentence, such as 3 January 2026.
func dateText(t time.Time) string { return t.UTC().Format("2 January 2006") }

// daysText formats a number of days.
func daysText(n int) string { return counted(int64(n), "day") }
