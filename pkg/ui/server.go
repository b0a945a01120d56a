package ui

import (
	"cmp"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// maxServers and maxHoles limit the rows of the tables.
const (
	maxServers = 200
	maxHoles   = 200
)

type serverData struct {
	Answer, Under    template.HTML
	Datar            bool
	Recorded, Stored string
	Waiting, Lost    string
	Servers          []serverRow
	Holes            []holeRow
	MoreHoles        int
	HolesMissing     bool
	Imbalances       []template.HTML // why the statistics do not balance
	Settings         []Setting
	MoreServers      int
	Curl, SQL        string
	Database         string
	Retention        template.HTML
	Differ, All      int
	ShowAll          bool
	Version          string
	Flags            int
	Checked          template.HTML
	Interval         template.HTML
	LastError        bool
	Journal          template.HTML
}

type serverRow struct {
	Name, Kind       string
	Heard            template.HTML
	Silent           bool
	Recorded, Stored string
	Waiting, Lost    string
}

// holeRow is a time in which a flag was not counted, or all flags if it has no FlagID.
type holeRow struct {
	FlagID   uint
	Key      string
	From, To template.HTML
	Why      template.HTML
}

// balance has the sums that must balance: recorded = stored + pending + lost.
type balance struct{ recorded, stored, pending, lost int64 }

func (b *balance) isEven() bool { return b.recorded == b.stored+b.pending+b.lost }

// server shows whether all evaluations are accounted for, and the configuration of the server.
func (u *UI) server(rw http.ResponseWriter, r *http.Request) error {
	p := u.page(r, "server", u.text.plain("server.title"))
	d := &serverData{
		Version: u.o.Version, Flags: u.o.Snapshots.Snapshot().Len(), Checked: p.Ago(u.o.LastCheck()), Interval: u.span(u.o.RefreshInterval),
		Database: u.o.Database, Datar: u.o.Statistics != nil, All: len(u.o.Settings), ShowAll: r.URL.Query().Get("settings") == "all",
	}
	for _, s := range u.o.Settings {
		differs := s.Secret && s.Set || !s.Secret && s.Value != s.Default
		if differs {
			d.Differ++
		}
		if differs || d.ShowAll {
			d.Settings = append(d.Settings, s)
		}
	}
	switch {
	case d.Datar:
		u.fillStatistics(r, p, d)
	case u.o.Elsewhere:
		d.Answer, d.Under = u.text.say("server.answer.elsewhere"), u.noDatar()
	default:
		d.Answer, d.Under = u.text.say("server.answer.off"), u.text.say("server.under.off")
	}
	p.Data = d
	u.render(rw, r, http.StatusOK, "server.html", p)
	return nil
}

// span returns a duration in the unit that fits, or in milliseconds below a second.
func (u *UI) span(d time.Duration) template.HTML {
	if d < time.Second {
		return u.text.say("server.ms", "n", d.Milliseconds())
	}
	m := catalog.Span(d)
	return u.text.say(m.Name, m.Args...)
}

func lost[K comparable](dropped map[K]int64) (n int64) {
	for _, one := range dropped {
		n += one
	}
	return n
}

func (u *UI) recorded() int64 { return u.o.Statistics.Stats().Recorded }

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

// fillStatistics shows the statistics of all servers, or of this one if the others cannot be read.
func (u *UI) fillStatistics(r *http.Request, p *page, d *serverData) {
	own := u.o.Statistics.Stats()
	d.LastError, d.Journal = own.LastError != nil, u.journalText(&own)
	records, err := u.o.Statistics.Servers(r.Context())
	if err != nil {
		u.o.Logger.Warn("statistics of other servers are missing", "error", err)
	}
	var sum balance
	silent := 0
	fleet := datar.FleetOf(records, p.Now)
	d.MoreServers = max(0, len(fleet.Servers)-maxServers)
	for i := range fleet.Servers {
		s := &fleet.Servers[i]
		one := balance{s.Recorded, s.Stored, s.Pending, lost(s.Dropped)}
		sum = balance{sum.recorded + one.recorded, sum.stored + one.stored, sum.pending + one.pending, sum.lost + one.lost}
		if s.State == datar.StateSilent {
			silent++
		}
		if i < maxServers {
			d.Servers = append(d.Servers, u.fleetRow(p, s, one))
		}
	}
	d.Curl = u.curl(r, "/datar/fleet")
	if u.o.SQL != nil {
		d.SQL = u.o.SQL.ServersSQL()
	}
	d.Under = u.text.say("server.under.all")
	if len(fleet.Servers) == 0 {
		sum = balance{own.Recorded, own.Stored, own.Pending, lost(own.Dropped)}
		row := newServerRow(own.Writer, u.text.plain("server.this"), sum)
		row.Heard = u.text.say("server.noflush")
		if !own.LastFlush.IsZero() {
			row.Heard = p.Ago(own.LastFlush)
		}
		d.Servers = append(d.Servers, row)
		d.Under = u.text.say("server.under")
		if err != nil {
			d.Under = u.text.say("server.under.failed")
		}
	}
	d.Retention = u.text.say("server.retention.all")
	if days := int(u.o.Retention / (24 * time.Hour)); u.o.Retention > 0 {
		d.Retention = u.text.say("server.retention.days", "n", days)
	}
	d.Recorded, d.Stored, d.Waiting, d.Lost = number(sum.recorded), number(sum.stored), number(sum.pending), number(sum.lost)
	name := "server.answer"
	if silent > 0 {
		name = "server.answer.silent"
	}
	if !sum.isEven() || !fleet.Balanced {
		name = "server.answer.wrong"
		for _, one := range insight.Imbalances(fleet) {
			d.Imbalances = append(d.Imbalances, u.text.say(one.Text.Name, one.Text.Args...))
		}
	}
	d.Answer = u.text.say(name, "lost", sum.lost, "n", sum.recorded, "silent", silent)
	board := u.boardNow(r.Context())
	if d.HolesMissing = board == nil; !d.HolesMissing {
		u.fillHoles(p, d, board.states)
	}
}

// fillHoles lists the newest holes of all flags, and of each flag.
func (u *UI) fillHoles(p *page, d *serverData, s *insight.States) {
	type hole struct {
		insight.Hole
		flag *entity.Flag
		open bool
	}
	var all []hole
	if s.Complete != nil {
		for _, h := range s.Complete.Holes {
			all = append(all, hole{Hole: h})
		}
	}
	for i := range s.Flags {
		one := &s.Flags[i]
		for j, h := range one.Holes {
			all = append(all, hole{h, one.Flag, j == len(one.Holes)-1 && !u.counts(one.Flag)})
		}
	}
	slices.SortStableFunc(all, func(a, b hole) int { return b.From.Compare(a.From) })
	d.MoreHoles = max(0, len(all)-maxHoles)
	for _, h := range all[:len(all)-d.MoreHoles] {
		row := holeRow{From: p.Time(h.From, ""), To: p.Time(h.To, ""), Why: u.text.say("hole." + string(h.Why))}
		if h.By != "" {
			row.Why = u.text.say("hole.by", "why", u.text.plain("hole."+string(h.Why)), "by", catalog.Name(h.By))
		}
		if h.flag != nil {
			row.FlagID, row.Key = h.flag.ID, cmp.Or(h.flag.Key, "#"+strconv.FormatUint(uint64(h.flag.ID), 10))
		}
		if h.open {
			row.To = u.text.say("hole.open")
		}
		d.Holes = append(d.Holes, row)
	}
}

// fleetRow returns the row of a server.
func (u *UI) fleetRow(p *page, s *datar.FleetServer, b balance) serverRow {
	row := newServerRow(s.Name, u.text.plain("server.kind."+string(s.Kind)), b)
	row.Heard = p.Ago(s.LastHeard)
	switch s.State {
	case datar.StateHeard:
	case datar.StateEnded:
		row.Heard = u.text.say("server.ended", "ago", p.Ago(s.LastHeard))
	case datar.StateSilent:
		row.Silent = true
		if ahead := s.LastHeard.Sub(p.Now); ahead > 0 {
			row.Heard = u.text.say("server.silent.ahead", "span", catalog.Span(ahead))
		} else {
			row.Heard = u.text.say("server.silent", "ago", p.Ago(s.LastHeard))
		}
	}
	return row
}

func newServerRow(name, kind string, b balance) serverRow {
	return serverRow{Name: name, Kind: kind, Recorded: number(b.recorded), Stored: number(b.stored), Waiting: number(b.pending), Lost: number(b.lost)}
}
