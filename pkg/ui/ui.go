// Package ui serves the web pages: flags, their evaluations, and the forms that change them. The
// server renders the pages, which work without scripts. Charts are SVG from package chart. Scripts
// and styles are embedded unchanged.
package ui

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

//go:embed pages/*.html
var pageFiles embed.FS

//go:embed static
var staticFiles embed.FS

const (
	// requestTimeout limits the work of a page.
	requestTimeout = 25 * time.Second
	// maxFormBytes limits a form. A definition with the longest constraint value is smaller.
	maxFormBytes = 8 << 20
	// maxFormFields is the limit of net/url, of which errors tell users.
	maxFormFields = 10_000

	securityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

// Store reads and changes flags. Its errors match those of package entity if the request is
// invalid.
type Store interface {
	Flag(ctx context.Context, id int64) (*entity.Flag, error)
	// DeletedFlags returns a page of the deleted flags, the latest deletion first, and the number
	// of all.
	DeletedFlags(ctx context.Context, limit, offset int) (page []entity.Flag, all int, err error)
	// DeletedAmong returns the deleted flags that have one of the keys or IDs, without their parts.
	DeletedAmong(ctx context.Context, keys []string, ids []int64) ([]entity.Flag, error)
	// Snapshots lists snapshots of a flag, the newest first.
	Snapshots(ctx context.Context, flagID int64, limit, offset int) ([]entity.FlagSnapshot, error)
	// SnapshotHeads lists them without their states.
	SnapshotHeads(ctx context.Context, flagID int64, limit int) ([]entity.SnapshotHead, error)
	// SnapshotsByID reads the existing ones of the snapshots.
	SnapshotsByID(ctx context.Context, ids []int64) ([]entity.FlagSnapshot, error)
	EntityTypes(ctx context.Context) ([]string, error)
	Tags(ctx context.Context) ([]string, error)
	// CreateFlag creates a flag; a boolean flag has the variant "on" for every entity.
	CreateFlag(ctx context.Context, by, key, description string, boolean bool) (*entity.Flag, error)
	DuplicateFlag(ctx context.Context, by string, id int64, key, description string) (*entity.Flag, error)
	ReplaceDefinition(ctx context.Context, by string, id int64, d entity.Definition) (*entity.Flag, error)
	DeleteFlag(ctx context.Context, by string, id int64) error
	RestoreFlag(ctx context.Context, by string, id int64) (*entity.Flag, error)
}

// Setting is a variable of the configuration on the Server page.
type Setting struct {
	Name, Value, Default string
	// Secret hides the value; Set reports whether it is set.
	Secret, Set bool
}

// Options configure the pages.
type Options struct {
	// Store is nil in eval-only mode, in which the pages are read-only.
	Store Store
	// Snapshots has the flags that evaluation uses. Required.
	Snapshots eval.Source
	// Refresh makes Snapshots include a change at once. If it is nil, Snapshots follows by itself.
	Refresh func(context.Context)
	// LastCheck is when Snapshots was last known to be current.
	LastCheck func() time.Time
	// Numbers is nil if Datar is off, or stores its counts elsewhere.
	Numbers Numbers
	// Elsewhere is set if this server cannot store counts: its flags come from a document, or it
	// forwards its counts.
	Elsewhere bool
	// Statistics is nil if Datar is off.
	Statistics Statistics
	// Tail reports whether this server streams individual evaluations at /datar/flags/{id}/tail.
	Tail bool
	// Prefix is the prefix of all paths as the browser sees them; it may be empty.
	Prefix string
	// Actor returns the user who sent a request; nil if users are unknown.
	Actor func(*http.Request) string
	// CountsAll reports whether flags are counted regardless of their data records.
	CountsAll bool
	// SQL provides the SQL of numbers. It is nil if the counts are in another database than the
	// flags.
	SQL Statements
	// Settings lists the configuration; Version is the version of the server.
	Settings []Setting
	Version  string
	// Database names the database of flags, such as "postgres db:5432/flagr", without credentials.
	Database string
	// Retention is how long counts are kept by the hour; 0 means forever.
	Retention time.Duration
	// RefreshInterval is the maximum time until other servers use a change.
	RefreshInterval time.Duration
	// EntityTypes are the only entity types to choose from. If it is empty, any can be typed, and
	// those in use are suggested.
	EntityTypes []string
	// Texts are the texts of the pages in another language than English, which is nil.
	Texts *catalog.Catalog
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Trials bounds what the page for trying a flag evaluates.
	Trials insight.TrialLimits
	// Turns limits how many pages are rendered in parallel. Nil means no limit.
	Turns budget.Turns
	// Memory limits the memory of flag states that all pages read. Nil means no limit.
	Memory *budget.Memory
	// Logger receives errors of the server. Required.
	Logger *slog.Logger
}

// pageTemplate returns the template of a page.
type pageTemplate func() (*template.Template, error)

// UI serves the pages.
type UI struct {
	o         Options
	text      *texts
	templates map[string]pageTemplate // by file name
	hash      string                  // of all static files, part of their path
	handler   http.Handler
	board     boardCache
}

// New constructs the pages. It starts nothing.
func New(o Options) (*UI, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Actor == nil {
		o.Actor = func(*http.Request) string { return "" }
	}
	if o.Refresh == nil {
		o.Refresh = func(context.Context) {}
	}
	if o.LastCheck == nil {
		o.LastCheck = o.Now
	}
	u := &UI{o: o}
	var err error
	if o.Texts == nil {
		if o.Texts, err = catalog.Parse(catalog.English()); err != nil {
			return nil, fmt.Errorf("texts of the pages: %w", err)
		}
	}
	u.text = &texts{o.Texts}
	if u.templates, err = u.pageTemplates(); err != nil {
		return nil, fmt.Errorf("templates of the pages: %w", err)
	}
	if u.hash, err = hashOf(staticFiles); err != nil {
		return nil, fmt.Errorf("static files of the pages: %w", err)
	}
	u.handler = u.routes()
	return u, nil
}

// Stop waits for running queries, until ctx ends.
func (u *UI) Stop(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		u.board.wg.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop the pages: %w", ctx.Err())
	}
}

// hashOf returns a hash of the content of all files.
func hashOf(files fs.FS) (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(sum, "%s %d\n%s", name, len(content), content)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil))[:12], err
}

// Handler serves the pages in front of the API: /, /ui/ and below, and the static files. All other
// requests go to next. Paths that are not clean also go to next, so that access control and routing
// see the same path.
func (u *UI) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		p := r.URL.Path
		ours := p == "/" || p == "/ui" || strings.HasPrefix(p, "/ui/") || strings.HasPrefix(p, "/static/ui/")
		if !ours || r.URL.RawPath != "" || path.Clean(p) != strings.TrimSuffix(p, "/") && p != "/" {
			next.ServeHTTP(rw, r)
			return
		}
		header := rw.Header()
		header.Set("Content-Security-Policy", securityPolicy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "same-origin")
		u.handler.ServeHTTP(rw, r)
	})
}

// Routes returns the patterns of all pages, for tests.
func Routes() []string {
	patterns := make([]string, 0, len(pages))
	for _, one := range pages {
		patterns = append(patterns, one.pattern)
	}
	return patterns
}

// route is one page or form.
type route struct {
	pattern string
	serve   func(u *UI, rw http.ResponseWriter, r *http.Request) error
	// writes reports whether the page needs a store.
	writes bool
}

var pages = []route{
	{"GET /ui/{$}", (*UI).list, false},
	{"GET /ui/flags.csv", (*UI).listCSV, false},
	{"GET /ui/new", (*UI).newFlag, true},
	{"POST /ui/new", (*UI).createFlag, true},
	{"GET /ui/deleted", (*UI).deleted, true},
	{"GET /ui/deleted/{id}", (*UI).restoreForm, true},
	{"POST /ui/deleted/{id}", (*UI).restore, true},
	{"GET /ui/unknown", (*UI).unknown, false},
	{"GET /ui/server", (*UI).server, false},
	{"GET /ui/key", (*UI).checkKey, true},
	{"GET /ui/keys", (*UI).shortcuts, false},
	{"POST /ui/preferences", (*UI).preferences, false},
	{"GET /ui/flags/{id}", (*UI).overview, false},
	{"GET /ui/flags/{id}/targeting", (*UI).targeting, false},
	{"POST /ui/flags/{id}/targeting", (*UI).edit, true},
	{"POST /ui/flags/{id}/enabled", (*UI).toggle, true},
	{"POST /ui/flags/{id}/records", (*UI).records, true},
	{"GET /ui/flags/{id}/traffic", (*UI).traffic, false},
	{"GET /ui/flags/{id}/traffic.csv", (*UI).trafficCSV, false},
	{"GET /ui/flags/{id}/nothing", (*UI).nothing, false},
	{"GET /ui/flags/{id}/try", (*UI).tryForm, false},
	{"POST /ui/flags/{id}/try", (*UI).try, false},
	{"GET /ui/flags/{id}/history", (*UI).history, true},
	{"POST /ui/flags/{id}/history", (*UI).putBack, true},
	{"GET /ui/flags/{id}/duplicate", (*UI).duplicateForm, true},
	{"POST /ui/flags/{id}/duplicate", (*UI).duplicate, true},
	{"GET /ui/flags/{id}/delete", (*UI).deleteForm, true},
	{"POST /ui/flags/{id}/delete", (*UI).deleteFlag, true},
}

func (u *UI) routes() http.Handler {
	mux := http.NewServeMux()
	for _, one := range pages {
		mux.HandleFunc(one.pattern, func(rw http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
			defer cancel()
			if u.o.Memory != nil {
				shared, release := u.o.Memory.Share(ctx)
				defer release()
				ctx = shared
			}
			r = r.WithContext(ctx)
			if r.Method != http.MethodPost && !resume(rw, r) { // a form can be slow
				return
			}
			r.Body = http.MaxBytesReader(rw, r.Body, maxFormBytes)
			rw.Header().Set("Cache-Control", "no-store")
			if one.writes && u.o.Store == nil {
				u.fail(rw, r, errEvalOnly)
				return
			}
			if err := one.serve(u, rw, r); err != nil {
				u.fail(rw, r, err)
			}
		})
	}
	mux.HandleFunc("GET /{$}", u.root)
	mux.HandleFunc("GET /ui", func(rw http.ResponseWriter, _ *http.Request) { seeOther(rw, "ui/") })
	mux.HandleFunc("GET /static/ui/{hash}/{file...}", u.static)
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) { u.fail(rw, r, errNoPage) })
	return http.NewCrossOriginProtection().Handler(formsOnly(mux))
}

// formsOnly rejects requests that no browser sends: those that neither read nor send a form. The
// error is a short text, because rendering a page takes far longer.
func formsOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != formType {
				http.Error(rw, fmt.Sprintf("the Content-Type is %.100q; pages accept GET, HEAD and forms of type %s", r.Header.Get("Content-Type"), formType),
					http.StatusUnsupportedMediaType)
				return
			}
		}
		next.ServeHTTP(rw, r)
	})
}

const formType = "application/x-www-form-urlencoded"

// seeOther responds to a form. The location is relative, so that it works behind any prefix.
func seeOther(rw http.ResponseWriter, location string) {
	rw.Header().Set("Location", location)
	rw.WriteHeader(http.StatusSeeOther)
}

func (u *UI) static(rw http.ResponseWriter, r *http.Request) {
	file, hash := r.PathValue("file"), r.PathValue("hash")
	content, err := staticFiles.ReadFile("static/" + file)
	if err != nil || hash != u.hash {
		rw.Header().Set("Cache-Control", "no-store")
		http.Error(rw, "no such file in this version", http.StatusNotFound)
		return
	}
	types := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	rw.Header().Set("Content-Type", types[path.Ext(file)])
	rw.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = rw.Write(content) //nolint:gosec // a file of the binary
}

// root has no data, because access control leaves / open by default. A script converts old links,
// whose hash only the browser sees, to new ones.
func (u *UI) root(rw http.ResponseWriter, r *http.Request) {
	base := ""
	if asked, err := url.ParseRequestURI(r.RequestURI); err == nil && !strings.HasSuffix(asked.Path, "/") {
		base = path.Base(asked.Path) + "/"
	}
	rw.Header().Set("Cache-Control", "no-cache")
	u.render(rw, r, http.StatusOK, "root.html", &page{Root: base + "ui/", Static: base + "static/ui/" + u.hash + "/"})
}

// readForm parses the fields of a form. The error matches entity.ErrInvalid, or is an
// *http.MaxBytesError.
func (u *UI) readForm(r *http.Request) error {
	err := r.ParseForm()
	if err == nil {
		return u.checkTexts(r)
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err
	}
	return entity.Invalid("%s", u.text.plain("error.form", "why", err.Error(), "most", maxFormFields))
}

// checkTexts takes the memory that a page with the texts of a form needs. The error is
// budget.ErrExhausted, or matches entity.ErrInvalid if there are more than maxFormTexts.
func (u *UI) checkTexts(r *http.Request) error {
	size := 0
	for _, values := range r.PostForm {
		for _, value := range values {
			size += formBytes(value)
		}
	}
	if size > maxFormTexts {
		return entity.Invalid("%s", u.text.plain("error.form.texts", "most", maxFormTexts))
	}
	if size <= budget.LargeBytes {
		return nil
	}
	return budget.Add(r.Context(), int64(size)*bytesPerFormByte)
}

// Errors of pages that no other package has.
var (
	errNoPage   = errors.New("no such page")
	errEvalOnly = errors.New("this server is read-only")
	errLongPage = errors.New("the page is too long")
	errNoTurn   = errors.New("the server renders other pages or decodes large requests: retry later")
)

// fail shows an error. Internal errors are logged and not shown on the page.
func (u *UI) fail(rw http.ResponseWriter, r *http.Request, err error) {
	var status int
	var name, detail string
	var large *http.MaxBytesError
	switch {
	case errors.Is(err, errNoPage):
		status, name = http.StatusNotFound, "error.page"
	case errors.Is(err, entity.ErrNotFound):
		status, name = http.StatusNotFound, "error.flag"
	case errors.Is(err, errEvalOnly):
		status, name = http.StatusNotImplemented, "error.evalonly"
	case errors.As(err, &large):
		status, name = http.StatusRequestEntityTooLarge, "error.large"
	case errors.Is(err, entity.ErrDuplicateKey):
		status, name, detail = http.StatusBadRequest, "error.invalid", u.text.plain("edit.err.taken")
	case errors.Is(err, entity.ErrInvalid):
		status, name, detail = http.StatusBadRequest, "error.invalid", u.text.problem(err)
	case errors.Is(err, datar.ErrInvalidQuery):
		status, name, detail = http.StatusBadRequest, "error.query", u.text.problem(err)
	case errors.Is(err, errLongPage):
		status, name, detail = http.StatusBadRequest, "error.long", u.text.plain("error.long.detail", "most", maxPageBytes>>20)
	case errors.Is(err, budget.ErrExhausted), errors.Is(err, errNoTurn):
		status, name = http.StatusServiceUnavailable, "error.busy"
		rw.Header().Set("Retry-After", "1")
	case errors.Is(r.Context().Err(), context.Canceled):
		http.Error(rw, "request canceled", statusClientClosedRequest)
		return
	case r.Context().Err() != nil:
		status, name = http.StatusServiceUnavailable, "error.database"
		u.o.Logger.Warn("page was not ready in time", "path", r.URL.Path, "error", err)
	default:
		status, name = http.StatusServiceUnavailable, "error.database"
		u.o.Logger.Error("page failed", "path", r.URL.Path, "error", err)
	}
	p := u.page(r, "", u.text.plain(name+".title"))
	p.Data = struct {
		Title, Text template.HTML
		Detail      string
		Again       bool
	}{u.text.say(name + ".title"), u.text.say(name + ".text"), detail, status >= 500 && status != http.StatusNotImplemented}
	u.render(rw, r.WithContext(context.Background()), status, "error.html", p) // regardless of memory
}
