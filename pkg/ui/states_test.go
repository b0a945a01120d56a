package ui_test

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/pkg/ui"
)

func TestRecordsOff(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	f.flags[f.full].DataRecordsEnabled = false
	numbers.none = true
	a := f.ask(t, http.MethodGet, "/ui/flags/1", nil)
	checkPage(t, f, "/ui/flags/1", a)
	for _, want := range []string{"Not counted: records are off.", "Switch records on"} {
		if !strings.Contains(text(a.root), want) {
			t.Errorf("the page lacks %q in\n%s", want, text(a.root))
		}
	}
	snapshot := strconv.FormatUint(uint64(f.flags[f.full].SnapshotID), 10)
	if a := f.ask(t, http.MethodPost, "/ui/flags/1/records", url.Values{"snapshot": {snapshot}, "records": {"true"}}); a.status != http.StatusSeeOther || !f.flags[f.full].DataRecordsEnabled {
		t.Errorf("switch records on: %d, records %t", a.status, f.flags[f.full].DataRecordsEnabled)
	}
	if a := f.ask(t, http.MethodGet, "/ui/flags/1", nil); strings.Contains(text(a.root), "Switch records on") {
		t.Error("the page offers to switch on records that are on")
	}
}

// TestUnreadableFlag shows a flag with a value that another program has broken.
func TestUnreadableFlag(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.flags[f.full].Unreadable = "variant 5: attachment is not the JSON of an object <b>"
	list := f.ask(t, http.MethodGet, "/ui/", nil)
	checkPage(t, f, "/ui/", list)
	if got := text(list.root); !strings.Contains(got, "#1Not evaluated: a value cannot be read") || strings.Count(got, "Not evaluated") != 1 {
		t.Errorf("the list is\n%s", got)
	}
	for _, path := range []string{"", "/targeting", "/traffic", "/nothing", "/try"} {
		a := f.ask(t, http.MethodGet, "/ui/flags/1"+path, nil)
		checkPage(t, f, "/ui/flags/1"+path, a)
		if want := "cannot be read: variant 5: attachment is not the JSON of an object <b>."; !strings.Contains(text(a.root), want) {
			t.Errorf("the page %s lacks %q in\n%s", path, want, text(a.root))
		}
	}
	a := f.ask(t, http.MethodPost, "/ui/flags/1/try", url.Values{"id": {"u1"}, "context": {"{}"}, "do": {"try"}})
	if got := text(a.root); !strings.Contains(got, "flag 1 is not evaluated: variant 5") || strings.Contains(got, "No segment matches") {
		t.Errorf("after a try, the page is\n%s", got)
	}
}

// TestServersThatDoNotBalance: 100 evaluations were recorded, and 3 of them are neither stored nor
// waiting nor lost.
func TestServersThatDoNotBalance(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	numbers.missing = 3
	a := f.ask(t, http.MethodGet, "/ui/server", nil)
	checkPage(t, f, "/ui/server", a)
	if got := text(a.root); !strings.Contains(got, "The statistics do not balance: 2 of 206 evaluations are listed as lost.") ||
		!strings.Contains(got, "recorded 3 evaluations more than it has stored, dropped or pending. ") {
		t.Errorf("the page is\n%s", got)
	}
}

// TestAServerWhoseClockIsAhead: it is silent although its last report is not in the past.
func TestAServerWhoseClockIsAhead(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	numbers.ahead = 3 * time.Hour
	a := f.ask(t, http.MethodGet, "/ui/server", nil)
	checkPage(t, f, "/ui/server", a)
	if got := text(a.root); !strings.Contains(got, "Silent, its clock is or was 3 hours ahead of the clock of this server") || strings.Contains(got, "Silent, last report now") {
		t.Errorf("the page is\n%s", got)
	}
}

// TestNextAndPrevious follows the links between pages of a search in 250 flags, forth and back.
func TestNextAndPrevious(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for i := range 250 {
		flag := &entity.Flag{Key: fmt.Sprintf("page-%03d", i)}
		flag.ID, flag.UpdatedAt = uint(1000+i), f.now
		f.flags[flag.ID] = flag
	}
	target := "/ui/?q=page&sort=key"
	visit := func(rel string) (keys []string, follow string) {
		t.Helper()
		each(f.ask(t, http.MethodGet, target, nil).root, func(n *html.Node) {
			if class, _ := attr(n, "class"); class == "key" {
				keys = append(keys, text(n))
			}
			if r, _ := attr(n, "rel"); r == rel {
				href, _ := attr(n, "href")
				follow = "/ui/" + strings.TrimPrefix(href, "./")
			}
		})
		return keys, follow
	}
	var all []string
	for _, want := range []int{100, 100, 50} {
		keys, next := visit("next")
		if len(keys) != want || (next == "") != (want == 50) {
			t.Fatalf("%s has %d flags, want %d, and leads to %q", target, len(keys), want, next)
		}
		all = append(all, keys...)
		if next != "" {
			target = next
		}
	}
	for i, key := range all {
		if key != fmt.Sprintf("page-%03d", i) {
			t.Fatalf("flag %d is %s", i, key)
		}
	}
	for _, want := range []string{"page-200", "page-100", "page-000"} {
		keys, previous := visit("prev")
		if keys[0] != want || (previous == "") != (want == "page-000") {
			t.Fatalf("%s begins with %s, want %s, and leads to %q", target, keys[0], want, previous)
		}
		target = previous
	}
}

// TestTheCSVOfTheList has times in UTC whatever the zone of the user, and no formulas.
func TestTheCSVOfTheList(t *testing.T) {
	t.Parallel()
	f, _ := counted(t)
	f.flags[f.full].Description, f.flags[f.full].UpdatedBy = `=HYPERLINK("http://example.com")`, "@ada"
	a := f.ask(t, http.MethodGet, "/ui/flags.csv?q=checkout-button", nil, "Cookie", "flagr_tz=Asia%2FTokyo")
	rows, err := csv.NewReader(strings.NewReader(a.body)).ReadAll()
	if err != nil || len(rows) != 2 {
		t.Fatalf("%v in %q", err, a.body)
	}
	got := map[string]string{}
	for i, name := range rows[0] {
		got[name] = rows[1][i]
	}
	for name, want := range map[string]string{
		"description": `'=HYPERLINK("http://example.com")`, "updated_by": "'@ada", "updated_at": f.flags[f.full].UpdatedAt.UTC().Format("2006-01-02T15:04:05Z"), "last_asked_at": f.now.UTC().Format("2006-01-02T15:04:05Z"),
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

// TestTheCSVOfTraffic has the days of the user's zone, in UTC.
func TestTheCSVOfTraffic(t *testing.T) {
	t.Parallel()
	f, _ := counted(t)
	a := f.ask(t, http.MethodGet, "/ui/flags/1/traffic.csv?tz=Asia%2FTokyo", nil)
	lines := strings.Split(strings.TrimSpace(a.body), "\r\n")
	if len(lines) != 1+31*3 || lines[1] != "2025-12-31T15:00:00Z,2026-01-01T15:00:00Z,true,,,0" || !strings.HasPrefix(lines[len(lines)-1], "2026-01-30T15:00:00Z,2026-01-31T15:00:00Z,false,") {
		t.Errorf("%d lines: %.400q", len(lines), a.body)
	}
}

func TestTrafficBySegment(t *testing.T) {
	t.Parallel()
	f, _ := counted(t)
	a := f.ask(t, http.MethodGet, "/ui/flags/1/traffic?by=segment", nil)
	checkPage(t, f, "/ui/flags/1/traffic?by=segment", a)
	if got := text(a.root); !strings.Contains(got, "DayAdults in FranceBeta testersno segmentAll") {
		t.Errorf("the table is\n%s", got)
	}
}

// TestRootIsTheSameWithoutFlags: access control leaves / open, so what it shows depends on no flag.
func TestRootIsTheSameWithoutFlags(t *testing.T) {
	t.Parallel()
	f, _ := counted(t)
	flags := f.flags
	for _, one := range []struct {
		target string
		same   bool
	}{{"/", true}, {"/?q=checkout", true}, {"/ui/", false}} {
		f.flags = flags
		with := f.ask(t, http.MethodGet, one.target, nil)
		f.flags = map[uint]*entity.Flag{}
		without := f.ask(t, http.MethodGet, one.target, nil)
		if with.status != http.StatusOK || (with.body == without.body) != one.same {
			t.Errorf("%s: %d, and is the same without flags: %t, want %t", one.target, with.status, with.body == without.body, one.same)
		}
	}
}

// TestAFlagThatIsOff: without counts, its overview says what it gives now.
func TestAFlagThatIsOff(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.flags[f.full].Enabled = false
	if got := text(f.ask(t, http.MethodGet, "/ui/flags/1", nil).root); !strings.Contains(got, "The flag is off: no user gets a variant.") || strings.Contains(got, "of adults in France get") {
		t.Errorf("the page is\n%s", got)
	}
}

// TestWithoutCountsNothingIsClaimed: pages say that they do not know, and why.
func TestWithoutCountsNothingIsClaimed(t *testing.T) {
	t.Parallel()
	const off, here = "Not counted: Datar is off.", "No numbers here: the flags of this server come from a document"
	without := setup(t)
	elsewhere := setup(t, func(o *ui.Options) { o.Elsewhere = true })
	silent, numbers := counted(t)
	numbers.err = errors.New("no answer")
	for _, c := range []struct {
		f            *fixture
		path         string
		wants, lacks string
	}{
		{without, "/ui/", off, here},
		{without, "/ui/unknown", off, "No application asks"},
		{without, "/ui/flags/1/delete", "Unknown" + off, "OK"},
		{without, "/ui/server", "Nothing is counted: Datar is off.", here},
		{elsewhere, "/ui/", here, "FLAGR_RECORDER"},
		{elsewhere, "/ui/flags/1", here, "FLAGR_RECORDER"},
		{elsewhere, "/ui/unknown", here, "No application asks"},
		{elsewhere, "/ui/server", "No counts are stored on this server." + here, "Nothing is counted"},
		{silent, "/ui/server", "Not known: the numbers of the flags cannot be read now.", "None in the last 30 days."},
		{silent, "/ui/server", "This server only, since it started: the database did not answer", "All servers"},
		{silent, "/ui/flags/1/delete", "UnknownThe database did not answer", "OK"},
	} {
		a := c.f.ask(t, http.MethodGet, c.path, nil)
		checkPage(t, c.f, c.path, a)
		if got := text(a.root); !strings.Contains(got, c.wants) || strings.Contains(got, c.lacks) {
			t.Errorf("%s wants %q and lacks %q:\n%s", c.path, c.wants, c.lacks, got)
		}
	}
}

// TestTheAxisOfHoursNamesDays, because the time of day alone repeats.
func TestTheAxisOfHoursNamesDays(t *testing.T) {
	t.Parallel()
	f, _ := counted(t)
	var labels []string
	each(f.ask(t, http.MethodGet, "/ui/flags/1/traffic?bucket=hour", nil).root, func(n *html.Node) {
		if anchor, _ := attr(n, "text-anchor"); n.Data == "text" && anchor == "middle" {
			labels = append(labels, text(n))
		}
	})
	if got := strings.Join(labels, ", "); got != "2 Jan, 3 Jan, 4 Jan" {
		t.Errorf("the labels are %s", got)
	}
}

// TestSetAndGotOfAnOldVersion: the page does not take the start of the window for that of the
// version.
func TestSetAndGotOfAnOldVersion(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	numbers.rollout, _ = numbers.Rollout(t.Context(), int64(f.full), insight.Window{})
	for want, from := range map[string]time.Time{"version 2, since ": numbers.rollout.Versions[0].From, "since version 2, ": numbers.rollout.Versions[0].From.Add(-time.Hour)} {
		numbers.rollout.From = from
		if got := text(f.ask(t, http.MethodGet, "/ui/flags/1", nil).root); !strings.Contains(got, "Set and got "+want) {
			t.Errorf("the page lacks %q:\n%s", want, got)
		}
	}
}

// TestTheFirstDayHasASparkline: today counts as long as no other day has evaluations.
func TestTheFirstDayHasASparkline(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	for _, c := range []struct {
		yesterday int64
		last      string
	}{{0, "96,3"}, {5, "96,3"}} {
		numbers.change = func(all *insight.States) {
			for i := range all.Flags {
				all.Flags[i].Spark = make([]int64, 28)
				all.Flags[i].Spark[26], all.Flags[i].Spark[27] = c.yesterday, 60
			}
		}
		f.now = f.now.Add(time.Hour) // the list keeps its numbers for less
		line := ""
		each(f.ask(t, http.MethodGet, "/ui/", nil).root, func(n *html.Node) {
			if class, _ := attr(n, "class"); class == "spark-line" {
				line, _ = attr(n, "points")
			}
		})
		if points := strings.Fields(line); len(points) != 28-min(1, int(c.yesterday)) || points[len(points)-1] != c.last {
			t.Errorf("with %d evaluations yesterday and 60 today, the line is %q", c.yesterday, line)
		}
	}
}
