package ui_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/ui"
)

// TestLongTextsAreShort: pages shorten texts that they only show. Each page would have megabytes of
// them otherwise, because it has them in many places, and a quote is five bytes long in HTML.
func TestLongTextsAreShort(t *testing.T) {
	t.Parallel()
	const length, most = 300_000, 600_000
	f, _ := counted(t)
	long := strings.Repeat(`"`, length)
	flag := f.flags[f.full]
	before := *flag
	flag.Description, flag.Notes = "Description "+long, strings.Repeat("&", length)
	for i := range flag.Segments {
		flag.Segments[i].Description = fmt.Sprintf("Segment %d %s", i, long)
		flag.Segments[i].Constraints = []entity.Constraint{{SegmentID: flag.Segments[i].ID, Property: "x", Operator: "EQ", Value: `"` + strings.Repeat("<", length) + `"`}}
		flag.Segments[i].Constraints[0].ID = uint(100 + i)
	}
	f.record(flag, long)
	for _, route := range ui.Routes() {
		method, path, _ := strings.Cut(route, " ")
		path = strings.NewReplacer("{$}", "", "{id}", "1").Replace(path)
		if method != http.MethodGet || path == "/ui/deleted/1" || path == "/ui/flags/1/targeting" || path == "/ui/flags/1/duplicate" || strings.HasSuffix(path, ".csv") {
			continue
		}
		for _, query := range []string{"", "?by=segment&tail=1", "?q=%22"} {
			if a := f.ask(t, http.MethodGet, path+query, nil); a.status != http.StatusOK || len(a.body) > most {
				t.Errorf("%s: %d, %d bytes", path+query, a.status, len(a.body))
			}
		}
	}
	for _, form := range []url.Values{
		{"context": {`{"x": "y"}`}, "do": {"made-up"}},
		{"context": {`{"x": "` + strings.Repeat("<", 20_000) + `"}`}, "do": {"made-up"}},
		{"many": {strings.Repeat("a", 20_000) + "," + strings.Repeat("b", 20_000)}, "context": {`{}`}, "do": {"many"}},
	} {
		if a := f.ask(t, http.MethodPost, "/ui/flags/1/try", form); a.status != http.StatusOK || len(a.body) > most || !strings.Contains(text(a.root), "…") {
			t.Errorf("try: %d, %d bytes", a.status, len(a.body))
		}
	}
	if a := f.ask(t, http.MethodGet, "/ui/flags/1/traffic?by=segment", nil); !strings.Contains(text(a.root), `Segment 0 """`) {
		t.Errorf("the legend has no name of a segment: %.3000s", text(a.root))
	}

	deleted := before
	deleted.Description = long
	deleted.DeletedAt.Valid, deleted.DeletedAt.Time = true, f.now
	f.flags[f.full] = &deleted
	for _, path := range []string{"/ui/deleted", "/ui/deleted/1"} {
		if a := f.ask(t, http.MethodGet, path, nil); a.status != http.StatusOK || len(a.body) > most {
			t.Errorf("%s: %d, %d bytes", path, a.status, len(a.body))
		}
	}
}

// TestFormsWithLongTextsAreRejected: pages repeat the texts of a form, and a quote has five bytes
// in HTML.
func TestFormsWithLongTextsAreRejected(t *testing.T) {
	t.Parallel()
	f, _ := counted(t)
	for path, field := range map[string]string{
		"/ui/flags/1/targeting": "v.0.key", "/ui/flags/1/try": "id", "/ui/new": "key", "/ui/flags/1/duplicate": "description",
		"/ui/flags/1/enabled": "snapshot", "/ui/flags/1/history": "version", "/ui/preferences": "back",
	} {
		form := f.form(t)
		form.Set(field, strings.Repeat(`"`, 1_000_000))
		a := f.ask(t, http.MethodPost, path, form)
		if a.status != http.StatusBadRequest || len(a.body) > 20_000 || !strings.Contains(a.body, "more than the 2,750,000 bytes that a page edits") {
			t.Errorf("%s: %d, %d bytes: %.1000s", path, a.status, len(a.body), a.body)
		}
	}
	form := f.form(t)
	form.Set("notes", strings.Repeat(`"`, 800_000))
	if a := f.press(t, form, "save"); a.status != http.StatusSeeOther {
		t.Fatalf("notes of 800,000 quotes: %d", a.status)
	}
	if a := f.press(t, f.form(t), "review"); a.status != http.StatusOK || len(words(a)) != 0 {
		t.Errorf("the form of long notes: %d, changes %q", a.status, words(a))
	}
	f.flags[f.full].Notes = strings.Repeat(`"`, 900_000)
	if a := f.ask(t, http.MethodGet, "/ui/flags/1/targeting", nil); !strings.Contains(text(a.root), "more than the 2,500,000 bytes that the page edits") {
		t.Errorf("a form for 900,000 quotes: %d, %d bytes", a.status, len(a.body))
	}
}

// TestPagesAreLimited: a page of more than 32 MiB is an error, and longer pages share memory.
func TestPagesAreLimited(t *testing.T) {
	t.Parallel()
	const path, size = "/ui/flags/1/duplicate", 1 << 20
	memory := budget.NewMemory(size)
	f := setup(t, func(o *ui.Options) { o.Memory = memory })
	f.flags[f.full].Description = strings.Repeat(`"`, 7_000_000)
	if a := f.ask(t, http.MethodGet, path, nil); a.status != http.StatusBadRequest || !strings.Contains(text(a.root), "more than 32 MiB") {
		t.Errorf("a page of 35 MB: %d, %d bytes", a.status, len(a.body))
	}
	f.flags[f.full].Description = strings.Repeat(`"`, 100_000)
	for used, want := range map[int64]int{0: http.StatusOK, size - 100_000: http.StatusServiceUnavailable} {
		if err := memory.Take(used); err != nil {
			t.Fatal(err)
		}
		if a := f.ask(t, http.MethodGet, path, nil); a.status != want {
			t.Errorf("%d bytes of memory are used: %d, want %d", used, a.status, want)
		}
		if a := f.ask(t, http.MethodGet, "/ui/flags/1", nil); a.status != http.StatusOK {
			t.Errorf("%d bytes of memory are used: a short page has %d", used, a.status)
		}
		memory.Release(used)
	}
	if err := memory.Take(size); err != nil {
		t.Errorf("pages keep memory: %v", err)
	}
}

// TestNumbersThatNeedTooMuchMemory: pages do not blame the database for numbers that other requests
// leave no memory for.
func TestNumbersThatNeedTooMuchMemory(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	numbers.err = fmt.Errorf("read counts: %w", budget.ErrExhausted)
	for _, path := range []string{"/ui/flags/1", "/ui/flags/1/traffic", "/ui/flags/1/nothing"} {
		a := f.ask(t, http.MethodGet, path, nil)
		if page := text(a.root); a.status != http.StatusOK || !strings.Contains(page, "Other requests use the available memory") || strings.Contains(page, "database did not answer") {
			t.Errorf("%s: %d %.2000s", path, a.status, page)
		}
	}
}

// TestWideTablesHaveFewRows: the product of the lines of a series and its buckets is limited.
func TestWideTablesHaveFewRows(t *testing.T) {
	t.Parallel()
	f, _ := counted(t)
	flag := f.flags[f.full]
	for i := range 3000 {
		v := entity.Variant{FlagID: flag.ID, Key: fmt.Sprintf("variant-%d", i)}
		v.ID = uint(1000 + i)
		flag.Variants = append(flag.Variants, v)
	}
	a := f.ask(t, http.MethodGet, "/ui/flags/1/traffic?by=variant", nil)
	if n := strings.Count(a.body, "<td"); a.status != http.StatusOK || n > 45_000 || n < 35_000 || !strings.Contains(text(a.root), "18 more rows") {
		t.Errorf("status %d, %d cells: %s", a.status, n, text(a.root)[max(0, len(text(a.root))-300):])
	}
}
