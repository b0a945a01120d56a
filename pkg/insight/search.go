package insight

import (
	"slices"
	"strconv"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// MaxTerms is the maximum number of different terms of a Search.
const MaxTerms = 100

// Search selects flags that match all of its terms. A term matches a flag's ID, with or without a
// #, and substrings of its key, description and tags. It ignores case. The zero value selects every
// flag.
type Search struct{ terms []string }

// NewSearch parses comma-separated terms. It ignores those beyond MaxTerms, which CheckSearch
// rejects.
func NewSearch(text string) Search {
	terms, _ := searchTerms(text)
	return Search{terms}
}

// CheckSearch returns an error that matches datar.ErrInvalidQuery if there are more than MaxTerms.
func CheckSearch(text string) error {
	if _, all := searchTerms(text); !all {
		return invalid("q has too many different terms; want at most %d", MaxTerms)
	}
	return nil
}

// searchTerms returns the first MaxTerms different terms, and whether these are all.
func searchTerms(text string) (terms []string, all bool) {
	seen := map[string]bool{}
	for term := range strings.SplitSeq(text, ",") {
		term = strings.ToLower(strings.TrimSpace(term))
		if term == "" || seen[term] {
			continue
		}
		if len(terms) == MaxTerms {
			return terms, false
		}
		seen[term] = true
		terms = append(terms, term)
	}
	return terms, true
}

// Matches reports whether all terms match the flag.
func (s Search) Matches(f *entity.Flag) bool {
	if len(s.terms) == 0 {
		return true
	}
	id, key := strconv.FormatUint(uint64(f.ID), 10), strings.ToLower(f.Key)
	description := "" // in lower case, once a term is not in ID or key
	for _, term := range s.terms {
		if id == strings.TrimPrefix(term, "#") || strings.Contains(key, term) {
			continue
		}
		if description == "" {
			description = strings.ToLower(f.Description)
		}
		found := strings.Contains(description, term) ||
			slices.ContainsFunc(f.Tags, func(tag entity.Tag) bool { return strings.Contains(strings.ToLower(tag.Value), term) })
		if !found {
			return false
		}
	}
	return true
}
