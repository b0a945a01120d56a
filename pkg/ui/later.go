package ui

import (
	"html/template"
	"net/http"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

type forecastView struct {
	Rows []forecastRow
	Text template.HTML
}

type forecastRow struct{ Class, Key, Now, Then, Difference string }

func (u *UI) forecast(*http.Request, *entity.Flag, *entity.Flag) *forecastView { return nil }

func (u *UI) came(*http.Request, *entity.Flag) cameOf { return nil }

func (u *UI) deletionChecks(*http.Request, *page, *entity.Flag, *deleteData) {}

func (u *UI) askedDeleted(*Board, *entity.Flag) int64 { return 0 }
