package insight

import (
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// ImbalanceKind is the kind of an Imbalance.
type ImbalanceKind string

// The kinds.
const (
	// ImbalanceLost: evaluations were pending in a process that was killed, and no journal
	// recovered them.
	ImbalanceLost ImbalanceKind = "lost"
	// ImbalanceMissing: a server recorded more than it stored, dropped or has pending.
	ImbalanceMissing ImbalanceKind = "missing"
	// ImbalanceSurplus: a server stored, dropped and has pending more than it recorded.
	ImbalanceSurplus ImbalanceKind = "surplus"
)

// Imbalance is one reason why the statistics of a fleet do not balance.
type Imbalance struct {
	// Server is the name of the server.
	Server string
	Kind   ImbalanceKind
	// Count is the number of evaluations.
	Count int64
	// Text describes the difference and its likely cause.
	Text catalog.Message
}

// Imbalances returns why a fleet is not balanced, in the order of its servers. It returns none for
// a balanced fleet.
func Imbalances(f *datar.Fleet) []Imbalance {
	var list []Imbalance
	for i := range f.Servers {
		s := &f.Servers[i]
		add := func(kind ImbalanceKind, n int64) {
			list = append(list, Imbalance{s.Name, kind, n, catalog.Say("api.imbalance."+string(kind), "server", catalog.Name(s.Name), "n", n)})
		}
		if s.Lost > 0 {
			add(ImbalanceLost, s.Lost)
		}
		switch missing := s.Missing(); {
		case missing > 0:
			add(ImbalanceMissing, missing)
		case missing < 0:
			add(ImbalanceSurplus, -missing)
		}
	}
	return list
}

// SilentText describes why a server is silent. It is empty for a server that is not.
func SilentText(s *datar.FleetServer, now time.Time) catalog.Message {
	if s.State != datar.StateSilent {
		return catalog.Message{}
	}
	if ahead := s.LastHeard.Sub(now); ahead > 0 {
		return catalog.Say("api.silent.ahead", "span", catalog.Span(ahead))
	}
	return catalog.Say("api.silent", "span", catalog.Span(now.Sub(s.LastHeard)))
}
