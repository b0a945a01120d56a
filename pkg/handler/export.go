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
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
	exportapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/export"
)

// ExportStore writes all flags to a file.
type ExportStore interface {
	// ExportSQLite writes a SQLite file to path, where an empty file may be. Without history it has no snapshots.
	ExportSQLite(ctx context.Context, path string, history bool) error
}

// flagDocument is the body of the export, and what eval-only mode reads.
type flagDocument struct {
	Flags []*entity.Flag
}

// GetExportEvalCacheJSON publishes the flags that evaluation uses, in the form that eval-only mode reads.
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
	kept := []*entity.Flag{}
	for _, f := range snapshot.Flags() {
		if wanted(f) {
			kept = append(kept, f)
		}
	}
	return tagged(tag, exportapi.NewGetExportEvalCacheJSONOK().WithPayload(flagDocument{Flags: kept}))
}

// States has the flags that evaluation uses, with what is known about them.
type States interface {
	State() *evalcache.State
}

// exportTag is the entity tag of an export: weak, since it says nothing of bytes and compression. Servers with the same
// flags have the same.
func exportTag(version, query string) string {
	sum := sha256.Sum256([]byte(version + "\n" + query))
	return `W/"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
}

// hasTag reports whether the header If-None-Match has the tag. Proxies that compress add to it.
func hasTag(values []string, tag string) bool {
	bare := func(tag string) string {
		return strings.TrimSuffix(strings.Trim(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), `"`), "-gzip")
	}
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			if bare(part) == bare(tag) {
				return true
			}
		}
	}
	return false
}

// tagged adds an entity tag to an answer, unless it is empty.
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

// exportFilter decides by ids if there are any, else by keys if there are any, else by enabled and tags together.
func exportFilter(p exportapi.GetExportEvalCacheJSONParams) func(*entity.Flag) bool {
	if len(p.Ids) > 0 {
		return func(f *entity.Flag) bool { return slices.Contains(p.Ids, int64(f.ID)) }
	}
	if len(p.Keys) > 0 {
		return func(f *entity.Flag) bool { return slices.Contains(p.Keys, f.Key) }
	}
	all := p.TagsOperator != nil && *p.TagsOperator == eval.TagsAll
	return func(f *entity.Flag) bool {
		if p.Enabled != nil && f.Enabled != *p.Enabled {
			return false
		}
		return hasTags(f, p.Tags, all)
	}
}

// hasTags reports whether the flag has all, or else any, of the tags. No tags at all ask for nothing.
func hasTags(f *entity.Flag, tags []string, all bool) bool {
	has := func(value string) bool {
		return slices.ContainsFunc(f.Tags, func(t entity.Tag) bool { return t.Value == value })
	}
	if all {
		return !slices.ContainsFunc(tags, func(value string) bool { return !has(value) })
	}
	return len(tags) == 0 || slices.ContainsFunc(tags, has)
}

// GetExportSqlite serves all flags as a SQLite file. Every request makes a file of its own, and removes it.
func (h *Handler) GetExportSqlite(p exportapi.GetExportSqliteParams) middleware.Responder {
	history := p.ExcludeSnapshots == nil || !*p.ExcludeSnapshots
	return middleware.ResponderFunc(func(rw http.ResponseWriter, producer runtime.Producer) {
		file, err := os.CreateTemp("", "flagr-export-*.sqlite")
		if err != nil {
			h.fail(p.HTTPRequest, fmt.Errorf("create a temporary file: %w", err)).WriteResponse(rw, producer)
			return
		}
		defer func() {
			if err := errors.Join(file.Close(), os.Remove(file.Name())); err != nil {
				h.logger.Warn("a temporary file stays behind", "error", err)
			}
		}()
		if err := h.store.ExportSQLite(p.HTTPRequest.Context(), file.Name(), history); err != nil {
			h.fail(p.HTTPRequest, err).WriteResponse(rw, producer)
			return
		}
		// A large file takes longer over a slow line than the server gives to other answers.
		if err := http.NewResponseController(rw).SetWriteDeadline(time.Time{}); err != nil {
			h.logger.Debug("the time to write an export stays bounded", "error", err)
		}
		rw.Header().Set("Content-Type", runtime.DefaultMime)
		rw.Header().Set("Content-Disposition", `attachment; filename="flagr.sqlite"`)
		if stat, err := file.Stat(); err == nil {
			rw.Header().Set("Content-Length", strconv.FormatInt(stat.Size(), 10))
		}
		if _, err := io.Copy(rw, file); err != nil {
			h.logger.Debug("an export was not read to its end", "error", err)
			panic(http.ErrAbortHandler) // cuts the connection, so that nobody takes half a file for a whole one
		}
	})
}
