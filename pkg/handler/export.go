package handler

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/etag"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
	exportapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/export"
)

// ExportStore writes all flags to a file.
type ExportStore interface {
	// ExportSQLite writes a SQLite file to path. An empty file may exist there. Without history the
	// file has no snapshots.
	ExportSQLite(ctx context.Context, path string, history bool) error
}

// GetExportEvalCacheJSON returns the flags that evaluation uses, in the form that eval-only mode
// reads.
func (h *Handler) GetExportEvalCacheJSON(p exportapi.GetExportEvalCacheJSONParams) middleware.Responder {
	snapshot, tag := h.snapshots.Snapshot(), ""
	if h.states != nil {
		state := h.states.State()
		snapshot, tag = state.Snapshot, exportTag(state.Version, p.HTTPRequest.URL.RawQuery)
		if hasTag(p.HTTPRequest.Header["If-None-Match"], tag) {
			return tagged(tag, exportapi.NewGetExportEvalCacheJSONNotModified())
		}
	}
	wanted := exportFilter(p)
	document := middleware.ResponderFunc(func(rw http.ResponseWriter, producer runtime.Producer) {
		turn, err := h.encoding.Begin(p.HTTPRequest.Context())
		if err != nil {
			noTurnInTime(p.HTTPRequest).WriteResponse(rw, producer)
			return
		}
		defer turn.End()
		tagged(tag, h.abortable(func(rw http.ResponseWriter) error {
			return writeFlagDocument(rw, p.HTTPRequest, turn, snapshot.Flags(), wanted)
		})).WriteResponse(rw, producer)
	})
	return h.documents.responder(p.HTTPRequest.Context(), document)
}

// writeFlagDocument sends the flags that wanted selects, in the form that eval-only mode reads. The
// turn ends while it sends.
func writeFlagDocument(rw http.ResponseWriter, r *http.Request, turn *budget.Turn, flags []*entity.Flag, wanted func(*entity.Flag) bool) error {
	out := newPatientWriter(rw, r)
	defer out.release()
	document := newJSONStream(turn.Writer(r.Context(), out))
	document.text(`{"Flags":[`)
	for _, f := range flags {
		if !wanted(f) {
			continue
		}
		if err := r.Context().Err(); err != nil { // a compressed megabyte can end before the first write fails
			return err
		}
		if err := document.element(func(b []byte) []byte { return entity.AppendFlag(b, f) }); err != nil {
			return err
		}
	}
	return document.finish("]}\n")
}

// States returns the flags that evaluation uses, with their version.
type States interface {
	State() *evalcache.State
}

// exportTag returns the entity tag of an export. It is weak, because it does not identify bytes or
// compression. Servers with the same flags return the same tag.
func exportTag(version, query string) string {
	sum := sha256.Sum256([]byte(version + "\n" + query))
	return `W/"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
}

// hasTag reports whether the If-None-Match header contains the tag.
func hasTag(values []string, tag string) bool {
	for known := range etag.List(values) {
		if known == etag.Bare(tag) {
			return true
		}
	}
	return false
}

// tagged adds an entity tag to a response. It adds nothing if tag is empty.
func tagged(tag string, answer middleware.Responder) middleware.Responder {
	if tag == "" {
		return answer
	}
	return middleware.ResponderFunc(func(rw http.ResponseWriter, producer runtime.Producer) {
		rw.Header().Set("ETag", tag)
		rw.Header().Set("Cache-Control", "private, no-cache")
		answer.WriteResponse(rw, producer)
	})
}

// exportFilter selects by IDs if there are any, otherwise by keys if there are any, otherwise by
// enabled and tags together.
func exportFilter(p exportapi.GetExportEvalCacheJSONParams) func(*entity.Flag) bool {
	if len(p.Ids) > 0 {
		ids := setOf(p.Ids)
		return func(f *entity.Flag) bool { return ids[int64(f.ID)] }
	}
	if len(p.Keys) > 0 {
		keys := setOf(p.Keys)
		return func(f *entity.Flag) bool { return keys[f.Key] }
	}
	tags := setOf(p.Tags)
	all := p.TagsOperator != nil && *p.TagsOperator == eval.TagsAll
	return func(f *entity.Flag) bool {
		if p.Enabled != nil && f.Enabled != *p.Enabled {
			return false
		}
		return hasTags(f, tags, all)
	}
}

func setOf[T comparable](items []T) map[T]bool {
	set := make(map[T]bool, min(len(items), 100))
	for _, item := range items {
		set[item] = true
	}
	return set
}

// hasTags reports whether the flag has all of the tags, or any of them. An empty set of tags
// matches every flag.
func hasTags(f *entity.Flag, tags map[string]bool, all bool) bool {
	found := map[string]bool{}
	for _, t := range f.Tags {
		if tags[t.Value] {
			found[t.Value] = true
		}
	}
	if all {
		return len(found) == len(tags)
	}
	return len(tags) == 0 || len(found) > 0
}

// GetExportSqlite sends all flags as a SQLite file. Every request creates its own file and removes
// it.
func (h *Handler) GetExportSqlite(p exportapi.GetExportSqliteParams) middleware.Responder {
	history := p.ExcludeSnapshots == nil || !*p.ExcludeSnapshots
	file := middleware.ResponderFunc(func(rw http.ResponseWriter, producer runtime.Producer) {
		h.exportSQLite(p.HTTPRequest, history, rw, producer)
	})
	return h.files.responder(p.HTTPRequest.Context(), file)
}

func (h *Handler) exportSQLite(r *http.Request, history bool, rw http.ResponseWriter, producer runtime.Producer) {
	file, err := os.CreateTemp("", "flagr-export-*.sqlite")
	if err != nil {
		h.fail(r, fmt.Errorf("create a temporary file: %w", err)).WriteResponse(rw, producer)
		return
	}
	defer func() {
		if err := errors.Join(file.Close(), os.Remove(file.Name())); err != nil {
			h.logger.Warn("a temporary file stays behind", "error", err)
		}
	}()
	if err := h.fill(r.Context(), file.Name(), history); err != nil {
		h.fail(r, err).WriteResponse(rw, producer)
		return
	}
	rw.Header().Set("Content-Type", runtime.DefaultMime)
	rw.Header().Set("Content-Disposition", `attachment; filename="flagr.sqlite"`)
	if stat, err := file.Stat(); err == nil {
		rw.Header().Set("Content-Length", strconv.FormatInt(stat.Size(), 10))
	}
	h.abortable(func(rw http.ResponseWriter) error {
		out := newPatientWriter(rw, r)
		defer out.release()
		_, err := io.Copy(out, file)
		return err
	}).WriteResponse(rw, producer)
}

// fill fills a SQLite file in turn: with a SQLite database, that occupies a processor.
func (h *Handler) fill(ctx context.Context, path string, history bool) error {
	turn, err := h.filling.Begin(ctx)
	if err != nil {
		return err
	}
	defer turn.End()
	return h.store.ExportSQLite(ctx, path, history)
}
