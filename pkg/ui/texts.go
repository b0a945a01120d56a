package ui

import (
	"html/template"
	"math"
	"slices"
	"strconv"
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

// say returns a text with its markup and arguments, which are pairs of name and value.
func (c *texts) say(name string, args ...any) template.HTML {
	for i, arg := range args {
		switch v := arg.(type) {
		case template.HTML:
			args[i] = catalog.HTML(v)
		case percent:
			args[i] = catalog.Figure(v.String())
		}
	}
	return template.HTML(c.HTML(name, args...)) //nolint:gosec // escapes what is not of the catalog
}

// plain returns a text without markup, for titles and attributes.
func (c *texts) plain(name string, args ...any) string { return c.Plain(name, args...) }

// problem returns the message of an error in the language of the page, as far as it is in the catalog.
func (c *texts) problem(err error) string { return c.message(catalog.Of(err)) }

// message returns a message of another package without markup.
func (c *texts) message(m catalog.Message) string {
	if m.Name == "" {
		return m.String()
	}
	return c.Plain(m.Name, m.Args...)
}

// message returns a message about a flag, with times in the zone of the page, and with segments by place and name instead
// of their IDs, which no page shows.
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
