package handler

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

// TestLargeAttachmentsTakeTurns checks that large attachments are converted in turn, until the
// client leaves, and that the turn ends.
func TestLargeAttachmentsTakeTurns(t *testing.T) {
	t.Parallel()
	large := json.RawMessage(`{"b":"` + strings.Repeat("x", budget.LargeBytes) + `","a":1}`)
	half := json.RawMessage(`{"a":"` + strings.Repeat("x", budget.LargeBytes/2) + `"}`)
	variants := func(attachments ...json.RawMessage) (list []*models.FlagDefinitionVariant) {
		for _, a := range attachments {
			list = append(list, &models.FlagDefinitionVariant{Key: new("v"), Attachment: a})
		}
		return list
	}
	for name, test := range map[string]struct {
		convert func(h *Handler, ctx context.Context) error
		waits   bool
	}{
		"a variant": {func(h *Handler, ctx context.Context) error {
			_, err := h.attachment(ctx, large)
			return err
		}, true},
		"a small variant": {func(h *Handler, ctx context.Context) error {
			_, err := h.attachment(ctx, half)
			return err
		}, false},
		"a variant that is invalid": {func(h *Handler, ctx context.Context) error {
			_, err := h.attachment(ctx, json.RawMessage(`["`+strings.Repeat("x", budget.LargeBytes)+`"]`))
			if errors.Is(err, entity.ErrInvalid) {
				return nil
			}
			return cmp.Or(err, errors.New("a list is accepted"))
		}, true},
		"a definition": {func(h *Handler, ctx context.Context) error {
			_, err := h.definitionOf(ctx, &models.FlagDefinition{SnapshotID: new(int64), Variants: variants(half, half)})
			return err
		}, true},
		"a small definition": {func(h *Handler, ctx context.Context) error {
			_, err := h.definitionOf(ctx, &models.FlagDefinition{SnapshotID: new(int64), Variants: variants(half)})
			return err
		}, false},
		"a draft": {func(h *Handler, ctx context.Context) error {
			_, err := h.draftOf(ctx, &models.FlagDraft{Variants: variants(large)})
			return err
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := &Handler{turns: budget.NewTurns(1), logger: slog.New(slog.DiscardHandler)}
				if err := h.turns.Take(t.Context()); err != nil {
					t.Fatal(err)
				}
				convert := func(ctx context.Context) <-chan error {
					done := make(chan error, 1)
					go func() { done <- test.convert(h, ctx) }()
					synctest.Wait()
					return done
				}
				leaves, leave := context.WithCancel(t.Context())
				left, stays := convert(leaves), convert(t.Context())
				if waits := len(left) == 0 && len(stays) == 0; waits != test.waits {
					t.Fatalf("waits: %t", waits)
				}
				if test.waits { // until the deadline of a third client
					ctx, cancel := context.WithTimeout(t.Context(), StoreTimeout)
					defer cancel()
					err := <-convert(ctx)
					rw := httptest.NewRecorder()
					h.fail(httptest.NewRequestWithContext(ctx, http.MethodPut, "/", nil), err).WriteResponse(rw, nil)
					if rw.Code != http.StatusServiceUnavailable || !strings.Contains(rw.Body.String(), "not converted within the time limit") {
						t.Errorf("the deadline: %d %s", rw.Code, rw.Body)
					}
				}
				leave()
				if err := <-left; errors.Is(err, context.Canceled) != test.waits {
					t.Errorf("the client that left: %v", err)
				}
				h.turns.Release()
				if err := <-stays; err != nil {
					t.Error(err)
				}
				if err := h.turns.Take(t.Context()); err != nil { // so the turn has ended
					t.Error(err)
				}
			})
		})
	}
}
