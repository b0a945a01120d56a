package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

const (
	// maxSnapshotBytes bounds the JSON of the snapshots that SnapshotsByID reads at once.
	maxSnapshotBytes = 32 << 20
	// bytesPerStateByte is the memory that one byte of the JSON of a flag takes: as text from the
	// database, decoded, and in the response, in buffers that grow.
	bytesPerStateByte = 6
	// statesAtOnce bounds the JSON of the snapshots that EachSnapshot reads with one statement,
	// unless one snapshot is longer.
	statesAtOnce = 2 << 20
	// freeStateBytes is the length up to which the flags and snapshots of a request reserve no
	// shared memory.
	freeStateBytes = 16 << 10
)

// reserve reserves the memory that the context shares with other requests for bytes of JSON of
// flags or snapshots. The error is budget.ErrExhausted.
func reserve(ctx context.Context, bytes int64) error {
	if bytes <= freeStateBytes {
		return nil
	}
	return budget.AtLeast(ctx, bytes*bytesPerStateByte)
}

// reserveFlag reserves the memory of a flag with all its parts: the length of its newest snapshot.
// It reserves nothing if the flag does not exist.
func reserveFlag(tx *gorm.DB, id int64) error {
	var bytes []int64
	tx = tx.Session(&gorm.Session{NewDB: true})
	newest := tx.Unscoped().Model(&entity.Flag{}).Select("snapshot_id").Where("id = ?", id)
	err := tx.Model(&entity.FlagSnapshot{}).Where("id = (?)", newest).Limit(1).Pluck("COALESCE(OCTET_LENGTH(flag), 0)", &bytes).Error
	if err != nil || len(bytes) == 0 {
		return err
	}
	return reserve(tx.Statement.Context, bytes[0])
}

// SnapshotHeads lists at most limit snapshots of a flag without their contents, newest first. The
// flag may be deleted. The list is empty if the flag does not exist.
func (s *Store) SnapshotHeads(ctx context.Context, flagID int64, limit int) ([]entity.SnapshotHead, error) {
	heads, err := find(s.db.WithContext(ctx).Table("flag_snapshots").Where("flag_id = ? AND deleted_at IS NULL", flagID).Order("id DESC").Limit(limit), headColumns(), whole())
	if err != nil {
		return nil, explain("read the list of snapshots", err)
	}
	return heads, nil
}

// SnapshotPage lists snapshots of a flag, newest first. Those beyond the 8 MiB of states that
// Snapshots reads have no states.
func (s *Store) SnapshotPage(ctx context.Context, flagID int64, limit, offset int) ([]entity.FlagSnapshot, error) {
	rows, err := s.Snapshots(ctx, flagID, SnapshotQuery{Limit: new(int64(limit)), Offset: new(int64(offset))})
	if err != nil || len(rows) == limit {
		return rows, err
	}
	heads, err := s.SnapshotHeads(ctx, flagID, offset+limit)
	for _, head := range heads[min(offset+len(rows), len(heads)):] {
		row := entity.FlagSnapshot{FlagID: head.FlagID, UpdatedBy: head.UpdatedBy}
		row.ID, row.CreatedAt = head.ID, head.CreatedAt
		rows = append(rows, row)
	}
	return rows, err
}

// HeadsOfFlags lists all snapshots of some flags without their contents, in the order of their IDs.
func (s *Store) HeadsOfFlags(ctx context.Context, flagIDs []int64) ([]entity.SnapshotHead, error) {
	heads := []entity.SnapshotHead{}
	how := whole()
	for chunk := range inChunks(flagIDs) {
		some, err := find(s.db.WithContext(ctx).Table("flag_snapshots").Where("flag_id IN ? AND deleted_at IS NULL", chunk).Order("id"), headColumns(), how)
		if err != nil {
			return nil, explain("read the lists of snapshots", err)
		}
		heads = append(heads, some...)
	}
	return heads, nil
}

// SnapshotsByID reads snapshots with their contents, in the order of their IDs. It skips IDs that
// do not exist. The error matches entity.ErrInvalid if the contents exceed 32 MiB together. It
// matches budget.ErrExhausted if other requests use up the memory that the context shares with
// them.
func (s *Store) SnapshotsByID(ctx context.Context, ids []int64) ([]entity.FlagSnapshot, error) {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	snapshots := []entity.FlagSnapshot{}
	var size int64
	for chunk := range inChunks(slices.Compact(ids)) {
		var bytes int64
		err := s.db.WithContext(ctx).Model(&entity.FlagSnapshot{}).Select("COALESCE(SUM(LENGTH(flag)), 0)").Where("id IN ?", chunk).Scan(&bytes).Error
		if err != nil {
			return nil, explain("read the size of snapshots", err)
		}
		if size += bytes; size > maxSnapshotBytes {
			return nil, entity.Invalid("%s", fmt.Sprintf("the snapshots have more than %d MiB: ask for fewer of them", maxSnapshotBytes>>20))
		}
		if err := reserve(ctx, size); err != nil {
			return nil, err
		}
		some, err := find(s.db.WithContext(ctx).Where("id IN ?", chunk).Order("id"), snapshotColumns(), whole())
		if err != nil {
			return nil, explain("read snapshots", err)
		}
		snapshots = append(snapshots, some...)
	}
	return snapshots, nil
}

// EachSnapshot calls each with snapshots in the order of the given IDs, which it skips if they do
// not exist. Unlike SnapshotsByID, it reads any number of snapshots, some 2 MiB at a time. The
// error matches budget.ErrExhausted if other requests use up the memory that the context shares
// with them.
func (s *Store) EachSnapshot(ctx context.Context, ids []int64, each func(*entity.FlagSnapshot)) error {
	db := s.db.WithContext(ctx)
	how := whole()
	for chunk := range slices.Chunk(ids, idsPerQuery) {
		places := make(map[uint]int, len(chunk))
		for i, id := range chunk {
			places[uint(id)] = i
		}
		sizes, err := scan(db.Model(&entity.FlagSnapshot{}).Select("id, COALESCE(OCTET_LENGTH(flag), 0) AS size").
			Where("id IN ?", padded(chunk)), rowSizeTargets, &reading{}, nil)
		if err != nil {
			return explain("read the sizes of snapshots", err)
		}
		slices.SortFunc(sizes, func(a, b rowSize) int { return cmp.Compare(places[a.ID], places[b.ID]) })
		for len(sizes) > 0 {
			some, size := withinBytes(sizes, statesAtOnce)
			sizes = sizes[len(some):]
			if err := reserve(ctx, size); err != nil {
				return err
			}
			within := make([]uint, len(some))
			for i, row := range some {
				within[i] = row.ID
			}
			rows, err := find(db.Where("id IN ?", padded(within)), snapshotColumns(), how)
			if err != nil {
				return explain("read snapshots", err)
			}
			slices.SortFunc(rows, func(a, b entity.FlagSnapshot) int { return cmp.Compare(places[a.ID], places[b.ID]) })
			for i := range rows {
				each(&rows[i])
			}
		}
	}
	return nil
}

// DeletedFlags returns a page of the deleted flags, without parts, the latest deletion first, and
// the number of all deleted flags. The page has at most limit flags, after the first offset flags.
// It reads the IDs and times of all deleted flags, because times of deletion have no index, and
// SQLite stores them as text in any time zone.
func (s *Store) DeletedFlags(ctx context.Context, limit, offset int) (page []entity.Flag, all int, err error) {
	db := s.db.WithContext(ctx)
	deleted, err := find(db.Table("flags").Where("deleted_at IS NOT NULL"), deletedColumns(), whole())
	if err != nil {
		return nil, 0, explain("read which flags are deleted", err)
	}
	slices.SortFunc(deleted, func(a, b deletedFlag) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(b.ID, a.ID))
	})
	all = len(deleted)
	deleted = deleted[min(offset, all):]
	places := map[uint]int{}
	var ids []uint
	for i, f := range deleted[:min(limit, len(deleted))] {
		places[f.ID], ids = i, append(ids, f.ID)
	}
	page = []entity.Flag{}
	for chunk := range inChunks(ids) {
		some, err := find(db.Unscoped().Where("id IN ?", chunk), flagColumns(), whole())
		if err != nil {
			return nil, 0, explain("read deleted flags", err)
		}
		page = append(page, some...)
	}
	slices.SortFunc(page, func(a, b entity.Flag) int { return cmp.Compare(places[a.ID], places[b.ID]) })
	return page, all, nil
}

// deletedFlag is the part of a deleted flag that orders the list.
type deletedFlag struct {
	ID uint
	At time.Time
}

// DeletedAmong returns the deleted flags that have one of the keys or IDs, without parts. Keys that
// no flag can have are skipped: some databases fail when they compare them.
func (s *Store) DeletedAmong(ctx context.Context, keys []string, ids []int64) ([]entity.Flag, error) {
	flags := []entity.Flag{}
	add := func(column string, values any) error {
		some, err := find(s.db.WithContext(ctx).Unscoped().Where("deleted_at IS NOT NULL").Where(map[string]any{column: values}), flagColumns(), whole())
		flags = append(flags, some...)
		return err
	}
	possible := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return entity.CheckKey(key) != nil })
	for chunk := range inChunks(possible) {
		if err := add("key", chunk); err != nil {
			return nil, explain("look for deleted flags by key", err)
		}
	}
	for chunk := range inChunks(ids) {
		if err := add("id", chunk); err != nil {
			return nil, explain("look for deleted flags by id", err)
		}
	}
	return flags, nil
}
