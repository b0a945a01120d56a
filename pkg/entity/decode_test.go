package entity

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// FuzzDecodeJSON compares DecodeJSON with encoding/json.
func FuzzDecodeJSON(f *testing.F) {
	for _, text := range []string{
		`{}`, ` { } `, `{"a":1}`, "\t{\"a\" :\n[ 1 , -2.50e+3 , [ ] , { } ] }\r\n", `{"a":"x","a":{"b":null}}`, `{"é":"\u00e9\ud83d\ude00\n\"\\","\u0061":"\ud800"}`,
		"{\"\xff\":\"\xfe\"}", `{"t":true,"f":false,"n":null}`, `{"large":123456789012345678901234567890,"e":1E400}`, `null`, `[]`, `"x"`, `1`, ``, ` `, `{`, `{"a":}`, `{} x`, `{"a":01}`,
		`{"a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, `{"a":` + strings.Repeat("[", 10001) + strings.Repeat("]", 10001) + `}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var want any
		if json.Valid([]byte(text)) {
			decoder := json.NewDecoder(strings.NewReader(text))
			decoder.UseNumber()
			if err := decoder.Decode(&want); err != nil {
				t.Fatal(err)
			}
		}
		if got := DecodeJSON(text); !reflect.DeepEqual(got, want) {
			t.Errorf("%.200q: %#v, want %#v", text, got, want)
		}
	})
}

// FuzzAbridged compares a text with its abridged form. Each x stands for a run of a hundred.
func FuzzAbridged(f *testing.F) {
	for _, text := range []string{
		`{"a":"x","b":"axb","":["x",1,"short"]}`, `"x`, `"x\`, `"\`, `"x\"x"`, `"x\\"`, `"x\u00e9x"`, `"\u00x"`, `"\ux0e9x"`, "\"éx東京x\xffx\"", "\"x\x01x\"", "\"x\n\",1",
		`"x" "x"`, `x`, `{"x":"x","x":"x"}`, `["x","x"`, `"x\qx"`, `"x\`, "\"\x01\"x\"", `{"a":"xxxxxxxxxx"}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.Repeat(" ", longText) + strings.ReplaceAll(text, "x", strings.Repeat("x", 100))
		before := strings.Clone(text)
		got := Abridged([]byte(text))
		if json.Valid(got) != json.Valid([]byte(text)) {
			t.Fatalf("%q: valid: %t, want %t: %q", text[longText:], json.Valid(got), json.Valid([]byte(text)), got[longText:])
		}
		if !json.Valid(got) {
			return
		}
		whole, abridged := json.NewDecoder(strings.NewReader(text)), json.NewDecoder(strings.NewReader(string(got)))
		for {
			want, err := whole.Token()
			token, _ := abridged.Token()
			if s, ok := want.(string); ok && len(s) > longRun {
				if short, ok := token.(string); !ok || len(short) > len(s) {
					t.Fatalf("%q became %q", want, token)
				}
			} else if token != want {
				t.Fatalf("%q became %q", want, token)
			}
			if err != nil {
				break
			}
		}
		if text != before {
			t.Error("the text has changed")
		}
	})
}

// TestTextsWithFewLongStringsAreNotAbridged: it would take longer than what it saves, and as much
// memory as the text.
func TestTextsWithFewLongStringsAreNotAbridged(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"one long string":   `["` + strings.Repeat("x", 1000) + strings.Repeat(`","a`, 1<<18) + `"]`,
		"some long runs":    `["` + strings.Repeat(strings.Repeat("x", 100)+strings.Repeat(`short\n`, 100), 1<<10) + `"]`,
		"some long strings": `["` + strings.Repeat(strings.Repeat("x", 100)+strings.Repeat(`","a`, 100), 1<<11) + `"]`,
	} {
		if got := Abridged([]byte(text)); len(got) != len(text) {
			t.Errorf("%s: %d bytes became %d", name, len(text), len(got))
		}
	}
}

// TestAbridgedIsShort abridges texts of a megabyte.
func TestAbridgedIsShort(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text string
		most int
	}{
		"a long string":         {`{"a":"` + strings.Repeat("x", 1<<20) + `"}`, 50},
		"with escapes":          {`{"a":"` + strings.Repeat(strings.Repeat("é", 500)+`\"\u00e9`, 1000) + `"}`, 20_000},
		"after short ones":      {`["` + strings.Repeat(`a","`, triedRuns/2) + strings.Repeat("x", 1<<20) + `"]`, 3000},
		"after many short ones": {`["` + strings.Repeat(`a","`, 2*triedRuns) + strings.Repeat("x", 1<<20) + `"]`, 2 << 20},
		"a short text":          {`"` + strings.Repeat("x", longText/2) + `"`, longText},
	} {
		if got := Abridged([]byte(tc.text)); !json.Valid(got) || len(got) > tc.most {
			t.Errorf("%s: %d bytes, want at most %d valid ones", name, len(got), tc.most)
		}
	}
}

// BenchmarkAttachment decodes an attachment from the database.
func BenchmarkAttachment(b *testing.B) {
	for name, text := range map[string]string{
		"usual":  `{"color":"#2f74c9","size":12,"labels":["buy","now"],"nested":{"a":true,"b":null}}`,
		"string": `{"value":"` + strings.Repeat("x", 8_000_000) + `"}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				var a Attachment
				if err := a.Scan(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
