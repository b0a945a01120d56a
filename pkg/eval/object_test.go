package eval

import (
	"math"
	"strconv"
	"testing"
)

func TestParseNumber(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"0", "-0", "7", "-7", "10", "123456789012345", "999999999999999", "1234567890123456", "9007199254740993", "1e3", "1.5", "0.1", "-2.5e-3", "1e308", "1e999", "1e-999",
	} {
		want, err := strconv.ParseFloat(raw, 64)
		got, ok := parseNumber(raw)
		if ok != (err == nil) || ok && math.Float64bits(got) != math.Float64bits(want) {
			t.Errorf("%s is %v, %v, want %v, %v", raw, got, ok, want, err)
		}
	}
}
