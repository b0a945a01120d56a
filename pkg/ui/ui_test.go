package ui_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/ui"
)

// memory is a ui.Store and an eval.Source. While err is set, the store does not answer.
type memory struct {
	mu        sync.Mutex
	flags     map[uint]*entity.Flag
	snapshots []entity.FlagSnapshot
	nextID    uint
	err       error
	writes    int
	fixed     *eval.Snapshot // instead of the flags, for benchmarks
	now       time.Time
}

func newMemory() *memory {
	return &memory{flags: map[uint]*entity.Flag{}, now: time.Date(2026, 1, 31, 10, 42, 10, 0, time.UTC)}
}

func (m *memory) Snapshot() *eval.Snapshot {
	if m.fixed != nil {
		return m.fixed
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []entity.Flag
	for _, f := range m.flags {
		if !f.DeletedAt.Valid {
			all = append(all, *f)
		}
	}
	return eval.Compile(all)
}

func (m *memory) id() uint {
	m.nextID++
	return m.nextID
}

func (m *memory) record(f *entity.Flag, by string) {
	f.UpdatedBy, f.UpdatedAt = by, m.now
	text, _ := json.Marshal(f)
	s := entity.FlagSnapshot{FlagID: f.ID, UpdatedBy: by, Flag: text}
	s.ID, s.CreatedAt = uint(len(m.snapshots)+1), m.now
	m.snapshots = append(m.snapshots, s)
	f.SnapshotID = s.ID
	m.writes++
}

func (m *memory) begin() error {
	m.mu.Lock()
	return m.err
}

func (m *memory) Flag(_ context.Context, id int64) (*entity.Flag, error) {
	defer m.mu.Unlock()
	if err := m.begin(); err != nil {
		return nil, err
	}
	f := m.flags[uint(id)]
	if f == nil || f.DeletedAt.Valid {
		return nil, entity.NotFound("unable to find flag %d in the database", id)
	}
	c := *f
	return &c, nil
}

func (m *memory) DeletedFlags(_ context.Context, limit, offset int) ([]entity.Flag, int, error) {
	defer m.mu.Unlock()
	if err := m.begin(); err != nil {
		return nil, 0, err
	}
	var all []entity.Flag
	for _, f := range m.flags {
		if f.DeletedAt.Valid {
			all = append(all, *f)
		}
	}
	slices.SortFunc(all, func(a, b entity.Flag) int { return cmp.Compare(a.ID, b.ID) })
	page := all[min(offset, len(all)):]
	return page[:min(limit, len(page))], len(all), nil
}

func (m *memory) DeletedAmong(ctx context.Context, keys []string, ids []int64) ([]entity.Flag, error) {
	all, _, err := m.DeletedFlags(ctx, math.MaxInt, 0)
	return slices.DeleteFunc(all, func(f entity.Flag) bool { return !slices.Contains(keys, f.Key) && !slices.Contains(ids, int64(f.ID)) }), err
}

func (m *memory) Snapshots(_ context.Context, flagID int64, limit, offset int) ([]entity.FlagSnapshot, error) {
	defer m.mu.Unlock()
	if err := m.begin(); err != nil {
		return nil, err
	}
	var all []entity.FlagSnapshot
	for _, s := range slices.Backward(m.snapshots) {
		if int64(s.FlagID) == flagID {
			all = append(all, s)
		}
	}
	all = all[min(offset, len(all)):]
	return all[:min(limit, len(all))], nil
}

func (m *memory) SnapshotHeads(ctx context.Context, flagID int64, limit int) ([]entity.SnapshotHead, error) {
	rows, err := m.Snapshots(ctx, flagID, limit, 0)
	heads := make([]entity.SnapshotHead, len(rows))
	for i, row := range rows {
		heads[i] = entity.SnapshotHead{ID: row.ID, FlagID: row.FlagID, CreatedAt: row.CreatedAt, UpdatedBy: row.UpdatedBy}
	}
	return heads, err
}

func (m *memory) SnapshotsByID(_ context.Context, ids []int64) ([]entity.FlagSnapshot, error) {
	defer m.mu.Unlock()
	if err := m.begin(); err != nil {
		return nil, err
	}
	var found []entity.FlagSnapshot
	for _, s := range m.snapshots {
		if slices.Contains(ids, int64(s.ID)) {
			found = append(found, s)
		}
	}
	return found, nil
}

func (m *memory) EntityTypes(context.Context) ([]string, error) { return []string{"user", "shop"}, nil }
func (m *memory) Tags(context.Context) ([]string, error)        { return []string{"web", "ios"}, nil }

func (m *memory) CreateFlag(_ context.Context, by, key, description string, boolean bool) (*entity.Flag, error) {
	defer m.mu.Unlock()
	if err := m.begin(); err != nil {
		return nil, err
	}
	if err := entity.CheckKey(key); err != nil {
		return nil, err
	}
	for _, f := range m.flags {
		if f.Key == key {
			return nil, entity.ErrDuplicateKey
		}
	}
	f := &entity.Flag{Key: key, Description: description, CreatedBy: by}
	f.ID, f.CreatedAt = m.id(), m.now
	if boolean {
		v := entity.Variant{Key: "on", Attachment: "{}"}
		v.ID = m.id()
		s := entity.Segment{RolloutPercent: 100, Distributions: []entity.Distribution{{VariantID: v.ID, VariantKey: "on", Percent: 100}}}
		s.ID = m.id()
		f.Variants, f.Segments = []entity.Variant{v}, []entity.Segment{s}
	}
	m.flags[f.ID] = f
	m.record(f, by)
	return f, nil
}

func (m *memory) DuplicateFlag(ctx context.Context, by string, id int64, key, description string) (*entity.Flag, error) {
	if _, err := m.Flag(ctx, id); err != nil {
		return nil, err
	}
	return m.CreateFlag(ctx, by, key, description, true)
}

func (m *memory) ReplaceDefinition(_ context.Context, by string, id int64, d entity.Definition) (*entity.Flag, error) {
	defer m.mu.Unlock()
	if err := m.begin(); err != nil {
		return nil, err
	}
	f := m.flags[uint(id)]
	if f == nil || f.DeletedAt.Valid {
		return nil, entity.NotFound("unable to find flag %d in the database", id)
	}
	if f.SnapshotID != d.SnapshotID {
		base := &entity.Flag{}
		_ = json.Unmarshal(m.snapshots[d.SnapshotID-1].Flag, base)
		return nil, &entity.ConflictError{Current: f, Base: base, Named: d.SnapshotID}
	}
	after, problems := d.Apply(f)
	if err := entity.ProblemsError(problems); err != nil {
		return nil, err
	}
	keys := map[string]uint{}
	for i := range after.Variants {
		if after.Variants[i].ID == 0 {
			after.Variants[i].ID = m.id()
		}
		keys[after.Variants[i].Key] = after.Variants[i].ID
	}
	for i := range after.Segments {
		s := &after.Segments[i]
		if s.ID == 0 {
			s.ID = m.id()
		}
		s.Rank = uint(i)
		for j := range s.Constraints {
			if s.Constraints[j].ID == 0 {
				s.Constraints[j].ID = m.id()
			}
		}
		for j := range s.Distributions {
			s.Distributions[j].VariantID = keys[s.Distributions[j].VariantKey]
		}
	}
	m.flags[uint(id)] = after
	m.record(after, by)
	return after, nil
}

func (m *memory) DeleteFlag(_ context.Context, by string, id int64) error {
	defer m.mu.Unlock()
	if err := m.begin(); err != nil {
		return err
	}
	f := m.flags[uint(id)]
	f.DeletedAt.Valid, f.DeletedAt.Time = true, m.now
	m.record(f, by)
	return nil
}

func (m *memory) RestoreFlag(_ context.Context, by string, id int64) (*entity.Flag, error) {
	defer m.mu.Unlock()
	if err := m.begin(); err != nil {
		return nil, err
	}
	f := m.flags[uint(id)]
	if f == nil {
		return nil, entity.NotFound("unable to find flag %d in the database", id)
	}
	f.DeletedAt = entity.DeletedAt{}
	m.record(f, by)
	return f, nil
}

// fixture is the pages over a store with a few flags, of which 1 has everything.
type fixture struct {
	*memory
	http.Handler
	full     uint
	followed map[string]bool // links
}

func setup(t testing.TB, change ...func(*ui.Options)) *fixture {
	t.Helper()
	m := newMemory()
	f := &fixture{memory: m, followed: map[string]bool{}}
	ctx := t.Context()
	created, err := m.CreateFlag(ctx, "ada@example.com", "checkout-button", "Colour of the checkout button", false)
	if err != nil {
		t.Fatal(err)
	}
	f.full = created.ID
	on := true
	notes := "Decide on **7 February**. ![plan](https://example.com/plan.png) <b onclick=x>raw</b> [x](javascript:alert(1))"
	_, err = m.ReplaceDefinition(ctx, "grace@example.com", int64(created.ID), entity.Definition{
		SnapshotID: created.SnapshotID, Enabled: &on, DataRecordsEnabled: &on, Notes: &notes, Tags: []string{"web", "ios"},
		Variants: []entity.VariantDefinition{{Key: "blue", Attachment: `{"color":"#2f74c9"}`}, {Key: "green"}},
		Segments: []entity.SegmentDefinition{
			{
				Description: "Adults in France", RolloutPercent: 50,
				Constraints:   []entity.ConstraintDefinition{{Property: "country", Operator: "EQ", Value: `"FR"`}, {Property: "age", Operator: "GTE", Value: "18"}},
				Distributions: []entity.DistributionDefinition{{VariantKey: "blue", Percent: 50}, {VariantKey: "green", Percent: 50}},
			},
			{Description: "Beta testers", RolloutPercent: 100, Constraints: []entity.ConstraintDefinition{{Property: "beta", Operator: "EQ", Value: `"true"`}},
				Distributions: []entity.DistributionDefinition{{VariantKey: "green", Percent: 100}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"dark-mode", "a-key-of-forty-characters-is-long-enough", "<script>alert(1)</script>"} {
		description := key
		if strings.HasPrefix(key, "<") {
			key = "odd"
		}
		if _, err := m.CreateFlag(ctx, "mei@example.com", key, description, true); err != nil {
			t.Fatal(err)
		}
	}
	gone, err := m.CreateFlag(ctx, "", "gone", "Deleted", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DeleteFlag(ctx, "ada@example.com", int64(gone.ID)); err != nil {
		t.Fatal(err)
	}
	m.writes = 0
	o := ui.Options{
		Store: m, Snapshots: m, Actor: func(r *http.Request) string { return r.Header.Get("X-Email") }, Version: "v1.2.3", RefreshInterval: 3 * time.Second,
		Now: func() time.Time { return m.now }, Logger: slog.New(slog.DiscardHandler),
		Settings: []ui.Setting{{Name: "FLAGR_DB_DBDRIVER", Value: "postgres", Default: "sqlite3", Set: true}, {Name: "FLAGR_DB_DBCONNECTIONSTR", Secret: true, Set: true}, {Name: "PORT", Value: "18000", Default: "18000"}},
	}
	for _, c := range change {
		c(&o)
	}
	pages, err := ui.New(o)
	if err != nil {
		t.Fatal(err)
	}
	f.Handler = pages.Handler(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusTeapot) }))
	return f
}

// answer is a page.
type answer struct {
	status int
	header http.Header
	body   string
	root   *html.Node
}

func (f *fixture) ask(t testing.TB, method, target string, form url.Values, headers ...string) answer {
	t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r := httptest.NewRequestWithContext(t.Context(), method, target, body)
	r.Header.Set("X-Email", "ada@example.com")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	rw := httptest.NewRecorder()
	f.ServeHTTP(rw, r)
	a := answer{status: rw.Code, header: rw.Header(), body: rw.Body.String()}
	if strings.HasPrefix(rw.Header().Get("Content-Type"), "text/html") {
		root, err := html.Parse(strings.NewReader(a.body))
		if err != nil {
			t.Fatal(err)
		}
		a.root = root
	}
	return a
}

// each calls use for every element.
func each(n *html.Node, use func(*html.Node)) {
	if n.Type == html.ElementNode {
		use(n)
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		each(c, use)
	}
}

func attr(n *html.Node, name string) (string, bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

func text(n *html.Node) string {
	var b strings.Builder
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.TextNode {
			b.WriteString(n.Data)
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c)
		}
	}
	walk(n)
	return strings.Join(strings.Fields(b.String()), " ")
}

// fields are those of the form with an id, as a browser would send them.
func fields(t testing.TB, a answer, formID string) url.Values {
	t.Helper()
	v := url.Values{}
	each(a.root, func(n *html.Node) {
		name, _ := attr(n, "name")
		owner := n
		for owner != nil && (owner.Type != html.ElementNode || owner.Data != "form") {
			owner = owner.Parent
		}
		id := ""
		if owner != nil {
			id, _ = attr(owner, "id")
		}
		if other, ok := attr(n, "form"); ok {
			id = other
		}
		if name == "" || id != formID {
			return
		}
		switch n.Data {
		case "input":
			kind, _ := attr(n, "type")
			value, _ := attr(n, "value")
			if _, checked := attr(n, "checked"); kind != "checkbox" || checked {
				v.Add(name, value)
			}
		case "textarea":
			raw := ""
			if n.FirstChild != nil {
				raw = n.FirstChild.Data
			}
			v.Add(name, raw)
		case "select":
			value := ""
			first := true
			each(n, func(o *html.Node) {
				if o.Data != "option" {
					return
				}
				if _, selected := attr(o, "selected"); selected || first {
					var ok bool
					if value, ok = attr(o, "value"); !ok {
						value = text(o)
					}
					first = false
				}
			})
			v.Add(name, value)
		}
	})
	return v
}

var errDatabase = errors.New("dial tcp: connection refused to postgres://secret")
