package datargolden_test

import (
	"flag"
	"log/slog"
	"net/http"
	"testing"

	"github.com/flagr-datar/flagr-datar/integration_tests/datargolden"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
)

var update = flag.Bool("update", false, "write the golden file of the answers")

// The handlers of pkg/datar/datarhttp return what the server returns, which a test of pkg/handler
// compares with the same file. This test is not beside the handlers because their module does not
// import this one.
func TestAnswersAreThoseOfTheServer(t *testing.T) {
	t.Parallel()
	log := datarhttp.WithLogger(slog.New(slog.DiscardHandler))
	datargolden.Check(t, "", func(e datargolden.Engine) http.Handler { return datarhttp.Handler(e, log) }, *update)
}
