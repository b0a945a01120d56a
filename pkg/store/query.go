package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// maxTagFilter bounds the tags of one query, to stay within the databases' parameter limits.
const maxTagFilter = 500

// FlagQuery selects the flags of a list. Nil or empty fields do not narrow the list.
type FlagQuery struct {
	// Limit is the maximum number of flags. Offset is the number of flags to skip before them.
	// Neither may be negative. A nil Limit means no limit, and 0 returns no flags.
	Limit, Offset *int64
	Enabled       *bool
	// Description and Key match exactly. DescriptionLike matches anywhere in the description and
	// ignores case. SQLite ignores the case of ASCII letters only.
	Description, DescriptionLike, Key *string
	// Tags selects flags that have any of them. Surrounding spaces and empty tags are ignored.
	Tags []string
	// Preload adds variants, and segments with their parts.
	Preload bool
	// Deleted lists the deleted flags instead of the others.
	Deleted bool
	// Brief leaves SnapshotID and the times of rows zero, except UpdatedAt of flags.
	Brief bool

	firstID, lastID uint // of a page; 0 means not narrowed
}

// TagQuery selects the tags of a list. See FlagQuery.
type TagQuery struct {
	Limit, Offset *int64
	ValueLike     *string
}

// SnapshotQuery selects the snapshots of a list, newest first unless Ascending. See FlagQuery.
type SnapshotQuery struct {
	Limit, Offset *int64
	Ascending     bool
}

// Flags lists flags with their tags in the order of their ids.
func (s *Store) Flags(ctx context.Context, q FlagQuery) ([]entity.Flag, error) {
	return s.flags(ctx, q, nil)
}

// flags calls sized, if it is not nil, with the size of each flag before it reads the parts.
func (s *Store) flags(ctx context.Context, q FlagQuery, sized func(bytes int64) error) ([]entity.Flag, error) {
	where, err := s.flagConditions(q)
	if err != nil {
		return nil, err
	}
	how := whole()
	if q.Brief {
		how = brief()
	}
	columns := flagColumns()
	var each func(*entity.Flag) error
	switch {
	case sized == nil:
	case q.Preload:
		columns, each = preloadedColumns(sized)
	default:
		each = func(f *entity.Flag) error { return sized(int64(len(f.Description) + len(f.Notes))) }
	}
	read := s.readShort
	if q.Enabled != nil || q.Description != nil || q.DescriptionLike != nil || q.Deleted {
		read = s.read // of many flags, few may be found
	}
	var flags []entity.Flag
	err = read(ctx, "flags", func(tx *gorm.DB) (err error) {
		if flags, err = findEach(where(tx).Order("id"), columns, how, each); err != nil {
			return err
		}
		if q.Preload {
			return loadParts(tx, flags, how)
		}
		return loadTags(tx, flags, how)
	})
	if err != nil {
		return nil, s.unsearchableFlags(err, q)
	}
	return flags, nil
}

// preloadedColumns returns the columns of flags and of their sizes with parts, and a function that
// calls sized with the size in the row that was read last.
func preloadedColumns(sized func(bytes int64) error) (columnsOf[entity.Flag], func(*entity.Flag) error) {
	var size number
	columns := append(flagColumns(), column[entity.Flag]{name: FlagQuery{Preload: true}.size(), into: func(*entity.Flag, *reading) sql.Scanner { return &size }})
	return columns, func(*entity.Flag) error { return sized(int64(size)) }
}

func (s *Store) flagConditions(q FlagQuery) (func(tx *gorm.DB) *gorm.DB, error) {
	page, err := page(q.Limit, q.Offset)
	if err != nil {
		return nil, err
	}
	tags := wanted(q.Tags)
	if len(tags) > maxTagFilter {
		return nil, entity.Invalid("tags: at most %d of them can be asked for at once", maxTagFilter)
	}
	for _, text := range []struct {
		name  string
		value *string
	}{{"description", q.Description}, {"description_like", q.DescriptionLike}, {"key", q.Key}} {
		if err := checkOptional(text.name, text.value); err != nil {
			return nil, err
		}
	}
	for _, tag := range tags {
		if err := entity.CheckText("tags", tag); err != nil {
			return nil, err
		}
	}
	return func(tx *gorm.DB) *gorm.DB {
		query := q.between(page(tx.Model(&entity.Flag{})))
		if q.Deleted {
			query = query.Unscoped().Where("deleted_at IS NOT NULL")
		} else {
			query = existing(query)
		}
		if q.Enabled != nil {
			query = query.Where("enabled = ?", *q.Enabled)
		}
		if q.Description != nil {
			query = s.equal(query, "description", *q.Description)
		}
		if q.Key != nil {
			query = s.equal(query, "key", *q.Key)
		}
		if q.DescriptionLike != nil {
			query = query.Where(s.dialect.contains, contained("description", *q.DescriptionLike))
		}
		if len(tags) > 0 {
			tagged := tx.Model(&entity.Tag{}).Select("flags_tags.flag_id").Joins("JOIN flags_tags ON flags_tags.tag_id = tags.id")
			query = query.Where("id IN (?)", s.equal(tagged, "tags.value", tags...))
		}
		return query
	}, nil
}

// Flag reads a flag with all its parts, and reserves its memory first. The error matches
// budget.ErrExhausted if other requests use up the memory that the context shares with them.
func (s *Store) Flag(ctx context.Context, id int64) (*entity.Flag, error) {
	return s.flag(ctx, id, false)
}

// AnyFlag reads a flag as Flag does, even if it is deleted, but without the attachments of its
// variants.
func (s *Store) AnyFlag(ctx context.Context, id int64) (*entity.Flag, error) {
	return s.flag(ctx, id, true)
}

func (s *Store) flag(ctx context.Context, id int64, deleted bool) (*entity.Flag, error) {
	how := whole()
	how.bare = deleted
	columns, each := preloadedColumns(func(bytes int64) error { return reserve(ctx, bytes+flagBytes) })
	var flags []entity.Flag
	err := s.readShort(ctx, "a flag", func(tx *gorm.DB) (err error) {
		query := tx.Where("id = ?", id)
		if deleted {
			query = query.Unscoped()
		}
		if flags, err = findEach(query, columns, how, each); err != nil {
			return err
		}
		if len(flags) == 0 {
			return entity.NotFound("unable to find flag %d in the database", id)
		}
		return loadParts(tx, flags, how)
	})
	if err != nil {
		return nil, err
	}
	return &flags[0], nil
}

// EvalFlags reads all flags with all their parts, for the evaluation cache.
func (s *Store) EvalFlags(ctx context.Context) ([]entity.Flag, error) {
	return s.Flags(ctx, FlagQuery{Preload: true})
}

// ChangedFlags compares known flags, in the order of their IDs, with those of the database. It
// returns the flags that are new or have changed, with all their parts, and the IDs of the known
// flags that no longer exist.
//
// Of all other flags it reads only two numbers: every change of a flag, or of a part of it, sets a
// new snapshot in the flag's row in the same transaction. Only EvalFlags notices a manual change
// without a snapshot.
func (s *Store) ChangedFlags(ctx context.Context, known []*entity.Flag) (changed []entity.Flag, gone []uint, err error) {
	err = s.read(ctx, "changed flags", func(tx *gorm.DB) error {
		var ids []uint
		ids, gone, err = compareFlags(tx, known)
		if err != nil {
			return err
		}
		how := whole()
		for chunk := range inChunks(ids) {
			some, err := find(tx.Where("id IN ?", chunk), flagColumns(), how)
			if err != nil {
				return err
			}
			changed = append(changed, some...)
		}
		return loadParts(tx, changed, how)
	})
	if err != nil {
		return nil, nil, err
	}
	return changed, gone, nil
}

// compareFlags returns the IDs of the flags that are new or have changed, and of the known flags
// that no longer exist. It scans rows without GORM, which would take three times as long.
func compareFlags(tx *gorm.DB, known []*entity.Flag) (changed, gone []uint, err error) {
	rows, err := tx.Model(&entity.Flag{}).Select("id, COALESCE(snapshot_id, 0)").Order("id").Rows()
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id, snapshotID uint
		if err := rows.Scan(lenient{(*number)(&id)}, lenient{(*number)(&snapshotID)}); err != nil {
			return nil, nil, err
		}
		for len(known) > 0 && known[0].ID < id {
			gone, known = append(gone, known[0].ID), known[1:]
		}
		if len(known) == 0 || known[0].ID > id {
			changed = append(changed, id)
			continue
		}
		if known[0].SnapshotID != snapshotID {
			changed = append(changed, id)
		}
		known = known[1:]
	}
	for _, flag := range known {
		gone = append(gone, flag.ID)
	}
	return changed, gone, rows.Err()
}

// FlagsByID reads the flags that have one of the IDs, including deleted ones, without parts and in
// no particular order. It skips IDs that do not exist.
func (s *Store) FlagsByID(ctx context.Context, ids []int64) ([]entity.Flag, error) {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	flags := []entity.Flag{}
	err := s.read(ctx, "flags by id", func(tx *gorm.DB) error {
		for chunk := range inChunks(slices.Compact(ids)) {
			some, err := find(tx.Unscoped().Where("id IN ?", chunk), flagColumns(), whole())
			if err != nil {
				return err
			}
			flags = append(flags, some...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return flags, nil
}

// maxAnswerBytes bounds the bytes of states that Snapshots reads. It always reads at least one.
const maxAnswerBytes = 8 << 20

// Snapshots lists the snapshots of a flag, which may be deleted. The list is empty if the flag does
// not exist. It ends before the states exceed 8 MiB. Use an offset to read the rest. The error
// matches budget.ErrExhausted if other requests use up the memory that the context shares with
// them.
func (s *Store) Snapshots(ctx context.Context, flagID int64, q SnapshotQuery) ([]entity.FlagSnapshot, error) {
	page, err := page(q.Limit, q.Offset)
	if err != nil {
		return nil, err
	}
	order := "id DESC"
	if q.Ascending {
		order = "id"
	}
	if files, ok := s.pool.(*sqlitePool); ok {
		var snapshots []entity.FlagSnapshot
		err := files.uninterrupted(ctx, s.db, func(tx *gorm.DB) (err error) {
			snapshots, err = snapshotsWithin(ctx, tx, page(tx.Where("flag_id = ?", flagID).Order(order)), maxAnswerBytes)
			return err
		})
		return snapshots, explain("read snapshots", err)
	}
	all := func() *gorm.DB { return s.db.WithContext(ctx).Where("flag_id = ?", flagID).Order(order) }
	found, err := scan(page(all().Model(&entity.FlagSnapshot{})).Select("id, COALESCE(OCTET_LENGTH(flag), 0) AS size"), rowSizeTargets, &reading{}, nil)
	if err != nil {
		return nil, explain("read the sizes of snapshots", err)
	}
	found, size := withinBytes(found, maxAnswerBytes)
	if len(found) == 0 {
		return []entity.FlagSnapshot{}, nil
	}
	if err := reserve(ctx, size); err != nil {
		return nil, err
	}
	first, last := found[0].ID, found[len(found)-1].ID
	snapshots, err := find(all().Where("id BETWEEN ? AND ?", min(first, last), max(first, last)), snapshotColumns(), whole())
	if err != nil {
		return nil, explain("read snapshots", err)
	}
	return snapshots, nil
}

// shortState is the length up to which a state is read before its memory is reserved.
const shortState = 64 << 10

var errEnough = errors.New("the list is complete")

// snapshotsWithin reads snapshots until they exceed limit bytes, but at least one. Long states are
// read after their memory is reserved. The database must read rows only as they are asked for.
// Servers send rows ahead, so there the sizes are read first.
func snapshotsWithin(ctx context.Context, tx, query *gorm.DB, limit int64) ([]entity.FlagSnapshot, error) {
	columns := snapshotColumns()
	columns[len(columns)-1].name = fmt.Sprintf("CASE WHEN OCTET_LENGTH(flag) <= %d THEN flag END AS flag", shortState)
	var size number
	columns = append(columns, column[entity.FlagSnapshot]{
		name: "COALESCE(OCTET_LENGTH(flag), 0) AS size", into: func(*entity.FlagSnapshot, *reading) sql.Scanner { return &size },
	})
	var total int64
	var long []int // of the list
	number := 0
	snapshots, err := findEach(query, columns, whole(), func(*entity.FlagSnapshot) error {
		if total += int64(size); total > limit && number > 0 {
			return errEnough
		}
		if size > shortState {
			long = append(long, number)
		}
		number++
		return reserve(ctx, total)
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	for _, i := range long {
		state, err := find(tx.Where("id = ?", snapshots[i].ID), snapshotColumns(), whole())
		if err != nil {
			return nil, err
		}
		if len(state) == 0 { // it was deleted in the meantime
			state = make([]entity.FlagSnapshot, 1)
		}
		snapshots[i] = state[0]
	}
	return slices.DeleteFunc(snapshots, func(s entity.FlagSnapshot) bool { return s.ID == 0 }), nil
}

// withinBytes truncates the list before the sum of its sizes exceeds limit, but keeps at least one
// element. It returns the sum of the remaining sizes.
func withinBytes(list []rowSize, limit int64) (within []rowSize, sum int64) {
	for i, s := range list {
		if sum+s.Size > limit && i > 0 {
			return list[:i], sum
		}
		sum += s.Size
	}
	return list, sum
}

// lateSnapshots is the number of newest snapshots among which one may be committed after another
// one with a higher ID, unless the dialect has one writer.
const lateSnapshots = 1000

// FlagsVersion returns a version of all flags that changes with every committed change of a flag.
//
// PostgreSQL and MySQL can commit a snapshot after one with a higher ID. So there the version
// contains the number of the newest snapshots, and the ID of the oldest among them: a late snapshot
// changes one of these. On SQLite the ID of the newest snapshot is enough. More of them would be
// expensive, because SQLite stores IDs beside the contents of snapshots.
func (s *Store) FlagsVersion(ctx context.Context) (string, error) {
	among := lateSnapshots
	if s.dialect.oneWriter {
		among = 1
	}
	var newest struct{ Highest, Lowest, Number int64 }
	err := s.db.WithContext(ctx).Raw("SELECT COALESCE(MAX(id), 0) AS highest, COALESCE(MIN(id), 0) AS lowest, COUNT(*) AS number "+
		"FROM (SELECT id FROM flag_snapshots ORDER BY id DESC LIMIT ?) AS newest", among).Scan(&newest).Error
	return fmt.Sprintf("%d/%d/%d", newest.Highest, newest.Lowest, newest.Number), explain("read the version of the flags", err)
}

// MaxSnapshotID returns the ID of the newest snapshot, or 0.
func (s *Store) MaxSnapshotID(ctx context.Context) (int64, error) {
	var id int64
	err := s.db.WithContext(ctx).Table("flag_snapshots").Select("COALESCE(MAX(id), 0)").Scan(&id).Error
	return id, explain("read the newest snapshot's id", err)
}

// EntityTypes lists the current and former entity types of flags, in alphabetical order.
func (s *Store) EntityTypes(ctx context.Context) ([]string, error) {
	types, err := find(s.db.WithContext(ctx), entityTypeColumns(), whole())
	if err != nil {
		return nil, explain("read entity types", err)
	}
	keys := make([]string, len(types))
	for i := range types {
		keys[i] = types[i].Key
	}
	slices.Sort(keys)
	return keys, nil
}

// maxTagValues is the number of tags that TagValues lists.
const maxTagValues = 500

// TagValues lists the values of the 500 oldest tags, for suggestions.
func (s *Store) TagValues(ctx context.Context) ([]string, error) {
	tags, err := s.Tags(ctx, TagQuery{Limit: new(int64(maxTagValues))})
	values := make([]string, len(tags))
	for i := range tags {
		values[i] = tags[i].Value
	}
	return values, err
}

// Tags lists all tags in the order of their ids.
func (s *Store) Tags(ctx context.Context, q TagQuery) ([]entity.Tag, error) {
	page, err := page(q.Limit, q.Offset)
	if err != nil {
		return nil, err
	}
	if err := checkOptional("value_like", q.ValueLike); err != nil {
		return nil, err
	}
	query := page(s.db.WithContext(ctx))
	if q.ValueLike != nil {
		query = query.Where(s.dialect.contains, contained("value", *q.ValueLike))
	}
	tags, err := find(query.Order("id"), tagColumns(), whole())
	if err != nil {
		return nil, s.unsearchable(explain("read tags", err), []searched{{"value_like", q.ValueLike}})
	}
	return tags, nil
}

// FlagTags lists the tags of a flag. The list is empty if the flag does not exist.
func (s *Store) FlagTags(ctx context.Context, flagID int64) ([]entity.Tag, error) {
	tags, err := find(s.db.WithContext(ctx).Where("id IN (?)", s.db.Table("flags_tags").Select("tag_id").Where("flag_id = ?", flagID)).
		Order("id"), tagColumns(), whole())
	if err != nil {
		return nil, explain("read the tags of a flag", err)
	}
	return tags, nil
}

// page validates a limit and an offset and applies them.
func page(limit, offset *int64) (func(*gorm.DB) *gorm.DB, error) {
	const unbounded = math.MaxInt / 2 // the sum of two must not overflow in the database
	for _, parameter := range []struct {
		name  string
		value *int64
	}{{"limit", limit}, {"offset", offset}} {
		if parameter.value != nil && *parameter.value < 0 {
			return nil, entity.Invalid("%s: %d must not be negative", parameter.name, *parameter.value)
		}
	}
	return func(tx *gorm.DB) *gorm.DB {
		if limit != nil {
			tx = tx.Limit(int(min(*limit, unbounded)))
		}
		if offset != nil && *offset > 0 {
			tx = tx.Offset(int(min(*offset, unbounded)))
			if limit == nil {
				tx = tx.Limit(unbounded) // MySQL has no offset without a limit
			}
		}
		return tx
	}, nil
}

// searched is a text that a query compares with a column.
type searched struct {
	name string
	text *string
}

func searchedTags(tags []string) []searched {
	texts := make([]searched, len(tags))
	for i := range tags {
		texts[i] = searched{"tags", &tags[i]}
	}
	return texts
}

// unsearchable maps a database error about a text with characters that the column cannot hold to an
// error for the client. It names the text with the highest character: which ones a column holds
// depends on its character set, but all have ASCII.
func (s *Store) unsearchable(err error, texts []searched) error {
	if s.dialect.incomparable == nil || !s.dialect.incomparable(err) {
		return err
	}
	name, highest := "", rune(unicode.MaxASCII)
	for _, t := range texts {
		if t.text == nil {
			continue
		}
		for _, r := range *t.text {
			if r > highest {
				name, highest = t.name, r
			}
		}
	}
	if name == "" {
		return err
	}
	return entity.Wrong("api.store.characters", "column", name)
}

// equal narrows a query to rows whose column equals one of the texts byte by byte. The plain
// comparison allows the use of indexes.
func (s *Store) equal(query *gorm.DB, column string, texts ...string) *gorm.DB {
	name := clause.Column{Name: column}
	texts = padded(texts)
	query = query.Where("? IN ?", name, texts)
	if s.dialect.bytes != "" {
		query = query.Where(fmt.Sprintf(s.dialect.bytes, "?")+" IN ?", name, texts)
	}
	return query
}

// contained returns the parameters of dialect.contains.
func contained(column, text string) map[string]any {
	return map[string]any{"column": gorm.Expr(column), "text": text}
}

// wanted returns the list without duplicates, empty entries, and spaces around entries.
func wanted(tags []string) []string {
	var all []string
	seen := map[string]struct{}{}
	for _, tag := range tags {
		tag = strings.TrimSpace(tag)
		if _, ok := seen[tag]; tag != "" && !ok {
			seen[tag] = struct{}{}
			all = append(all, tag)
		}
	}
	return all
}

func checkOptional(name string, text *string) error {
	if text == nil {
		return nil
	}
	return entity.CheckText(name, *text)
}
