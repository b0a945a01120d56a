package store

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// columnsOf are the columns that a query reads from each row of a table.
type columnsOf[T any] []column[T]

type column[T any] struct {
	name string
	// into returns the target of the value. It accepts NULL as the zero value, as GORM does.
	into func(row *T, how *reading) sql.Scanner
	// text is set for strings and times: see textReader.
	text bool
	// record is set for columns that no list shows: when a row was created, changed and deleted.
	record bool
}

// reading configures how rows are read.
type reading struct {
	// brief skips the columns that are records.
	brief bool
	// texts and attachments hold values that rows share, by their text. Values are never changed in
	// place. If texts is nil, each row gets its own copy.
	texts       map[string]string
	attachments map[string]entity.Attachment
	// bare omits attachments, which may have megabytes.
	bare bool
	// owners are the owners whose parts are read, nil for all. Rows of other owners are skipped.
	owners map[uint]struct{}
	skip   bool // whether to skip the current row
	// wrong describes the values of the current row that cannot be read, and unreadable those of
	// all rows.
	wrong      []string
	unreadable unreadable
}

// whole reads all columns, for rows that are kept in memory: equal strings share memory.
func whole() reading {
	return reading{texts: map[string]string{}, attachments: map[string]entity.Attachment{}, unreadable: unreadable{}}
}

// brief reads the columns that lists show, for rows that are not kept in memory.
func brief() reading {
	return reading{brief: true, attachments: map[string]entity.Attachment{}, unreadable: unreadable{}}
}

// textReader is a dialector whose driver reads strings and times faster from an expression than
// from a column.
type textReader interface {
	readText(column string) string
}

// find reads rows without GORM, which takes several times as long and reads all columns.
func find[T any](query *gorm.DB, of columnsOf[T], how reading) ([]T, error) {
	return findEach(query, of, how, nil)
}

// findEach is find, and calls each for each row that is not skipped. An error of each ends the list
// before the row.
func findEach[T any](query *gorm.DB, of columnsOf[T], how reading, each func(*T) error) ([]T, error) {
	kept, names := make(columnsOf[T], 0, len(of)), make([]string, 0, len(of))
	reader, reads := query.Dialector.(textReader)
	for _, c := range of {
		if how.brief && c.record {
			continue
		}
		kept, names = append(kept, c), append(names, c.name)
		if reads && c.text {
			names[len(names)-1] = reader.readText(c.name)
		}
	}
	into := func(row *T) []any {
		targets := make([]any, len(kept))
		for i, c := range kept {
			targets[i] = &cell{c.into(row, &how), c.name, &how}
		}
		return targets
	}
	return scan(query.Model(new(T)).Select(names), into, &how, each)
}

// scan reads the rows of a query. into returns the scan targets for a row, one per column. They are
// reused for all rows.
func scan[T any](query *gorm.DB, into func(row *T) []any, how *reading, each func(*T) error) (all []T, err error) {
	rows, err := query.Rows()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var row T
	targets := into(&row)
	all = []T{}
	for n := 1; rows.Next(); n++ {
		if n%yieldRows == 0 {
			budget.Yield(query.Statement.Context)
			if err := query.Statement.Context.Err(); err != nil { // of an uninterrupted query
				return nil, err
			}
		}
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		if len(how.wrong) > 0 {
			how.note(&row)
		}
		if how.skip {
			continue
		}
		if each != nil {
			if err := each(&row); err != nil {
				return all, err
			}
		}
		if len(all) == cap(all) {
			all = slices.Grow(all, max(len(all), 16)) // append would copy large lists many times
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// yieldRows is the number of rows that SQLite reads in about 0.4 ms. On an idle machine, a yield
// wakes the other processor for nothing.
const yieldRows = 128

// modelColumns returns the columns of entity.Model.
func modelColumns[T any](model func(*T) *entity.Model) columnsOf[T] {
	return columnsOf[T]{
		{name: "id", into: func(row *T, _ *reading) sql.Scanner { return (*rowID)(&model(row).ID) }},
		{name: "created_at", into: func(row *T, _ *reading) sql.Scanner { return (*moment)(&model(row).CreatedAt) }, text: true, record: true},
		{name: "updated_at", into: func(row *T, _ *reading) sql.Scanner { return (*moment)(&model(row).UpdatedAt) }, text: true, record: true},
		{name: "deleted_at", into: func(row *T, _ *reading) sql.Scanner { return (*deletion)(&model(row).DeletedAt) }, text: true, record: true},
	}
}

func numberColumn[T any](name string, field func(*T) *uint) column[T] {
	return column[T]{name: name, into: func(row *T, _ *reading) sql.Scanner { return (*number)(field(row)) }}
}

// ownerColumn returns the column with the owner's ID. It comes before columns whose values rows
// share.
func ownerColumn[T any](name string, field func(*T) *uint) column[T] {
	return column[T]{name: name, into: func(row *T, how *reading) sql.Scanner { return &ownerID{into: field(row), how: how} }}
}

func switchColumn[T any](name string, field func(*T) *bool) column[T] {
	return column[T]{name: name, into: func(row *T, _ *reading) sql.Scanner { return (*truth)(field(row)) }}
}

// textColumn returns a column for strings that differ from row to row.
func textColumn[T any](name string, field func(*T) *string) column[T] {
	return column[T]{name: name, into: func(row *T, how *reading) sql.Scanner { return &text{field(row), how, nil} }, text: true}
}

// commonColumn returns a column for strings that rows share.
func commonColumn[T any](name string, field func(*T) *string) column[T] {
	return column[T]{name: name, into: func(row *T, how *reading) sql.Scanner { return &text{field(row), how, how.texts} }, text: true}
}

func flagColumns() columnsOf[entity.Flag] {
	c := append(modelColumns(func(f *entity.Flag) *entity.Model { return &f.Model }),
		textColumn("key", func(f *entity.Flag) *string { return &f.Key }),
		textColumn("description", func(f *entity.Flag) *string { return &f.Description }),
		commonColumn("created_by", func(f *entity.Flag) *string { return &f.CreatedBy }),
		commonColumn("updated_by", func(f *entity.Flag) *string { return &f.UpdatedBy }),
		switchColumn("enabled", func(f *entity.Flag) *bool { return &f.Enabled }),
		numberColumn("snapshot_id", func(f *entity.Flag) *uint { return &f.SnapshotID }),
		textColumn("notes", func(f *entity.Flag) *string { return &f.Notes }),
		switchColumn("data_records_enabled", func(f *entity.Flag) *bool { return &f.DataRecordsEnabled }),
		commonColumn("entity_type", func(f *entity.Flag) *string { return &f.EntityType }),
	)
	for i := range c {
		switch c[i].name {
		case "updated_at":
			c[i].record = false // lists of flags show it
		case "snapshot_id":
			c[i].record = true
		}
	}
	return c
}

// deletedColumns are columns of the table of flags.
func deletedColumns() columnsOf[deletedFlag] {
	return columnsOf[deletedFlag]{
		numberColumn("id", func(f *deletedFlag) *uint { return &f.ID }),
		{name: "deleted_at", into: func(f *deletedFlag, _ *reading) sql.Scanner { return (*moment)(&f.At) }, text: true},
	}
}

func tagColumns() columnsOf[entity.Tag] {
	return append(modelColumns(func(t *entity.Tag) *entity.Model { return &t.Model }),
		commonColumn("value", func(t *entity.Tag) *string { return &t.Value }))
}

func flagTagColumns() columnsOf[flagTag] {
	return columnsOf[flagTag]{
		ownerColumn("flag_id", func(t *flagTag) *uint { return &t.FlagID }),
		numberColumn("tag_id", func(t *flagTag) *uint { return &t.TagID }),
	}
}

func variantColumns() columnsOf[entity.Variant] {
	return append(modelColumns(func(v *entity.Variant) *entity.Model { return &v.Model }),
		ownerColumn("flag_id", func(v *entity.Variant) *uint { return &v.FlagID }),
		commonColumn("key", func(v *entity.Variant) *string { return &v.Key }),
		column[entity.Variant]{name: "attachment", into: func(v *entity.Variant, how *reading) sql.Scanner {
			return &attachment{into: &v.Attachment, how: how}
		}, text: true})
}

// bareVariantColumns are those without the attachment, which may have megabytes.
func bareVariantColumns() columnsOf[entity.Variant] {
	return slices.DeleteFunc(variantColumns(), func(c column[entity.Variant]) bool { return c.name == "attachment" })
}

func segmentColumns() columnsOf[entity.Segment] {
	return append(modelColumns(func(s *entity.Segment) *entity.Model { return &s.Model }),
		ownerColumn("flag_id", func(s *entity.Segment) *uint { return &s.FlagID }),
		commonColumn("description", func(s *entity.Segment) *string { return &s.Description }),
		numberColumn("rank", func(s *entity.Segment) *uint { return &s.Rank }),
		numberColumn("rollout_percent", func(s *entity.Segment) *uint { return &s.RolloutPercent }))
}

func constraintColumns() columnsOf[entity.Constraint] {
	return append(modelColumns(func(c *entity.Constraint) *entity.Model { return &c.Model }),
		ownerColumn("segment_id", func(c *entity.Constraint) *uint { return &c.SegmentID }),
		commonColumn("property", func(c *entity.Constraint) *string { return &c.Property }),
		commonColumn("operator", func(c *entity.Constraint) *string { return &c.Operator }),
		commonColumn("value", func(c *entity.Constraint) *string { return &c.Value }))
}

func distributionColumns() columnsOf[entity.Distribution] {
	bitmap := commonColumn("bitmap", func(d *entity.Distribution) *string { return &d.Bitmap })
	bitmap.record = true
	return append(modelColumns(func(d *entity.Distribution) *entity.Model { return &d.Model }),
		ownerColumn("segment_id", func(d *entity.Distribution) *uint { return &d.SegmentID }),
		numberColumn("variant_id", func(d *entity.Distribution) *uint { return &d.VariantID }),
		commonColumn("variant_key", func(d *entity.Distribution) *string { return &d.VariantKey }),
		numberColumn("percent", func(d *entity.Distribution) *uint { return &d.Percent }), bitmap)
}

func snapshotColumns() columnsOf[entity.FlagSnapshot] {
	return append(modelColumns(func(s *entity.FlagSnapshot) *entity.Model { return &s.Model }),
		numberColumn("flag_id", func(s *entity.FlagSnapshot) *uint { return &s.FlagID }),
		commonColumn("updated_by", func(s *entity.FlagSnapshot) *string { return &s.UpdatedBy }),
		column[entity.FlagSnapshot]{name: "flag", into: func(s *entity.FlagSnapshot, _ *reading) sql.Scanner { return (*state)(&s.Flag) }})
}

func entityTypeColumns() columnsOf[entity.FlagEntityType] {
	return columnsOf[entity.FlagEntityType]{textColumn("key", func(t *entity.FlagEntityType) *string { return &t.Key })}
}

// headColumns are columns of the table of snapshots.
func headColumns() columnsOf[entity.SnapshotHead] {
	return columnsOf[entity.SnapshotHead]{
		numberColumn("id", func(h *entity.SnapshotHead) *uint { return &h.ID }),
		numberColumn("flag_id", func(h *entity.SnapshotHead) *uint { return &h.FlagID }),
		{name: "created_at", into: func(h *entity.SnapshotHead, _ *reading) sql.Scanner { return (*moment)(&h.CreatedAt) }, text: true},
		commonColumn("updated_by", func(h *entity.SnapshotHead) *string { return &h.UpdatedBy }),
	}
}

// number scans a non-negative integer. If that fails, it is 0.
type number uint

// Scan implements sql.Scanner.
func (n *number) Scan(value any) error {
	if v, ok := value.(int64); ok && v >= 0 {
		*n = number(v)
		return nil
	}
	var other sql.Null[uint]
	err := other.Scan(value)
	*n = number(other.V)
	return unless(err, value, "a whole number from 0 to 9223372036854775807")
}

// rowID scans the ID of a row. 0 means that a row has no ID yet.
type rowID uint

// Scan implements sql.Scanner.
func (r *rowID) Scan(value any) error {
	if err := (*number)(r).Scan(value); err != nil || *r > 0 {
		return err
	}
	return errors.New("is 0, not a number from 1")
}

// unless returns an error for a value that was not scanned as wanted.
func unless(err error, value any, wanted string) error {
	if err == nil {
		return nil
	}
	if text, ok := value.([]byte); ok {
		value = string(text)
	}
	return fmt.Errorf("is %.40q, not %s", fmt.Sprint(value), wanted)
}

// ownerID scans the ID of a row's owner.
type ownerID struct {
	into *uint
	how  *reading
}

// Scan implements sql.Scanner.
func (o *ownerID) Scan(value any) error {
	err := (*number)(o.into).Scan(value)
	if o.how.owners != nil {
		_, wanted := o.how.owners[*o.into]
		o.how.skip = !wanted
	}
	return err
}

// truth scans a boolean. Databases return it in several types.
type truth bool

// Scan implements sql.Scanner.
func (t *truth) Scan(value any) error {
	switch v := value.(type) {
	case bool:
		*t = truth(v)
		return nil
	case int64:
		*t = v != 0
		return nil
	}
	var other sql.NullBool
	err := other.Scan(value)
	*t = truth(other.Bool)
	return unless(err, value, "true or false")
}

// moment scans a time. What is not a time is the zero time: evaluation does not need times.
type moment time.Time

// Scan implements sql.Scanner.
func (m *moment) Scan(value any) error {
	switch v := value.(type) {
	case time.Time:
		*m = moment(v)
		return nil
	case string:
		t, _ := parseTime(v)
		*m = moment(t)
		return nil
	}
	var other sql.NullTime
	_ = other.Scan(value)
	*m = moment(other.Time)
	return nil
}

// deletion scans a time that may be NULL.
type deletion entity.DeletedAt

// Scan implements sql.Scanner.
func (d *deletion) Scan(value any) error {
	d.Valid = value != nil
	return (*moment)(&d.Time).Scan(value)
}

// text scans a string. Equal strings share memory if known is not nil.
type text struct {
	into  *string
	how   *reading
	known map[string]string
}

// Scan implements sql.Scanner.
func (t *text) Scan(value any) error {
	if t.how.skip {
		return nil
	}
	var s string
	switch v := value.(type) {
	case string:
		s = v
	case []byte:
		if known, ok := t.known[string(v)]; ok {
			*t.into = known
			return nil
		}
		s = string(v)
	default:
		var other sql.NullString
		if err := other.Scan(value); err != nil {
			*t.into = ""
			return unless(err, value, "a string")
		}
		s = other.String
	}
	if t.known != nil {
		known, ok := t.known[s]
		if !ok {
			t.known[s], known = s, s
		}
		s = known
	}
	*t.into = s
	return nil
}

// state scans the JSON of a flag. Rows do not share it.
type state []byte

// Scan implements sql.Scanner.
func (s *state) Scan(value any) error {
	var other sql.Null[[]byte] // copies
	err := other.Scan(value)
	*s = other.V
	return err
}

var errNoObject = errors.New("is not the JSON of an object")

// attachment scans the JSON of an attachment. Equal attachments share memory.
type attachment struct {
	into *entity.Attachment
	how  *reading
}

// Scan implements sql.Scanner.
func (a *attachment) Scan(value any) error {
	if a.how.skip || a.how.bare {
		return nil
	}
	var s string
	switch v := value.(type) {
	case string:
		s = v
	case []byte:
		if known, ok := a.how.attachments[string(v)]; ok {
			*a.into = known
			return nil
		}
		s = string(v)
	default:
		return a.into.Scan(value)
	}
	if known, ok := a.how.attachments[s]; ok {
		*a.into = known
		return nil
	}
	if err := a.into.Scan(s); err != nil {
		return errNoObject
	}
	a.how.attachments[s] = *a.into
	return nil
}
