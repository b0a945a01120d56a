package ingest

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

func TestReceiptsAreNotLargerThanWhatWasSent(t *testing.T) {
	t.Parallel()
	result := Result{}
	for i := range MaxRows {
		result.Errors = append(result.Errors, RowError{Index: i, Code: FlagNotFound, Message: `there is no flag ""`})
	}
	answer, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	sent := MaxRows * len(`{},`)
	kept := packed(answer)
	if len(kept) > 3*sent {
		t.Errorf("%d bytes are kept of %d for %d that were sent", len(kept), len(answer), sent)
	}
	for _, text := range []string{kept, string(answer), `{"acceptedRows":3}`} {
		got, err := unpacked(text)
		if err != nil || !json.Valid(got) || text == kept && string(got) != string(answer) {
			t.Errorf("%.40s: error %v, %.40s", text, err, got)
		}
	}
	const other = `{"errors":[{"message":"there is no flag \"👍\""}]}`
	kept = packed([]byte(other))
	if got, err := unpacked(kept); err != nil || string(got) != other || strings.ContainsFunc(kept, func(r rune) bool { return r > unicode.MaxASCII }) {
		t.Errorf("%s is kept as %s, and read as %s, error %v", other, kept, got, err)
	}
	if _, err := unpacked("gzip:???"); err == nil {
		t.Error("damage is not noticed")
	}
}
