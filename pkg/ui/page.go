package ui

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // containers have no zones of their own

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/ui/chart"
)

// Cookies of the preferences. A script sets the zone of the browser.
const (
	cookieTheme = "flagr_theme"
	cookieZone  = "flagr_zone"
	cookieTZ    = "flagr_tz"
	// cookieNotice has one line for the page after a form's redirect.
	cookieNotice = "flagr_notice"
)

// page is the data of every template.
type page struct {
	// Title is the title of the document, Nav the current entry of the header.
	Title, Nav string
	// Root is the path to /ui/ from here, Static the path to the static files.
	Root, Static string
	// Theme is light, dark or empty for the system's theme; ZoneName is the zone of times.
	Theme    string
	ZoneName string
	// NumbersZone is the zone of the numbers by hour and day, if the page shows them in another
	// one.
	NumbersZone string
	UTC         bool
	Actor       string
	// Here is the path and query of the page below /ui/.
	Here string
	// ReadOnly reports whether this server is read-only.
	ReadOnly bool
	// Notice is shown once, after a form.
	Notice template.HTML
	Now    time.Time
	Data   any

	zone *time.Location
	text *texts
}

func (u *UI) page(r *http.Request, nav, title string) *page {
	below := strings.TrimPrefix(r.URL.Path, "/ui/")
	p := &page{
		Title: title, Nav: nav, Root: "./" + strings.Repeat("../", strings.Count(below, "/")),
		Actor: u.o.Actor(r), Here: below, ReadOnly: u.o.Store == nil, Now: u.o.Now(), zone: time.UTC, text: u.text, ZoneName: "UTC", UTC: true,
	}
	if r.URL.RawQuery != "" && r.Method == http.MethodGet {
		p.Here += "?" + r.URL.RawQuery
	}
	p.Static = p.Root + "../static/ui/" + u.hash + "/"
	if c, err := r.Cookie(cookieTheme); err == nil && (c.Value == "light" || c.Value == "dark") {
		p.Theme = c.Value
	}
	if c, err := r.Cookie(cookieZone); err != nil || c.Value != "utc" {
		p.UTC = false
		p.zone, p.ZoneName = localZone(r)
	}
	p.Now = p.Now.In(p.zone)
	if c, err := r.Cookie(cookieNotice); err == nil && !isFetched(r) {
		if name, arg, _ := strings.Cut(unescape(c.Value), " "); strings.HasPrefix(name, "notice.") {
			p.Notice = u.text.say(name, "x", code(arg), "seconds", seconds(u.o.RefreshInterval))
		}
	}
	return p
}

// csv is the link to the CSV of an answer of the API.
func (p *page) csv(path string, from time.Time) string {
	return p.Root + "../api/v1" + path + "?" + url.Values{"format": {"csv"}, "from": {from.UTC().Format(time.RFC3339)}}.Encode()
}

// isFetched reports whether a script requests parts of a page, such as the hint about a key. Such a
// response is not shown as a page, so it must not take the notice of the next one.
func isFetched(r *http.Request) bool {
	mode := r.Header.Get("Sec-Fetch-Mode")
	return mode != "" && mode != "navigate"
}

// localZone returns the zone of the browser, or UTC if it is unknown.
func localZone(r *http.Request) (*time.Location, string) {
	c, err := r.Cookie(cookieTZ)
	if err != nil || len(c.Value) > 64 {
		return time.UTC, "UTC"
	}
	name := unescape(c.Value)
	zone, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" {
		return time.UTC, "UTC"
	}
	return zone, name
}

func unescape(text string) string {
	plain, err := url.QueryUnescape(text)
	if err != nil {
		return ""
	}
	return plain
}

func seconds(d time.Duration) int { return int(max(1, (d+time.Second-1)/time.Second)) }

// notify sets the notice of the next page.
func (u *UI) notify(rw http.ResponseWriter, name, arg string) {
	u.setCookie(rw, cookieNotice, url.QueryEscape(name+" "+arg), 20)
}

// setCookie sets a cookie of the pages for the given number of seconds, or removes it.
func (u *UI) setCookie(rw http.ResponseWriter, name, value string, maxAge int) {
	//nolint:gosec // no secret, and the server does not know whether a proxy speaks TLS
	http.SetCookie(rw, &http.Cookie{Name: name, Value: value, Path: path.Join("/", u.o.Prefix, "ui") + "/", MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// pageTemplates returns the templates of all pages. Each is parsed when it is first used, because
// most servers show no page, and all templates take 2 MB.
func (u *UI) pageTemplates() (map[string]pageTemplate, error) {
	funcs := template.FuncMap{
		"t": u.text.say, "tp": u.text.plain, "where": u.text.where, "n": func(v any) string {
			count, _ := asInt(v)
			return number(count)
		},
		"swatch": chart.Swatch, "sparkline": chart.Sparkline, "setgot": chart.SetGot,
		"join": strings.Join, "subtract": func(a, b int) int { return a - b },
		"list": func(all ...any) []any { return all },
	}
	names, err := fs.Glob(pageFiles, "pages/*.html")
	if err != nil {
		return nil, err
	}
	templates := map[string]pageTemplate{}
	for _, name := range names {
		templates[path.Base(name)] = sync.OnceValues(func() (*template.Template, error) {
			return template.New("").Funcs(funcs).ParseFS(pageFiles, "pages/layout.html", "pages/parts.html", name)
		})
	}
	return templates, nil
}

// render writes a complete page or an error: errors are found before the first byte is sent.
func (u *UI) render(rw http.ResponseWriter, r *http.Request, status int, name string, p *page) {
	b := pageBuffer{ctx: r.Context()}
	err := u.execute(&b, name, p)
	if errors.Is(err, errNoTurn) {
		refuseTurn(rw, r)
		return
	}
	if errors.Is(err, errLongPage) || errors.Is(err, budget.ErrExhausted) {
		u.fail(rw, r, err)
		return
	}
	if err != nil {
		u.o.Logger.Error("page failed", "path", r.URL.Path, "template", name, "error", err)
		http.Error(rw, "the page could not be rendered: see the server's log", http.StatusInternalServerError)
		return
	}
	if p.Notice != "" {
		u.setCookie(rw, cookieNotice, "", -1)
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.WriteHeader(status)
	for _, part := range b.parts {
		_, _ = rw.Write(part)
	}
}

// statusClientClosedRequest is for logs and metrics of requests whose client has disconnected.
const statusClientClosedRequest = 499

// resume waits for the turn of a request that reads, see budget.Resume. If it returns false, it has
// responded.
func resume(rw http.ResponseWriter, r *http.Request) bool {
	if budget.Resume(r.Context()) == nil {
		return true
	}
	refuseTurn(rw, r)
	return false
}

// refuseTurn responds to a request whose context ended before its turn, without a page, which would
// need a turn.
func refuseTurn(rw http.ResponseWriter, r *http.Request) {
	if errors.Is(r.Context().Err(), context.Canceled) {
		http.Error(rw, "request canceled", statusClientClosedRequest)
		return
	}
	rw.Header().Set("Retry-After", "1")
	http.Error(rw, errNoTurn.Error(), http.StatusServiceUnavailable)
}

// execute executes the template of a page in turn. The error matches errNoTurn if the context of
// the request ends before.
func (u *UI) execute(b *pageBuffer, name string, p *page) error {
	if err := u.o.Turns.Take(b.ctx); err != nil {
		return fmt.Errorf("%w: %w", errNoTurn, err)
	}
	defer u.o.Turns.Release()
	layout := "layout.html"
	if name == "root.html" {
		layout = name
	}
	parsed, err := u.templates[name]()
	if err != nil {
		return err
	}
	return parsed.ExecuteTemplate(b, layout, p)
}

const (
	// maxPageBytes limits the HTML of a page. A flag with as many fields as a form can have takes
	// less than a third.
	maxPageBytes = 32 << 20
	// pagePart is the length of a part of a page.
	pagePart = 64 << 10
)

// pageBuffer keeps a page in parts. All but the first take memory of the request that ctx is from.
type pageBuffer struct {
	ctx   context.Context //nolint:containedctx // lives as long as one call of render
	parts [][]byte
	size  int
}

// Write returns errLongPage beyond maxPageBytes, or budget.ErrExhausted.
func (b *pageBuffer) Write(p []byte) (int, error) {
	if b.size += len(p); b.size > maxPageBytes {
		return 0, errLongPage
	}
	for rest := p; len(rest) > 0; {
		last := len(b.parts) - 1
		if last < 0 || len(b.parts[last]) == cap(b.parts[last]) {
			if last >= 0 {
				if err := budget.Add(b.ctx, pagePart); err != nil {
					return 0, err
				}
			}
			b.parts = append(b.parts, make([]byte, 0, pagePart))
			last++
		}
		n := min(len(rest), cap(b.parts[last])-len(b.parts[last]))
		b.parts[last] = append(b.parts[last], rest[:n]...)
		rest = rest[n:]
	}
	return len(p), nil
}

// preferences stores the theme and the zone in cookies and redirects back.
func (u *UI) preferences(rw http.ResponseWriter, r *http.Request) error {
	if err := u.readForm(r); err != nil {
		return err
	}
	const maxAge = 400 * 24 * 3600 // the maximum of browsers
	switch theme := r.PostForm.Get("theme"); theme {
	case "light", "dark":
		u.setCookie(rw, cookieTheme, theme, maxAge)
	case "system":
		u.setCookie(rw, cookieTheme, "", -1)
	}
	switch zone := r.PostForm.Get("zone"); zone {
	case "utc", "local":
		u.setCookie(rw, cookieZone, zone, maxAge)
	}
	back := r.PostForm.Get("back")
	if !isRelative(back) || strings.HasPrefix(back, "/") {
		back = ""
	}
	seeOther(rw, "./"+back)
	return nil
}

// isRelative reports whether a field with the page to go back to has no host and fits a header.
func isRelative(back string) bool {
	const maxBytes = 2000 // the pages have shorter ones, and proxies accept a few kilobytes of headers
	parsed, err := url.Parse(back)
	return err == nil && len(back) <= maxBytes && !parsed.IsAbs() && parsed.Host == "" && !strings.Contains(back, "\\")
}

// Time returns a time element in the zone of the page, with UTC in its title.
func (p *page) Time(at time.Time, layout string) template.HTML {
	if at.IsZero() {
		return "–"
	}
	utc := at.UTC()
	text := p.format(at, layout)
	return template.HTML(`<time datetime="` + utc.Format(time.RFC3339) + `" title="` + utc.Format("2006-01-02 15:04:05 UTC") + `">` + //nolint:gosec // digits and words of the catalog
		template.HTMLEscapeString(text) + `</time>`)
}

// ZoneText names the zone of the times and of the numbers.
func (p *page) ZoneText() template.HTML {
	if p.NumbersZone != "" && p.NumbersZone != p.ZoneName {
		return p.text.say("number.zones", "zone", p.ZoneName, "numbers", p.NumbersZone)
	}
	return p.text.say("number.zone", "zone", p.ZoneName)
}

// format formats a time as: clock 10:42:10, day 30 Jan, minute 30 Jan 11:00, short the clock today
// and else the day.
func (p *page) format(at time.Time, layout string) string {
	at = at.In(p.zone)
	today := at.Year() == p.Now.Year() && at.YearDay() == p.Now.YearDay()
	day := strconv.Itoa(at.Day()) + "\u00a0" + p.text.plain("month."+strconv.Itoa(int(at.Month())))
	if p.Now.Sub(at) > 300*24*time.Hour || at.Sub(p.Now) > 24*time.Hour {
		day += "\u00a0" + strconv.Itoa(at.Year())
	}
	switch layout {
	case "clock":
		return at.Format("15:04:05")
	case "day":
		return day
	case "weekday":
		return p.text.plain("weekday."+strconv.Itoa(int(at.Weekday()))) + " " + day
	case "short":
		if today {
			return at.Format("15:04")
		}
		return day
	default:
		if today {
			return p.text.plain("time.today", "clock", at.Format("15:04"))
		}
		return day + " " + at.Format("15:04")
	}
}

// Ago returns how long ago a time was, or the time after a week.
func (p *page) Ago(at time.Time) template.HTML {
	if at.IsZero() {
		return "–"
	}
	var text string
	switch d := p.Now.Sub(at); {
	case d < time.Minute:
		text = p.text.plain("ago.now")
	case d < time.Hour:
		text = p.text.plain("ago.minutes", "n", int(d/time.Minute))
	case d < 24*time.Hour:
		text = p.text.plain("ago.hours", "n", int(d/time.Hour))
	case d < 7*24*time.Hour:
		text = p.text.plain("ago.days", "n", int(d/(24*time.Hour)))
	default:
		return p.Time(at, "day")
	}
	utc := at.UTC()
	return template.HTML(`<time datetime="` + utc.Format(time.RFC3339) + `" title="` + utc.Format("2006-01-02 15:04:05 UTC") + `">` + //nolint:gosec // as above
		template.HTMLEscapeString(text) + `</time>`)
}
