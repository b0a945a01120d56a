package entity

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// decodedFlag is a flag with all parts, as DecodeFlag returns it.
func decodedFlag() *Flag {
	at := func(id uint) Model {
		return Model{ID: id, CreatedAt: time.Date(2026, 11, 21, 17, 10, 10, 827847483, time.UTC), UpdatedAt: time.Date(2026, 11, 22, 0, 0, 0, 0, time.FixedZone("", 2*3600))}
	}
	return &Flag{
		Model: at(1), Key: "first-flag", Description: `says "hi" \ <b>` + "\n", CreatedBy: "ann", UpdatedBy: "ünal 東京", Enabled: true, SnapshotID: 18446744073709551615,
		Segments: []Segment{
			{Model: at(2), FlagID: 1, Description: "fr", Rank: 999, RolloutPercent: 100,
				Constraints:   []Constraint{{Model: at(3), SegmentID: 2, Property: "country", Operator: "EQ", Value: `"FR"`}, {Model: at(4), SegmentID: 2, Property: "age", Operator: "GT", Value: "21"}},
				Distributions: []Distribution{{Model: at(5), SegmentID: 2, VariantID: 7, VariantKey: "on", Percent: 50}, {Model: at(6), SegmentID: 2, VariantID: 8, VariantKey: "off", Percent: 50}}},
			{Model: at(9), FlagID: 1, Constraints: []Constraint{}},
		},
		Variants: []Variant{
			{Model: at(7), FlagID: 1, Key: "on", Attachment: `{"a":[1,{"b":"x\"}"}],"c":1e3}`}, {Model: at(8), FlagID: 1, Key: "off"}, {Model: at(10), FlagID: 1, Attachment: `{}`},
		},
		Tags:  []Tag{{Model: at(11), Value: "web"}},
		Notes: "# notes\u2028", DataRecordsEnabled: true, EntityType: "user",
	}
}

// checkDecoded compares DecodeFlag with encoding/json.
func checkDecoded(t *testing.T, text string) *Flag {
	t.Helper()
	want := &Flag{}
	wantErr := json.Unmarshal(Shallow([]byte(text)), want)
	got, err := DecodeFlag([]byte(text))
	if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
		t.Fatalf("%s: %v, want %v", text, err, wantErr)
	}
	if err == nil && !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n%+v, want\n%+v", text, got, want)
	}
	reused := []byte(text)
	bare, err := DecodeBareFlag(reused)
	clear(reused)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%s: without attachments: %v, want %v", text, err, wantErr)
	}
	for i := range want.Variants {
		want.Variants[i].Attachment = ""
	}
	if err == nil && !reflect.DeepEqual(bare, want) {
		t.Errorf("%s: without attachments:\n%+v, want\n%+v", text, bare, want)
	}
	return got
}

func isRead(text string) bool {
	r := flagReader{text: text}
	return r.readAll(&Flag{})
}

// TestDecodeFlag decodes what servers write without encoding/json, and everything else with it.
func TestDecodeFlag(t *testing.T) {
	t.Parallel()
	flag := decodedFlag()
	ours := string(EncodeFlag(flag))
	escaped, err := json.Marshal(flag) // as Flagr does
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"ours": ours, "Flagr's": string(escaped), "an empty flag": string(EncodeFlag(&Flag{}))} {
		if !isRead(text) {
			t.Errorf("%s needs encoding/json: %s", name, text)
		}
		checkDecoded(t, text)
	}
	if got := checkDecoded(t, ours); got.Segments[0].Constraints[0].Value != `"FR"` || got.Variants[0].Attachment != flag.Variants[0].Attachment || got.Tags[0].Value != "web" {
		t.Errorf("decoded as %+v", got)
	}
	for i := range len(ours) { // cut off, and with a character too many
		checkDecoded(t, ours[:i])
		checkDecoded(t, ours[:i]+ours[i+1:])
		for _, more := range []string{" ", `"`, "0", `\`, "}", "{", "x", "\xff", "\x01"} {
			checkDecoded(t, ours[:i]+more+ours[i:])
		}
	}
	deep := func(levels int) string {
		return strings.Replace(ours, `"Attachment":{}`, `"Attachment":{"a":`+strings.Repeat("[", levels)+strings.Repeat("]", levels)+"}", 1)
	}
	for name, odd := range map[string]string{
		"other names":                   strings.Replace(ours, `"Key"`, `"key"`, 1),
		"another order":                 strings.Replace(ours, `"CreatedBy":"ann","UpdatedBy":"ünal 東京"`, `"UpdatedBy":"ünal 東京","CreatedBy":"ann"`, 1),
		"deleted":                       strings.Replace(ours, `"DeletedAt":null`, `"DeletedAt":"2026-11-21T17:10:10Z"`, 1),
		"a time that is bad":            strings.Replace(ours, `"CreatedAt":"2026`, `"CreatedAt":"26`, 1),
		"no time":                       strings.Replace(ours, `"CreatedAt":"2026-11-21T17:10:10.827847483Z"`, `"CreatedAt":null`, 1),
		"an escaped time":               strings.Replace(ours, `"CreatedAt":"2026-`, `"CreatedAt":"2026\u002d`, 1),
		"a number too many":             strings.Replace(ours, `"Percent":50`, `"Percent":184467440737095516160`, 1),
		"a leading zero":                strings.Replace(ours, `"Percent":50`, `"Percent":050`, 1),
		"a fraction":                    strings.Replace(ours, `"Percent":50`, `"Percent":50.0`, 1),
		"flags of a tag":                strings.Replace(ours, `"Flags":null`, `"Flags":[]`, 1),
		"an unknown member":             strings.Replace(ours, `"Notes"`, `"More":1,"Notes"`, 1),
		"white space":                   strings.ReplaceAll(ours, `,`, ` , `),
		"an attachment that is a list":  strings.Replace(ours, `"Attachment":{}`, `"Attachment":[]`, 1),
		"an attachment that is no JSON": strings.Replace(ours, `"Attachment":{}`, `"Attachment":{"a"}`, 1),
		"a deep attachment":             deep(MaxJSONDepth),
		"a very deep attachment":        deep(maxReadDepth),
	} {
		if odd == ours || isRead(odd) {
			t.Errorf("%s is read without encoding/json", name)
		}
		checkDecoded(t, odd)
	}
	for name, odd := range map[string]string{
		"attachments in another order": strings.Replace(ours, `"Attachment":{}`, `"Attachment":{ "b":1, "a":"\u0062", "b":2}`, 1),
		"invalid UTF-8":                strings.Replace(ours, "first-flag", "first-\xff", 1),
	} {
		if odd == ours || !isRead(odd) {
			t.Errorf("%s needs encoding/json", name)
		}
		checkDecoded(t, odd)
	}
}

// FuzzDecodeFlag compares DecodeFlag with encoding/json.
func FuzzDecodeFlag(f *testing.F) {
	f.Add(string(EncodeFlag(decodedFlag())))
	f.Add(string(EncodeFlag(&Flag{})))
	f.Fuzz(func(t *testing.T, text string) { checkDecoded(t, text) })
}

// BenchmarkDecodeFlag compares the two ways.
func BenchmarkDecodeFlag(b *testing.B) {
	text := EncodeFlag(decodedFlag())
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeFlag(text); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := json.Unmarshal(text, &Flag{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
