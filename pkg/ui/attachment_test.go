package ui

import (
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// TestTheLengthOfIndentedAttachments: it is known without the text.
func TestTheLengthOfIndentedAttachments(t *testing.T) {
	t.Parallel()
	for _, source := range []string{
		`{"a": 1}`,
		`{"a": "x", "b": [1, 2.50, null, true], "c": {}, "d": [], "e": [[], {}, [{}]]}`,
		`{"a": {"b": {"c": [[1], [2, 3]]}}}`,
		`{"\"\\ <>&'+\u0001": "\"\\ <>&'+\u0001\b\n\r\t\u2028\u2029", "{[,:": "]}\\"}`,
		`{"long": "` + strings.Repeat("ü", 1000) + `", "b": false}`,
	} {
		a, err := entity.ParseAttachment(source)
		if err != nil {
			t.Fatal(err)
		}
		const most = 1 << 20
		if got, want := most-afterIndented(a, most), formBytes(attachmentText(a)); got != want {
			t.Errorf("%.60s: %d, want %d", source, got, want)
		}
		if left := afterIndented(a, 3); left >= 0 {
			t.Errorf("%.60s fits into 3 characters: %d are left", source, left)
		}
	}
	if left := afterIndented("", 0); left != 0 {
		t.Errorf("null: %d are left, want 0", left)
	}
}
