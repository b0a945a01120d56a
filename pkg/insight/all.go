package insight

import "context"

// AllStates returns the states of all flags that are not deleted, in the order of their IDs. Unlike
// States, it has no selection and no pages.
func (s *Service) AllStates(ctx context.Context, lately int) (*States, error) {
	n := int64(lately)
	if _, err := days(&n); err != nil {
		return nil, err
	}
	all, err := s.allStates(ctx, lately)
	if err != nil {
		return nil, err
	}
	list := &States{Days: lately, Total: len(all.flags), Flags: make([]FlagState, len(all.flags)), Complete: all.complete}
	for i, f := range all.flags {
		list.Flags[i] = all.describe(f)
	}
	return list, s.sparks(ctx, list.Flags, all.today)
}
