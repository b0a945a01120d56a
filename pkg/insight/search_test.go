package insight_test

import (
	"testing"

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
