package store

import (
	"context"
	"errors"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

const (
	// maxPageFlags and maxPageBytes bound a FlagPage.
	maxPageFlags = 2000
	maxPageBytes = 4 << 20
	// flagBytes is the size of a flag without its texts and parts.
	flagBytes = 512
)

// FlagPage is a part of a list of flags that is read at once.
type FlagPage struct {
	FirstID, LastID uint
	// Bytes is the approximate length of its flags as JSON.
	Bytes int64
}

// Page narrows a query to one page of its list.
func (q FlagQuery) Page(p FlagPage) FlagQuery {
	q.Limit, q.Offset = nil, nil
	q.firstID, q.lastID = p.FirstID, p.LastID
	return q
}

// FlagsOrPages lists flags, as Flags does, if they fit on one page: up to 2,000 flags and 4 MiB, or
// one flag. Otherwise it returns the pages of the list and no flags. It reserves the memory of the
// flags, or of the largest page. The error matches budget.ErrExhausted if other requests use up the
// memory that the context shares with them.
func (s *Store) FlagsOrPages(ctx context.Context, q FlagQuery) ([]entity.Flag, []FlagPage, error) {
	errPages := errors.New("the list has several pages")
	page := FlagPage{}
	number := 0
	flags, err := s.flags(ctx, q, func(bytes int64) error {
		page.Bytes += bytes + flagBytes
		if number++; number > maxPageFlags || number > 1 && page.Bytes > maxPageBytes {
			return errPages
		}
		return reserve(ctx, page.Bytes)
	})
	if !errors.Is(err, errPages) {
		return flags, nil, err
	}
	sizes, err := s.flagSizes(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	pages := pagesOf(sizes, maxPageBytes)
	for _, p := range pages {
		if err := reserve(ctx, p.Bytes); err != nil {
			return nil, nil, err
		}
	}
	return nil, pages, nil
}

// size returns an expression for the approximate length of a flag of the list as JSON: the length
// of its texts and, with Preload, of its newest snapshot.
func (q FlagQuery) size() string {
	size := "COALESCE(OCTET_LENGTH(flags.description), 0) + COALESCE(OCTET_LENGTH(flags.notes), 0)"
	if q.Preload {
		size += " + COALESCE((SELECT OCTET_LENGTH(flag_snapshots.flag) FROM flag_snapshots WHERE flag_snapshots.id = flags.snapshot_id), 0)"
	}
	return size + " AS size"
}

// flagSizes reads the sizes of flags without reading the flags.
func (s *Store) flagSizes(ctx context.Context, q FlagQuery) ([]rowSize, error) {
	where, err := s.flagConditions(q)
	if err != nil {
		return nil, err
	}
	flags, err := scan(where(s.db.WithContext(ctx)).Select("flags.id, "+q.size()).Order("flags.id"), rowSizeTargets, &reading{}, nil)
	if err != nil {
		return nil, s.unsearchableFlags(explain("read the sizes of flags", err), q)
	}
	return flags, nil
}

func pagesOf(flags []rowSize, most int64) []FlagPage {
	var pages []FlagPage
	number := 0 // of flags on the last page
	for _, f := range flags {
		size := f.Size + flagBytes
		if last := len(pages) - 1; last < 0 || number == maxPageFlags || pages[last].Bytes+size > most {
			pages = append(pages, FlagPage{FirstID: f.ID})
			number = 0
		}
		page := &pages[len(pages)-1]
		page.LastID = f.ID
		page.Bytes += size
		number++
	}
	return pages
}

// rowSize is the size of a row in bytes.
type rowSize struct {
	ID   uint
	Size int64
}

func rowSizeTargets(r *rowSize) []any { return []any{lenient{(*number)(&r.ID)}, &r.Size} }

// between narrows a query to a page.
func (q FlagQuery) between(tx *gorm.DB) *gorm.DB {
	if q.lastID == 0 {
		return tx
	}
	return tx.Where("flags.id BETWEEN ? AND ?", q.firstID, q.lastID)
}

func (s *Store) unsearchableFlags(err error, q FlagQuery) error {
	return s.unsearchable(err, append([]searched{
		{"description", q.Description}, {"description_like", q.DescriptionLike}, {"key", q.Key},
	}, searchedTags(q.Tags)...))
}
