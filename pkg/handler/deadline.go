package handler

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

// StoreTimeout is how long an operation waits for a database that does not respond. The generated
// server closes connections after 30 s by default. The client must get the reason before that.
const StoreTimeout = 25 * time.Second

// Deadline wraps the operations behind the API's router. An operation that waits for the database
// longer than timeout ends with 503 and returns its connection to the pool. The flags and snapshots
// that an operation reads take memory, which all requests share, until its response is sent.
//
// Operations that only read wait for the turn of the request's context, if it has one, see
// budget.Resume. Those with a body, such as a try, wait for it after their body has arrived.
// Operations that change something need none: the store makes one change at a time. A client that
// disconnects while it waits costs nothing.
//
// Deadline does not apply to operations that need no database, to exports, which take as long as
// the client reads, and to the live tail, which has its own time limit.
func Deadline(timeout time.Duration, memory *budget.Memory, operations http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		route := middleware.MatchedRouteFrom(r)
		if route == nil || route.Operation == nil || route.Operation.ID == "getDatarFlagTail" ||
			slices.Contains(route.Operation.Tags, "export") || slices.Contains(route.Operation.Tags, "evaluation") || slices.Contains(route.Operation.Tags, "health") {
			operations.ServeHTTP(rw, r)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		ctx, release := memory.Share(ctx)
		defer release()
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			if budget.Resume(ctx) != nil {
				noTurnInTime(r).WriteResponse(rw, runtime.JSONProducer())
				return
			}
		}
		operations.ServeHTTP(rw, r.WithContext(ctx))
	})
}

// noTurnInTime responds to a request whose context ended before its turn.
func noTurnInTime(r *http.Request) middleware.Responder {
	if errors.Is(r.Context().Err(), context.Canceled) {
		return reply(statusClientClosedRequest, "request canceled")
	}
	return retryLater(1, "too many requests that read flags or counts at the same time: retry later")
}
