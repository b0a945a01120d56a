package ui

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

const (
	// historyPage is the number of versions on a page.
	historyPage = 20
	// maxDiffLines limits the lines of two texts that are compared line by line, and maxDiffPairs
	// the pairs of lines that are compared for all versions of a page: about 10 ms.
	maxDiffLines = 2000
	maxDiffPairs = 4_000_000
	// maxLineRunes limits the characters of a line that is shown.
	maxLineRunes = 2000
	// soughtSnapshots is how far back a version's page is searched.
	soughtSnapshots = 200
)

type historyData struct {
	Head       flagHead
	Answer     template.HTML
	Versions   []versionView
	Prev, Next string
}

type versionView struct {
	ID         uint
	Name       string
	At         template.HTML
	By         string
	Words      []template.HTML
	Diff       []diffLine
	Open       bool
	Newest     bool
	Restorable bool
	// Counts is the page with the evaluations before and after the change; empty without counts.
	Counts string
}

type diffLine struct{ Kind, Text string }

// history shows what each version changed, in words and as JSON.
func (u *UI) history(rw http.ResponseWriter, r *http.Request) error {
	f, _, err := u.flag(r)
	if err != nil {
		return err
	}
	n := pageNumber(r)
	asked, _ := strconv.ParseUint(r.URL.Query().Get("snapshot"), 10, 63)
	if asked > 0 && !r.URL.Query().Has("page") {
		if n, err = u.historyPageOf(r, int64(f.ID), uint(asked)); err != nil {
			return err
		}
	}
	rows, err := u.o.Store.Snapshots(r.Context(), int64(f.ID), historyPage+1, (n-1)*historyPage)
	if err != nil {
		return err
	}
	p, head := u.flagPage(r, f, "history")
	d := &historyData{Head: head}
	d.Prev, d.Next = pageLinks(n, len(rows) > historyPage)
	d.Answer = u.text.say("history.answer", "at", p.Time(f.UpdatedAt, ""), "by", catalog.Name(shortName(f.UpdatedBy)))
	if f.UpdatedBy == "" {
		d.Answer = u.text.say("history.answer.unnamed", "at", p.Time(f.UpdatedAt, ""))
	}
	pairs := maxDiffPairs
	var after, before *entity.Flag // two versions, and their lines
	var afterLines, beforeLines []string
	if len(rows) > 0 {
		before, beforeLines = u.version(&rows[0])
	}
	for i := range rows[:min(len(rows), historyPage)] {
		if err := r.Context().Err(); err != nil {
			return fmt.Errorf("compare versions: %w", err)
		}
		row := &rows[i]
		after, afterLines, before, beforeLines = before, beforeLines, nil, nil
		if i+1 < len(rows) {
			before, beforeLines = u.version(&rows[i+1])
		}
		v := versionView{
			ID: row.ID, Name: strconv.FormatUint(uint64(row.ID), 10), At: p.Time(row.CreatedAt, ""), By: shortName(row.UpdatedBy),
			Newest: n == 1 && i == 0, Restorable: after != nil && !after.DeletedAt.Valid, Open: uint64(row.ID) == asked,
		}
		v.Words = u.versionWords(before, after, i+1 == len(rows))
		if u.o.Numbers != nil {
			v.Counts = aroundChange(p, row)
		}
		if after != nil {
			v.Diff = diffLines(beforeLines, afterLines, &pairs)
		}
		d.Versions = append(d.Versions, v)
	}
	p.Data = d
	u.render(rw, r, http.StatusOK, "history.html", p)
	return nil
}

// aroundChange returns the Traffic page from a day before a version to a day after it, by hour.
func aroundChange(p *page, row *entity.FlagSnapshot) string {
	query := url.Values{"bucket": {"hour"}, "from": {row.CreatedAt.UTC().AddDate(0, 0, -1).Format(time.RFC3339)}}
	if end := row.CreatedAt.UTC().AddDate(0, 0, 1); end.Before(p.Now) {
		query.Set("to", end.Format(time.RFC3339))
	}
	return p.Root + "flags/" + strconv.FormatUint(uint64(row.FlagID), 10) + "/traffic?" + query.Encode()
}

// historyPageOf returns the page with a version, or the first page if it is not found.
func (u *UI) historyPageOf(r *http.Request, flagID int64, snapshot uint) (int, error) {
	heads, err := u.o.Store.SnapshotHeads(r.Context(), flagID, soughtSnapshots)
	if err != nil {
		return 1, err
	}
	at := slices.IndexFunc(heads, func(head entity.SnapshotHead) bool { return head.ID == snapshot })
	return max(0, at)/historyPage + 1, nil
}

func (u *UI) versionWords(before, after *entity.Flag, oldest bool) []template.HTML {
	switch {
	case after == nil:
		return []template.HTML{u.text.say("history.unreadable")}
	case before == nil && oldest:
		return []template.HTML{u.text.say("history.created")}
	case before == nil:
		return []template.HTML{u.text.say("history.unreadable")}
	}
	var words []template.HTML
	if before.DeletedAt.Valid != after.DeletedAt.Valid {
		words = append(words, u.text.say(map[bool]string{true: "history.deleted", false: "history.restored"}[after.DeletedAt.Valid]))
	}
	for _, c := range u.changesBetween(before, after) {
		words = append(words, c.Words)
	}
	if len(words) == 0 {
		words = append(words, u.text.say("history.same"))
	}
	return words
}

// parseSnapshot returns nil if the snapshot is not the JSON of a flag.
func parseSnapshot(row *entity.FlagSnapshot) *entity.Flag {
	f, err := entity.DecodeFlag(row.Flag)
	if err != nil {
		return nil
	}
	f.SnapshotID = row.ID
	return f
}

// snapshot returns one version of a flag, or nil if it does not exist or cannot be read.
func (u *UI) snapshot(r *http.Request, flagID int64, id uint) *entity.Flag {
	rows, err := u.o.Store.SnapshotsByID(r.Context(), []int64{int64(id)})
	if err != nil || len(rows) != 1 || int64(rows[0].FlagID) != flagID {
		return nil
	}
	return parseSnapshot(&rows[0])
}

// version returns the flag of a snapshot, or nil, and its definition as lines of JSON.
func (u *UI) version(row *entity.FlagSnapshot) (*entity.Flag, []string) {
	f := parseSnapshot(row)
	if f == nil {
		return nil, nil
	}
	d := entity.DefinitionOf(f)
	d.SnapshotID = 0
	part := u.text.attachmentPart()
	for i := range d.Variants {
		a := &d.Variants[i].Attachment
		if text, ok := part.shown(*a); !ok {
			*a = entity.Attachment(entity.AppendString([]byte(`{"…":`), text)) + "}"
		} else if !a.HasMembers() {
			*a = ""
		}
	}
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(d); err != nil {
		return f, nil
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	return f, slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, `  "snapshotID"`) })
}

// diffLines compares lines by their longest common subsequence, and omits lines far from a
// difference. It subtracts the pairs that it compares from the remaining number. If that is too
// small, all lines between the first and the last difference count as changed.
func diffLines(a, b []string, pairs *int) []diffLine {
	if len(a) > maxDiffLines || len(b) > maxDiffLines {
		a, b = a[:min(len(a), maxDiffLines)], b[:min(len(b), maxDiffLines)]
	}
	start := 0
	for start < len(a) && start < len(b) && a[start] == b[start] {
		start++
	}
	end := 0
	for end < len(a)-start && end < len(b)-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	x, y := a[start:len(a)-end], b[start:len(b)-end]
	var all []diffLine
	for _, line := range a[:start] {
		all = append(all, diffLine{" ", line})
	}
	if len(x)*len(y) > *pairs {
		for _, line := range x {
			all = append(all, diffLine{"-", line})
		}
		for _, line := range y {
			all = append(all, diffLine{"+", line})
		}
	} else {
		*pairs -= len(x) * len(y)
		all = appendCommon(all, x, y)
	}
	for _, line := range a[len(a)-end:] {
		all = append(all, diffLine{" ", line})
	}
	return nearby(all)
}

// appendCommon compares lines by their longest common subsequence.
func appendCommon(all []diffLine, x, y []string) []diffLine {
	numbers := map[string]int{} // equal lines have equal numbers, which are faster to compare than long lines
	number := func(lines []string) []int {
		numbered := make([]int, len(lines))
		for i, line := range lines {
			n, ok := numbers[line]
			if !ok {
				n = len(numbers)
				numbers[line] = n
			}
			numbered[i] = n
		}
		return numbered
	}
	p, q := number(x), number(y)
	lengths := make([][]uint16, len(x)+1)
	for i := range lengths {
		lengths[i] = make([]uint16, len(y)+1)
	}
	for i := range slices.Backward(x) {
		for j := len(y) - 1; j >= 0; j-- {
			if p[i] == q[j] {
				lengths[i][j] = lengths[i+1][j+1] + 1
			} else {
				lengths[i][j] = max(lengths[i+1][j], lengths[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(x) || j < len(y) {
		switch {
		case i < len(x) && j < len(y) && p[i] == q[j]:
			all = append(all, diffLine{" ", x[i]})
			i, j = i+1, j+1
		case i < len(x) && (j == len(y) || lengths[i+1][j] >= lengths[i][j+1]):
			all = append(all, diffLine{"-", x[i]})
			i++
		default:
			all = append(all, diffLine{"+", y[j]})
			j++
		}
	}
	return all
}

// nearby keeps three lines around each difference.
func nearby(all []diffLine) []diffLine {
	const around = 3
	keep := make([]bool, len(all))
	for i, line := range all {
		if line.Kind == " " {
			continue
		}
		for j := max(0, i-around); j <= min(len(all)-1, i+around); j++ {
			keep[j] = true
		}
	}
	var kept []diffLine
	for i, line := range all {
		switch {
		case keep[i]:
			line.Text = clipTo(line.Text, maxLineRunes)
			kept = append(kept, line)
		case i > 0 && keep[i-1]:
			kept = append(kept, diffLine{" ", "…"})
		}
	}
	return kept
}

// putBack fills the form with an older version and opens the review. Saving it creates a new
// version.
func (u *UI) putBack(rw http.ResponseWriter, r *http.Request) error {
	if err := u.readForm(r); err != nil {
		return err
	}
	f, stale, err := u.flag(r)
	if err != nil {
		return err
	}
	version, _ := strconv.ParseUint(r.PostForm.Get("version"), 10, 63)
	old := u.snapshot(r, int64(f.ID), uint(version))
	if old == nil {
		return entity.NotFound("flag %d has no version %d", f.ID, version)
	}
	if !isEditable(old) {
		return entity.Invalid("%s", u.text.plain("history.texts", "most", maxEditedTexts))
	}
	if err := u.checkEditable(f); err != nil {
		return err
	}
	typed := formOf(old)
	typed.Snapshot = f.SnapshotID
	forgetGone(typed, f)
	if n := typed.fields(); n > maxFormFields {
		return entity.Invalid("%s", u.text.plain("history.fields", "n", n, "most", maxFormFields))
	}
	p, d := u.targetingPage(r, f, typed, stale)
	p.Data = d
	if len(d.Changes) == 0 {
		p.Notice = u.text.say("history.nothing")
	} else if len(d.Summary) == 0 {
		u.review(r, f, typed, d)
	}
	p.Here = fmt.Sprintf("flags/%d/targeting", f.ID)
	u.render(rw, r, http.StatusOK, "targeting.html", p)
	return nil
}

// forgetGone marks parts that the flag no longer has as new. It does not change lists that the form
// shares with another.
func forgetGone(d *form, f *entity.Flag) {
	d.Variants, d.Segments = slices.Clone(d.Variants), slices.Clone(d.Segments)
	for i := range d.Variants {
		if !slices.ContainsFunc(f.Variants, func(v entity.Variant) bool { return v.ID == d.Variants[i].ID }) {
			d.Variants[i].ID = 0
		}
	}
	for i := range d.Segments {
		s := &d.Segments[i]
		at := slices.IndexFunc(f.Segments, func(o entity.Segment) bool { return o.ID == s.ID })
		if at < 0 {
			s.ID = 0
		}
		s.Constraints = slices.Clone(s.Constraints)
		for j := range s.Constraints {
			if at < 0 || !slices.ContainsFunc(f.Segments[at].Constraints, func(c entity.Constraint) bool { return c.ID == s.Constraints[j].ID }) {
				s.Constraints[j].ID = 0
			}
		}
	}
}
