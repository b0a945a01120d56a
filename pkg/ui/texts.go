package ui

import (
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// texts are the texts of the pages in one language.
type texts struct{ *catalog.Catalog }

// Arguments of texts.
type (
	code = catalog.Code
	// percent is a share, 0 to 1, formatted as 25.0 %.
	percent float64
)

// maxShownText limits a text of a user in bytes where a page only shows it: a page may have it in
// many places.
const maxShownText = 1000

// shown returns a text, shortened if it is longer than maxShownText.
func shown(text string) string { return shorten(text, maxShownText) }

// shorten returns the first bytes of a text, whole characters only, and "…" if there are more.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// say returns a text with its markup and arguments, which are pairs of name and value. Names and
// code are shortened as by shown.
func (c *texts) say(name string, args ...any) template.HTML {
	return template.HTML(c.HTML(name, ofCatalog(args)...)) //nolint:gosec // escapes what is not of the catalog
}

// plain returns a text without markup, for titles and attributes. It shortens names and code as say
// does.
func (c *texts) plain(name string, args ...any) string { return c.Plain(name, ofCatalog(args)...) }

// ofCatalog replaces arguments by those that the catalog writes.
func ofCatalog(args []any) []any {
	for i, arg := range args {
		switch v := arg.(type) {
		case catalog.Name:
			args[i] = catalog.Name(shown(string(v)))
		case code:
			args[i] = code(shown(string(v)))
		case template.HTML:
			args[i] = catalog.HTML(v)
		case percent:
			args[i] = catalog.Figure(v.String())
		}
	}
	return args
}

// problem returns the message of an error in the language of the page, as far as it is in the
// catalog.
func (c *texts) problem(err error) string { return c.message(catalog.Of(err)) }

// message returns a message of another package without markup.
func (c *texts) message(m catalog.Message) string {
	if m.Name == "" {
		return m.String()
	}
	return c.plain(m.Name, slices.Clone(m.Args)...)
}

// message returns a message about a flag, with times in the zone of the page, and with segments by
// place and name instead of their IDs, which no page shows.
func (u *UI) message(p *page, f *entity.Flag, m catalog.Message) template.HTML {
	args := slices.Clone(m.Args)
	for i, arg := range args {
		switch v := arg.(type) {
		case catalog.Segment:
			if place := slices.IndexFunc(f.Segments, func(s entity.Segment) bool { return v != 0 && int64(s.ID) == int64(v) }); place >= 0 {
				args[i] = segmentName(u.text, place, f.Segments[place].Description)
			}
		case catalog.Day:
			args[i] = p.Time(time.Time(v), "day")
		case catalog.Minute:
			args[i] = p.Time(time.Time(v), "")
		case catalog.Message:
			args[i] = u.message(p, f, v)
		}
	}
	return u.text.say(m.Name, args...)
}

// asInt returns an argument that is a number.
func asInt(value any) (int64, bool) { return catalog.Int(value) }

// number formats a number with thousands separators.
func number(n int64) string { return catalog.Number(n) }

// String formats the share with one decimal and a no-break space.
func (p percent) String() string {
	return strconv.FormatFloat(float64(p)*100, 'f', 1, 64) + "\u00a0%"
}

// whole formats a share without decimals.
func (p percent) whole() catalog.Figure {
	return catalog.Figure(strconv.FormatFloat(math.Round(float64(p)*100), 'f', 0, 64) + "\u00a0%")
}
