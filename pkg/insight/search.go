package insight

import (
	"slices"
	"strconv"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Search selects flags that match all of its terms. A term matches a flag's ID, with or without a
// #, and substrings of its key, description and tags. It ignores case. The zero value selects every
// flag.
type Search struct{ terms []string }

// NewSearch parses comma-separated terms.
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

// containsFold reports whether text contains a lowercase term, ignoring case.
func containsFold(text, term string) bool {
	return strings.Contains(text, term) || strings.Contains(strings.ToLower(text), term)
}
