package ui_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// TestPagesOfLargeAttachmentsAreSmall: pages show no attachment that would be megabytes on them,
// also if it is short without the indents of its lines.
func TestPagesOfLargeAttachmentsAreSmall(t *testing.T) {
	t.Parallel()
	for name, large := range map[string]any{
		"long":     strings.Repeat("<", 3_000_000),
		"indented": json.RawMessage(strings.Repeat("[", 90) + strings.Repeat("1,", 30_000) + "1" + strings.Repeat("]", 90)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, err := json.Marshal(map[string]any{"large": large})
			if err != nil {
				t.Fatal(err)
			}
			f := setup(t)
			flag := f.flags[f.full]
			small := *flag
			if err := json.Unmarshal(source, &flag.Variants[0].Attachment); err != nil {
				t.Fatal(err)
			}
			f.record(flag, "ada@example.com")
			first := flag.SnapshotID
			after := *flag
			after.Notes = "A later version"
			f.flags[f.full] = &after
			f.record(&after, "ada@example.com")
			for path, want := range map[string]string{
				"/ui/flags/1":           "The attachment has more than the 65,536 bytes that this page shows.",
				"/ui/flags/1/targeting": "more than the 2,500,000 bytes that the page edits",
				"/ui/flags/1/history":   "The attachment has more than the 65,536 bytes that this page shows.",
			} {
				a := f.ask(t, http.MethodGet, path, nil)
				checkPage(t, f, path, a)
				if page := text(a.root); a.status != http.StatusOK || len(a.body) > 40_000 || !strings.Contains(page, want) {
					t.Errorf("%s: %d, %d bytes: %.3000s", path, a.status, len(a.body), page)
				}
			}
			a := f.ask(t, http.MethodPost, "/ui/flags/1/try", url.Values{"id": {"u1"}, "context": {`{"country": "FR", "age": 20}`}, "do": {"try"}})
			if a.status != http.StatusOK || len(a.body) > 40_000 {
				t.Errorf("try: %d, %d bytes", a.status, len(a.body))
			}
			form := url.Values{"snapshot": {strconv.FormatUint(uint64(after.SnapshotID), 10)}, "whole": {"1"}, "key": {"k"}}
			for path, more := range map[string]url.Values{
				"/ui/flags/1/targeting": {"do": {"review"}},
				"/ui/flags/1/try":       {"do": {"draft"}},
				"/ui/flags/1/history":   {"version": {strconv.FormatUint(uint64(first), 10)}},
			} {
				maps.Copy(more, form)
				a := f.ask(t, http.MethodPost, path, more)
				if page := text(a.root); a.status != http.StatusBadRequest || len(a.body) > 20_000 || !strings.Contains(page, "2,500,000") {
					t.Errorf("POST %s: %d, %d bytes: %.2000s", path, a.status, len(a.body), page)
				}
			}
			small.Notes = "Without it"
			f.flags[f.full] = &small
			f.record(&small, "ada@example.com")
			a = f.ask(t, http.MethodPost, "/ui/flags/1/history", url.Values{"version": {strconv.FormatUint(uint64(first), 10)}})
			if page := text(a.root); a.status != http.StatusBadRequest || !strings.Contains(page, "of the version have more than the 2,500,000 bytes") {
				t.Errorf("a version that is too large to restore: %d: %.2000s", a.status, page)
			}
		})
	}
}

// TestPagesOfManyAttachmentsAreSmall: each of 1,000 attachments of 0.6 KB has 55 KB on a page,
// because of its indents.
func TestPagesOfManyAttachmentsAreSmall(t *testing.T) {
	t.Parallel()
	f := setup(t)
	flag := f.flags[f.full]
	var large entity.Attachment
	if err := json.Unmarshal([]byte(`{"large":`+strings.Repeat("[", 90)+strings.Repeat("1,", 200)+"1"+strings.Repeat("]", 90)+"}"), &large); err != nil {
		t.Fatal(err)
	}
	for i := range uint(1000) {
		flag.Variants = append(flag.Variants, entity.Variant{Model: entity.Model{ID: 1000 + i}, FlagID: flag.ID, Key: "v" + strconv.Itoa(int(i)), Attachment: large})
	}
	f.record(flag, "ada@example.com")
	after := *flag
	after.Variants = after.Variants[1:]
	f.flags[f.full] = &after
	f.record(&after, "ada@example.com")
	for _, path := range []string{"/ui/flags/1", "/ui/flags/1/history"} {
		a := f.ask(t, http.MethodGet, path, nil)
		if a.status != http.StatusOK || len(a.body) > 3_000_000 {
			t.Errorf("%s: %d, %d bytes", path, a.status, len(a.body))
		}
		if page := text(a.root); path == "/ui/flags/1" && strings.Count(page, "more than the 1,048,576 bytes that this page shows") < 900 {
			t.Errorf("%s: %.3000s", path, page)
		}
	}
}

// TestHistoryShowsChangedAttachments: differences are in the lines, and long lines are cut.
func TestHistoryShowsChangedAttachments(t *testing.T) {
	t.Parallel()
	f := setup(t)
	after := *f.flags[f.full]
	after.Variants = append([]entity.Variant(nil), after.Variants...)
	after.Variants[0].Attachment = entity.Attachment(`{"color":"#000","more":"` + strings.Repeat("é", 3000) + `"}`)
	f.flags[f.full] = &after
	f.record(&after, "ada@example.com")
	a := f.ask(t, http.MethodGet, "/ui/flags/1/history", nil)
	page := text(a.root)
	for _, want := range []string{"Attachment of blue has changed.", `"color": "#2f74c9"`, `"color": "#000"`, strings.Repeat("é", 1900), "é…"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %.40q in %.3000s", want, page)
		}
	}
	if strings.Contains(page, strings.Repeat("é", 2001)) {
		t.Error("a long line is not cut")
	}
}
