package app

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/go-openapi/runtime/server-middleware/docui"
)

// descriptionPath is where the generated API serves its description.
const descriptionPath = "/swagger.json"

// documentation is the page at /api/v1/docs. It names the description relative to itself, so that it finds it below any
// prefix.
func documentation(options ...docui.Option) func(http.Handler) http.Handler {
	page := docui.UseRedoc(append(options, docui.WithSpecURL("../.."+descriptionPath))...)
	return func(next http.Handler) http.Handler {
		shown := page(next)
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/docs") { // its viewer comes from elsewhere, so only frames are forbidden
				rw.Header().Set("Content-Security-Policy", "frame-ancestors 'none'; base-uri 'none'")
				rw.Header().Set("X-Frame-Options", "DENY")
			}
			shown.ServeHTTP(rw, r)
		})
	}
}

// describe makes the API's description name the paths as clients see them, below the prefix.
func describe(api http.Handler, basePath, prefix string) http.Handler {
	if prefix == "" {
		return api
	}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, descriptionPath, nil)
	if err != nil {
		return api // never: method and path are constants
	}
	original := &memory{header: http.Header{}}
	api.ServeHTTP(original, request)
	changed := bytes.Replace(original.body.Bytes(),
		fmt.Appendf(nil, `"basePath": %q`, basePath), fmt.Appendf(nil, `"basePath": %q`, path.Join(prefix, basePath)), 1)
	return docui.ServeSpec(changed, api, docui.WithSpecPath(descriptionPath))
}

// memory is a http.ResponseWriter that keeps the body.
type memory struct {
	header http.Header
	body   bytes.Buffer
}

func (m *memory) Header() http.Header         { return m.header }
func (m *memory) Write(p []byte) (int, error) { return m.body.Write(p) }
func (m *memory) WriteHeader(int)             {}
