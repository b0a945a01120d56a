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
