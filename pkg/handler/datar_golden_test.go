package handler_test

import (
	"log/slog"
	"net/http"
	"testing"

	"github.com/flagr-datar/flagr-datar/integration_tests/datargolden"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
)

// The golden file is written by the test of pkg/datar/datarhttp, which serves the same.
func TestAnswersOfDatarAreThoseOfThePlugin(t *testing.T) {
	t.Parallel()
	datargolden.Check(t, "/api/v1", func(e datargolden.Engine) http.Handler {
		api := newAPI(t)
		handler.New(handler.Options{Datar: e, Logger: slog.New(slog.DiscardHandler)}).Register(api)
		return api.Serve(nil)
	}, false)
}
