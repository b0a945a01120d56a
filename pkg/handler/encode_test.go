package handler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/strfmt"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	exportapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/export"
)

// TestEncodersWriteWhatModelsDo sets every field of flags to random values, including new fields of
// the structs, and compares the output with encoding/json byte for byte.
func TestEncodersWriteWhatModelsDo(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(15, 43))
	for n := range 500 {
		var f entity.Flag
		if n > 0 { // the first one is the zero value
			fill(random, reflect.ValueOf(&f).Elem())
		}
		for name, encoder := range map[string]struct {
			got  []byte
			want any
		}{
			"model":  {appendFlagModel(nil, &f), flagModel(&f)},
			"entity": {entity.AppendFlag(nil, &f), &f},
			"snapshot": {appendSnapshot(nil, &entity.FlagSnapshot{Model: f.Model, UpdatedBy: f.UpdatedBy}, &f), &models.FlagSnapshot{
				ID: int64(f.ID), UpdatedBy: f.UpdatedBy, UpdatedAt: new(f.UpdatedAt.UTC().Format(time.RFC3339)), Flag: flagModel(&f),
			}},
		} {
			if want := unescaped(t, encoder.want); !bytes.Equal(encoder.got, want) {
				t.Fatalf("%s:\n got %s\nwant %s", name, encoder.got, want)
			}
		}
	}
}

// TestHistoryWithBrokenSnapshot encodes a history in which another program has changed a snapshot.
func TestHistoryWithBrokenSnapshot(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 30, 9, 12, 44, 0, time.UTC)
	fine := entity.EncodeFlag(&entity.Flag{Key: "k"})
	for _, broken := range []string{"", "{broken", "[]", `"text"`, `{"Segments":[{"Rank":-1}]}`, `{"Variants":[{"Attachment":5}]}`, `{"CreatedAt":"soon"}`} {
		body := appendSnapshots(nil, []entity.FlagSnapshot{
			{Model: entity.Model{ID: 8, UpdatedAt: at}, FlagID: 3, Flag: fine},
			{Model: entity.Model{ID: 7, UpdatedAt: at}, FlagID: 3, UpdatedBy: "ada", Flag: []byte(broken)},
		})
		var list []*models.FlagSnapshot
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatal(err)
		}
		if len(list) != 2 || list[0].Flag.Key != "k" || list[0].Flag.Unreadable != "" {
			t.Fatalf("with %s: %s", broken, body)
		}
		want, err := json.Marshal(models.FlagSnapshot{ID: 7, UpdatedBy: "ada", UpdatedAt: new("2026-01-30T09:12:44Z"), Flag: flagModel(&entity.Flag{
			Model: entity.Model{ID: 3, UpdatedAt: at}, Unreadable: "the snapshot is not the JSON of a flag",
		})})
		if err != nil || !bytes.HasSuffix(body, append(want, ']')) {
			t.Errorf("with %s: got %s\nwant %s", broken, body, want)
		}
	}
}

func unescaped(t *testing.T, value any) []byte {
	t.Helper()
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// fill sets every field to a random value, which is sometimes the zero value. A tag has no flags.
func fill(random *rand.Rand, v reflect.Value) {
	switch v.Interface().(type) {
	case time.Time:
		zone := time.FixedZone("", (random.IntN(25)-12)*3600)
		v.Set(reflect.ValueOf(time.Unix(random.Int64N(1<<34), random.Int64N(2)*random.Int64N(1e9)).In(zone)))
		return
	case entity.DeletedAt:
		deleted := entity.DeletedAt{Valid: random.IntN(2) == 0}
		fill(random, reflect.ValueOf(&deleted.Time).Elem())
		v.Set(reflect.ValueOf(deleted))
		return
	case entity.Attachment:
		if members, ok := randomValue(random, 3).(map[string]any); ok {
			text, _ := entity.EncodeJSON(members)
			attachment, _ := entity.ParseAttachment(string(text))
			v.Set(reflect.ValueOf(attachment))
		}
		return
	case []*entity.Flag:
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(random, field)
		}
	case reflect.Slice:
		length := random.IntN(4)
		if length == 3 {
			return // nil
		}
		v.Set(reflect.MakeSlice(v.Type(), length, length))
		for i := range length {
			fill(random, v.Index(i))
		}
	case reflect.String:
		v.SetString(randomText(random))
	case reflect.Uint:
		v.SetUint(random.Uint64N(1<<40) * random.Uint64N(2))
	case reflect.Bool:
		v.SetBool(random.IntN(2) == 0)
	default:
		panic("no values for " + v.Type().String())
	}
}

func randomText(random *rand.Rand) string {
	pieces := []string{"plain", "<b>&'", `"`, `\`, "\n", "\x00\x1f\x7f", "ä", "\u2028", "🙂", "\xff", " "}
	text := ""
	for range random.IntN(4) {
		text += pieces[random.IntN(len(pieces))]
	}
	return text
}

// randomValue returns a random value of a type that JSON decodes to.
func randomValue(random *rand.Rand, depth int) any {
	kinds := 10
	if depth == 0 {
		kinds = 6
	}
	switch random.IntN(kinds) {
	case 0:
		return nil
	case 1:
		return random.IntN(2) == 0
	case 2:
		return json.Number([]string{"0", "12345678901234567890", "-1", "1.50", "1e400", "-0"}[random.IntN(6)])
	case 3, 4, 5:
		return randomText(random)
	case 6:
		list := make([]any, random.IntN(4))
		for i := range list {
			list[i] = randomValue(random, depth-1)
		}
		return list
	default:
		members := map[string]any{}
		for range random.IntN(4) {
			members[randomText(random)] = randomValue(random, depth-1)
		}
		return members
	}
}

func BenchmarkEncodeFlag(b *testing.B) {
	var f entity.Flag
	random := rand.New(rand.NewPCG(1, 2))
	for len(f.Segments) < 2 || len(f.Variants) < 2 {
		fill(random, reflect.ValueOf(&f).Elem())
	}
	for name, encode := range map[string]func(b []byte, f *entity.Flag) []byte{"model": appendFlagModel, "entity": entity.AppendFlag} {
		b.Run(name, func(b *testing.B) {
			var buffer []byte
			b.ReportAllocs()
			for b.Loop() {
				buffer = encode(buffer[:0], &f)
			}
			b.SetBytes(int64(len(buffer)))
		})
	}
}

// TestLargeHistoriesTakeTurns checks that a large history is encoded in turn, until the client
// leaves.
func TestLargeHistoriesTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &Handler{turns: budget.NewTurns(1)}
		if err := h.turns.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		small, large := []entity.FlagSnapshot{{Flag: []byte(`{"Notes":"x"}`)}}, []entity.FlagSnapshot{{Flag: []byte(`{"Notes":"` + strings.Repeat("x", budget.LargeBytes) + `"}`)}}
		if body, err := h.encodeSnapshots(t.Context(), small); err != nil || !bytes.Contains(body, []byte(`"notes":"x"`)) {
			t.Errorf("a small history: %s, %v", body, err)
		}
		ctx, leave := context.WithCancel(t.Context())
		encoded := make(chan error, 2)
		encode := func(ctx context.Context) {
			_, err := h.encodeSnapshots(ctx, large)
			encoded <- err
		}
		go encode(ctx)
		if synctest.Wait(); len(encoded) != 0 {
			t.Error("a large history does not wait")
		}
		leave()
		if err := <-encoded; !errors.Is(err, context.Canceled) {
			t.Errorf("the client left: %v", err)
		}
		go encode(t.Context())
		synctest.Wait()
		h.turns.Release()
		if err := <-encoded; err != nil {
			t.Error(err)
		}
		if err := h.turns.Take(t.Context()); err != nil { // so the turn has ended
			t.Error(err)
		}
	})
}

// flagSource is a source of flags.
type flagSource struct{ snapshot *eval.Snapshot }

func (s flagSource) Snapshot() *eval.Snapshot { return s.snapshot }

// ClientWriter calls Receive when a response is sent. The tests in handler_test use it as well.
type ClientWriter struct {
	*httptest.ResponseRecorder
	Receive func(p []byte)
}

func (w ClientWriter) Write(p []byte) (int, error) {
	w.Receive(p)
	return w.ResponseRecorder.Write(p)
}

// TestExportsTakeTurns checks that flags are exported in turn, that the turn ends while the client
// receives them, and that an export ends if the client leaves before its turn.
func TestExportsTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var flags []entity.Flag
		for i := range 300 {
			flags = append(flags, entity.Flag{Model: entity.Model{ID: uint(i + 1)}, Key: strconv.Itoa(i), Description: strings.Repeat("x", 1000)})
		}
		h := New(Options{Snapshots: flagSource{eval.Compile(flags)}, Logger: slog.New(slog.DiscardHandler)})
		turns := h.encoding
		parts := 0
		export := func(ctx context.Context) <-chan *httptest.ResponseRecorder {
			done := make(chan *httptest.ResponseRecorder, 1)
			go func() {
				r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/v1/export/eval_cache/json", nil)
				rw := ClientWriter{httptest.NewRecorder(), func(p []byte) {
					if ctx.Err() != nil {
						return // the client has left
					}
					if parts++; len(p) > 2*streamBuffer {
						t.Errorf("a part has %d bytes", len(p))
					}
					if err := turns.Take(ctx); err != nil { // waits for ever if the export has the turn
						t.Error(err)
						return
					}
					turns.Release()
				}}
				h.GetExportEvalCacheJSON(exportapi.GetExportEvalCacheJSONParams{HTTPRequest: r}).WriteResponse(rw, runtime.JSONProducer())
				done <- rw.ResponseRecorder
			}()
			synctest.Wait()
			return done
		}
		if err := turns.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, leave := context.WithCancel(t.Context())
		left, stays := export(ctx), export(t.Context())
		if len(left) != 0 || len(stays) != 0 || parts != 0 {
			t.Errorf("%d parts are sent without a turn", parts)
		}
		leave()
		if rw := <-left; rw.Code != statusClientClosedRequest || rw.Header().Get("ETag") != "" {
			t.Errorf("the client left: %d %.100q", rw.Code, rw.Body)
		}
		turns.Release()
		var document struct{ Flags []entity.Flag }
		if err := json.Unmarshal((<-stays).Body.Bytes(), &document); err != nil || len(document.Flags) != len(flags) || parts < 2 {
			t.Errorf("%d flags in %d parts: %v", len(document.Flags), parts, err)
		}
		if err := turns.Take(t.Context()); err != nil { // so the turn has ended
			t.Error(err)
		}
	})
}

// TestStreamsReuseTheirBuffer checks that elements take no more memory than the buffer, and that
// the memory of a large one is not kept.
func TestStreamsReuseTheirBuffer(t *testing.T) {
	t.Parallel()
	var sent bytes.Buffer
	stream := newJSONStream(&sent)
	room := cap(stream.buffer)
	element := func(length int) {
		if err := stream.element(func(b []byte) []byte { return append(b, strings.Repeat("1", length)...) }); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		if element(5000); cap(stream.buffer) != room {
			t.Fatalf("the buffer has %d bytes, had %d", cap(stream.buffer), room)
		}
	}
	if element(1 << 20); cap(stream.buffer) != 0 {
		t.Errorf("%d bytes are kept of a large element", cap(stream.buffer))
	}
	element(1)
	if err := stream.finish("]"); err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat(strings.Repeat("1", 5000)+",", 100) + strings.Repeat("1", 1<<20) + ",1]"; sent.String() != want {
		t.Errorf("sent %d bytes, want %d", sent.Len(), len(want))
	}
}

// flagModel is a flag in the form of the generated model, which appendFlagModel writes.
func flagModel(f *entity.Flag) *models.Flag {
	return &models.Flag{
		ID:                 int64(f.ID),
		Key:                f.Key,
		Description:        &f.Description,
		Enabled:            &f.Enabled,
		Tags:               mapAll(f.Tags, tagModel),
		Segments:           mapAll(f.Segments, segmentModel),
		Variants:           mapAll(f.Variants, variantModel),
		DataRecordsEnabled: &f.DataRecordsEnabled,
		EntityType:         f.EntityType,
		Notes:              f.Notes,
		Unreadable:         f.Unreadable,
		CreatedBy:          f.CreatedBy,
		UpdatedBy:          f.UpdatedBy,
		UpdatedAt:          strfmt.DateTime(f.UpdatedAt.UTC()),
	}
}
