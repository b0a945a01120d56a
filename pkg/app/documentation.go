package app

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"sync"

	"github.com/go-openapi/runtime/server-middleware/docui"

	"github.com/flagr-datar/flagr-datar/pkg/apidoc"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// descriptionPath is where the generated API serves its description.
const descriptionPath = "/swagger.json"

// noPage prevents the generated API from serving its own page, which would load its viewer from
// another host.
func noPage(...docui.Option) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler { return next }
}

// document serves the documentation at basePath/docs. It links to the description with a relative
// path, so it works below any prefix.
func document(api http.Handler, basePath string, logger *slog.Logger) http.Handler {
	render := sync.OnceValues(func() (*web.Constant, error) {
		description, err := describedBy(api)
		if err != nil {
			return nil, err
		}
		page, err := apidoc.Render(description, "../.."+descriptionPath)
		return web.NewConstant(page), err
	})
	page := web.ProtectPage(apidoc.Policy(), http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		body, err := render()
		if err != nil {
			logger.Error("documentation page failed", "error", err)
			http.Error(rw, `{"message":"the documentation cannot be rendered; see the log"}`, http.StatusInternalServerError)
			return
		}
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		body.Write(rw)
	}))
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if path.Clean(r.URL.Path) == basePath+"/docs" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			page.ServeHTTP(rw, r)
			return
		}
		api.ServeHTTP(rw, r)
	})
}

// describe serves the API's description, with the prefix in its paths, as clients see them. Without
// a description, it is the one that the API serves.
func describe(api http.Handler, description []byte, basePath, prefix string) http.Handler {
	if description == nil {
		var err error
		if description, err = describedBy(api); err != nil {
			return api // never: method and path are constants
		}
	}
	if prefix != "" {
		description = bytes.Replace(description,
			fmt.Appendf(nil, `"basePath": %q`, basePath), fmt.Appendf(nil, `"basePath": %q`, path.Join(prefix, basePath)), 1)
	}
	body := web.NewConstant(description)
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if path.Clean(r.URL.Path) != descriptionPath {
			api.ServeHTTP(rw, r)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		body.Write(rw)
	})
}

// describedBy returns the description that the API serves.
func describedBy(api http.Handler) ([]byte, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, descriptionPath, nil)
	if err != nil {
		return nil, fmt.Errorf("request of the description: %w", err)
	}
	answer := &memory{header: http.Header{}}
	api.ServeHTTP(answer, request)
	return answer.body.Bytes(), nil
}

// memory is an http.ResponseWriter that keeps the body.
type memory struct {
	header http.Header
	body   bytes.Buffer
}

func (m *memory) Header() http.Header         { return m.header }
func (m *memory) Write(p []byte) (int, error) { return m.body.Write(p) }
func (m *memory) WriteHeader(int)             {}
