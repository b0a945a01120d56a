package insight

import (
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
)

func evaluations(n int64) string { return counted(n, "evaluation") }

// counted formats a number and a noun, which gets an s unless the number is 1.
func counted(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return catalog.Number(n) + " " + noun + "s"
}

// times returns "once", or text such as "3 times".
func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return catalog.Number(n) + " times"
}

// dateText formats a date for a sentence, such as 3 January 2026.
func dateText(t time.Time) string { return t.UTC().Format("2 January 2006") }

// daysText formats a number of days.
func daysText(n int) string { return counted(int64(n), "day") }
