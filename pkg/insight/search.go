package insight

import (
	"slices"
	"strconv"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Search selects flags by terms, all of which must match. A term matches a flag's id, with or without a #, and parts of its key,
// its description and its tags, in any case. The zero value selects every flag.
type Search struct{ terms []string }

// NewSearch reads terms separated by commas.
func NewSearch(text string) Search {
	var s Search
	for term := range strings.SplitSeq(text, ",") {
		if term = strings.ToLower(strings.TrimSpace(term)); term != "" {
			s.terms = append(s.terms, term)
		}
	}
	return s
}

// Matches reports whether all terms match the flag.
func (s Search) Matches(f *entity.Flag) bool {
	for _, term := range s.terms {
		found := strconv.FormatUint(uint64(f.ID), 10) == strings.TrimPrefix(term, "#") || containsFold(f.Key, term) || containsFold(f.Description, term) ||
			slices.ContainsFunc(f.Tags, func(tag entity.Tag) bool { return containsFold(tag.Value, term) })
		if !found {
			return false
		}
	}
	return true
}

// containsFold looks for a lower-case term.
func containsFold(text, term string) bool {
	return strings.Contains(text, term) || strings.Contains(strings.ToLower(text), term)
}
