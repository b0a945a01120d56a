package handler

import (
	"context"
	"net/http"
	"strings"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/store"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	flagapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/flag"
)

// FlagStore reads and changes flags and lists their history.
type FlagStore interface {
	// Flags lists flags. FlagsOrPages splits a long list into pages that are read one after the
	// other.
	Flags(ctx context.Context, q store.FlagQuery) ([]entity.Flag, error)
	FlagsOrPages(ctx context.Context, q store.FlagQuery) ([]entity.Flag, []store.FlagPage, error)
	Flag(ctx context.Context, id int64) (*entity.Flag, error)
	EntityTypes(ctx context.Context) ([]string, error)
	Snapshots(ctx context.Context, flagID int64, q store.SnapshotQuery) ([]entity.FlagSnapshot, error)
	MaxSnapshotID(ctx context.Context) (int64, error)
	CreateFlag(ctx context.Context, by string, f store.NewFlag) (*entity.Flag, error)
	UpdateFlag(ctx context.Context, by string, id int64, p store.FlagPatch) (*entity.Flag, error)
	SetFlagEnabled(ctx context.Context, by string, id int64, enabled bool) (*entity.Flag, error)
	DeleteFlag(ctx context.Context, by string, id int64) error
	RestoreFlag(ctx context.Context, by string, id int64) (*entity.Flag, error)
	DuplicateFlag(ctx context.Context, by string, id int64, key, description string) (*entity.Flag, error)
	ReplaceDefinition(ctx context.Context, by string, id int64, d entity.Definition) (*entity.Flag, error)
}

// FindFlags lists flags.
func (h *Handler) FindFlags(p flagapi.FindFlagsParams) middleware.Responder {
	var tags []string
	if p.Tags != nil {
		tags = strings.Split(*p.Tags, ",")
	}
	return h.listFlags(p.HTTPRequest, store.FlagQuery{
		Limit:           p.Limit,
		Offset:          p.Offset,
		Enabled:         p.Enabled,
		Description:     p.Description,
		DescriptionLike: p.DescriptionLike,
		Key:             p.Key,
		Tags:            tags,
		Preload:         p.Preload != nil && *p.Preload,
		Deleted:         p.Deleted != nil && *p.Deleted,
		Brief:           true,
	})
}

// listFlags responds with a list. It reads and sends a list of several pages page by page. A list
// of one page shows the flags at one moment. In a longer list, this holds for each page.
func (h *Handler) listFlags(r *http.Request, q store.FlagQuery) middleware.Responder {
	return middleware.ResponderFunc(func(rw http.ResponseWriter, producer runtime.Producer) {
		flags, pages, err := h.store.FlagsOrPages(r.Context(), q)
		next := func() (err error) {
			if err := budget.Resume(r.Context()); err != nil { // sending a page ended the turn
				return err
			}
			flags, err = h.store.Flags(r.Context(), q.Page(pages[0]))
			pages = pages[1:]
			return err
		}
		if err == nil && len(pages) > 0 {
			err = next()
		}
		if err != nil {
			h.fail(r, err).WriteResponse(rw, producer)
			return
		}
		h.abortable(func(rw http.ResponseWriter) error {
			list := newJSONStream(rw)
			list.text("[")
			for {
				for i := range flags {
					if err := list.element(func(b []byte) []byte { return appendFlagModel(b, &flags[i]) }); err != nil {
						return err
					}
				}
				if len(pages) == 0 {
					return list.finish("]\n")
				}
				if err := next(); err != nil {
					h.logger.Warn("a list of flags ends before its end", "error", err)
					return err
				}
			}
		}).WriteResponse(rw, producer)
	})
}

// encodedFlag responds with 200 and a flag.
func encodedFlag(f *entity.Flag) middleware.Responder {
	return encoded(appendFlagModel(make([]byte, 0, entity.FlagBytes(f)), f))
}

// CreateFlag creates a flag, from a template if one is named. It names unknown fields in Warning
// headers.
func (h *Handler) CreateFlag(p flagapi.CreateFlagParams) middleware.Responder {
	f, err := h.store.CreateFlag(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), store.NewFlag{
		Description: *p.Body.Description,
		Key:         p.Body.Key,
		Template:    p.Body.Template,
	})
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return withWarnings(encodedFlag(f), unknownFields(p.Body, p.Body.CreateFlagRequestAdditionalProperties))
}

// GetFlag returns one flag with all its parts.
func (h *Handler) GetFlag(p flagapi.GetFlagParams) middleware.Responder {
	f, err := h.store.Flag(p.HTTPRequest.Context(), p.FlagID)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return encodedFlag(f)
}

// PutFlag changes the fields that the body contains. It does not change enabled: see
// SetFlagEnabled. It names unknown fields in Warning headers.
func (h *Handler) PutFlag(p flagapi.PutFlagParams) middleware.Responder {
	f, err := h.store.UpdateFlag(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, store.FlagPatch{
		Description:        p.Body.Description,
		Key:                p.Body.Key,
		Notes:              p.Body.Notes,
		EntityType:         p.Body.EntityType,
		DataRecordsEnabled: p.Body.DataRecordsEnabled,
	})
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return withWarnings(encodedFlag(f), unknownFields(p.Body, p.Body.PutFlagRequestAdditionalProperties))
}

// SetFlagEnabled enables or disables a flag.
func (h *Handler) SetFlagEnabled(p flagapi.SetFlagEnabledParams) middleware.Responder {
	f, err := h.store.SetFlagEnabled(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, *p.Body.Enabled)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return encodedFlag(f)
}

// DeleteFlag deletes a flag. RestoreFlag can undo it.
func (h *Handler) DeleteFlag(p flagapi.DeleteFlagParams) middleware.Responder {
	if err := h.store.DeleteFlag(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return flagapi.NewDeleteFlagOK()
}

// RestoreFlag restores a deleted flag.
func (h *Handler) RestoreFlag(p flagapi.RestoreFlagParams) middleware.Responder {
	f, err := h.store.RestoreFlag(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return encodedFlag(f)
}

// DuplicateFlag copies a flag. The body and each field of it are optional.
func (h *Handler) DuplicateFlag(p flagapi.DuplicateFlagParams) middleware.Responder {
	var wish models.DuplicateFlagRequest
	if p.Body != nil {
		wish = *p.Body
	}
	f, err := h.store.DuplicateFlag(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, wish.Key, wish.Description)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return encodedFlag(f)
}

// GetFlagSnapshots lists the snapshots of a flag.
func (h *Handler) GetFlagSnapshots(p flagapi.GetFlagSnapshotsParams) middleware.Responder {
	return middleware.ResponderFunc(func(rw http.ResponseWriter, producer runtime.Producer) {
		snapshots, err := h.store.Snapshots(p.HTTPRequest.Context(), p.FlagID, store.SnapshotQuery{
			Limit:     p.Limit,
			Offset:    p.Offset,
			Ascending: p.Sort != nil && *p.Sort == "ASC",
		})
		if err != nil {
			h.fail(p.HTTPRequest, err).WriteResponse(rw, producer)
			return
		}
		body, err := h.encodeSnapshots(p.HTTPRequest.Context(), snapshots)
		if err != nil {
			h.fail(p.HTTPRequest, err).WriteResponse(rw, producer)
			return
		}
		h.abortable(func(rw http.ResponseWriter) error {
			_, err := rw.Write(append(body, '\n'))
			return err
		}).WriteResponse(rw, producer)
	})
}

// GetFlagSnapshotMaxID returns the highest snapshot ID, by which a client notices changes.
func (h *Handler) GetFlagSnapshotMaxID(p flagapi.GetFlagSnapshotMaxIDParams) middleware.Responder {
	id, err := h.store.MaxSnapshotID(p.HTTPRequest.Context())
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return flagapi.NewGetFlagSnapshotMaxIDOK().WithPayload(&models.FlagSnapshotMaxID{MaxID: id})
}

// GetFlagEntityTypes lists the entity types that flags have used.
func (h *Handler) GetFlagEntityTypes(p flagapi.GetFlagEntityTypesParams) middleware.Responder {
	types, err := h.store.EntityTypes(p.HTTPRequest.Context())
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return flagapi.NewGetFlagEntityTypesOK().WithPayload(types)
}
