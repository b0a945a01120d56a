// Package chart draws SVG from numbers: sparklines, stacked bars, set and got, and plain bars. All
// functions are pure. The colors come from the classes of the page's style sheet, so a picture
// follows the theme; positions along x are percent of the width and heights are pixels, so that
// text keeps its size at every width.
package chart

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"
)

// MaxColors is the number of variants with their own color; all others share the eighth color.
const MaxColors = 7

// Class returns the class of the color of the variant at an index from 0.
func Class(place int) string { return "v" + strconv.Itoa(min(place, MaxColors)+1) }

// None is the class of the color of "nothing".
const None = "v0"

// svg collects the elements of a picture.
type svg struct{ strings.Builder }

func (s *svg) add(format string, args ...any) { fmt.Fprintf(&s.Builder, format, args...) }

func (s *svg) html() template.HTML { return template.HTML(s.String()) } //nolint:gosec // all texts in it are escaped here

// pct writes a share of the width, with as many digits as a pixel of a wide screen needs.
func pct(share float64) string {
	if math.IsNaN(share) || math.IsInf(share, 0) {
		share = 0
	}
	return strconv.FormatFloat(math.Round(share*100_000)/1000, 'f', -1, 64) + "%"
}

func px(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

// Swatch is the small square before the name of a variant.
func Swatch(class string) template.HTML {
	var s svg
	inset, size := "0", "10"
	if class == None {
		inset, size = ".5", "9"
	}
	s.add(`<svg class="sw" width="10" height="10" aria-hidden="true"><rect class="%s" x="%s" y="%s" width="%s" height="%s"/></svg>`,
		html.EscapeString(class), inset, inset, size, size)
	return s.html()
}

// Sparkline draws 96 by 24 pixels of a series, oldest first. All zero is a dotted line.
func Sparkline(values []int64) template.HTML {
	const width, height = 96.0, 24.0
	var s svg
	highest := int64(0)
	for _, v := range values {
		highest = max(highest, v)
	}
	s.add(`<svg width="96" height="24" viewBox="0 0 96 24" aria-hidden="true">`)
	if highest == 0 || len(values) < 2 {
		s.add(`<line class="spark-none" x1="0" x2="96" y1="22.5" y2="22.5"/></svg>`)
		return s.html()
	}
	var line strings.Builder
	for i, v := range values {
		x := float64(i) * width / float64(len(values)-1)
		y := height - 1 - float64(v)/float64(highest)*(height-4)
		fmt.Fprintf(&line, "%s,%s ", px(x), px(y))
	}
	points := strings.TrimSuffix(line.String(), " ")
	s.add(`<polygon class="spark-area" points="0,24 %s 96,24"/><polyline class="spark-line" points="%s"/></svg>`, points, points)
	return s.html()
}

// Share is a bar of a configured and an actual share. Shares are 0 to 1.
type Share struct {
	Class    string
	Set, Got float64
	// Scale is the share at the right end: 1, .5 or .25.
	Scale float64
	// NoSet and NoGot omit the outline or the fill.
	NoSet, NoGot bool
	// Changed draws the outline as an unsaved one.
	Changed bool
}

// SetGot draws a bar: the fill is the actual share, the outline the configured share, and the line
// below it the whole scale.
func SetGot(b Share) template.HTML {
	scale := b.Scale
	if scale <= 0 {
		scale = 1
	}
	got, set := min(b.Got/scale, 1), min(b.Set/scale, 1)
	var s svg
	s.add(`<svg width="100%%" height="18" aria-hidden="true"><line class="bar-line" x1="0" x2="100%%" y1="16.5" y2="16.5"/>`)
	if !b.NoGot && got > 0 {
		s.add(`<rect class="%s" x="0" y="5" width="%s" height="8"/>`, html.EscapeString(b.Class), pct(got))
		if b.Class == None { // pale, so it ends with a tick
			s.add(`<svg x="%s" width="2" height="18" overflow="visible"><rect class="tick" x="-2" y="5" width="2" height="8"/></svg>`, pct(got))
		}
	}
	if !b.NoSet && (set > 0 || b.Changed) {
		class := "set"
		if b.Changed {
			class = "set changed"
		}
		s.add(`<rect class="%s" x=".5" y="2.5" width="%s" height="13" rx="2"/>`, class, pct(set))
	}
	s.add(`</svg>`)
	return s.html()
}

// Scale returns the end of the scale for bars with the given largest share: .25, .5 or 1.
func Scale(largest float64) float64 {
	switch {
	case largest <= .25:
		return .25
	case largest < .5:
		return .5
	default:
		return 1
	}
}

// Part is one piece of a plain bar.
type Part struct {
	Class string
	// Share is relative to the whole width, 0 to 1.
	Share float64
	// Stripes draws the part in stripes.
	Stripes bool
}

// Bar draws parts side by side, 8 pixels high. If a part has stripes, the ID must be unique in the
// page.
func Bar(id string, parts ...Part) template.HTML {
	var s svg
	s.add(`<svg width="100%%" height="8" aria-hidden="true">`)
	at := 0.0
	for _, p := range parts {
		if p.Share <= 0 {
			continue
		}
		fill := ""
		if p.Stripes {
			name := html.EscapeString(id)
			s.add(`<defs><pattern id="%s" width="4" height="4" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><line class="stripe" x1="0" x2="0" y1="0" y2="4"/></pattern></defs>`, name)
			fill = fmt.Sprintf(` fill="url(#%s)"`, name)
		}
		s.add(`<rect class="%s"%s x="%s" y="0" width="%s" height="8"/>`, html.EscapeString(p.Class), fill, pct(at), pct(p.Share))
		at += p.Share
	}
	s.add(`</svg>`)
	return s.html()
}

// BucketMap draws the 1,000 buckets of a segment as runs of one class each, and marks one bucket,
// or none if it is -1.
func BucketMap(classes []string, mark int) template.HTML {
	var s svg
	n := float64(max(len(classes), 1))
	s.add(`<svg class="buckets" width="100%%" height="24" aria-hidden="true">`)
	for from := 0; from < len(classes); {
		to := from
		for to < len(classes) && classes[to] == classes[from] {
			to++
		}
		s.add(`<rect class="%s" x="%s" y="8" width="%s" height="8"/>`, html.EscapeString(classes[from]), pct(float64(from)/n), pct(float64(to-from)/n))
		from = to
	}
	if mark >= 0 && mark < len(classes) {
		s.add(`<svg x="%s" width="3" height="24" overflow="visible"><rect class="bucket-mark" x="-1" y="2" width="3" height="20"/></svg>`, pct((float64(mark)+.5)/n))
	}
	s.add(`</svg>`)
	return s.html()
}

// Line is one part of every bar, from below.
type Line struct {
	Name, Class string
	Counts      []int64
}

// Mark is a change at a time.
type Mark struct {
	At   time.Time
	Text string
	// Link is the target of a click. Name is the name of the link: Text alone does not say what it
	// is.
	Link, Name string
}

// Span is a time in which nothing was counted.
type Span struct{ From, To time.Time }

// Stacked is a chart of stacked bars over time.
type Stacked struct {
	// ID is unique in the page.
	ID string
	// Title is the title of the chart; Description is the same in a sentence with numbers.
	Title, Description string
	// Starts are the starts of the buckets, End the end of the last one.
	Starts []time.Time
	End    time.Time
	// Lines are from bottom to top; the one of class None is on top with a cap.
	Lines []Line
	// Open reports whether the last bucket is not over.
	Open bool
	// Comparison has the totals of the buckets of another time, or nil.
	Comparison []int64
	Marks      []Mark
	Holes      []Span
	// HoleText is the text above a hole.
	HoleText string
	// Labels are the texts below the bars, or empty; Cursor has the texts for each bar.
	Labels, Cursor []string
	// Height is the height of the bars in pixels. Width is the width of the plot on a wide screen,
	// which determines the distance of marks there. Each narrower layout of the page has marks of
	// its own.
	Height, Width int
	// Count formats a number.
	Count func(int64) string
}

const (
	marksHeight = 25 // above the bars
	datesHeight = 24 // below them
	barShare    = .76
	// markApart is the distance in pixels below which two marks are combined, markGap the least
	// space between two; holeWidth is the approximate width of the text above a hole.
	markApart, markGap, holeWidth = 48, 4, 64
)

// layout is a width of the page, with its class in the style sheet.
type layout struct {
	class string
	// width is the least width of the plot in pixels, and right the space for marks at its right.
	width, right float64
}

// layouts returns those of the style sheet. The smallest is a page of 320 pixels.
func (c *Stacked) layouts() []layout {
	return []layout{{"large", float64(c.Width), 60}, {"medium", min(480, float64(c.Width)), 60}, {"phone", min(256, float64(c.Width)), 12}}
}

// Draw draws the chart: the scale, the bars and the names at their right end.
func (c *Stacked) Draw() template.HTML {
	var s svg
	step := c.step()
	top := 3 * step
	height := float64(c.Height)
	y := func(v int64) float64 { return marksHeight + height - float64(v)/float64(top)*height }
	total := c.Height + marksHeight + datesHeight
	s.add(`<div class="chart" role="group" aria-label="%s. %s">`, html.EscapeString(c.Title), html.EscapeString(c.Description))
	s.add(`<svg width="48" height="%d" aria-hidden="true">`, total)
	for i := int64(1); i <= 3; i++ {
		s.add(`<text x="40" y="%s" text-anchor="end">%s</text>`, px(y(i*step)+4), short(i*step))
	}
	s.add(`</svg><svg class="plot" width="100%%" height="%d" aria-hidden="true">`, total)
	c.drawGrid(&s, step, y)
	c.drawBars(&s, y)
	c.drawComparison(&s, y)
	c.drawHoles(&s)
	c.drawLabels(&s)
	s.add(`</svg>`)
	c.drawLayouts(&s, total)
	s.add(`<svg class="ends" width="104" height="%d" aria-hidden="true">`, total)
	c.drawEnds(&s, y)
	s.add(`</svg></div>`)
	return s.html()
}

func (c *Stacked) sum(bucket int) (n int64) {
	for _, line := range c.Lines {
		if bucket < len(line.Counts) {
			n += line.Counts[bucket]
		}
	}
	return n
}

// step is the distance of the three grid lines: 1, 2, 2.5 or 5 times a power of ten.
func (c *Stacked) step() int64 {
	highest := int64(1)
	for i := range c.Starts {
		highest = max(highest, c.sum(i))
	}
	for _, n := range c.Comparison {
		highest = max(highest, n)
	}
	for power := int64(1); ; power *= 10 {
		for _, tenths := range []int64{10, 20, 25, 50} {
			if step := power * tenths / 10; step >= 1 && step*10 == power*tenths && 3*step >= highest {
				return step
			}
		}
		if power > math.MaxInt64/1000 {
			return highest/3 + 1
		}
	}
}

func short(n int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if n >= unit.size {
			return strconv.FormatFloat(float64(n)/float64(unit.size), 'f', -1, 64) + unit.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func (c *Stacked) drawGrid(s *svg, step int64, y func(int64) float64) {
	for i := int64(0); i <= 3; i++ {
		class := "grid-line"
		if i == 0 {
			class = "base-line"
		}
		at := math.Floor(y(i*step)) + .5
		s.add(`<line class="%s" x1="0" x2="100%%" y1="%s" y2="%s"/>`, class, px(at), px(at))
	}
}

func (c *Stacked) drawBars(s *svg, y func(int64) float64) {
	n := float64(max(len(c.Starts), 1))
	for i := range c.Starts {
		class := "bucket"
		if c.Open && i == len(c.Starts)-1 {
			class = "bucket now"
		}
		cursor := ""
		if i < len(c.Cursor) {
			cursor = c.Cursor[i]
		}
		s.add(`<g class="%s" data-read="%s">`, class, html.EscapeString(cursor))
		below := int64(0)
		for _, line := range c.Lines {
			if i >= len(line.Counts) || line.Counts[i] == 0 {
				continue
			}
			low, high := y(below), y(below+line.Counts[i])
			gap := 0.0
			if below > 0 {
				gap = 1 // of surface between the parts
			}
			x, width := pct((float64(i)+(1-barShare)/2)/n), pct(barShare/n)
			s.add(`<rect class="%s" x="%s" y="%s" width="%s" height="%s"/>`, html.EscapeString(line.Class), x, px(high), width, px(max(low-high-gap, .5)))
			if line.Class == None {
				s.add(`<rect class="cap" x="%s" y="%s" width="%s" height="1"/>`, x, px(high), width)
			}
			below += line.Counts[i]
		}
		s.add(`<rect class="cursor-bar" x="%s" y="%d" width="%s" height="%d"/></g>`, pct(float64(i)/n), marksHeight, pct(1/n), c.Height)
	}
}

// drawComparison draws steps, because a line between two buckets would belong to neither.
func (c *Stacked) drawComparison(s *svg, y func(int64) float64) {
	n := float64(max(len(c.Starts), 1))
	for i, count := range c.Comparison {
		if i >= len(c.Starts) {
			return
		}
		at := px(y(count))
		s.add(`<line class="comparison" x1="%s" x2="%s" y1="%s" y2="%s"/>`, pct(float64(i)/n), pct(float64(i+1)/n), at, at)
		if i > 0 {
			s.add(`<line class="comparison" x1="%s" x2="%s" y1="%s" y2="%s"/>`, pct(float64(i)/n), pct(float64(i)/n), px(y(c.Comparison[i-1])), at)
		}
	}
}

// share returns the position of a time along the plot, 0 to 1. Buckets may differ in length, as
// days do.
func (c *Stacked) share(at time.Time) float64 {
	n := len(c.Starts)
	for i := range n {
		end := c.End
		if i+1 < n {
			end = c.Starts[i+1]
		}
		if at.Before(end) {
			into := 0.0
			if d := end.Sub(c.Starts[i]); d > 0 && at.After(c.Starts[i]) {
				into = float64(at.Sub(c.Starts[i])) / float64(d)
			}
			return (float64(i) + into) / float64(n)
		}
	}
	return 1
}

func (c *Stacked) drawHoles(s *svg) {
	if len(c.Holes) == 0 {
		return
	}
	id := html.EscapeString(c.ID)
	s.add(`<defs><pattern id="%s-hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><line class="hatch" x1=".5" x2=".5" y1="0" y2="7"/></pattern></defs>`, id)
	for _, hole := range c.Holes {
		if from, to := c.share(hole.From), c.share(hole.To); to > from {
			s.add(`<rect fill="url(#%s-hatch)" x="%s" y="%d" width="%s" height="%d"/>`, id, pct(from), marksHeight, pct(to-from), c.Height)
		}
	}
}

// drawLayouts draws the marks and the texts above holes, once for each layout in which they differ.
func (c *Stacked) drawLayouts(s *svg, total int) {
	layouts := c.layouts()
	pictures := make([]string, len(layouts))
	same := true
	for i, l := range layouts {
		var one svg
		marks := c.merged(l)
		c.drawHoleTexts(&one, l, marks)
		c.drawMarks(&one, l, marks)
		pictures[i] = one.String()
		same = same && pictures[i] == pictures[0]
	}
	for i, picture := range pictures {
		class := " " + layouts[i].class
		if same {
			class = ""
		}
		s.add(`<svg class="plot marks%s" width="100%%" height="%d">%s</svg>`, class, total, picture)
		if same {
			return
		}
	}
}

// drawHoleTexts writes the text above each hole, where it meets neither a mark nor the text of
// another.
func (c *Stacked) drawHoleTexts(s *svg, l layout, marks []placedMark) {
	end := -holeWidth / 2.0 // of the text before, in pixels
	for _, hole := range c.Holes {
		from, to := c.share(hole.From), c.share(hole.To)
		middle := (from + to) / 2 * l.width
		free := to > from && middle-holeWidth/2 >= end+markGap && middle+holeWidth/2 <= l.width+l.right
		for _, m := range marks {
			free = free && (m.left > middle+holeWidth/2+markGap || m.left+m.width < middle-holeWidth/2-markGap)
		}
		if free {
			end = middle + holeWidth/2
			s.add(`<text aria-hidden="true" x="%s" y="15" text-anchor="middle">%s</text>`, pct((from+to)/2), html.EscapeString(c.HoleText))
		}
	}
}

// placedMark is one flag on the axis, perhaps of several marks.
type placedMark struct {
	first, last Mark
	share       float64
	// left and width are those of its box in pixels.
	left, width float64
}

// text and name have the first and the last of several marks.
func (m *placedMark) text() string { return span(m.first.Text, m.last.Text) }
func (m *placedMark) name() string { return span(m.first.Name, m.last.Name) }

func span(first, last string) string {
	if first == last {
		return first
	}
	return first + "\u2013" + last
}

// merged places the marks of a layout. A mark that would meet the one before becomes a part of it.
func (c *Stacked) merged(l layout) []placedMark {
	var placed []placedMark
	for _, m := range c.Marks {
		placed = append(placed, l.place(m, m, c.share(m.At)))
		for n := len(placed); n > 1; n = len(placed) {
			a, b := &placed[n-2], &placed[n-1]
			if (b.share-a.share)*l.width >= markApart && b.left >= a.left+a.width+markGap {
				break
			}
			placed = append(placed[:n-2], l.place(a.first, b.last, a.share))
		}
	}
	return placed
}

// place returns the flag of marks: at the right of its line, or at the left where it would leave
// the chart.
func (l layout) place(first, last Mark, share float64) placedMark {
	m := placedMark{first: first, last: last, share: share, left: share * l.width}
	m.width = textWidth(m.text())
	if m.left+m.width > l.width+l.right {
		m.left -= m.width
	}
	return m
}

// textWidth is about the width of a box with a text of 12 pixels.
func textWidth(text string) float64 { return float64(len([]rune(text)))*6.7 + 11 }

func (c *Stacked) drawMarks(s *svg, l layout, marks []placedMark) {
	for i := range marks {
		m := &marks[i]
		x := m.left - m.share*l.width // of the box, from its line
		s.add(`<a href="%s" aria-label="%s"><svg x="%s" overflow="visible"><line class="mark-line" x1=".5" x2=".5" y1="20" y2="%d"/>`, html.EscapeString(m.first.Link), html.EscapeString(m.name()), pct(m.share), marksHeight+c.Height)
		s.add(`<rect class="mark-box" x="%s" y="3.5" width="%s" height="16" rx="2"/><text class="mark" x="%s" y="15.5">%s</text></svg></a>`,
			px(x), px(m.width), px(x+5), html.EscapeString(m.text()))
	}
}

func (c *Stacked) drawLabels(s *svg) {
	n := float64(max(len(c.Starts), 1))
	shown := 0
	many := 0
	for _, label := range c.Labels {
		if label != "" {
			many++
		}
	}
	for i, label := range c.Labels {
		if label == "" {
			continue
		}
		class := ""
		if many > 6 && shown%2 == 1 {
			class = ` class="alt"`
		}
		shown++
		s.add(`<text%s x="%s" y="%d" text-anchor="middle">%s</text>`, class, pct((float64(i)+.5)/n), marksHeight+c.Height+16, html.EscapeString(label))
	}
}

// drawEnds writes names and counts next to the last whole bar, at least 34 pixels apart and not
// below the baseline.
func (c *Stacked) drawEnds(s *svg, y func(int64) float64) {
	apart, size := 34.0, 28.0
	if len(c.Starts) == 0 {
		return
	}
	compact := len(c.Lines)*34 > c.Height+marksHeight // then there are no counts
	if compact {
		apart, size = max(14, min(17, float64(c.Height)/float64(len(c.Lines)))), 14
	}
	last := len(c.Starts) - 1
	if c.Open && last > 0 {
		last--
	}
	below := int64(0)
	limit := float64(marksHeight+c.Height) - size // of the next top edge
	for _, line := range c.Lines {
		if last >= len(line.Counts) {
			continue
		}
		top := min((y(below)+y(below+line.Counts[last]))/2-size/2, limit)
		below += line.Counts[last]
		limit = top - apart
		total := int64(0)
		for _, n := range line.Counts {
			total += n
		}
		s.add(`<rect class="%s" x="8" y="%s" width="4" height="%s"/>`, html.EscapeString(line.Class), px(top), px(size-2))
		if compact {
			s.add(`<text x="18" y="%s">%s</text>`, px(top+10), html.EscapeString(clip(line.Name, 14)))
			continue
		}
		s.add(`<text class="name" x="18" y="%s">%s</text><text x="18" y="%s">%s</text>`,
			px(top+10), html.EscapeString(clip(line.Name, 13)), px(top+25), html.EscapeString(c.Count(total)))
	}
}

func clip(text string, longest int) string {
	r := []rune(text)
	if len(r) <= longest {
		return text
	}
	return string(r[:longest-1]) + "…"
}
