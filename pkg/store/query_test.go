package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

func idsOf(flags []entity.Flag) []uint {
	ids := []uint{}
	for _, flag := range flags {
		ids = append(ids, flag.ID)
	}
	return ids
}

func TestFlagQueries(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		ctx := t.Context()
		for _, f := range []NewFlag{
			{Description: "Checkout button", Key: "checkout"},
			{Description: "100% of_users", Key: "all"},
			{Description: "1000 of users!", Key: "some"},
			{Description: "removed", Key: "gone", Template: TemplateBoolean},
		} {
			must[*entity.Flag](t)(s.CreateFlag(ctx, "", f))
		}
		must[*entity.Flag](t)(s.SetFlagEnabled(ctx, "", 2, true))
		for flag, tags := range map[int64][]string{1: {"web", "team a"}, 2: {"web"}, 3: {"ios"}, 4: {"web"}} {
			for _, tag := range tags {
				must[*entity.Tag](t)(s.CreateTag(ctx, "", flag, tag))
			}
		}
		ok(t, s.DeleteFlag(ctx, "", 4))

		for name, c := range map[string]struct {
			query FlagQuery
			want  []uint
		}{
			"all":                          {FlagQuery{}, []uint{1, 2, 3}},
			"enabled":                      {FlagQuery{Enabled: new(true)}, []uint{2}},
			"not enabled":                  {FlagQuery{Enabled: new(false)}, []uint{1, 3}},
			"key":                          {FlagQuery{Key: new("all")}, []uint{2}},
			"key of a deleted flag":        {FlagQuery{Key: new("gone")}, []uint{}},
			"description":                  {FlagQuery{Description: new("Checkout button")}, []uint{1}},
			"description, part":            {FlagQuery{Description: new("Checkout")}, []uint{}},
			"like, other case":             {FlagQuery{DescriptionLike: new("cHECK")}, []uint{1}},
			"like, percent":                {FlagQuery{DescriptionLike: new("100%")}, []uint{2}},
			"like, underscore":             {FlagQuery{DescriptionLike: new("of_u")}, []uint{2}},
			"like, usual escapes":          {FlagQuery{DescriptionLike: new(`s!`)}, []uint{3}},
			"like, backslash":              {FlagQuery{DescriptionLike: new(`\`)}, []uint{}},
			"like, quote":                  {FlagQuery{DescriptionLike: new(`' OR ''='`)}, []uint{}},
			"like, empty":                  {FlagQuery{DescriptionLike: new("")}, []uint{1, 2, 3}},
			"like, very long":              {FlagQuery{DescriptionLike: new(strings.Repeat("x", 100_000))}, []uint{}},
			"key, other case":              {FlagQuery{Key: new("ALL")}, []uint{}},
			"key, trailing space":          {FlagQuery{Key: new("all ")}, []uint{}},
			"description, other case":      {FlagQuery{Description: new("checkout button")}, []uint{}},
			"description, accent":          {FlagQuery{Description: new("Checkout b\u00fctton")}, []uint{}},
			"tags, other case":             {FlagQuery{Tags: []string{"WEB"}}, []uint{}},
			"tags, one in another case":    {FlagQuery{Tags: []string{"Web", "ios"}}, []uint{3}},
			"tags, any of them":            {FlagQuery{Tags: []string{" web ", "nope", ""}}, []uint{1, 2}},
			"tags, two of one flag":        {FlagQuery{Tags: []string{"web", "team a"}}, []uint{1, 2}},
			"tags, unknown":                {FlagQuery{Tags: []string{"nope"}}, []uint{}},
			"tags, none":                   {FlagQuery{Tags: []string{" ", ""}}, []uint{1, 2, 3}},
			"deleted":                      {FlagQuery{Deleted: true}, []uint{4}},
			"deleted, by tag":              {FlagQuery{Deleted: true, Tags: []string{"web"}}, []uint{4}},
			"limit":                        {FlagQuery{Limit: new(int64(2))}, []uint{1, 2}},
			"limit 0":                      {FlagQuery{Limit: new(int64(0))}, []uint{}},
			"limit beyond all":             {FlagQuery{Limit: new(int64(math.MaxInt64)), Offset: new(int64(1))}, []uint{2, 3}},
			"offset":                       {FlagQuery{Offset: new(int64(2))}, []uint{3}},
			"offset 0":                     {FlagQuery{Offset: new(int64(0))}, []uint{1, 2, 3}},
			"offset beyond all":            {FlagQuery{Offset: new(int64(math.MaxInt64))}, []uint{}},
			"limit and offset of a filter": {FlagQuery{Enabled: new(false), Limit: new(int64(1)), Offset: new(int64(1))}, []uint{3}},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for _, preload := range []bool{false, true} {
					c.query.Preload = preload
					flags := must[[]entity.Flag](t)(s.Flags(ctx, c.query))
					same(t, c.want, idsOf(flags))
					for _, flag := range flags {
						if len(flag.Tags) == 0 || flag.Variants == nil || flag.Segments == nil {
							t.Errorf("flag is %+v", flag)
						}
						if parts := preload && flag.ID == 4; parts != (len(flag.Variants) == 1) || parts != (len(flag.Segments) == 1) {
							t.Errorf("preload %t gave %+v", preload, flag)
						}
					}
				}
			})
		}
	})
}

func TestBadQueries(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		ctx := t.Context()
		flags := func(q FlagQuery) error { _, err := s.Flags(ctx, q); return err }
		tags := func(q TagQuery) error { _, err := s.Tags(ctx, q); return err }
		snapshots := func(q SnapshotQuery) error { _, err := s.Snapshots(ctx, 1, q); return err }
		many := make([]string, maxTagFilter+1)
		for i := range many {
			many[i] = fmt.Sprint("t", i)
		}
		for message, err := range map[string]error{
			"limit: -1 must not be negative":                      flags(FlagQuery{Limit: new(int64(-1))}),
			"offset: -2 must not be negative":                     flags(FlagQuery{Offset: new(int64(-2))}),
			"limit: -3 must not be negative":                      tags(TagQuery{Limit: new(int64(-3))}),
			"offset: -4 must not be negative":                     snapshots(SnapshotQuery{Offset: new(int64(-4))}),
			"key must not contain the NUL character":              flags(FlagQuery{Key: new("\x00")}),
			"description is not valid UTF-8":                      flags(FlagQuery{Description: new("\xff")}),
			"description_like must not contain the NUL character": flags(FlagQuery{DescriptionLike: new("\x00")}),
			"tags is not valid UTF-8":                             flags(FlagQuery{Tags: []string{"\xff"}}),
			"value_like is not valid UTF-8":                       tags(TagQuery{ValueLike: new("\xff")}),
			"tags: at most 500 of them can be asked for at once":  flags(FlagQuery{Tags: many}),
		} {
			if !errors.Is(err, entity.ErrInvalid) || err.Error() != message {
				t.Errorf("got %v, want %s", err, message)
			}
		}
	})
}

func TestTagAndSnapshotQueries(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		ctx := t.Context()
		must[*entity.Flag](t)(s.CreateFlag(ctx, "ann", NewFlag{Description: "d"}))
		for _, tag := range []string{"web", "team a", "Team_b"} {
			must[*entity.Tag](t)(s.CreateTag(ctx, "bo", 1, tag))
		}
		values := func(tags []entity.Tag) []string {
			all := []string{}
			for _, tag := range tags {
				all = append(all, tag.Value)
			}
			return all
		}
		same(t, []string{"team a", "Team_b"}, values(must[[]entity.Tag](t)(s.Tags(ctx, TagQuery{ValueLike: new("TEAM")}))))
		same(t, []string{"Team_b"}, values(must[[]entity.Tag](t)(s.Tags(ctx, TagQuery{ValueLike: new("_")}))))
		same(t, []string{"team a"}, values(must[[]entity.Tag](t)(s.Tags(ctx, TagQuery{Limit: new(int64(1)), Offset: new(int64(1))}))))
		ok(t, s.DeleteTag(ctx, "bo", 1, 1))
		same(t, []string{"team a", "Team_b"}, values(must[[]entity.Tag](t)(s.FlagTags(ctx, 1))))

		ids := func(q SnapshotQuery) []uint {
			all := []uint{}
			for _, snapshot := range must[[]entity.FlagSnapshot](t)(s.Snapshots(ctx, 1, q)) {
				all = append(all, snapshot.ID)
				if want := map[bool]string{true: "ann", false: "bo"}[snapshot.ID == 1]; snapshot.UpdatedBy != want {
					t.Errorf("snapshot %d was made by %q", snapshot.ID, snapshot.UpdatedBy)
				}
			}
			return all
		}
		same(t, []uint{5, 4, 3, 2, 1}, ids(SnapshotQuery{}))
		same(t, []uint{2, 3}, ids(SnapshotQuery{Ascending: true, Limit: new(int64(2)), Offset: new(int64(1))}))
		same(t, []uint{1}, ids(SnapshotQuery{Offset: new(int64(4))}))
	})
}

// TestFlagsVersionShowsLateSnapshots commits a snapshot after one with a higher ID, as PostgreSQL
// and MySQL may do. On SQLite, snapshots come in order.
func TestFlagsVersionShowsLateSnapshots(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		seen := map[string]bool{}
		version := func(when string) {
			t.Helper()
			v, err := s.FlagsVersion(t.Context())
			ok(t, err)
			if seen[v] {
				t.Errorf("%s: the version is %s again", when, v)
			}
			seen[v] = true
		}
		insert := func(from, to uint) {
			t.Helper()
			var rows []entity.FlagSnapshot
			for id := from; id <= to; id++ {
				rows = append(rows, entity.FlagSnapshot{Model: entity.Model{ID: id}, FlagID: 1, Flag: []byte("{}")})
			}
			ok(t, s.DB().CreateInBatches(rows, 500).Error)
		}
		version("empty")
		insert(10, 11)
		version("two")
		if kind.Driver == "sqlite3" {
			insert(12, 2000)
			version("many")
			insert(2001, 2001)
			version("one more")
			return
		}
		insert(9, 9)
		version("a late one")
		insert(13, 2000)
		version("many")
		insert(12, 12)
		insert(2002, 2002)
		version("one of the newest is missing")
		insert(2001, 2001)
		version("and comes late")
	})
}

func TestSnapshotsAreBoundedInBytes(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		ctx := t.Context()
		flag := must[*entity.Flag](t)(s.CreateFlag(ctx, "ann", NewFlag{Description: "d"}))
		id := int64(flag.ID)
		first := must[[]entity.FlagSnapshot](t)(s.Snapshots(ctx, id, SnapshotQuery{}))
		state := []byte(`{"Notes":"` + strings.Repeat("ü", 30_000) + `"}`)
		const written = 200 // about 12 MB
		for range written {
			if err := s.db.Create(&entity.FlagSnapshot{FlagID: flag.ID, Flag: state}).Error; err != nil {
				t.Fatal(err)
			}
		}
		all := written + len(first)
		for _, ascending := range []bool{false, true} {
			seen := map[uint]bool{}
			for len(seen) < all {
				page := must[[]entity.FlagSnapshot](t)(s.Snapshots(ctx, id, SnapshotQuery{Offset: new(int64(len(seen))), Ascending: ascending}))
				size := 0
				for _, snapshot := range page {
					seen[snapshot.ID], size = true, size+len(snapshot.Flag)
				}
				if size > maxAnswerBytes || len(page) == 0 {
					t.Fatalf("a page has %d snapshots of %d bytes, want some of at most %d", len(page), size, maxAnswerBytes)
				}
			}
		}
		if kind.Driver == "mysql" { // its column has 64 KB at most
			return
		}
		long := []byte(`{"Notes":"` + strings.Repeat("x", maxAnswerBytes) + `"}`)
		if err := s.db.Create(&entity.FlagSnapshot{FlagID: flag.ID, Flag: long}).Error; err != nil {
			t.Fatal(err)
		}
		if page := must[[]entity.FlagSnapshot](t)(s.Snapshots(ctx, id, SnapshotQuery{})); len(page) != 1 || len(page[0].Flag) != len(long) {
			t.Errorf("a page that begins with a long snapshot has %d snapshots, want it alone", len(page))
		}
	})
}

func TestOneSnapshotInAnyCase(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sizes []int64
		want  int
	}{
		"none":         {nil, 0},
		"one too big":  {[]int64{20}, 1},
		"two too big":  {[]int64{20, 20}, 1},
		"to the limit": {[]int64{5, 5, 1}, 2},
		"all":          {[]int64{5, 4}, 2},
	} {
		list := make([]rowSize, len(c.sizes))
		for i, size := range c.sizes {
			list[i].Size = size
		}
		within, sum := withinBytes(list, 10)
		for _, row := range within {
			sum -= row.Size
		}
		if len(within) != c.want || sum != 0 {
			t.Errorf("%s: %d are kept, want %d; their sum is wrong by %d", name, len(within), c.want, sum)
		}
	}
}

// TestBriefFlags compares flags as lists read them with flags as evaluation reads them, including
// NULL in every nullable column.
func TestBriefFlags(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		ctx := t.Context()
		for _, key := range []string{"one", "two"} {
			f := must[*entity.Flag](t)(s.CreateFlag(ctx, "ada", NewFlag{Description: "d", Key: key, Template: TemplateBoolean}))
			must[*entity.Tag](t)(s.CreateTag(ctx, "ada", int64(f.ID), "web"))
			must[*entity.Constraint](t)(s.CreateConstraint(ctx, "ada", int64(f.ID), int64(f.ID), entity.Constraint{Property: "a", Operator: "EQ", Value: `"b"`}))
		}
		compare := func(when string) {
			t.Helper()
			whole := must[[]entity.Flag](t)(s.Flags(ctx, FlagQuery{Preload: true}))
			brief := must[[]entity.Flag](t)(s.Flags(ctx, FlagQuery{Preload: true, Brief: true}))
			if len(whole) != 2 || len(whole[0].Segments) != 1 || len(whole[0].Segments[0].Distributions) != 1 || len(whole[0].Tags) != 1 {
				t.Fatalf("%s: not all parts: %+v", when, whole)
			}
			for i := range whole {
				withoutRecords(&whole[i])
			}
			if diff := cmp.Diff(whole, brief); diff != "" {
				t.Errorf("%s (-whole +brief):\n%s", when, diff)
			}
		}
		compare("as written")
		for table, columns := range map[string][]string{
			"flags":         {"created_by", "updated_by", "notes", "entity_type", "data_records_enabled", "snapshot_id", "updated_at"},
			"variants":      {"attachment", "created_at"},
			"segments":      {"description"},
			"constraints":   {"updated_at"},
			"distributions": {"bitmap", "variant_key"},
		} {
			for _, column := range columns {
				ok(t, s.db.Exec(fmt.Sprintf("UPDATE %s SET %s = NULL", table, column)).Error)
			}
		}
		compare("with NULL")
	})
}

// withoutRecords removes the values that lists do not show.
func withoutRecords(f *entity.Flag) {
	bare := func(m *entity.Model) { *m = entity.Model{ID: m.ID} }
	f.Model, f.SnapshotID = entity.Model{ID: f.ID, UpdatedAt: f.UpdatedAt}, 0
	for i := range f.Tags {
		bare(&f.Tags[i].Model)
	}
	for i := range f.Variants {
		bare(&f.Variants[i].Model)
	}
	for i := range f.Segments {
		segment := &f.Segments[i]
		bare(&segment.Model)
		for j := range segment.Constraints {
			bare(&segment.Constraints[j].Model)
		}
		for j := range segment.Distributions {
			bare(&segment.Distributions[j].Model)
			segment.Distributions[j].Bitmap = ""
		}
	}
}

// TestLongLists compares lists of more flags than fit into one list of IDs with the same flags read
// by shorter lists. It lists most flags, whose parts are read with those of all others, a range of
// flags, and some flags with scattered IDs.
func TestLongLists(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		ctx := t.Context()
		const number = 3*idsPerQuery + 90
		var flags []entity.Flag
		var segments []entity.Segment
		for i := range uint(number) {
			flags = append(flags, entity.Flag{
				Key: fmt.Sprint("k", i), Enabled: i%3 == 0,
				Variants: []entity.Variant{{Key: "v", Attachment: entity.Attachment(fmt.Sprintf(`{"of":"%d"}`, i))}},
			})
			segments = append(segments, entity.Segment{
				FlagID: number - i, Description: fmt.Sprint("s", i),
				Constraints:   []entity.Constraint{{Property: "p", Operator: "EQ", Value: fmt.Sprint(i)}},
				Distributions: []entity.Distribution{{VariantID: i + 1, VariantKey: "v", Percent: 100}},
			})
		}
		ok(t, s.db.CreateInBatches(flags, idsPerQuery).Error)
		ok(t, s.db.CreateInBatches(segments, idsPerQuery).Error)
		ok(t, s.db.Delete(&entity.Flag{}, "id % 50 = 0").Error)
		ok(t, s.db.Exec("INSERT INTO tags (id, value) VALUES (1, 'web')").Error)
		ok(t, s.db.Exec("INSERT INTO flags_tags (flag_id, tag_id) SELECT id, 1 FROM flags").Error)

		some := int64(idsPerQuery + 10)
		for _, query := range []FlagQuery{
			{}, {Brief: true}, {Enabled: new(false)}, {Enabled: new(true)}, {Enabled: new(true), Brief: true}, {Limit: &some}, {Limit: &some, Brief: true},
		} {
			query.Preload = true
			long, pages, err := s.FlagsOrPages(ctx, query)
			ok(t, err)
			var short []entity.Flag
			for first := uint(1); first <= number; first += idsPerQuery {
				page := FlagPage{FirstID: first, LastID: first + idsPerQuery - 1}
				short = append(short, must[[]entity.Flag](t)(s.Flags(ctx, query.Page(page)))...)
			}
			if query.Limit != nil {
				short = short[:some]
			}
			if len(long) <= idsPerQuery || len(pages) != 0 {
				t.Errorf("%d flags and %d pages", len(long), len(pages))
			}
			if diff := cmp.Diff(short, long); diff != "" {
				t.Errorf("(-short +long):\n%.2000s", diff)
			}
			for i := range long {
				f := &long[i]
				if len(f.Tags) != 1 || len(f.Variants) != 1 || len(f.Segments) != 1 || len(f.Segments[0].Constraints) != 1 || len(f.Segments[0].Distributions) != 1 {
					t.Fatalf("not all parts: %+v", f)
				}
			}
		}
	})
}

// TestListsReserveTheirBytes checks that a list reads no flags without memory for them, and that a
// list of several pages reserves the memory of the largest page.
func TestListsReserveTheirBytes(t *testing.T) {
	t.Parallel()
	s := setup(t, testdb.SQLite())
	for i := range 3 {
		must[*entity.Flag](t)(s.CreateFlag(t.Context(), "", NewFlag{Key: fmt.Sprint("k", i), Description: strings.Repeat("x", maxPageBytes/2)}))
	}
	const all = 1 << 30
	memory := budget.NewMemory(all)
	other, releaseOther := memory.Share(t.Context())
	ok(t, budget.AtLeast(other, all))
	ctx, release := memory.Share(t.Context())
	defer release()
	flags, pages, err := s.FlagsOrPages(ctx, FlagQuery{})
	if !errors.Is(err, budget.ErrExhausted) || flags != nil || pages != nil {
		t.Errorf("without memory: %d flags, %d pages and %v", len(flags), len(pages), err)
	}
	releaseOther()
	flags, pages, err = s.FlagsOrPages(ctx, FlagQuery{})
	if err != nil || flags != nil || len(pages) != 3 {
		t.Fatalf("got %d flags, %d pages and %v, want a page for each flag", len(flags), len(pages), err)
	}
	var largest int64
	for _, p := range pages {
		largest = max(largest, p.Bytes)
	}
	if err := memory.Take(all - largest*bytesPerStateByte); err != nil {
		t.Errorf("more than the largest page of %d bytes is reserved", largest)
	}
	if memory.Take(1) == nil {
		t.Errorf("less than the largest page of %d bytes is reserved", largest)
	}
}

// TestTimesOfSQLite reads times of SQLite files in the layouts of several programs.
func TestTimesOfSQLite(t *testing.T) {
	t.Parallel()
	want := time.Date(2026, 11, 28, 9, 8, 7, 120_000_000, time.UTC)
	for _, text := range []string{
		"2026-11-28 09:08:07.12+00:00", "2026-11-28 11:08:07.12+02:00", "2026-11-28T09:08:07.12Z", "2026-11-28T09:08:07.12+00:00", "2026-11-28 09:08:07.12",
		"2026-11-28 09:08:07.12 +0000 UTC", "2026-11-28 09:08:07.12 +0000 UTC m=+0.5",
	} {
		if got, err := parseTime(text); err != nil || !got.Equal(want) {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
	if got, err := parseTime("2026-11-28"); err != nil || !got.Equal(want.Truncate(24*time.Hour)) {
		t.Errorf("a day is %v, %v", got, err)
	}
	if _, err := parseTime("yesterday"); err == nil {
		t.Error("a word is a time")
	}
}

func TestPagesOfFlags(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		flags []rowSize
		want  []FlagPage
	}{
		"none":       {nil, nil},
		"one page":   {[]rowSize{{3, 10}, {5, 20}}, []FlagPage{{3, 5, 30 + 2*flagBytes}}},
		"by bytes":   {[]rowSize{{1, maxPageBytes / 2}, {2, maxPageBytes / 2}, {3, 1}}, []FlagPage{{1, 1, maxPageBytes/2 + flagBytes}, {2, 3, maxPageBytes/2 + 1 + 2*flagBytes}}},
		"large flag": {[]rowSize{{1, 1}, {2, 2 * maxPageBytes}, {3, 1}}, []FlagPage{{1, 1, 1 + flagBytes}, {2, 2, 2*maxPageBytes + flagBytes}, {3, 3, 1 + flagBytes}}},
	} {
		if got := pagesOf(c.flags, maxPageBytes); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
	many := make([]rowSize, maxPageFlags+1)
	for i := range many {
		many[i].ID = uint(i + 1)
	}
	same(t, []FlagPage{{1, maxPageFlags, maxPageFlags * flagBytes}, {maxPageFlags + 1, maxPageFlags + 1, flagBytes}}, pagesOf(many, maxPageBytes))
}

// TestPagesHaveTheFlagsOfTheList reads lists page by page, with one flag on each page.
func TestPagesHaveTheFlagsOfTheList(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		ctx := t.Context()
		for i := range 5 {
			must[*entity.Flag](t)(s.CreateFlag(ctx, "", NewFlag{Description: "d", Key: fmt.Sprint("k", i)}))
		}
		const length = 20_000
		large := entity.Attachment(`{"text":"` + strings.Repeat("x", length) + `"}`)
		for _, id := range []int64{2, 4} {
			must[*entity.Tag](t)(s.CreateTag(ctx, "", id, "web"))
			must[*entity.Variant](t)(s.CreateVariant(ctx, "", id, "v", large))
		}
		for name, c := range map[string]struct {
			query FlagQuery
			want  []uint
		}{
			"all":                {FlagQuery{}, []uint{1, 2, 3, 4, 5}},
			"with parts":         {FlagQuery{Preload: true}, []uint{1, 2, 3, 4, 5}},
			"limit and offset":   {FlagQuery{Preload: true, Limit: new(int64(2)), Offset: new(int64(1))}, []uint{2, 3}},
			"tags":               {FlagQuery{Preload: true, Tags: []string{"web"}}, []uint{2, 4}},
			"a part of the text": {FlagQuery{Preload: true, DescriptionLike: new("D"), Limit: new(int64(3))}, []uint{1, 2, 3}},
			"none":               {FlagQuery{Preload: true, Key: new("x")}, nil},
			"deleted":            {FlagQuery{Deleted: true}, nil},
		} {
			sizes := must[[]rowSize](t)(s.flagSizes(ctx, c.query))
			var got []uint
			for _, page := range pagesOf(sizes, 1) {
				got = append(got, idsOf(must[[]entity.Flag](t)(s.Flags(ctx, c.query.Page(page))))...)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: flags %v, want %v", name, got, c.want)
			}
			for _, f := range sizes {
				isLarge := c.query.Preload && f.ID%2 == 0
				if f.Size > length != isLarge || f.Size > 2*length {
					t.Errorf("%s: flag %d has %d bytes", name, f.ID, f.Size)
				}
			}
		}
	})
}

// TestOneFlagTakesSharedMemory checks that functions that read or change one flag, or its parts,
// take shared memory, and change nothing without it.
func TestOneFlagTakesSharedMemory(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		f := must[*entity.Flag](t)(s.CreateFlag(t.Context(), "", NewFlag{Description: "large"}))
		id := int64(f.ID)
		v := must[*entity.Variant](t)(s.CreateVariant(t.Context(), "", id, "on", entity.Attachment(`{"a":"`+strings.Repeat("x", 2*freeStateBytes)+`"}`)))
		before := must[*entity.Flag](t)(s.Flag(t.Context(), id))
		memory := budget.NewMemory(1 << 20)
		other, releaseOther := memory.Share(t.Context())
		ok(t, budget.AtLeast(other, 1<<20))
		ctx, release := memory.Share(t.Context())
		defer release()
		uses := []struct {
			name string
			use  func() error
		}{
			{"flag", func() error { _, err := s.Flag(ctx, id); return err }},
			{"any flag", func() error { _, err := s.AnyFlag(ctx, id); return err }},
			{"variants", func() error { _, err := s.Variants(ctx, id); return err }},
			{"segments", func() error { _, err := s.Segments(ctx, id); return err }},
			{"constraints", func() error { _, err := s.Constraints(ctx, id, 1); return err }},
			{"update", func() error { _, err := s.UpdateFlag(ctx, "", id, FlagPatch{Description: new("changed")}); return err }},
			{"enable", func() error { _, err := s.SetFlagEnabled(ctx, "", id, true); return err }},
			{"update variant", func() error { _, err := s.UpdateVariant(ctx, "", id, int64(v.ID), "off", ""); return err }},
			{"duplicate", func() error { _, err := s.DuplicateFlag(ctx, "", id, "copy", ""); return err }},
			{"definition", func() error {
				_, err := s.ReplaceDefinition(ctx, "", id, entity.Definition{SnapshotID: before.SnapshotID, Notes: new("changed")})
				return err
			}},
		}
		for _, u := range uses {
			if err := u.use(); !errors.Is(err, budget.ErrExhausted) {
				t.Errorf("%s, beside a request that has all memory: %v", u.name, err)
			}
		}
		if after := must[*entity.Flag](t)(s.Flag(t.Context(), id)); after.SnapshotID != before.SnapshotID {
			t.Errorf("snapshot %d, want %d: something was changed", after.SnapshotID, before.SnapshotID)
		}
		releaseOther()
		for _, u := range uses[:len(uses)-1] { // the definition is of an older snapshot then
			if err := u.use(); err != nil {
				t.Errorf("%s, with memory: %v", u.name, err)
			}
		}
		ok(t, s.DeleteFlag(ctx, "", id))
		if _, err := s.AnyFlag(ctx, id); err != nil {
			t.Errorf("a deleted flag: %v", err)
		}
	})
}

// TestReadsTakeSharedMemory checks that states and flags that are read for a request take shared
// memory, and that those that are read in the background do not take it.
func TestReadsTakeSharedMemory(t *testing.T) {
	t.Parallel()
	s := setup(t, testdb.SQLite())
	must[*entity.Flag](t)(s.CreateFlag(t.Context(), "", NewFlag{Description: strings.Repeat("x", 2*freeStateBytes)}))
	memory := budget.NewMemory(1 << 20)
	other, releaseOther := memory.Share(t.Context())
	ok(t, budget.AtLeast(other, 1<<20))
	ctx, release := memory.Share(t.Context())
	defer release()
	reads := map[string]func(ctx context.Context) (int, error){
		"by id": func(ctx context.Context) (int, error) {
			rows, err := s.SnapshotsByID(ctx, []int64{1})
			return len(rows), err
		},
		"each": func(ctx context.Context) (rows int, err error) {
			err = s.EachSnapshot(ctx, []int64{1}, func(*entity.FlagSnapshot) { rows++ })
			return rows, err
		},
		"list": func(ctx context.Context) (int, error) {
			rows, err := s.Snapshots(ctx, 1, SnapshotQuery{})
			return len(rows), err
		},
		"flag": func(ctx context.Context) (int, error) {
			_, err := s.Flag(ctx, 1)
			return 1, err
		},
		"any flag": func(ctx context.Context) (int, error) {
			_, err := s.AnyFlag(ctx, 1)
			return 1, err
		},
	}
	for name, read := range reads {
		if _, err := read(ctx); !errors.Is(err, budget.ErrExhausted) {
			t.Errorf("%s, beside a request that has all memory: %v", name, err)
		}
		if rows, err := read(t.Context()); err != nil || rows != 1 {
			t.Errorf("%s, in the background: %d rows, %v", name, rows, err)
		}
	}
	releaseOther()
	for name, read := range reads {
		if rows, err := read(ctx); err != nil || rows != 1 {
			t.Errorf("%s, with memory: %d rows, %v", name, rows, err)
		}
	}
}
