package datarhttp_test

import (
	"context"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// stub answers nothing, or an error.
type stub struct{ err error }

func (s stub) QuerySummary(context.Context, datar.SummaryQuery) ([]datar.FlagSummary, error) {
	return nil, s.err
}

func (s stub) QueryFlagSummaryBreakdown(context.Context, int64, datar.BreakdownQuery) (*datar.FlagBreakdown, error) {
	return &datar.FlagBreakdown{}, s.err
}

func (s stub) Stats() datar.Stats { return datar.Stats{} }
