package ui

import (
	"cmp"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/pkg/ui/chart"
)

// maxTableRows and maxTableCells limit the table below the chart. It has one row at least.
const maxTableRows, maxTableCells = 400, 40_000

type chartView struct {
	Curl, SQL string
	Picture   template.HTML
	Title     template.HTML
	Legend    []legendEntry
	Foot      template.HTML
}

type legendEntry struct {
	Class, Name, Count string
}

func seriesTotal(b *insight.Buckets) (n int64) {
	for i := range b.Lines {
		for _, c := range b.Lines[i].Counts {
			n += c
		}
	}
	return n
}

// drawnLine is a line of a series in the chart.
type drawnLine struct {
	chart.Line
	order int
	code  bool
}

// lines returns the lines of a series in the order of the chart: variants from the bottom, nothing
// on top. Beyond seven variants, the rest is one line.
func (u *UI) lines(f *entity.Flag, s *insight.Series) []drawnLine {
	var lines []drawnLine
	for i := range s.Lines {
		l := &s.Lines[i]
		one := drawnLine{Line: chart.Line{Name: u.lineName(s.By, l), Class: chart.Class(i), Counts: l.Counts}, order: i, code: true}
		switch s.By {
		case insight.ByVariant:
			place := variantPlace(f, l.VariantID)
			one.Class, one.order = chart.Class(max(0, place)), max(0, place)
			if l.VariantID == 0 {
				one.Class, one.order, one.code = chart.None, 1<<30, false
			} else if place < 0 {
				one.Class, one.order = chart.Class(chart.MaxColors), 1<<29
			}
		case insight.ByOutcome:
			one.code = false
			if l.Outcome != datar.Matched {
				one.Class = map[datar.Outcome]string{datar.HeldOut: chart.None, datar.NoMatch: chart.Class(chart.MaxColors)}[l.Outcome]
				one.Class = cmp.Or(one.Class, chart.Class(2+int(l.Outcome)%4))
				one.order = 1 + int(l.Outcome)
				if l.Outcome == datar.HeldOut {
					one.order = 1 << 30
				}
			} else {
				one.Class, one.order = chart.Class(0), 0
			}
		default:
			if l.SegmentID == 0 && s.By == insight.BySegment || l.SnapshotID == 0 && s.By == insight.ByVersion {
				one.Class, one.order, one.code = chart.None, 1<<30, false
			}
		}
		lines = append(lines, one)
	}
	slices.SortStableFunc(lines, func(a, b drawnLine) int { return cmp.Compare(a.order, b.order) })
	return lines
}

// grouped combines the lines without their own color.
func (u *UI) grouped(lines []drawnLine) []drawnLine {
	var kept []drawnLine
	var rest *drawnLine
	n := 0
	for _, l := range lines {
		if l.Class != chart.Class(chart.MaxColors) {
			kept = append(kept, l)
			continue
		}
		n++
		if rest == nil {
			first := l
			first.Counts = slices.Clone(l.Counts)
			rest = &first
			continue
		}
		for i := range rest.Counts {
			rest.Counts[i] += l.Counts[i]
		}
	}
	if rest == nil {
		return kept
	}
	if n > 1 {
		rest.Name, rest.code = u.text.plain("traffic.others", "n", n), false
	}
	at := len(kept)
	if at > 0 && kept[at-1].Class == chart.None {
		at--
	}
	return slices.Insert(kept, at, *rest)
}

func (u *UI) lineName(by insight.By, l *insight.Line) string {
	switch {
	case by == insight.ByVariant && l.VariantID == 0:
		return u.text.plain("nothing")
	case by == insight.ByVariant:
		return cmp.Or(l.Name, "#"+strconv.FormatInt(l.VariantID, 10))
	case by == insight.BySegment && l.SegmentID == 0:
		return u.text.plain("traffic.nosegment")
	case by == insight.BySegment:
		return cmp.Or(clip(l.Name), u.text.plain("segment.number", "n", "#"+strconv.FormatInt(l.SegmentID, 10)))
	case by == insight.ByVersion && l.SnapshotID == 0:
		return u.text.plain("traffic.noversion")
	case by == insight.ByVersion:
		return strconv.FormatInt(l.SnapshotID, 10)
	case by == insight.ByOutcome:
		return u.text.plain("outcome." + l.Outcome.String())
	default:
		return u.text.plain("traffic.all")
	}
}

// chart draws a series. every is the number of buckets that share a label.
func (u *UI) chart(p *page, f *entity.Flag, s *insight.Series, height, width, every int) *chartView {
	lines := u.grouped(u.lines(f, s))
	c := chart.Stacked{
		ID: "chart", Starts: s.Starts, End: s.End, Height: height, Width: width, Count: number, HoleText: u.text.plain("chart.hole"),
		Title: u.text.plain("chart.title"), Open: len(s.Starts) > 0 && s.End.After(p.Now),
	}
	view := &chartView{}
	unknown := unknownBuckets(s)
	var words []string
	for _, l := range lines {
		c.Lines = append(c.Lines, l.Line)
		sum := int64(0)
		for _, n := range l.Counts {
			sum += n
		}
		words = append(words, l.Name+" "+number(sum))
		view.Legend = append(view.Legend, legendEntry{l.Class, l.Name, number(sum)})
	}
	c.Description = u.text.plain("chart.description", "from", p.format(s.Starts[0], "day"), "words", strings.Join(words, ", "))
	view.Title = u.text.say("chart.since", "at", p.Time(s.Starts[0], "day"))
	for i, start := range s.Starts {
		label := ""
		switch {
		case ofDays(s) && start.Hour() == 0 && start.YearDay()%((every+23)/24) == 0:
			label = u.dayLabel(start)
		case !ofDays(s) && i%every == 0 && i+every/2 < len(s.Starts)+every:
			label = u.bucketLabel(s, start)
		}
		c.Labels = append(c.Labels, label)
		var parts []string
		for _, l := range lines {
			parts = append(parts, l.Name+" "+countOr(l.Counts[i], unknown[i]))
		}
		c.Cursor = append(c.Cursor, u.bucketName(p, s, start)+": "+strings.Join(parts, ", "))
	}
	if s.Comparison != nil {
		c.Comparison = make([]int64, len(s.Comparison.Starts))
		for i := range s.Comparison.Lines {
			for j, n := range s.Comparison.Lines[i].Counts {
				c.Comparison[j] += n
			}
		}
	}
	for _, change := range slices.Backward(s.Changes) {
		if change.Affects == insight.AffectsAssignment || change.Affects == insight.AffectsCounting {
			id := strconv.FormatInt(change.SnapshotID, 10)
			c.Marks = append(c.Marks, chart.Mark{At: change.At, Text: id, Name: u.text.plain("chart.mark", "version", id, "at", p.format(change.At, "")), Link: p.Root + "flags/" + strconv.FormatUint(uint64(f.ID), 10) + "/history?snapshot=" + id + "#v" + id})
		}
	}
	if s.Complete != nil {
		for _, hole := range s.Complete.Holes {
			c.Holes = append(c.Holes, chart.Span{From: hole.From, To: hole.To})
		}
	}
	view.Foot = u.chartFoot(p, s, &c)
	view.Picture = c.Draw()
	return view
}

func (u *UI) chartFoot(p *page, s *insight.Series, c *chart.Stacked) template.HTML {
	var parts []string
	if len(c.Comparison) > 0 {
		parts = append(parts, string(u.text.say("chart.dotted", "at", p.Time(s.Comparison.Starts[0], "day"))))
	}
	if s.Complete != nil && len(s.Complete.Holes) > 0 {
		hole := s.Complete.Holes[0]
		parts = append(parts, string(u.text.say("chart.hatched", "from", p.Time(hole.From, ""), "to", p.Time(hole.To, ""), "why", u.text.plain("hole."+string(hole.Why)))))
	}
	if c.Open {
		parts = append(parts, string(u.text.say("chart.open")))
	}
	if !s.ComparisonMissing.IsZero() {
		parts = append(parts, string(u.text.say("chart.uncompared")))
	}
	if s.UTCDays {
		parts = append(parts, string(u.text.say("chart.utcdays")))
	}
	return template.HTML(strings.Join(parts, " ")) //nolint:gosec // texts of the catalog
}

// ofDays reports whether a series has so many hours that the axis names their days.
func ofDays(s *insight.Series) bool { return s.Unit == insight.UnitHour && len(s.Starts) > 49 }

func (u *UI) bucketLabel(s *insight.Series, start time.Time) string {
	if s.Unit == insight.UnitHour {
		return start.Format("15:04")
	}
	return u.dayLabel(start)
}

func (u *UI) dayLabel(start time.Time) string {
	return strconv.Itoa(start.Day()) + "\u00a0" + u.text.plain("month."+strconv.Itoa(int(start.Month())))
}

func (u *UI) bucketName(p *page, s *insight.Series, start time.Time) string {
	zoned := *p
	zoned.zone = s.Zone
	if s.Unit == insight.UnitHour {
		return zoned.format(start, "")
	}
	return zoned.format(start, "weekday")
}

type trafficData struct {
	Head          flagHead
	Answer, Under template.HTML
	Curl, SQL     string
	CSV           string
	Missing       template.HTML
	Windows       []option
	Buckets       []option
	Bys           []option
	Compares      []option
	Zones         []option
	Chart         *chartView
	Tail          *tailData
	TailLink      string
	Columns       []tableColumn
	When          template.HTML // header of the first column, and of the row of sums
	AllRows       template.HTML
	SaysAll       string // as that of a column
	Total         []string
	Rows          []tableRow
	More          int
	Unknown       template.HTML // why some numbers are missing
}

type tableColumn struct {
	Class, Name string
	Code        bool
	Says        string // what a number of the column counts; {row} stands for the name of the row
}

type tableRow struct {
	Name  string
	Note  template.HTML
	Cells []tableCell
}

type tableCell struct {
	Text string
	Zero bool
}

// trafficQuery is the query of the page's URL.
func (u *UI) trafficQuery(r *http.Request, p *page) (insight.SeriesQuery, int) {
	v := r.URL.Query()
	days := 30
	if n, err := strconv.Atoi(v.Get("days")); err == nil && slices.Contains([]int{1, 7, 30, 90, 365}, n) {
		days = n
	}
	q := insight.SeriesQuery{Window: lately(u.o.Now(), days), Bucket: v.Get("bucket"), By: cmp.Or(v.Get("by"), "variant"), Compare: v.Get("compare"), Zone: cmp.Or(v.Get("tz"), p.ZoneName)}
	if q.Bucket == "" && days > 3 {
		q.Bucket = "day"
	}
	if from, err := time.Parse(time.RFC3339, v.Get("from")); err == nil {
		q.From = &from
	}
	if to, err := time.Parse(time.RFC3339, v.Get("to")); err == nil {
		q.To = &to
	}
	return q, days
}

// traffic shows the evaluations of a flag over time.
func (u *UI) traffic(rw http.ResponseWriter, r *http.Request) error {
	f, stale, err := u.flag(r)
	if err != nil {
		return err
	}
	p, head := u.flagPage(r, f, "traffic")
	head.Stale, head.Checked = stale, u.o.LastCheck()
	d := &trafficData{Head: head, Answer: u.text.say("traffic.answer.none"), Tail: u.tail(r, p, f), TailLink: tailLink(r)}
	q, days := u.trafficQuery(r, p)
	u.trafficChoices(d, q, days, p)
	if d.Missing = u.missing(p, f, nil); d.Missing == "" {
		series, err := u.o.Numbers.Series(r.Context(), int64(f.ID), q)
		if d.Missing = u.missing(p, f, err); err == nil {
			u.trafficNumbers(r, p, f, d, series, q)
		}
	}
	p.Data = d
	u.render(rw, r, http.StatusOK, "traffic.html", p)
	return nil
}

func (u *UI) trafficChoices(d *trafficData, q insight.SeriesQuery, days int, p *page) {
	for _, n := range []int{1, 7, 30, 90, 365} {
		d.Windows = append(d.Windows, option{strconv.Itoa(n), u.text.plain("window.last", "n", n), n == days})
	}
	for _, name := range []string{"hour", "day", "week"} {
		d.Buckets = append(d.Buckets, option{name, u.text.plain("bucket." + name), name == q.Bucket})
	}
	for _, name := range []string{"variant", "outcome", "segment", "version"} {
		d.Bys = append(d.Bys, option{name, u.text.plain("by." + name), name == q.By})
	}
	for _, name := range []string{"", "previous", "week"} {
		d.Compares = append(d.Compares, option{name, u.text.plain("compare."+cmp.Or(name, "none"), "n", days), name == q.Compare})
	}
	for _, name := range slices.Compact([]string{p.ZoneName, "UTC"}) {
		d.Zones = append(d.Zones, option{name, name, name == q.Zone})
	}
	if !slices.ContainsFunc(d.Zones, func(o option) bool { return o.Selected }) {
		d.Zones = append(d.Zones, option{q.Zone, q.Zone, true})
	}
}

func (u *UI) trafficNumbers(r *http.Request, p *page, f *entity.Flag, d *trafficData, s *insight.Series, q insight.SeriesQuery) {
	total := seriesTotal(&s.Buckets)
	if len(s.Starts) == 0 {
		return
	}
	d.Answer = u.text.say("traffic.answer", "n", total, "at", p.Time(s.Starts[0], "day"))
	if now, before, n := wholeBuckets(s); n > 0 && before > 0 {
		change := float64(now-before) / float64(before)
		name := "traffic.answer.more"
		if change < 0 {
			name, change = "traffic.answer.less", -change
		}
		d.Answer = u.text.say(name, "n", total, "at", p.Time(s.Starts[0], "day"), "buckets", n, "unit", u.text.plain("units."+string(s.Unit)), "percent", percent(change).whole())
	}
	d.Under = u.text.say("traffic.under", "from", p.Time(s.Starts[0], ""), "upto", u.upTo(p, s.Complete))
	if q.To != nil {
		d.Answer = u.text.say("traffic.answer.between", "n", total, "from", p.Time(s.Starts[0], ""), "to", p.Time(s.End, ""))
		d.Under = u.upTo(p, s.Complete)
	}
	d.Curl, d.SQL = u.seriesSources(r, f, s, q)
	p.NumbersZone = s.Zone.String()
	d.CSV = "traffic.csv?" + r.URL.RawQuery
	every := max(1, (len(s.Starts)+10)/11)
	if len(s.Starts) == 31 || len(s.Starts) == 30 {
		every = 3
	}
	d.Chart = u.chart(p, f, s, 248, 1048, every)
	u.table(p, f, d, s)
}

// seriesSources returns the commands that get the numbers of a series.
func (u *UI) seriesSources(r *http.Request, f *entity.Flag, s *insight.Series, q insight.SeriesQuery) (curl, sql string) {
	query := url.Values{"bucket": {string(s.Unit)}, "by": {q.By}, "tz": {q.Zone}, "from": {s.Starts[0].UTC().Format(time.RFC3339)}}
	if q.To != nil {
		query.Set("to", q.To.UTC().Format(time.RFC3339))
	}
	path := fmt.Sprintf("/datar/flags/%d/series?", f.ID)
	curl = u.curl(r, path+query.Encode())
	if s.By == insight.ByVariant && len(s.Nothing) > 0 { // the columns without a variant
		query.Set("by", string(insight.ByOutcome))
		curl += "\n" + u.curl(r, path+query.Encode())
	}
	return curl, u.sql(datar.GroupHour|datar.GroupOutcome|datar.GroupVariant, f, s.Starts[0], q.To)
}

// wholeBuckets compares the buckets that are whole on both sides.
func wholeBuckets(s *insight.Series) (now, before int64, n int) {
	if s.Comparison == nil {
		return 0, 0, 0
	}
	for i := range s.Starts {
		if i >= len(s.Whole) || i >= len(s.Comparison.Whole) || !s.Whole[i] || !s.Comparison.Whole[i] {
			continue
		}
		n++
		for j := range s.Lines {
			now += s.Lines[j].Counts[i]
		}
		for j := range s.Comparison.Lines {
			before += s.Comparison.Lines[j].Counts[i]
		}
	}
	return now, before, n
}

// isUnknown reports whether a line of a series has the evaluations for which By is unknown: Flagr
// or an older version counted them, or they were reported without an outcome. Then the other lines
// can be too low.
func isUnknown(by insight.By, l *insight.Line) bool {
	return by == insight.ByOutcome && l.Outcome == datar.Unattributed || by == insight.ByVersion && l.SnapshotID == 0
}

// unknownBuckets returns the buckets of a series in which there are such evaluations; nil if there
// are none.
func unknownBuckets(s *insight.Series) (unknown map[int]bool) {
	for i := range s.Lines {
		if !isUnknown(s.By, &s.Lines[i]) {
			continue
		}
		for at, n := range s.Lines[i].Counts {
			if n > 0 {
				if unknown == nil {
					unknown = map[int]bool{}
				}
				unknown[at] = true
			}
		}
	}
	return unknown
}

// tableLines are the lines of the chart. Evaluations without a variant are divided by their
// outcomes, unless that is unknown for some of them.
func (u *UI) tableLines(f *entity.Flag, s *insight.Series) []drawnLine {
	lines := u.lines(f, s)
	if s.By != insight.ByVariant || len(s.Nothing) == 0 || slices.ContainsFunc(s.Nothing, func(l insight.Line) bool { return l.Outcome == datar.Unattributed }) {
		return lines
	}
	lines = slices.DeleteFunc(lines, func(l drawnLine) bool { return l.Class == chart.None })
	for i := range s.Nothing {
		l := &s.Nothing[i]
		lines = append(lines, drawnLine{Line: chart.Line{Name: upperFirst(u.text.plain("outcome." + l.Outcome.String())), Counts: l.Counts}})
	}
	return lines
}

// upperFirst is for the beginning of a sentence or a header.
func upperFirst(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}

// table has the numbers of the chart, newest bucket first.
func (u *UI) table(p *page, f *entity.Flag, d *trafficData, s *insight.Series) {
	lines := u.tableLines(f, s)
	d.When = u.text.say("bucket." + string(s.Unit))
	d.AllRows = u.text.say("traffic.total."+string(s.Unit), "n", len(s.Starts))
	sums := make([]int64, len(lines)+1)
	d.SaysAll = u.text.plain("says.traffic.all", "row", "{row}")
	unknown := unknownBuckets(s)
	if unknown != nil {
		d.Unknown = u.text.say("traffic.unknown." + string(s.By))
	}
	for _, l := range lines {
		says := "says.traffic." + string(s.By)
		if !l.code {
			says = "says.traffic.outcome"
		}
		d.Columns = append(d.Columns, tableColumn{l.Class, l.Name, l.code, u.text.plain(says, "column", l.Name, "row", "{row}")})
	}
	most := max(1, min(maxTableRows, maxTableCells/len(sums)))
	for i, v := range slices.Backward(s.Starts) {
		row := tableRow{Name: u.bucketName(p, s, v)}
		if i == len(s.Starts)-1 && s.End.After(p.Now) {
			row.Note = u.text.say("traffic.until", "at", p.Time(p.Now, "clock"))
		} else if i < len(s.Whole) && !s.Whole[i] {
			row.Note = u.text.say("traffic.notwhole")
		}
		all := int64(0)
		for j, l := range lines {
			sums[j] += l.Counts[i]
			all += l.Counts[i]
		}
		sums[len(lines)] += all
		if len(d.Rows) == most {
			d.More++
			continue
		}
		for _, l := range lines {
			row.Cells = append(row.Cells, tableCell{countOr(l.Counts[i], unknown[i]), l.Counts[i] == 0})
		}
		row.Cells = append(row.Cells, tableCell{number(all), all == 0})
		d.Rows = append(d.Rows, row)
	}
	for _, n := range sums {
		d.Total = append(d.Total, number(n))
	}
}

// countOr formats a count. If others may belong to it, 0 is not known to be true.
func countOr(n int64, unknown bool) string {
	if n == 0 && unknown {
		return "–"
	}
	return number(n)
}

// trafficCSV writes the numbers of the page as CSV, with times in UTC.
func (u *UI) trafficCSV(rw http.ResponseWriter, r *http.Request) error {
	f, _, err := u.flag(r)
	if err != nil {
		return err
	}
	if u.o.Numbers == nil {
		return entity.NotFound("nothing is counted: Datar is off")
	}
	q, _ := u.trafficQuery(r, u.page(r, "flags", ""))
	series, err := u.o.Numbers.Series(r.Context(), int64(f.ID), q)
	if err != nil {
		return err
	}
	if err := series.CheckTable(); err != nil {
		return err
	}
	inUTC := *series // its buckets are days of the zone of the page
	inUTC.Starts, inUTC.End = make([]time.Time, len(series.Starts)), series.End.UTC()
	for i, start := range series.Starts {
		inUTC.Starts[i] = start.UTC()
	}
	return writeTable(rw, f.Key+"-traffic.csv", inUTC.Table())
}

func writeTable(rw http.ResponseWriter, name string, t *insight.Table) error {
	attachCSV(rw, name)
	return t.WriteCSV(rw)
}

// attachCSV makes the response a file for download.
func attachCSV(rw http.ResponseWriter, name string) {
	rw.Header().Set("Content-Type", "text/csv; charset=utf-8")
	rw.Header().Set("Content-Disposition", `attachment; filename="`+strings.NewReplacer(`"`, "", "/", "-").Replace(name)+`"`)
}

type nothingData struct {
	Head           flagHead
	Answer, Under  template.HTML
	Curl, SQL, CSV string
	Missing        template.HTML
	Reasons        []reasonRow
	Sample         template.HTML
	Stops          []stopRow
	StopsCurl      string // of the sample, which is in no table
	Context        string
}

type reasonRow struct {
	Name  template.HTML
	Count string
	Share string
	Bar   template.HTML
	Text  template.HTML
}

type stopRow struct {
	Constraint string
	Segment    template.HTML
	Count      string
	Share      string
	Bar        template.HTML
	Text       template.HTML
}

// nothing explains why evaluations gave no variant.
func (u *UI) nothing(rw http.ResponseWriter, r *http.Request) error {
	f, stale, err := u.flag(r)
	if err != nil {
		return err
	}
	p, head := u.flagPage(r, f, "nothing")
	head.Stale, head.Checked = stale, u.o.LastCheck()
	d := &nothingData{Head: head, Answer: u.text.say("nothing.answer.none"), Context: exampleContext(f)}
	if d.Missing = u.missing(p, f, nil); d.Missing == "" {
		outcomes, err := u.o.Numbers.Outcomes(r.Context(), int64(f.ID), lately(u.o.Now(), overviewDays))
		if d.Missing = u.missing(p, f, err); err == nil {
			u.nothingNumbers(r, p, f, d, outcomes)
		}
	}
	p.Data = d
	u.render(rw, r, http.StatusOK, "nothing.html", p)
	return nil
}

func (u *UI) nothingNumbers(r *http.Request, p *page, f *entity.Flag, d *nothingData, o *insight.Outcomes) {
	var without []insight.OutcomeCount
	none := int64(0)
	for _, one := range o.Outcomes {
		if one.Outcome == datar.Unattributed {
			one.Count = 0
			for _, v := range o.Unattributed {
				if v.VariantID == 0 {
					one.Count = v.Count
				}
			}
		}
		if one.Outcome != datar.Matched && one.Count > 0 {
			without = append(without, one)
			none += one.Count
		}
	}
	d.Under = u.text.say("nothing.under", "from", p.Time(o.From, ""), "upto", u.upTo(p, o.Complete))
	path := fmt.Sprintf("/datar/flags/%d/outcomes", f.ID)
	d.Curl, d.CSV = u.curl(r, path+"?from="+o.From.UTC().Format(time.RFC3339)), p.csv(path, o.From)
	d.SQL = u.sql(datar.GroupOutcome, f, o.From, nil)
	switch {
	case o.Total == 0:
		d.Answer = u.text.say("nothing.answer.unasked")
		return
	case none == 0:
		d.Answer = u.text.say("nothing.answer.all", "n", o.Total)
		return
	}
	slices.SortStableFunc(without, func(a, b insight.OutcomeCount) int { return cmp.Compare(b.Count, a.Count) })
	d.Answer = u.text.say("nothing.answer", "none", none, "n", o.Total, "percent", percent(ratio(without[0].Count, none)).whole(),
		"why", u.text.plain("nothing.of."+without[0].Outcome.String()))
	u.stops(r, f, d)
	for _, one := range without {
		share := ratio(one.Count, none)
		d.Reasons = append(d.Reasons, reasonRow{
			Name: u.text.say("nothing.reason." + one.Outcome.String()), Count: number(one.Count), Share: percent(share).String(),
			Bar: chart.Bar("reason", chart.Part{Class: "r-false", Share: share}), Text: u.reasonText(p, f, o, one, d),
		})
	}
}

func (u *UI) reasonText(p *page, f *entity.Flag, o *insight.Outcomes, one insight.OutcomeCount, d *nothingData) template.HTML {
	link := p.Root + "flags/" + strconv.FormatUint(uint64(f.ID), 10) + "/targeting"
	switch one.Outcome {
	case datar.HeldOut:
		var holders []*insight.SegmentOutcome
		for i := range o.Segments {
			if o.Segments[i].HeldOut > 0 {
				holders = append(holders, &o.Segments[i])
			}
		}
		if len(holders) == 1 {
			for i := range f.Segments {
				if s := &f.Segments[i]; int64(s.ID) == holders[0].SegmentID {
					return u.text.say("nothing.text.heldout", "segment", segmentName(u.text, i, s.Description), "link", link, "percent", points(s.RolloutPercent))
				}
			}
		}
		return u.text.say("nothing.text.heldouts", "n", len(holders), "link", link)
	case datar.NoMatch:
		var words template.HTML
		if one.Unevaluable > 0 {
			words = u.text.say("nothing.text.unevaluable", "n", one.Unevaluable) + " "
		}
		if len(d.Stops) == 0 {
			return words + u.text.say("nothing.text.nosample")
		}
		return words + u.text.say("nothing.text.nomatch", "link", "#stops", "sample", d.Sample)
	case datar.Disabled:
		return u.text.say("nothing.text.disabled", "at", p.Time(one.Last, ""))
	case datar.NoSegments:
		return u.text.say("nothing.text.nosegments", "link", link)
	case datar.Error:
		return u.text.say("nothing.text.error")
	default:
		return u.text.say("nothing.text.unattributed")
	}
}

// stops sets the first constraints that did not hold, from the sample.
func (u *UI) stops(r *http.Request, f *entity.Flag, d *nothingData) {
	reasons, err := u.o.Numbers.Reasons(r.Context(), int64(f.ID), lately(u.o.Now(), overviewDays))
	if err != nil || reasons.Examined == 0 {
		return
	}
	d.StopsCurl = u.curl(r, fmt.Sprintf("/datar/flags/%d/reasons?from=%s", f.ID, hourOf(u.o.Now(), overviewDays).Format(time.RFC3339)))
	d.Sample = u.text.say("nothing.sample", "n", reasons.Examined, "of", reasons.Of)
	for i := range reasons.Segments {
		s := &reasons.Segments[i]
		place := slices.IndexFunc(f.Segments, func(o entity.Segment) bool { return int64(o.ID) == s.SegmentID })
		for j := range s.Constraints {
			c := &s.Constraints[j]
			if c.Stopped == 0 {
				continue
			}
			property, _, _ := strings.Cut(c.Text, " ")
			row := stopRow{Constraint: u.stoppedBy(f, place, c), Count: number(c.Stopped), Share: percent(ratio(c.Stopped, reasons.Examined)).String(), Segment: u.text.say("segment.lower", "n", strconv.Itoa(place+1))}
			part := func(n int64) float64 { return ratio(n, reasons.Examined) }
			row.Bar = chart.Bar(fmt.Sprintf("stop-%d-%d", i, j), chart.Part{Class: "r-false", Share: part(c.False)},
				chart.Part{Class: "r-missing", Share: part(c.Missing)}, chart.Part{Class: "r-type", Share: part(c.OtherType), Stripes: true})
			var words []string
			add := func(n int64, name string) {
				if n > 0 {
					words = append(words, string(u.text.say(name, "n", n, "property", code(property))))
				}
			}
			add(c.False, "nothing.stop.false")
			add(c.Missing, "nothing.stop.missing")
			add(c.OtherType, "nothing.stop.type")
			row.Text = template.HTML(strings.Join(words, " ")) //nolint:gosec // texts of the catalog
			d.Stops = append(d.Stops, row)
		}
	}
}

// stoppedBy describes a constraint. Plain text is shown as on the page of targeting, if the flag
// still has the constraint.
func (u *UI) stoppedBy(f *entity.Flag, place int, c *insight.ConstraintReasons) string {
	if place >= 0 {
		for i := range f.Segments[place].Constraints {
			one := &f.Segments[place].Constraints[i]
			if form := constraintForm(one); patternOf[form.Operator] != "" && c.IsOf(one) {
				return clip(u.text.constraint(one))
			}
		}
	}
	return c.Text
}

type unknownData struct {
	Answer, Under  template.HTML
	Curl, SQL, CSV string
	Missing        template.HTML
	Rows           []unknownRow
	Prev, Next     string
}

type unknownRow struct {
	Asked  string
	Count  string
	Last   template.HTML
	Text   template.HTML
	Create string
}

// unknown lists the keys that applications ask for but no flag has.
func (u *UI) unknown(rw http.ResponseWriter, r *http.Request) error {
	p := u.page(r, "unknown", u.text.plain("unknown.title"))
	d := &unknownData{Answer: u.text.say("unknown.answer.none")}
	p.Data = d
	if u.o.Numbers == nil {
		d.Answer, d.Missing = u.text.say("unknown.answer.missing"), u.noDatar()
		u.render(rw, r, http.StatusOK, "unknown.html", p)
		return nil
	}
	n := pageNumber(r)
	limit, offset := int64(pageSize+1), int64((n-1)*pageSize)
	list, err := u.o.Numbers.Unknown(r.Context(), lately(u.o.Now(), overviewDays), &limit, &offset)
	if err != nil {
		u.o.Logger.Warn("unknown keys are missing", "error", err)
		d.Answer = u.text.say("unknown.answer.missing")
		d.Missing = u.text.say("numbers.database", "at", p.Time(p.Now, "clock"), "again", "")
		u.render(rw, r, http.StatusOK, "unknown.html", p)
		return nil
	}
	d.Prev, d.Next = pageLinks(n, len(list.Unknown) > pageSize)
	rows := list.Unknown[:min(pageSize, len(list.Unknown))]
	texts, sum := len(rows), int64(0)
	for _, one := range rows {
		sum += one.Count
	}
	atLeast := false
	if d.Prev != "" || d.Next != "" { // the rows of all pages
		if all := u.askedInVain(r); all != nil {
			texts, sum, atLeast = all.Texts, all.Count, all.AtLeast
		}
	}
	deleted := u.deletedOf(r, rows)
	for _, one := range rows {
		row := unknownRow{Asked: one.Asked, Count: number(one.Count), Last: p.Ago(one.Last)}
		switch {
		case one.Asked == datar.OtherUnknown:
			row.Text = u.text.say("unknown.other")
		case one.DeletedFlagID != 0:
			id := strconv.FormatInt(one.DeletedFlagID, 10)
			row.Text = u.text.say("unknown.deleted", "link", p.Root+"deleted/"+id)
			if f := deleted[one.DeletedFlagID]; f != nil {
				row.Text = u.text.say("unknown.deleted.was", "was", u.wasDeleted(p, f), "link", p.Root+"deleted/"+id)
			}
			if p.ReadOnly {
				row.Text = u.text.say("unknown.deleted.plain")
			}
		case one.Similar != "":
			row.Text = u.text.say("unknown.similar", "key", code(one.Similar))
		}
		if one.Asked != datar.OtherUnknown && one.DeletedFlagID == 0 && entity.CheckKey(one.Asked) == nil && !p.ReadOnly {
			row.Create = p.Root + "new?key=" + url.QueryEscape(one.Asked)
		}
		d.Rows = append(d.Rows, row)
	}
	if atLeast {
		d.Answer = u.text.say("unknown.answer.atleast", "n", texts, "sum", sum)
	} else if texts > 0 {
		d.Answer = u.text.say("unknown.answer", "n", texts, "sum", sum)
	}
	d.Under = u.text.say("unknown.under", "upto", u.upTo(p, list.Complete))
	from := hourOf(u.o.Now(), overviewDays)
	d.Curl, d.SQL, d.CSV = u.curl(r, "/datar/unknown?from="+from.Format(time.RFC3339)), u.unknownSQL(from), p.csv("/datar/unknown", from)
	u.render(rw, r, http.StatusOK, "unknown.html", p)
	return nil
}

// deletedOf returns the deleted flags that rows name, by ID, or none if they cannot be read.
func (u *UI) deletedOf(r *http.Request, rows []insight.Unknown) map[int64]*entity.Flag {
	var ids []int64
	for _, one := range rows {
		if one.DeletedFlagID != 0 {
			ids = append(ids, one.DeletedFlagID)
		}
	}
	if len(ids) == 0 || u.o.Store == nil {
		return nil
	}
	flags, err := u.o.Store.DeletedAmong(r.Context(), nil, ids)
	if err != nil {
		u.o.Logger.Warn("times of deletions are missing", "error", err)
		return nil
	}
	found := map[int64]*entity.Flag{}
	for i := range flags {
		found[int64(flags[i].ID)] = &flags[i]
	}
	return found
}

// askedInVain adds up the unknown keys of the last days. It returns nil if they cannot be read.
func (u *UI) askedInVain(r *http.Request) *insight.UnknownSum {
	if u.o.Numbers == nil {
		return nil
	}
	sum, err := u.o.Numbers.UnknownSum(r.Context(), lately(u.o.Now(), overviewDays))
	if err != nil {
		u.o.Logger.Warn("unknown keys are missing", "error", err)
		return nil
	}
	return sum
}

// askedTimes describes how often applications asked for a key in the last days; empty if they did
// not.
func (u *UI) askedTimes(r *http.Request, key string) template.HTML {
	if sum := u.askedInVain(r); sum != nil && sum.ByText[key] > 0 {
		return u.text.say("new.asked", "n", sum.ByText[key])
	}
	return ""
}

// askedLike returns the unknown keys that contain a string, most frequent first.
func (u *UI) askedLike(r *http.Request, p *page, text string) (rows []unknownRow) {
	const most = 5
	if u.o.Numbers == nil {
		return nil
	}
	limit := int64(1000)
	list, err := u.o.Numbers.Unknown(r.Context(), lately(u.o.Now(), overviewDays), &limit, nil)
	if err != nil {
		return nil
	}
	for _, one := range list.Unknown {
		if one.Asked == datar.OtherUnknown || !strings.Contains(strings.ToLower(one.Asked), strings.ToLower(text)) {
			continue
		}
		row := unknownRow{Asked: one.Asked, Text: u.text.say("new.asked", "n", one.Count)}
		if one.DeletedFlagID == 0 && entity.CheckKey(one.Asked) == nil && !p.ReadOnly {
			row.Create = p.Root + "new?key=" + url.QueryEscape(one.Asked)
		}
		if rows = append(rows, row); len(rows) == most {
			break
		}
	}
	return rows
}

// askedDeleted returns how often applications asked for deleted flags in the last days, by ID. It
// returns nil if that is unknown.
func (u *UI) askedDeleted(r *http.Request) map[int64]int64 {
	if sum := u.askedInVain(r); sum != nil {
		return sum.ByDeletedFlag
	}
	return nil
}
