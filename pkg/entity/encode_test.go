package entity

import (
	"strings"
	"testing"
)

func TestPlainASCII(t *testing.T) {
	t.Parallel()
	for length := range 20 {
		plain := strings.Repeat("a", length)
		if got := PlainASCII(plain); got != length {
			t.Errorf("%q: %d", plain, got)
		}
		for at := range length {
			for c := range 256 {
				special := c < ' ' || c == '"' || c == '\\' || c >= 0x80
				want := length
				if special {
					want = at
				}
				// What comes after the first special character must not matter.
				for _, rest := range []string{plain[at+1:], strings.Repeat("\"", length-at-1), strings.Repeat("\x00", length-at-1)} {
					s := plain[:at] + string([]byte{byte(c)}) + rest
					if rest != plain[at+1:] && !special {
						want = min(want, at+1)
					}
					if got := PlainASCII(s); got != want {
						t.Errorf("%q: %d, want %d", s, got, want)
					}
				}
			}
		}
	}
}

// TestAppendString puts texts together from pieces that JSON writes as they are, with a backslash,
// and in other ways.
func TestAppendString(t *testing.T) {
	t.Parallel()
	pieces := []string{"plain", `"`, `\`, "ä", "東京", "🙂", "\xff", "\xc3", "\n", "\r\n", "\t", "\b", "\x00", "\x7f", "\u2028", "\u2029", "<&>", ""}
	for _, first := range pieces {
		for _, second := range pieces {
			for _, third := range pieces {
				s := first + second + third
				want, err := EncodeJSON(s)
				if got := string(AppendString([]byte("x"), s)); err != nil || got != "x"+string(want) {
					t.Errorf("%q is %s, want %s, %v", s, got, want, err)
				}
				if IsPlain(s) != (string(want) == `"`+s+`"`) {
					t.Errorf("IsPlain(%q) is %t", s, IsPlain(s))
				}
			}
		}
	}
}
