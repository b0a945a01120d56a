// Package entity has the database rows of flags and their parts, and the rules for all rows.
//
// Field names are part of two wire formats: flag snapshots are stored as the JSON of a Flag, and
// the export of the evaluation cache publishes it. Tables and columns follow GORM's default naming
// over these structs.
package entity

import "time"

// Flag is one feature flag with its parts.
type Flag struct {
	Model
	Key         string `gorm:"type:varchar(64);uniqueIndex:idx_flag_key"`
	Description string `gorm:"type:text"`
	CreatedBy   string
	UpdatedBy   string
	Enabled     bool
	Segments    []Segment
	Variants    []Variant
	Tags        []Tag `gorm:"many2many:flags_tags;"`
	// SnapshotID is the id of the flag's newest FlagSnapshot, 0 before the first one.
	SnapshotID uint
	Notes      string `gorm:"type:text"`
	// DataRecordsEnabled makes recorders record evaluations of this flag.
	DataRecordsEnabled bool
	// EntityType, when not empty, replaces the entity type of every evaluation request.
	EntityType string
	// Unreadable names a value in the rows of the flag, or of its parts, that cannot be read, such
	// as an attachment that is not JSON. It is then the zero value here. Such a flag is not
	// evaluated.
	Unreadable string `gorm:"-" json:"-"`
}

// Variant is one possible outcome of a flag.
type Variant struct {
	Model
	FlagID     uint `gorm:"index:idx_variant_flagid"`
	Key        string
	Attachment Attachment `gorm:"type:text"`
}

// Segment is a part of a flag's audience: constraints define who is in it, and distributions which
// variants it gets.
type Segment struct {
	Model
	FlagID      uint   `gorm:"index:idx_segment_flagid"`
	Description string `gorm:"type:text"`
	// Rank orders the segments of a flag, lowest first; equal ranks run in the order of their ids.
	Rank uint
	// RolloutPercent is the share of the matching entities that get a variant, 0 to 100.
	RolloutPercent uint
	Constraints    []Constraint
	Distributions  []Distribution
}

// Constraint is one condition on the entity context; all constraints of a segment must hold.
type Constraint struct {
	Model
	SegmentID uint `gorm:"index:idx_constraint_segmentid"`
	Property  string
	Operator  string
	Value     string `gorm:"type:text"`
}

// Distribution is the share of a segment that goes to one variant.
type Distribution struct {
	Model
	SegmentID  uint `gorm:"index:idx_distribution_segmentid"`
	VariantID  uint `gorm:"index:idx_distribution_variantid"`
	VariantKey string
	// Percent is 0 to 100; the distributions of one segment sum to 100.
	Percent uint
	// Bitmap exists for databases that have the column; it is not used.
	Bitmap string `gorm:"type:text" json:"-"`
}

// Tag is a label shared between flags.
type Tag struct {
	Model
	Value string `gorm:"type:varchar(64);uniqueIndex:idx_tag_value"`
	// Flags is never set; in JSON it is null.
	Flags []*Flag `gorm:"many2many:flags_tags;"`
}

// FlagSnapshot is a flag as it was right after one change.
type FlagSnapshot struct {
	Model
	FlagID    uint `gorm:"index:idx_flagsnapshot_flagid"`
	UpdatedBy string
	// Flag is the JSON of the whole Flag.
	Flag []byte `gorm:"type:text"`
}

// FlagEntityType is an entity type that was used by a flag at some time.
type FlagEntityType struct {
	Model
	Key string `gorm:"type:varchar(64);uniqueIndex:flag_entity_type_key"`
}

// User exists for databases that have the table; this server writes no rows.
type User struct {
	Model
	Email string `gorm:"type:text"`
}

// Tables lists one value of each table of flags, in the order of their foreign keys.
func Tables() []any {
	return []any{&Flag{}, &Tag{}, &Segment{}, &Variant{}, &Constraint{}, &Distribution{}, &FlagSnapshot{}, &User{}, &FlagEntityType{}}
}

// SnapshotHead is a FlagSnapshot without its content.
type SnapshotHead struct {
	ID, FlagID uint
	CreatedAt  time.Time
	UpdatedBy  string
}
