package ui

import (
	"cmp"
	"context"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

const (
	pageSize = 100
	// maxTagChoices limits the tags in the filter's menu.
	maxTagChoices = 200
)

// windows are the numbers of days to choose from.
var windows = []int{7, latelyDays}

// sorts are the sort orders of the list; the first is the default.
var sorts = []string{"changed", "key", "id", "traffic", "last"}

// columns are the optional columns and parts of the list, in order, and whether they need numbers.
var columns = []struct {
	name    string
	numbers bool
}{
	{"onoff", false}, {"id", false}, {"description", false}, {"tags", false},
	{"state", true}, {"traffic", true}, {"last", true}, {"changed", false}, {"findings", true},
}

// listQuery is the query of the list's URL.
type listQuery struct {
	text, tag, on, state, sort string
	days, page                 int
	hidden                     []string
}

func parseListQuery(v url.Values) listQuery {
	q := listQuery{
		text: strings.TrimSpace(strings.ToValidUTF8(v.Get("q"), "\uFFFD")), tag: v.Get("tag"), state: v.Get("state"), sort: sorts[0], days: 7, page: 1,
	}
	if on := v.Get("on"); on == "on" || on == "off" {
		q.on = on
	}
	if slices.Contains(sorts, v.Get("sort")) {
		q.sort = v.Get("sort")
	}
	if days, err := strconv.Atoi(v.Get("days")); err == nil && slices.Contains(windows, days) {
		q.days = days
	}
	if n, err := strconv.Atoi(v.Get("page")); err == nil && n > 0 && n < 1e6 {
		q.page = n
	}
	if v.Has("cols") {
		for _, c := range columns {
			if !slices.Contains(v["cols"], c.name) {
				q.hidden = append(q.hidden, c.name)
			}
		}
	}
	return q
}

// with returns the URL of the list with one parameter changed, on the first page.
func (q listQuery) with(name, value string) string {
	v := url.Values{}
	set := func(name, value, usual string) {
		if value != usual {
			v.Set(name, value)
		}
	}
	set("q", q.text, "")
	set("tag", q.tag, "")
	set("on", q.on, "")
	set("state", q.state, "")
	set("sort", q.sort, sorts[0])
	set("days", strconv.Itoa(q.days), "7")
	if len(q.hidden) > 0 {
		for _, c := range columns {
			if !slices.Contains(q.hidden, c.name) {
				v.Add("cols", c.name)
			}
		}
		if len(q.hidden) == len(columns) {
			v.Set("cols", "")
		}
	}
	if value == "" {
		v.Del(name)
	} else {
		v.Set(name, value)
	}
	if len(v) == 0 {
		return "./"
	}
	return "?" + v.Encode()
}

// states returns the parameters with which the API lists the flags of the page. It has no order by
// ID, and no states for contradictions and for flags that were not asked: then they are those with
// which it lists as many flags as it can.
func (q listQuery) states() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("q", q.text)
	set("tags", q.tag)
	if q.on != "" {
		set("enabled", strconv.FormatBool(q.on == "on"))
	}
	sort := map[string]string{"changed": "updated", "key": "key", "traffic": "traffic", "last": "last"}[q.sort]
	if sort == "" || q.state == stateContradiction || q.state == stateUnasked || strings.Contains(q.tag, ",") {
		v.Set("limit", "1000")
		return v
	}
	set("state", q.state)
	set("sort", sort)
	if q.page > 1 {
		set("offset", strconv.Itoa((q.page-1)*pageSize))
	}
	return v
}

// listed is a flag with its numbers, which are nil if Datar is off.
type listed struct {
	flag    *entity.Flag
	numbers *insight.FlagState
}

// Row is a line of the list.
type row struct {
	ID                   uint
	Key, Description     string
	Tags                 []string
	MoreTags             int
	Enabled, Unreadable  bool
	State, Under         template.HTML
	StateClass           string
	Spark                []int64
	HasSpark, NotCounted bool
	Total                string
	Zero                 bool
	Last, Changed        template.HTML
	LastOld              bool
	By                   string
	Findings             []rowFinding
}

type rowFinding struct {
	Class string
	Text  template.HTML
}

type stateTab struct {
	Name    template.HTML
	Count   int
	Link    string
	Current bool
}

type option struct {
	Value, Name string
	Selected    bool
}

type column struct {
	Name, Title template.HTML
	Value       string
	Shown       bool
	Link        string
	Sorted      bool
}

type listData struct {
	Answer, Under template.HTML
	Empty         bool
	NoMatch       template.HTML
	AskedFor      []unknownRow
	AllLink       string
	Days          int
	Text, On      string
	Tags, Windows []option
	Ons           []option
	States        []stateTab
	Rows          []row
	From, To, All int
	Prev, Next    string
	Hidden        []option
	Columns       []column
	Show          map[string]bool
	Head          map[string]column
	Datar         bool
	First         *firstSteps
	CSV           string
	Deleted       bool
	Curl, SQL     string
	Says          string // the text that says what the numbers of evaluations count
}

// list is the first page: all flags with their states and evaluations.
func (u *UI) list(rw http.ResponseWriter, r *http.Request) error {
	q := parseListQuery(r.URL.Query())
	all := u.o.Snapshots.Snapshot().Listed()
	p := u.page(r, "flags", u.text.plain("list.title"))
	d := listData{Days: q.days, Text: q.text, On: q.on, Datar: u.o.Numbers != nil, Deleted: u.o.Store != nil}
	p.Data = &d
	d.Says = "says.list.days" // the API has them by day
	if q.days >= latelyDays {
		d.Says = "says.list"
	}
	if len(all) == 0 {
		d.Empty = true
		d.First = u.firstSteps(r, p)
		u.render(rw, r, http.StatusOK, "list.html", p)
		return nil
	}
	board := u.boardNow(r.Context())
	if err := r.Context().Err(); errors.Is(err, context.Canceled) {
		return err
	}
	found, byState := u.filter(all, board, q)
	u.fillFilters(&d, all, q, byState)
	d.Answer, d.Under = u.listAnswer(p, len(all), board, q, byState)
	u.fillPage(&d, p, found, q)
	if board != nil {
		d.Curl, d.SQL = u.curl(r, "/datar/states?"+q.states().Encode()), u.sql(datar.GroupFlag, nil, listFrom(u.o.Now(), q.days), nil)
	}
	if len(found) == 0 {
		d.NoMatch = u.text.say("list.nomatch", "what", u.filterWords(q))
		d.AllLink = "./"
		if q.text != "" {
			d.AskedFor = u.askedLike(r, p, q.text)
		}
	}
	u.render(rw, r, http.StatusOK, "list.html", p)
	return nil
}

// filter returns the flags that match the query, sorted, and the number of flags in each state,
// regardless of the query's state.
func (u *UI) filter(all []*entity.Flag, board *board, q listQuery) ([]listed, map[string]int) {
	search := insight.NewSearch(q.text)
	byState := map[string]int{}
	found := make([]listed, 0, len(all))
	for _, f := range all {
		if q.on != "" && f.Enabled != (q.on == "on") || q.tag != "" && !hasTag(f, q.tag) || !search.Matches(f) {
			continue
		}
		one := listed{f, board.flag(f)}
		byState[""]++
		if one.numbers != nil {
			if one.numbers.State.State != "" {
				byState[string(one.numbers.State.State)]++
			}
			if one.numbers.Contradictions > 0 {
				byState[stateContradiction]++
			}
			if isUnasked(one.numbers) {
				byState[stateUnasked]++
			}
		}
		if q.state == "" || one.numbers != nil && isState(one.numbers, q.state) {
			found = append(found, one)
		}
	}
	slices.SortStableFunc(found, func(a, b listed) int { return compareListed(q, a, b) })
	return found, byState
}

func compareListed(q listQuery, a, b listed) int {
	newest := func() int {
		return cmp.Or(b.flag.UpdatedAt.Compare(a.flag.UpdatedAt), cmp.Compare(b.flag.ID, a.flag.ID))
	}
	switch q.sort {
	case "key":
		return cmp.Or(strings.Compare(strings.ToLower(a.flag.Key), strings.ToLower(b.flag.Key)), cmp.Compare(a.flag.ID, b.flag.ID))
	case "id":
		return cmp.Compare(a.flag.ID, b.flag.ID)
	case "traffic":
		return cmp.Or(cmp.Compare(total(b.numbers, q.days), total(a.numbers, q.days)), newest())
	case "last":
		return cmp.Or(lastAsked(b.numbers).Compare(lastAsked(a.numbers)), newest())
	default:
		return newest()
	}
}

func hasTag(f *entity.Flag, value string) bool {
	return slices.ContainsFunc(f.Tags, func(tag entity.Tag) bool { return tag.Value == value })
}

func (u *UI) fillFilters(d *listData, all []*entity.Flag, q listQuery, byState map[string]int) {
	tags := map[string]int{}
	for _, f := range all {
		for _, tag := range f.Tags {
			tags[tag.Value]++
		}
	}
	values := make([]string, 0, len(tags))
	for value := range tags {
		values = append(values, value)
	}
	slices.SortFunc(values, func(a, b string) int { return cmp.Or(cmp.Compare(tags[b], tags[a]), strings.Compare(a, b)) })
	values = values[:min(len(values), maxTagChoices)]
	if q.tag != "" && !slices.Contains(values, q.tag) {
		values = append(values, q.tag)
	}
	slices.Sort(values)
	d.Tags = append(d.Tags, option{"", u.text.plain("list.tags.all"), q.tag == ""})
	for _, value := range values {
		d.Tags = append(d.Tags, option{value, value, value == q.tag})
	}
	for _, days := range windows {
		name := strconv.Itoa(days)
		d.Windows = append(d.Windows, option{name, u.text.plain("window.last", "n", days), days == q.days})
	}
	for _, on := range []string{"", "on", "off"} {
		d.Ons = append(d.Ons, option{on, u.text.plain("list.on." + cmp.Or(on, "both")), on == q.on})
	}
	for _, state := range states {
		if state != "" && state != q.state && byState[state] == 0 {
			continue
		}
		d.States = append(d.States, stateTab{u.text.say("state." + cmp.Or(state, "all")), byState[state], q.with("state", state), state == q.state})
	}
	if u.o.Numbers == nil {
		d.States = d.States[:1]
	}
	for _, name := range []string{"state", "sort"} {
		if value := map[string]string{"state": q.state, "sort": q.sort}[name]; value != "" && (name != "sort" || value != sorts[0]) {
			d.Hidden = append(d.Hidden, option{Name: name, Value: value})
		}
	}
	d.Show = map[string]bool{}
	d.Head = map[string]column{}
	for _, c := range columns {
		shown := !slices.Contains(q.hidden, c.name)
		d.Show[c.name] = shown
		if !c.numbers || d.Datar {
			d.Columns = append(d.Columns, column{Value: c.name, Title: u.text.say("column." + c.name), Shown: shown})
		}
	}
	for _, name := range sorts {
		d.Head[name] = column{Link: q.with("sort", name), Sorted: q.sort == name}
	}
}

func (u *UI) fillPage(d *listData, p *page, found []listed, q listQuery) {
	d.All = len(found)
	last := max(1, (d.All+pageSize-1)/pageSize)
	n := min(q.page, last)
	from := (n - 1) * pageSize
	to := min(from+pageSize, d.All)
	d.From, d.To = from+1, to
	if n > 1 {
		d.Prev = q.with("page", strconv.Itoa(n-1))
	}
	if n < last {
		d.Next = q.with("page", strconv.Itoa(n+1))
	}
	d.CSV = "flags.csv" + strings.TrimPrefix(q.with("page", ""), "./")
	d.Rows = make([]row, 0, to-from)
	for _, one := range found[from:to] {
		d.Rows = append(d.Rows, u.row(p, one, q.days))
	}
}

func (u *UI) row(p *page, one listed, days int) row {
	f := one.flag
	r := row{ID: f.ID, Key: f.Key, Description: shown(f.Description), Enabled: f.Enabled, Unreadable: f.Unreadable != "", By: shortName(f.UpdatedBy), Changed: p.Time(f.UpdatedAt, "short")}
	if r.Key == "" {
		r.Key = "#" + strconv.FormatUint(uint64(f.ID), 10)
	}
	const tagsShown = 3
	for i, tag := range f.Tags {
		if i == tagsShown {
			r.MoreTags = len(f.Tags) - tagsShown
			break
		}
		r.Tags = append(r.Tags, tag.Value)
	}
	n := one.numbers
	if n == nil {
		return r
	}
	if n.State.State == "" {
		r.State, r.StateClass = u.text.say("state.preparing"), "muted"
	} else {
		r.State, r.StateClass = u.text.say("state."+string(n.State.State)), stateClass(n.State.State)
		r.Under = u.under(p, n, days)
	}
	count := total(n, days)
	r.NotCounted = n.State.State == insight.StateNotCounted && count == 0
	r.HasSpark = !r.NotCounted
	r.Spark = n.Spark
	if last := len(n.Spark) - 1; last > 0 && slices.Max(n.Spark[:last]) > 0 {
		r.Spark = n.Spark[:last] // today is not over
	}
	r.Total, r.Zero = number(count), count == 0
	r.Last, r.LastOld = p.Ago(n.Evidence.Last), p.Now.Sub(n.Evidence.Last) >= time.Minute
	if n.Evidence.Last.IsZero() && (n.State.State == "" || everAsked(n.State)) {
		r.Last = u.text.say("list.last.unknown")
	}
	for _, finding := range []struct {
		n           int
		name, class string
	}{{n.Contradictions, "contradiction", "bad strong"}, {n.Warnings, "warning", "warn"}, {n.Findings - n.Contradictions - n.Warnings, "note", "muted"}} {
		if finding.n > 0 {
			r.Findings = append(r.Findings, rowFinding{finding.class, u.text.say("list.finding."+finding.name, "n", finding.n)})
		}
	}
	return r
}

// shortName returns the part before the @ of an email address.
func shortName(by string) string {
	name, _, _ := strings.Cut(by, "@")
	return shown(name)
}

// listAnswer is the first sentence of the page.
func (u *UI) listAnswer(p *page, all int, board *board, q listQuery, byState map[string]int) (answer, under template.HTML) {
	var parts []string
	add := func(n int, name, state string) {
		if n > 0 {
			parts = append(parts, string(u.text.say(name, "n", n, "link", q.with("state", state))))
		}
	}
	add(byState[string(insight.StateGivesNothing)], "list.answer.nothing", string(insight.StateGivesNothing))
	add(byState[stateContradiction], "list.answer.contradict", stateContradiction)
	add(byState[stateUnasked], "list.answer.unasked", stateUnasked)
	answer = u.text.say("list.answer", "n", all)
	if len(parts) > 0 {
		answer = u.text.say("list.answer.with", "n", all, "parts", template.HTML(strings.Join(parts, ", "))) //nolint:gosec // texts of the catalog
	}
	switch {
	case u.o.Numbers == nil:
		under = u.text.say("list.nodatar")
		if u.o.Elsewhere {
			under = u.text.say("numbers.elsewhere")
		}
	case board == nil:
		under = u.text.say("list.nonumbers", "at", p.Time(u.o.LastCheck(), "clock"), "again", "")
	default:
		under = u.listSum(p, board, q.days)
	}
	if stale := p.Now.Sub(u.o.LastCheck()); stale > staleAfter {
		under += " " + u.text.say("list.stale", "at", p.Time(u.o.LastCheck(), "clock"))
	}
	return answer, under
}

// listSum is the sentence with the sum of all evaluations. While old counts are being added up,
// another sentence explains what is missing.
func (u *UI) listSum(p *page, board *board, days int) template.HTML {
	states := board.states
	if states.Preparing != nil && states.Complete == nil {
		return u.text.say("list.preparing.none", "made", states.Preparing.Made, "due", states.Preparing.Due)
	}
	sum := int64(0)
	for _, n := range board.flags {
		sum += total(n, days)
	}
	upTo := u.upTo(p, states.Complete)
	from := later(states.CountsFrom, listFrom(p.Now, days))
	under := u.text.say("list.under", "n", sum, "at", p.Time(from, ""), "upto", upTo)
	if states.Preparing == nil {
		return under
	}
	name := "list.preparing"
	if !states.CountsFrom.IsZero() {
		name = "list.preparing.from"
	}
	return under + " " + u.text.say(name, "at", p.Time(states.CountsFrom, ""), "made", states.Preparing.Made, "due", states.Preparing.Due)
}

func (u *UI) filterWords(q listQuery) template.HTML {
	var parts []string
	add := func(name string, value any) { parts = append(parts, string(u.text.say(name, "x", value))) }
	if q.text != "" {
		add("list.filter.text", catalog.Name(q.text))
	}
	if q.tag != "" {
		add("list.filter.tag", catalog.Name(q.tag))
	}
	if q.on != "" {
		add("list.filter.on", u.text.plain("list.on."+q.on))
	}
	if q.state != "" {
		add("list.filter.state", u.text.plain("state."+q.state))
	}
	return template.HTML(strings.Join(parts, ", ")) //nolint:gosec // texts of the catalog
}

// listCSV writes all flags that match the query as CSV.
func (u *UI) listCSV(rw http.ResponseWriter, r *http.Request) error {
	q := parseListQuery(r.URL.Query())
	board := u.boardNow(r.Context())
	if err := r.Context().Err(); errors.Is(err, context.Canceled) {
		return err
	}
	found, _ := u.filter(u.o.Snapshots.Snapshot().Listed(), board, q)
	attachCSV(rw, "flags.csv")
	lines := func(yield func(insight.ListedFlag) bool) {
		for _, one := range found {
			n := one.numbers
			if n != nil && board.states.CountsFrom.After(listFrom(u.o.Now(), q.days)) {
				n = nil // the sum would lack days
			}
			if !yield(insight.ListedFlag{Flag: one.flag, State: n, Evaluations: total(n, q.days)}) {
				return
			}
		}
	}
	_ = insight.WriteFlagsCSV(rw, lines) // fails if the client has disconnected
	return nil
}

func tagValues(f *entity.Flag) []string {
	values := make([]string, len(f.Tags))
	for i := range f.Tags {
		values[i] = f.Tags[i].Value
	}
	return values
}
