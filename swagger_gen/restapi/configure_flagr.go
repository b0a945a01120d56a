// This file is the only hand-written one under swagger_gen: the wiring between the generated server and pkg/app.

package restapi

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"

	"github.com/flagr-datar/flagr-datar/pkg/app"
	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/web"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations"
)

// configureFlags runs before the command line is parsed. It loads the configuration only to refuse a wrong one: what
// the parser says about a wrong PORT names neither the variable nor what is accepted.
func configureFlags(*operations.FlagrAPI) {
	exitOn(config.SetListenDefaults())
	_, err := config.Load(config.Environ())
	exitOn(err)
}

func configureAPI(api *operations.FlagrAPI) http.Handler {
	ctx := context.Background()
	c, err := config.Load(config.Environ())
	exitOn(err)
	server, err := app.New(ctx, c, app.Options{OwnsProcess: true})
	exitOn(err)
	exitOn(server.Start(ctx))
	server.Register(api)
	api.PreServerShutdown = server.BeginStop
	api.ServerShutdown = func() {
		ctx, cancel := context.WithTimeout(ctx, app.StopTimeout)
		defer cancel()
		exitOn(server.Stop(ctx))
	}
	return server.Handler(api.Serve(nil))
}

// exitOn ends the process with one message for the operator if there is an error.
func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func configureTLS(*tls.Config) {}

// configureServer has the errors of connections logged as everything else.
func configureServer(server *http.Server, _, _ string) {
	if h, ok := server.Handler.(*web.Server); ok {
		server.ErrorLog = h.ErrorLog
		if server.MaxHeaderBytes == 1_000_000 { // the default of --max-header-size, "1MiB" as the generated server reads it
			server.MaxHeaderBytes = web.MaxHeaderBytes
		}
	}
}
