package entity

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

// FuzzAttachment compares attachments with encoding/json, which decodes and encodes.
func FuzzAttachment(f *testing.F) {
	for _, text := range []string{
		`{}`, ` { } `, `{"a":1}`, "\t{\"a\" :\n[ 1 , -2.50e+3 , [ ] , { } ] }\r\n", `{"a":"x","a":{"b":null}}`, `{"é":"\u00e9\ud83d\ude00\n\"\\","\u0061":"\ud800"}`,
		"{\"\xff\":\"\xfe\"}", `{"t":true,"f":false,"n":null}`, `{"large":123456789012345678901234567890,"e":1E400}`, `null`, ` null `, `[]`, `"x"`, `1`, `true`, ``, ` `, `{`, `{"a":}`,
		`{} x`, `{"b":1,"a":2} x`, `null x`, `[] x`, `{"a":01}`, `{"b":1,"a":2}`, `{"c":{"z":1,"y":{"2":[],"1":{}}},"b":[{"q":1,"p":2}],"a":3}`, `{"a":1,"b":2,"a":3}`, `{"b":1,"b":2}`,
		`{"a":"\u0000\u0001\b\f\n\r\t\u000b\u001f\u001F\u0008\u007f\u2028\u2029\u202a\/\u003c<>&"}`, "{\"a\":\"\u2028\u2029\u202a\u007f\"}", `{"\u003c":1,"<":2}`, `{"a\"b":{"\\":1,"\"":2}}`,
		`{"a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, `{"a":` + strings.Repeat("[", 10001) + strings.Repeat("]", 10001) + `}`,
		`{"😀":1,"ｚ":2}`, "{\"\\ud800\":1,\"\xff\":2,\"\uFFFD\":3}",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var object map[string]any
		decoder := json.NewDecoder(strings.NewReader(shallow(text)))
		decoder.UseNumber()
		wantErr := decoder.Decode(&object)
		if text == "" {
			return // NULL
		}
		var got Attachment
		err := got.Scan(text)
		if (err == nil) != (wantErr == nil) || err != nil && err.Error() != "scan attachment: "+wantErr.Error() {
			t.Fatalf("%.200q: %v, want %v", text, err, wantErr)
		}
		deep := Deeper(object, MaxJSONDepth)
		parsed, err := ParseAttachment(text)
		if valid := json.Valid([]byte(text)); (err == nil) != (valid && wantErr == nil && !deep) || err == nil && parsed != got {
			t.Fatalf("%.200q: parsed %q, %v; scanned %q", text, parsed, err, got)
		}
		if wantErr != nil || deep {
			return
		}
		want, err := EncodeJSON(object)
		if err != nil {
			t.Fatal(err)
		}
		if got.JSON() != string(want) || (got == "") != (object == nil) {
			t.Fatalf("%.200q: %q, want %q", text, got.JSON(), want)
		}
		if again, err := ParseAttachment(got.JSON()); err != nil || again != got {
			t.Errorf("%q is not canonical: %q, %v", got, again, err)
		}
		for _, name := range []string{"a", "", "é"} {
			value, ok := object[name]
			if want, _ := EncodeJSON(value); got.Member(name) != string(want) && ok || !ok && got.Member(name) != "" {
				t.Errorf("%q: member %q is %q, want %q", got, name, got.Member(name), want)
			}
		}
		if got.HasMembers() != (len(object) > 0) {
			t.Errorf("%q has members: %t", got, got.HasMembers())
		}
		for _, levels := range []int{1, 2, 100} {
			if got.deeper(levels) != Deeper(object, levels) && object != nil {
				t.Errorf("%q is deeper than %d: %t", got, levels, got.deeper(levels))
			}
		}
	})
}

// TestAttachmentsOfAnyForm: the order of names, repeated names, white space, escapes and invalid
// UTF-8 make no difference.
func TestAttachmentsOfAnyForm(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		text := randomJSON(random, 4)
		if text[0] != '{' {
			text = `{"a":` + text + `}`
		}
		object := DecodeJSON(text)
		want, err := EncodeJSON(object)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseAttachment(text)
		if err != nil || string(got) != string(want) {
			t.Fatalf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

func randomJSON(random *rand.Rand, depth int) string {
	pick := func(all ...string) string { return all[random.IntN(len(all))] }
	space := func() string { return pick("", "", "", " ", "\n\t") }
	text := func() string {
		s := ""
		for range random.IntN(3) {
			s += pick("a", "b", "c", "z", `\n`, `\u000A`, `\u001b`, `\u001B`, `\/`, `\"`, `\\`, `\u003c`, "<", "é", `\u00e9`, "\u2028", `\u2028`, "\xff", `\ud83d\ude00`, `\ud83d`, "\x7f")
		}
		return `"` + s + `"`
	}
	kinds := 4
	if depth == 0 {
		kinds = 2
	}
	var parts []string
	switch random.IntN(kinds) {
	case 0:
		return text()
	case 1:
		return pick("1", "-0", "1.50", "1E+5", "true", "false", "null", "12345678901234567890")
	case 2:
		for range random.IntN(4) {
			parts = append(parts, space()+randomJSON(random, depth-1)+space())
		}
		return "[" + strings.Join(parts, ",") + "]"
	default:
		for range random.IntN(5) {
			parts = append(parts, space()+text()+space()+":"+space()+randomJSON(random, depth-1)+space())
		}
		return "{" + space() + strings.Join(parts, ",") + "}"
	}
}
