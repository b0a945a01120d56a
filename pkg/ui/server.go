package ui

import (
	"html/template"
	"net/http"
	"strconv"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

type serverData struct {
	Answer, Under    template.HTML
	Datar            bool
	Recorded, Stored string
	Waiting, Lost    string
	Servers          []serverRow
	Settings         []Setting
	Differ, All      int
	ShowAll          bool
	Version          string
	Flags            int
	Checked          template.HTML
	Interval         string
	LastError        bool
}

type serverRow struct {
	Name, Kind       string
	Heard            template.HTML
	Silent           bool
	Recorded, Stored string
	Waiting, Lost    string
	Journal          template.HTML
}

// server shows whether the numbers are whole, and how the server is set up.
func (u *UI) server(rw http.ResponseWriter, r *http.Request) error {
	p := u.page(r, "server", u.text.plain("server.title"))
	d := &serverData{Version: u.o.Version, Flags: u.o.Snapshots.Snapshot().Len(), Checked: p.Ago(u.o.LastCheck()), Interval: u.o.RefreshInterval.String(), Datar: u.o.Numbers != nil, All: len(u.o.Settings)}
	d.ShowAll = r.URL.Query().Get("settings") == "all"
	for _, s := range u.o.Settings {
		differs := s.Secret && s.Set || !s.Secret && s.Value != s.Default
		if differs {
			d.Differ++
		}
		if differs || d.ShowAll {
			d.Settings = append(d.Settings, s)
		}
	}
	if d.Datar {
		u.books(r, p, d)
	} else {
		d.Answer, d.Under = u.text.say("server.answer.off"), u.text.say("server.under.off")
	}
	p.Data = d
	u.render(rw, r, http.StatusOK, "server.html", p)
	return nil
}

func lost(s *datar.Stats) (n int64) {
	for _, dropped := range s.Dropped {
		n += dropped
	}
	return n
}

func (u *UI) recorded() int64 { return u.o.Numbers.Stats().Recorded }

func (u *UI) journalText(s *datar.Stats) template.HTML {
	switch {
	case s.Journal == "":
		return u.text.say("server.journal.off")
	case s.InMemory:
		return u.text.say("server.journal.memory")
	default:
		return u.text.say("server.journal.file")
	}
}

// books fills in the sums of this server.
func (u *UI) books(_ *http.Request, p *page, d *serverData) {
	s := u.o.Numbers.Stats()
	dropped := lost(&s)
	d.Recorded, d.Stored, d.Waiting, d.Lost = number(s.Recorded), number(s.Stored), number(s.Pending), number(dropped)
	d.LastError = s.LastError != nil
	name := "server.answer"
	if s.Recorded != s.Stored+s.Pending+dropped {
		name = "server.answer.wrong"
	}
	d.Answer = u.text.say(name, "lost", dropped, "n", s.Recorded)
	d.Under = u.text.say("server.under")
	heard := template.HTML(u.text.say("server.noflush"))
	if !s.LastFlush.IsZero() {
		heard = p.Ago(s.LastFlush)
	}
	d.Servers = append(d.Servers, serverRow{
		Name: s.Writer, Kind: u.text.plain("server.this"), Heard: heard,
		Recorded: d.Recorded, Stored: d.Stored, Waiting: d.Waiting, Lost: d.Lost, Journal: u.journalText(&s),
	})
	_ = strconv.Itoa
	_ = time.Now
}
