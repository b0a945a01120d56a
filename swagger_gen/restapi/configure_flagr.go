// This file is the only hand-written one under swagger_gen: the wiring between the generated server
// and pkg/app.

package restapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/go-openapi/swag/cmdutils"

	"github.com/flagr-datar/flagr-datar/pkg/app"
	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations"
)

// configureFlags runs before the generated main parses the command line. It parses and checks the
// command line and the environment itself, because the generated parser ignores arguments that are
// no options, and its messages do not name variables.
func configureFlags(api *operations.FlagrAPI) {
	exitOn(config.SetListenDefaults())
	line := &app.CommandLine{}
	err := line.Parse(NewServer(nil), os.Args[1:], os.Stdout)
	if errors.Is(err, app.ErrPrinted) {
		os.Exit(0)
	}
	c, configErr := config.Load(config.Environ())
	exitOn(configErr)
	exitOn(err)
	if line.MoveCounts {
		exitOn(app.MoveCounts(context.Background(), c))
		os.Exit(0)
	}
	api.CommandLineOptionsGroups = []cmdutils.CommandLineOptionsGroup{{ShortDescription: "Further options", Options: line}}
}

func configureAPI(api *operations.FlagrAPI) http.Handler {
	c, err := config.Load(config.Environ())
	exitOn(err)
	line := &app.CommandLine{}
	for _, group := range api.CommandLineOptionsGroups {
		if l, ok := group.Options.(*app.CommandLine); ok {
			line = l
		}
	}
	process, err := app.NewProcess(c, api, SwaggerJSON, FlatSwaggerJSON, *line)
	exitOn(err)
	return process
}

// exitOn ends the process with one message for the operator if there is an error.
func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func configureTLS(*tls.Config) {}

// configureServer runs when a listener is bound: the first one starts the app.
func configureServer(server *http.Server, scheme, address string) {
	if p, ok := server.Handler.(*app.Process); ok {
		p.Exit(p.Listening(server, scheme, address))
	}
}
