package insight

import (
	"fmt"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// ImbalanceKind is the kind of an Imbalance.
type ImbalanceKind string

// The kinds.
const (
	// ImbalanceLost: evaluations were pending in a process that was killed, and no journal recovered
	// them.
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
	Text string
}

// Imbalances returns why a fleet is not balanced, in the order of its servers. It returns none for a
// balanced fleet.
func Imbalances(f *datar.Fleet) []Imbalance {
	var list []Imbalance
	for i := range f.Servers {
		s := &f.Servers[i]
		if s.Lost > 0 {
			list = append(list, Imbalance{s.Name, ImbalanceLost, s.Lost, fmt.Sprintf("%s was killed while %s waited for a flush, and no journal recovered them. "+
				"Probably its counts were only in memory, or the files of its journal were gone after the restart: see FLAGR_RECORDER_DATAR_JOURNAL_DIR.", s.Name, evaluations(s.Lost))})
		}
		switch missing := s.Missing(); {
		case missing > 0:
			list = append(list, Imbalance{s.Name, ImbalanceMissing, missing, fmt.Sprintf("%s recorded %s more than it has stored, dropped or pending. %s",
				s.Name, evaluations(missing), changedByHand)})
		case missing < 0:
			list = append(list, Imbalance{s.Name, ImbalanceSurplus, -missing, fmt.Sprintf("%s has stored, dropped or pending %s more than it recorded. %s",
				s.Name, evaluations(-missing), changedByHand)})
		}
	}
	return list
}

// changedByHand is the likely cause of statistics that contradict each other: a server writes all of
// them at once.
const changedByHand = "Servers write these numbers together, so a row of datar_servers was probably changed or restored by something else."
