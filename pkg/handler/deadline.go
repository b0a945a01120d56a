package handler

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

// StoreTimeout is how long an operation waits for a database that does not answer. The generated server cuts connections
// after 30 s, by default, and the client should know why before.
const StoreTimeout = 25 * time.Second

// Deadline goes between the API's router and its operations. It ends those that wait for the database longer than the
// timeout, so that they give their connection back; they are answered with 503. States of flags that they read take memory,
// which all of them share: see AnswerMemory. Deadline leaves out what needs no database, the export of all flags as a file, which
// may take long, and the live tail, which has no end of its own.
func Deadline(timeout time.Duration, memory *budget.Memory, operations http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		route := middleware.MatchedRouteFrom(r)
		if route == nil || route.Operation == nil || route.Operation.ID == "getExportSqlite" || route.Operation.ID == "getDatarFlagTail" ||
			slices.Contains(route.Operation.Tags, "evaluation") || slices.Contains(route.Operation.Tags, "health") {
			operations.ServeHTTP(rw, r)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		ctx, release := memory.Share(ctx)
		defer release()
		operations.ServeHTTP(rw, r.WithContext(ctx))
	})
}
