package handler

import (
	"net/http"
	"slices"

	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	exportapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/export"
)

// flagDocument is the body of the export, and what eval-only mode reads.
type flagDocument struct {
	Flags []*entity.Flag
}

// GetExportEvalCacheJSON publishes the flags that evaluation uses, in the form that eval-only mode reads.
func (h *Handler) GetExportEvalCacheJSON(p exportapi.GetExportEvalCacheJSONParams) middleware.Responder {
	wanted := exportFilter(p)
	kept := []*entity.Flag{}
	for _, f := range h.snapshots.Snapshot().Flags() {
		if wanted(f) {
			kept = append(kept, f)
		}
	}
	return exportapi.NewGetExportEvalCacheJSONOK().WithPayload(flagDocument{Flags: kept})
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

// GetExportSqlite is not there yet.
func (h *Handler) GetExportSqlite(exportapi.GetExportSqliteParams) middleware.Responder {
	return reply(http.StatusNotImplemented, "the SQLite export is not implemented in this version; "+
		"GET /export/eval_cache/json exports the flags as JSON")
}
