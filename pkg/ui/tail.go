package ui

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// maxTailRows limits the rows that the browser keeps of a live tail.
const maxTailRows = 100

// tailData is the section of the Traffic page that lists evaluations as they happen.
type tailData struct {
	// Enabled reports whether this server serves the stream at Source, relative to the page.
	Enabled bool
	Source  string
	Rows    int
	// Words are the texts of the rows: outcomes by their API names, reasons by "why " and the
	// outcome, and segments by "segment " and the ID.
	Words []tailWord
	Curl  string
	// Close is the link to the page without the section.
	Close string
}

type tailWord struct{ Name, Text string }

// tail returns nil unless the URL has the section.
func (u *UI) tail(r *http.Request, p *page, f *entity.Flag) *tailData {
	query := r.URL.Query()
	if !query.Has("tail") {
		return nil
	}
	query.Del("tail")
	path := fmt.Sprintf("/datar/flags/%d/tail", f.ID)
	d := &tailData{Enabled: u.o.Tail, Source: p.Root + "../api/v1" + path, Rows: maxTailRows, Curl: strings.Replace(u.curl(r, path), "curl", "curl -N", 1), Close: "traffic"}
	if len(query) > 0 {
		d.Close += "?" + query.Encode()
	}
	for _, o := range []datar.Outcome{datar.Matched, datar.HeldOut, datar.NoMatch, datar.NoSegments, datar.Disabled, datar.Error} {
		d.Words = append(d.Words, tailWord{o.String(), u.text.plain("outcome." + o.String())})
	}
	for _, o := range []datar.Outcome{datar.NoMatch, datar.NoSegments, datar.Disabled, datar.Error} {
		d.Words = append(d.Words, tailWord{"why " + o.String(), u.text.plain("nothing.reason." + o.String())})
	}
	for i := range f.Segments {
		d.Words = append(d.Words, tailWord{"segment " + strconv.FormatUint(uint64(f.Segments[i].ID), 10), u.text.plain("segment.number", "n", i+1)})
	}
	return d
}

// tailLink is the link to the page with the section.
func tailLink(r *http.Request) string {
	query := r.URL.Query()
	query.Set("tail", "1")
	return "traffic?" + query.Encode() + "#tail"
}
