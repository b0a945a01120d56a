package ui

import (
	"html/template"
	"net/http"
	"strconv"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

type overviewData struct {
	Head          flagHead
	Answer, Under template.HTML
	About         []aboutRow
	Variants      []variantRow
	Notes         template.HTML
	Uncounted     bool
}

type aboutRow struct {
	Name, Value template.HTML
}

type variantRow struct {
	Class, Key string
	Attachment string
}

// overview is the first page of a flag: what it is, and what came of it.
func (u *UI) overview(rw http.ResponseWriter, r *http.Request) error {
	f, stale, err := u.flag(r)
	if err != nil {
		return err
	}
	p, head := u.flagPage(r, f, "overview")
	head.Stale, head.Checked = stale, u.o.LastCheck()
	d := &overviewData{Head: head, Answer: u.who(f), Notes: markdown(f.Notes), Uncounted: !f.DataRecordsEnabled}
	d.Under = u.text.say("overview.noflag")
	u.about(p, f, d)
	p.Data = d
	u.render(rw, r, http.StatusOK, "overview.html", p)
	return nil
}

func (u *UI) about(p *page, f *entity.Flag, d *overviewData) {
	add := func(name string, value template.HTML) {
		d.About = append(d.About, aboutRow{u.text.say("about." + name), value})
	}
	add("records", u.text.say(map[bool]string{true: "on", false: "off"}[f.DataRecordsEnabled]))
	if f.EntityType != "" {
		add("entity", u.text.say("about.code", "x", code(f.EntityType)))
	}
	if u.o.Store != nil {
		version := strconv.FormatUint(uint64(f.SnapshotID), 10)
		add("version", u.text.say("about.version.text", "version", version, "link", p.Root+"flags/"+strconv.FormatUint(uint64(f.ID), 10)+"/history?snapshot="+version, "at", p.Time(f.UpdatedAt, "")))
	}
	if f.UpdatedBy != "" {
		add("by", template.HTML(template.HTMLEscapeString(f.UpdatedBy))) //nolint:gosec // escaped
	}
	for i, v := range f.Variants {
		d.Variants = append(d.Variants, variantRow{classOf(i), v.Key, attachmentText(v.Attachment)})
	}
}
