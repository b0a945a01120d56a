package insight_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

func TestSearch(t *testing.T) {
	t.Parallel()
	f := &entity.Flag{Key: "Checkout-Button", Description: "Colour of the ÉTÉ button", Tags: []entity.Tag{{Value: "iOS"}}}
	f.ID = 42
	for text, want := range map[string]bool{
		"": true, " , ,": true, "checkout": true, "BUTTON": true, "été": true, "ios": true, "42": true, "#42": true, "4": false,
		"button,ios": true, " Colour , #42 ": true, "button,android": false, "checkout colour": false,
	} {
		if got := insight.NewSearch(text).Matches(f); got != want {
			t.Errorf("%q matches: %t, want %t", text, got, want)
		}
	}
}

// TestSearchesAreBounded: each term may be looked for in megabytes of descriptions, which are
// converted to lower case once.
func TestSearchesAreBounded(t *testing.T) {
	f := &entity.Flag{Description: strings.Repeat("B", 1_000_000) + "A"}
	search := insight.NewSearch(strings.Repeat("a,", 60_000))
	if allocated := testing.AllocsPerRun(1, func() { search.Matches(f) }); !search.Matches(f) || allocated > 50 {
		t.Errorf("a repeated term: %.0f allocations", allocated)
	}
	many := make([]string, insight.MaxTerms)
	for i := range many {
		many[i] = fmt.Sprint("term-", i)
	}
	text := strings.Join(many, ",") + "," + strings.Join(many, ", ")
	if err := insight.CheckSearch(text); err != nil {
		t.Errorf("%d terms, twice: %v", len(many), err)
	}
	if err := insight.CheckSearch(text + ",more"); !errors.Is(err, datar.ErrInvalidQuery) || !strings.Contains(err.Error(), "want at most 100") {
		t.Errorf("%d terms: %v", len(many)+1, err)
	}
	if f.Description = strings.Join(many, " "); !insight.NewSearch(text + ",more").Matches(f) {
		t.Error("the first terms do not match")
	}
}
