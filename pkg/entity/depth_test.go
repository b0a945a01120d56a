package entity_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

func nested(levels int, inner string) string {
	return strings.Repeat(`{"a":`, levels) + inner + strings.Repeat("}", levels)
}

func TestDepthOfAttachments(t *testing.T) {
	t.Parallel()
	for text, refused := range map[string]bool{
		nested(100, "1"):   false,
		nested(101, "1"):   true,
		nested(99, "[]"):   false,
		nested(99, "[[]]"): true,
		`{"a":[` + nested(98, "1") + `],"b":"` + `[[[` + `"}`:                         false,
		`{"a":"` + strings.Repeat("[", 200) + `"}`:                                    false,
		`{"b":1,"a":[1,` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `]}`: true,
	} {
		var a entity.Attachment
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			t.Fatal(err)
		}
		if err := a.CheckDepth(); (err != nil) != refused || err != nil && (!errors.Is(err, entity.ErrInvalid) || !strings.Contains(err.Error(), "100 levels")) {
			t.Errorf("%.60s: error %v, want one: %t", text, err, refused)
		}
	}
}

// TestDeepJSONIsRead has what was stored before there was a limit, in the deepest form that
// decoders took.
func TestDeepJSONIsRead(t *testing.T) {
	t.Parallel()
	deep := nested(9998, "1")
	var a entity.Attachment
	if err := a.Scan(deep); err != nil || a == "" {
		t.Fatalf("scan: %v", err)
	}
	text := `{"Key":"k","Variants":[{"Key":"\"]}[{","Attachment":` + deep + `},{"Key":"b","Attachment":{"x":[1]}}],"Notes":"n"}`
	flag, err := entity.DecodeFlag([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if flag.Notes != "n" || len(flag.Variants) != 2 || flag.Variants[1].Attachment != `{"x":[1]}` || flag.Variants[0].Key != `"]}[{` {
		t.Errorf("got %+v", flag)
	}
	for range 3 { // each time as a part of something else
		encoded, err := json.Marshal(map[string]any{"x": []any{flag}})
		if err != nil {
			t.Fatal(err)
		}
		var back any
		if err := json.Unmarshal(encoded, &back); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShallowHasTheSameLength cuts JSON whose shallow form is as long as the JSON: each null is
// shorter than the deep list, and longer than the empty ones.
func TestShallowHasTheSameLength(t *testing.T) {
	t.Parallel()
	for _, inner := range []string{"[12]", "[[]]", strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + strings.Repeat(",[]", 9996/2)} {
		text := strings.Repeat("[", 1000) + inner + strings.Repeat("]", 1000)
		want := strings.Repeat("[", 1000) + "null" + strings.Repeat(",null", strings.Count(inner, ",")) + strings.Repeat("]", 1000)
		if len(want) != len(text) {
			t.Fatalf("%.10s: %d bytes, want %d", inner, len(want), len(text))
		}
		if got := entity.Shallow([]byte(text)); string(got) != want {
			t.Errorf("%.10s is not cut", inner)
		}
	}
}

func FuzzShallow(f *testing.F) {
	f.Add(`{"a":"\\\"[","b":[1,{}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		if !json.Valid([]byte(text)) {
			return
		}
		if got := entity.Shallow([]byte(text)); string(got) != text && strings.Count(text, "{")+strings.Count(text, "[") <= 1000 {
			t.Errorf("changed %q to %q", text, got)
		}
		wrapped := strings.Repeat("[", 1000) + text + strings.Repeat("]", 1000)
		got := entity.Shallow([]byte(wrapped))
		if !json.Valid(got) || strings.Count(string(got), "[") < 1000 {
			t.Errorf("%q in 1,000 lists became %q", text, got)
		}
		if c := strings.TrimLeft(text, " \t\r\n")[0]; (c == '[' || c == '{') && strings.Count(string(got), "[")+strings.Count(string(got), "{") != 1000 {
			t.Errorf("%q in 1,000 lists is not cut: %q", text, got)
		}
	})
}
