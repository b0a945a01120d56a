package chart_test

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/ui/chart"
)

// wellFormed refuses what no XML parser takes, and inline styles and scripts.
func wellFormed(t *testing.T, picture template.HTML) string {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(string(picture)))
	decoder.Entity = xml.HTMLEntity
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, picture)
		}
		if start, ok := token.(xml.StartElement); ok {
			for _, a := range start.Attr {
				if a.Name.Local == "style" || strings.HasPrefix(a.Name.Local, "on") {
					t.Errorf("element %s has the attribute %s", start.Name.Local, a.Name.Local)
				}
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					t.Errorf("%s of %s is %s", a.Name.Local, start.Name.Local, a.Value)
				}
			}
		}
	}
	return string(picture)
}

func stacked(counts ...int64) chart.Stacked {
	c := chart.Stacked{
		ID: "c", Title: "What people got", Description: "d", Height: 168, Width: 736, HoleText: "not counted",
		Count: func(n int64) string { return fmt.Sprint(n) },
		Lines: []chart.Line{{Name: "blue", Class: "v1", Counts: counts}, {Name: "nothing", Class: chart.None, Counts: make([]int64, len(counts))}},
	}
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range counts {
		c.Starts = append(c.Starts, day.AddDate(0, 0, i))
	}
	c.End = day.AddDate(0, 0, len(counts))
	return c
}

func TestTheScaleHasThreeRoundLinesAboveEveryBar(t *testing.T) {
	t.Parallel()
	for highest, want := range map[int64]string{
		0: "1 2 3", 1: "1 2 3", 3: "1 2 3", 4: "2 4 6", 7: "5 10 15", 25_621: "10k 20k 30k", 70_000: "25k 50k 75k", 1_000_000: "500k 1M 1.5M", 4_000_000_000: "2G 4G 6G",
	} {
		c := stacked(highest, 0)
		labels := regexp.MustCompile(`text-anchor="end">([^<]*)<`).FindAllStringSubmatch(wellFormed(t, c.Draw()), -1)
		var got []string
		for _, label := range labels {
			got = append(got, label[1])
		}
		if strings.Join(got, " ") != want {
			t.Errorf("up to %d: %q, want %s", highest, got, want)
		}
	}
}

func TestMarksThatAreNearAreOne(t *testing.T) {
	t.Parallel()
	c := stacked(make([]int64, 31)...)
	at := func(day, hour int) time.Time { return c.Starts[day].Add(time.Duration(hour) * time.Hour) }
	c.Marks = []chart.Mark{{At: at(5, 9), Text: "112", Link: "#v112"}, {At: at(23, 9), Text: "115"}, {At: at(23, 10), Text: "116"}, {At: at(24, 1), Text: "117"}}
	got := wellFormed(t, c.Draw())
	for _, want := range []string{">112</text>", ">115–117</text>", `href="#v112"`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if strings.Contains(got, ">116<") || strings.Contains(got, ">117<") {
		t.Error("a merged mark is drawn by itself")
	}
}

// TestMarksMeetInNoLayout: boxes of marks and texts above holes do not meet, at the least width of
// each layout, and do not leave the chart.
func TestMarksMeetInNoLayout(t *testing.T) {
	t.Parallel()
	c := stacked(make([]int64, 31)...)
	c.Width = 1048
	for day := range 31 {
		if day != 8 && day != 9 && day != 10 {
			c.Marks = append(c.Marks, chart.Mark{At: c.Starts[day].Add(time.Duration(day%3) * 7 * time.Hour), Text: fmt.Sprint(12_300 + day)})
		}
	}
	c.Holes = []chart.Span{{From: c.Starts[8], To: c.Starts[9]}, {From: c.Starts[10], To: c.Starts[11]}}
	picture := wellFormed(t, c.Draw())
	box := regexp.MustCompile(`<svg x="([0-9.]+)%" overflow="visible"><line [^>]*/><rect class="mark-box" x="(-?[0-9.]+)" y="3.5" width="([0-9.]+)"|<text aria-hidden="true" x="([0-9.]+)%"`)
	number := func(text string) float64 {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	least := 0
	for _, layout := range []struct {
		class        string
		width, right float64
	}{{"phone", 256, 16}, {"medium", 480, 104}, {"large", 1048, 104}} {
		_, inside, found := strings.Cut(picture, `<svg class="plot marks `+layout.class+`"`)
		if !found {
			t.Fatalf("no marks for the layout %s", layout.class)
		}
		inside, _, _ = strings.Cut(inside, `<svg class="plot marks`)
		inside, _, _ = strings.Cut(inside, `<svg class="ends`)
		type span struct{ from, to float64 }
		var spans []span
		for _, m := range box.FindAllStringSubmatch(inside, -1) {
			if m[4] != "" {
				at := number(m[4]) / 100 * layout.width
				spans = append(spans, span{at - 32, at + 32})
				continue
			}
			from := number(m[1])/100*layout.width + number(m[2])
			spans = append(spans, span{from, from + number(m[3])})
		}
		slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
		for i, s := range spans {
			if i > 0 && s.from < spans[i-1].to+3 || s.to > layout.width+layout.right {
				t.Errorf("%s: %v", layout.class, spans)
				break
			}
		}
		if len(spans) < least {
			t.Errorf("%s has %d marks, fewer than a narrower layout", layout.class, len(spans))
		}
		least = max(1, len(spans))
	}
	if least < 8 {
		t.Errorf("a wide chart has %d marks", least)
	}
}

func TestHolesAreHatchedOverTheirHours(t *testing.T) {
	t.Parallel()
	c := stacked(make([]int64, 10)...)
	c.Holes = []chart.Span{{From: c.Starts[1].Add(12 * time.Hour), To: c.Starts[3]}}
	got := wellFormed(t, c.Draw())
	if !strings.Contains(got, `x="15%" y="25" width="15%"`) || !strings.Contains(got, ">not counted<") {
		t.Errorf("no hole from 15%% to 30%% in %s", got)
	}
	c.Marks = []chart.Mark{{At: c.Starts[2], Text: "112"}}
	if strings.Contains(wellFormed(t, c.Draw()), ">not counted<") {
		t.Error("the text of the hole meets a mark")
	}
}

func TestTextsAreEscaped(t *testing.T) {
	t.Parallel()
	const evil = `"><script>alert(1)</script>`
	c := stacked(1, 2)
	c.ID, c.Title, c.Description, c.HoleText = "c", evil, evil, evil
	c.Lines[0].Name, c.Labels, c.Cursor = evil, []string{evil, ""}, []string{evil, evil}
	c.Marks = []chart.Mark{{At: c.Starts[0], Text: evil, Link: evil}}
	c.Holes = []chart.Span{{From: c.Starts[1], To: c.End}}
	for _, picture := range []template.HTML{c.Draw(), chart.Swatch(evil), chart.Bar(evil, chart.Part{Class: evil, Share: .5, Stripes: true})} {
		if strings.Contains(wellFormed(t, picture), "<script") {
			t.Errorf("not escaped: %s", picture)
		}
	}
}

func TestBarsStayInTheirScale(t *testing.T) {
	t.Parallel()
	for _, share := range []chart.Share{{Class: "v1", Set: .25, Got: .251}, {Class: "v1", Got: .3, Scale: .25}, {Class: chart.None, Got: 1, Changed: true}, {Class: "v1"}} {
		for _, width := range regexp.MustCompile(`width="([0-9.]+)%"`).FindAllStringSubmatch(wellFormed(t, chart.SetGot(share)), -1) {
			if len(width[1]) > 3 && width[1] > "100" && !strings.Contains(width[1], ".") {
				t.Errorf("%+v: a bar is %s%% wide", share, width[1])
			}
		}
	}
	for largest, want := range map[float64]float64{.2: .25, .25: .25, .26: .5, .49: .5, .5: 1, 1: 1} {
		if got := chart.Scale(largest); got != want {
			t.Errorf("scale of %v is %v, want %v", largest, got, want)
		}
	}
	if got := wellFormed(t, chart.BucketMap([]string{"v1", "v1", "v2", "v0"}, 2)); strings.Count(got, `height="8"`) != 3 || !strings.Contains(got, `x="62.5%"`) {
		t.Errorf("four buckets of three classes: %s", got)
	}
}

func TestASparklineOfNothingIsDotted(t *testing.T) {
	t.Parallel()
	for _, values := range [][]int64{nil, {0, 0, 0}, {5}} {
		if got := wellFormed(t, chart.Sparkline(values)); !strings.Contains(got, "spark-none") {
			t.Errorf("%v: %s", values, got)
		}
	}
	if got := wellFormed(t, chart.Sparkline([]int64{0, 10, 5})); !strings.Contains(got, `points="0,23 48,3 96,13"`) {
		t.Errorf("0, 10, 5: %s", got)
	}
}
