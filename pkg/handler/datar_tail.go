package handler

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/insight"
	datarapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/datar"
)

const (
	// tailTick is the interval at which a listener learns how many events it missed and that the
	// connection is alive.
	tailTick = time.Second
	// tailWriteTimeout closes the connection of a client that does not read.
	tailWriteTimeout = 10 * time.Second
	// tailPingTicks is the number of ticks without events between two comments.
	tailPingTicks = 15
)

// GetDatarFlagTail sends evaluations of a flag as they happen.
func (h *Handler) GetDatarFlagTail(p datarapi.GetDatarFlagTailParams) middleware.Responder {
	if h.tail == nil {
		return reply(http.StatusNotImplemented, "the live tail is switched off: start the server with FLAGR_RECORDER_DATAR_TAIL_ENABLED=true. It shows what single entities get")
	}
	if h.snapshots.Snapshot().Flag(p.FlagID, "") == nil {
		return reply(http.StatusNotFound, fmt.Sprintf("unable to find flag %d among the flags that are evaluated", p.FlagID))
	}
	listener, err := h.tail.Listen(p.FlagID)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return middleware.ResponderFunc(func(rw http.ResponseWriter, _ runtime.Producer) {
		defer listener.Close()
		h.sendTail(rw, p.HTTPRequest, listener)
	})
}

// sendTail writes events until the client disconnects, the server stops, or the time limit is
// reached.
func (h *Handler) sendTail(rw http.ResponseWriter, r *http.Request, listener *insight.Listener) {
	rw.Header().Set(runtime.HeaderContentType, "text/event-stream")
	rw.Header().Set("Cache-Control", "no-store")
	rw.Header().Set("X-Accel-Buffering", "no")
	control := http.NewResponseController(rw)
	_ = control.SetReadDeadline(time.Time{}) // it would end the request; not all writers have one
	write := func(text string) bool {
		_ = control.SetWriteDeadline(time.Now().Add(tailWriteTimeout))
		if _, err := rw.Write([]byte(text)); err != nil {
			return false
		}
		return control.Flush() == nil
	}
	rw.WriteHeader(http.StatusOK)
	if !write(": the evaluations of this server\n\n") {
		return
	}
	tick := time.NewTicker(tailTick)
	defer tick.Stop()
	end := time.Now().Add(insight.TailDuration)
	quiet := 0
	for time.Now().Before(end) {
		event := listener.Next(r.Context().Done(), tick.C)
		text := ""
		switch {
		case event != nil:
			data, err := json.Marshal(tailModel(event))
			if err != nil {
				return
			}
			text = "event: evaluation\ndata: " + string(data) + "\n\n"
		case r.Context().Err() != nil, h.stopping():
			return
		default:
			if skipped := listener.Skipped(); skipped > 0 {
				text = fmt.Sprintf("event: skipped\ndata: %d\n\n", skipped)
			} else if quiet++; quiet == tailPingTicks {
				text = ": still here\n\n"
			}
		}
		if text == "" {
			continue
		}
		quiet = 0
		if !write(text) {
			return
		}
	}
}

// stopping reports whether the server is stopping and waits for its connections.
func (h *Handler) stopping() bool {
	return h.healthChecks.Stopping != nil && h.healthChecks.Stopping()
}
