package ui

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// TestTheLengthOfIndentedAttachments: it is known without the text, up to a character for each list, object and literal.
func TestTheLengthOfIndentedAttachments(t *testing.T) {
	t.Parallel()
	for _, source := range []string{
		`{"a": 1}`,
		`{"a": "x", "b": [1, 2.50, null, true]}`,
		`{"a": {"b": {"c": [[1], [2, 3]]}}}`,
		`{"\"\\ <>&'+\u0001": "\"\\ <>&'+\u0001\n\r\t\u2028\u2029"}`,
		`{"long": "` + strings.Repeat("ü", 1000) + `", "b": false}`,
	} {
		var a entity.Attachment
		if err := json.Unmarshal([]byte(source), &a); err != nil {
			t.Fatal(err)
		}
		const most = 1 << 20
		shortest := formBytes(attachmentText(a))
		longest := shortest + strings.Count(source, "{") + strings.Count(source, "[") + strings.Count(source, "null") + strings.Count(source, "true")
		if got := most - afterIndented(map[string]any(a), 0, most); got < shortest || got > longest {
			t.Errorf("%.60s: %d, want %d to %d", source, got, shortest, longest)
		}
		if left := afterIndented(map[string]any(a), 0, 3); left >= 0 {
			t.Errorf("%.60s fits into 3 characters: %d are left", source, left)
		}
	}
}
