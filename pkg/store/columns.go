package store

import (
	"database/sql"
	"errors"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// columnsOf are what a query reads of each row of a table.
type columnsOf[T any] []column[T]

type column[T any] struct {
	name string
	// into is where the value goes. It takes NULL as the zero value, as GORM does.
	into func(row *T, common *common) sql.Scanner
	// record is set for what is kept about a row but shown in no list: when it was created, changed and deleted.
	record bool
}

// reading says how rows are read.
type reading struct {
	// brief leaves out columns that are records.
	brief bool
	// common has what rows have in common.
	common *common
}

// whole reads all columns, of rows that are kept: equal texts share memory.
func whole() reading {
	return reading{common: &common{texts: map[string]string{}, attachments: map[string]entity.Attachment{}}}
}

// brief reads what lists show, of rows that are not kept.
func brief() reading {
	return reading{brief: true, common: &common{attachments: map[string]entity.Attachment{}}}
}

// common has values that rows have in common, by their texts. They are never changed in place.
type common struct {
	texts       map[string]string // nil if texts are not shared
	attachments map[string]entity.Attachment
}

// find reads rows by itself: GORM needs a multiple of the time, and reads all columns.
func find[T any](query *gorm.DB, of columnsOf[T], how reading) ([]T, error) {
	var kept columnsOf[T]
	var names []string
	for _, c := range of {
		if !how.brief || !c.record {
			kept, names = append(kept, c), append(names, c.name)
		}
	}
	return scan(query.Model(new(T)).Select(names), func(row *T) []any {
		targets := make([]any, len(kept))
		for i, c := range kept {
			targets[i] = c.into(row, how.common)
		}
		return targets
	})
}

// scan reads the rows of a query. into gives the targets for the columns of a row, which is used for all of them.
func scan[T any](query *gorm.DB, into func(row *T) []any) (all []T, err error) {
	rows, err := query.Rows()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var row T
	targets := into(&row)
	all = []T{}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// modelColumns are those of entity.Model.
func modelColumns[T any](model func(*T) *entity.Model) columnsOf[T] {
	return columnsOf[T]{
		{name: "id", into: func(row *T, _ *common) sql.Scanner { return (*number)(&model(row).ID) }},
		{name: "created_at", into: func(row *T, _ *common) sql.Scanner { return (*moment)(&model(row).CreatedAt) }, record: true},
		{name: "updated_at", into: func(row *T, _ *common) sql.Scanner { return (*moment)(&model(row).UpdatedAt) }, record: true},
		{name: "deleted_at", into: func(row *T, _ *common) sql.Scanner { return &model(row).DeletedAt }, record: true},
	}
}

func numberColumn[T any](name string, field func(*T) *uint) column[T] {
	return column[T]{name: name, into: func(row *T, _ *common) sql.Scanner { return (*number)(field(row)) }}
}

func switchColumn[T any](name string, field func(*T) *bool) column[T] {
	return column[T]{name: name, into: func(row *T, _ *common) sql.Scanner { return (*truth)(field(row)) }}
}

// textColumn is for texts that differ from row to row.
func textColumn[T any](name string, field func(*T) *string) column[T] {
	return column[T]{name: name, into: func(row *T, _ *common) sql.Scanner { return &text{into: field(row)} }}
}

// commonColumn is for texts that rows have in common.
func commonColumn[T any](name string, field func(*T) *string) column[T] {
	return column[T]{name: name, into: func(row *T, s *common) sql.Scanner { return &text{into: field(row), known: s.texts} }}
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

func tagColumns() columnsOf[entity.Tag] {
	return append(modelColumns(func(t *entity.Tag) *entity.Model { return &t.Model }),
		commonColumn("value", func(t *entity.Tag) *string { return &t.Value }))
}

func flagTagColumns() columnsOf[flagTag] {
	return columnsOf[flagTag]{
		numberColumn("flag_id", func(t *flagTag) *uint { return &t.FlagID }),
		numberColumn("tag_id", func(t *flagTag) *uint { return &t.TagID }),
	}
}

func variantColumns() columnsOf[entity.Variant] {
	return append(modelColumns(func(v *entity.Variant) *entity.Model { return &v.Model }),
		numberColumn("flag_id", func(v *entity.Variant) *uint { return &v.FlagID }),
		commonColumn("key", func(v *entity.Variant) *string { return &v.Key }),
		column[entity.Variant]{name: "attachment", into: func(v *entity.Variant, s *common) sql.Scanner {
			return &attachment{into: &v.Attachment, known: s.attachments}
		}})
}

func segmentColumns() columnsOf[entity.Segment] {
	return append(modelColumns(func(s *entity.Segment) *entity.Model { return &s.Model }),
		numberColumn("flag_id", func(s *entity.Segment) *uint { return &s.FlagID }),
		commonColumn("description", func(s *entity.Segment) *string { return &s.Description }),
		numberColumn("rank", func(s *entity.Segment) *uint { return &s.Rank }),
		numberColumn("rollout_percent", func(s *entity.Segment) *uint { return &s.RolloutPercent }))
}

func constraintColumns() columnsOf[entity.Constraint] {
	return append(modelColumns(func(c *entity.Constraint) *entity.Model { return &c.Model }),
		numberColumn("segment_id", func(c *entity.Constraint) *uint { return &c.SegmentID }),
		commonColumn("property", func(c *entity.Constraint) *string { return &c.Property }),
		commonColumn("operator", func(c *entity.Constraint) *string { return &c.Operator }),
		commonColumn("value", func(c *entity.Constraint) *string { return &c.Value }))
}

func distributionColumns() columnsOf[entity.Distribution] {
	bitmap := commonColumn("bitmap", func(d *entity.Distribution) *string { return &d.Bitmap })
	bitmap.record = true
	return append(modelColumns(func(d *entity.Distribution) *entity.Model { return &d.Model }),
		numberColumn("segment_id", func(d *entity.Distribution) *uint { return &d.SegmentID }),
		numberColumn("variant_id", func(d *entity.Distribution) *uint { return &d.VariantID }),
		commonColumn("variant_key", func(d *entity.Distribution) *string { return &d.VariantKey }),
		numberColumn("percent", func(d *entity.Distribution) *uint { return &d.Percent }), bitmap)
}

// number scans a whole number that is not negative.
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
	return err
}

// truth scans a boolean, for which databases have several types.
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
	return err
}

// moment scans a time.
type moment time.Time

// Scan implements sql.Scanner.
func (m *moment) Scan(value any) error {
	if v, ok := value.(time.Time); ok {
		*m = moment(v)
		return nil
	}
	var other sql.NullTime
	err := other.Scan(value)
	*m = moment(other.Time)
	return err
}

// text scans a text. Equal ones share memory if known is not nil.
type text struct {
	into  *string
	known map[string]string
}

// Scan implements sql.Scanner.
func (t *text) Scan(value any) error {
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
			return err
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

// attachment scans the JSON of an attachment. Equal ones share memory.
type attachment struct {
	into  *entity.Attachment
	known map[string]entity.Attachment
}

// Scan implements sql.Scanner.
func (a *attachment) Scan(value any) error {
	var s string
	switch v := value.(type) {
	case string:
		s = v
	case []byte:
		s = string(v)
	default:
		return a.into.Scan(value)
	}
	if known, ok := a.known[s]; ok {
		*a.into = known
		return nil
	}
	if err := a.into.Scan(s); err != nil {
		return err
	}
	a.known[s] = *a.into
	return nil
}
