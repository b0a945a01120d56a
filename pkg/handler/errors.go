package handler

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	stderrors "errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-openapi/errors"
	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/forward"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

// statuses maps the errors that the client caused to responses, which contain the error's text.
// Every other error is answered with 500, and its text goes to the log only.
var statuses = []struct {
	err    error
	status int
}{
	{entity.ErrInvalid, http.StatusBadRequest},
	{entity.ErrDuplicateKey, http.StatusBadRequest},
	{entity.ErrNotFound, http.StatusNotFound},
	{entity.ErrConflict, http.StatusConflict},
	{datar.ErrInvalidQuery, http.StatusBadRequest},
	{datar.ErrFlagNotFound, http.StatusNotFound},
	{insight.ErrTailFull, http.StatusTooManyRequests},
	{forward.ErrElsewhere, http.StatusNotImplemented},
}

// statusClientClosedRequest is for logs and metrics. No client receives it, because the client has
// disconnected.
const statusClientClosedRequest = 499

// Refuse responds to a request with the status of err, for handlers in front of the generated code.
// io.ErrUnexpectedEOF means that the body ends in the middle of its JSON.
func (h *Handler) Refuse(rw http.ResponseWriter, r *http.Request, err error) {
	if stderrors.Is(err, io.ErrUnexpectedEOF) {
		serveError(rw, r, errors.NewParseError("body", "body", "", err))
		return
	}
	h.fail(r, err).WriteResponse(rw, nil)
}

// preparingRetryAfter is how soon to ask again for counts that are being added up, in seconds.
const preparingRetryAfter = 10

// fail responds to a request with the status of err.
func (h *Handler) fail(r *http.Request, err error) middleware.Responder {
	for _, s := range statuses {
		if stderrors.Is(err, s.err) {
			return reply(s.status, err.Error())
		}
	}
	if stderrors.Is(err, budget.ErrExhausted) {
		return retryLater(1, err.Error())
	}
	if preparing, ok := stderrors.AsType[*datar.PreparingError](err); ok {
		return retryLater(preparingRetryAfter, preparing.Error())
	}
	if stderrors.Is(err, eval.ErrTooSlow) {
		h.logger.Warn("a batch took too long", "error", err)
		return reply(http.StatusServiceUnavailable, err.Error())
	}
	if unfinished, ok := stderrors.AsType[*insight.UnfinishedError](err); ok && stderrors.Is(err, context.DeadlineExceeded) {
		h.logger.Warn("a request was not finished in time", "operation", operationID(r), "error", err)
		return retryLater(1, unfinished.Error())
	}
	switch ended := r.Context().Err(); {
	case stderrors.Is(ended, context.DeadlineExceeded), ended == nil && stderrors.Is(err, context.DeadlineExceeded):
		h.logger.Warn("the database did not answer in time", "operation", operationID(r), "error", err)
		return reply(http.StatusServiceUnavailable, "the database did not answer in time: a change may or may not have been made")
	case stderrors.Is(ended, context.Canceled):
		h.logger.Debug("client went away", "operation", operationID(r), "error", err)
		return reply(statusClientClosedRequest, "request canceled")
	}
	if isUnreachable(err) {
		h.logger.Error("the database cannot be reached", "operation", operationID(r), "error", err)
		return retryLater(1, "the database cannot be reached: a change may or may not have been made")
	}
	h.logger.Error("request failed", "operation", operationID(r), "error", err)
	return reply(http.StatusInternalServerError, "internal error")
}

// isUnreachable reports whether err is about the connection to the database, and not from the
// database.
func isUnreachable(err error) bool {
	_, ok := stderrors.AsType[*net.OpError](err)
	return ok || stderrors.Is(err, driver.ErrBadConn) || stderrors.Is(err, io.ErrUnexpectedEOF)
}

func operationID(r *http.Request) string {
	if route := middleware.MatchedRouteFrom(r); route != nil && route.Operation != nil {
		return route.Operation.ID
	}
	return ""
}

// reply responds with a status and a message for the user of the client. The body is JSON, whatever
// the operation produces on success.
func reply(status int, message string) middleware.Responder {
	return middleware.ResponderFunc(func(rw http.ResponseWriter, _ runtime.Producer) {
		rw.Header().Set(runtime.HeaderContentType, runtime.JSONMime)
		rw.WriteHeader(status)
		encoder := json.NewEncoder(rw)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(&models.Error{Message: &message}) // fails only if the client has disconnected
	})
}

// retryLater responds with 503 and a Retry-After header in seconds.
func retryLater(seconds int, message string) middleware.Responder {
	return middleware.ResponderFunc(func(rw http.ResponseWriter, producer runtime.Producer) {
		rw.Header().Set("Retry-After", strconv.Itoa(seconds))
		reply(http.StatusServiceUnavailable, message).WriteResponse(rw, producer)
	})
}

// serveError responds to requests that the generated code rejects, such as a body that breaks the
// schema. A body that was cut off because it is too large gets its own status. All other errors
// keep go-openapi's status and code and get a readable message.
func serveError(rw http.ResponseWriter, r *http.Request, err error) {
	if tooLarge := bodyTooLarge(err); tooLarge != nil {
		err = errors.New(http.StatusRequestEntityTooLarge, "the request body is larger than %d bytes", tooLarge.Limit)
	}
	if method, ok := stderrors.AsType[*errors.MethodNotAllowedError](err); ok {
		err = errors.MethodNotAllowed(r.Method, slices.Sorted(slices.Values(method.Allowed))) // go-openapi lists them in any order
	}
	if kind := r.Header.Get(runtime.HeaderContentType); strings.Contains(kind, "*") && strings.Contains(err.Error(), "no consumer registered") {
		err = errors.InvalidContentType(kind, []string{runtime.JSONMime}) // go-openapi has 500 for a range of types
	}
	if parse, ok := stderrors.AsType[*errors.ParseError](err); ok {
		switch {
		case stderrors.Is(parse.Reason, ingest.ErrTooManyRows):
			err = errors.New(http.StatusRequestEntityTooLarge, "%s", ingest.ErrTooManyRows)
		case stderrors.Is(parse.Reason, budget.ErrTooManyValues):
			err = errors.New(http.StatusRequestEntityTooLarge, "%s", budget.ErrTooManyValues)
		case stderrors.Is(parse.Reason, budget.ErrExhausted):
			rw.Header().Set("Connection", "close") // so that the rest of the body is not read
			retryLater(1, budget.ErrExhausted.Error()).WriteResponse(rw, nil)
			return
		}
	}
	errors.ServeError(rw, r, plain(err))
}

func bodyTooLarge(err error) *http.MaxBytesError {
	var parse *errors.ParseError
	var tooLarge *http.MaxBytesError
	if stderrors.As(err, &parse) && stderrors.As(parse.Reason, &tooLarge) {
		return tooLarge
	}
	return nil
}
