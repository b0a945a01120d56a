package store

import (
	"context"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

type FlagQuery struct {
	Limit, Offset                     *int64
	Enabled                           *bool
	Description, DescriptionLike, Key *string
	Tags                              []string
	Preload, Deleted                  bool
}

type TagQuery struct {
	Limit, Offset *int64
	ValueLike     *string
}

type SnapshotQuery struct {
	Limit, Offset *int64
	Ascending     bool
}

type NewFlag struct{ Description, Key, Template string }

type FlagPatch struct {
	Description, Key, Notes, EntityType *string
	DataRecordsEnabled                  *bool
}

func (s *Store) Flags(ctx context.Context, q FlagQuery) ([]entity.Flag, error) { return nil, errNotYet }
func (s *Store) Flag(ctx context.Context, id int64) (*entity.Flag, error)      { return nil, errNotYet }
func (s *Store) EvalFlags(ctx context.Context) ([]entity.Flag, error)          { return nil, errNotYet }
func (s *Store) FlagsByID(ctx context.Context, ids []int64) ([]entity.Flag, error) {
	return nil, errNotYet
}
func (s *Store) FlagTags(ctx context.Context, flagID int64) ([]entity.Tag, error) {
	return nil, errNotYet
}
func (s *Store) Tags(ctx context.Context, q TagQuery) ([]entity.Tag, error) { return nil, errNotYet }
func (s *Store) Variants(ctx context.Context, flagID int64) ([]entity.Variant, error) {
	return nil, errNotYet
}
func (s *Store) Segments(ctx context.Context, flagID int64) ([]entity.Segment, error) {
	return nil, errNotYet
}
func (s *Store) Constraints(ctx context.Context, flagID, segmentID int64) ([]entity.Constraint, error) {
	return nil, errNotYet
}
func (s *Store) Distributions(ctx context.Context, flagID, segmentID int64) ([]entity.Distribution, error) {
	return nil, errNotYet
}
func (s *Store) EntityTypes(ctx context.Context) ([]string, error) { return nil, errNotYet }
func (s *Store) Snapshots(ctx context.Context, flagID int64, q SnapshotQuery) ([]entity.FlagSnapshot, error) {
	return nil, errNotYet
}
func (s *Store) MaxSnapshotID(ctx context.Context) (int64, error) { return 0, errNotYet }

func (s *Store) CreateFlag(ctx context.Context, by string, f NewFlag) (*entity.Flag, error) {
	return nil, errNotYet
}
func (s *Store) UpdateFlag(ctx context.Context, by string, id int64, p FlagPatch) (*entity.Flag, error) {
	return nil, errNotYet
}
func (s *Store) SetFlagEnabled(ctx context.Context, by string, id int64, enabled bool) (*entity.Flag, error) {
	return nil, errNotYet
}
func (s *Store) DeleteFlag(ctx context.Context, by string, id int64) error { return errNotYet }
func (s *Store) RestoreFlag(ctx context.Context, by string, id int64) (*entity.Flag, error) {
	return nil, errNotYet
}
func (s *Store) DuplicateFlag(ctx context.Context, by string, id int64, key, description string) (*entity.Flag, error) {
	return nil, errNotYet
}
func (s *Store) CreateTag(ctx context.Context, by string, flagID int64, value string) (*entity.Tag, error) {
	return nil, errNotYet
}
func (s *Store) DeleteTag(ctx context.Context, by string, flagID, tagID int64) error {
	return errNotYet
}
func (s *Store) CreateVariant(ctx context.Context, by string, flagID int64, key string, attachment entity.Attachment) (*entity.Variant, error) {
	return nil, errNotYet
}
func (s *Store) UpdateVariant(ctx context.Context, by string, flagID, variantID int64, key string, attachment entity.Attachment) (*entity.Variant, error) {
	return nil, errNotYet
}
func (s *Store) DeleteVariant(ctx context.Context, by string, flagID, variantID int64) error {
	return errNotYet
}
func (s *Store) CreateSegment(ctx context.Context, by string, flagID int64, description string, rolloutPercent uint) (*entity.Segment, error) {
	return nil, errNotYet
}
func (s *Store) UpdateSegment(ctx context.Context, by string, flagID, segmentID int64, description string, rolloutPercent uint) (*entity.Segment, error) {
	return nil, errNotYet
}
func (s *Store) DeleteSegment(ctx context.Context, by string, flagID, segmentID int64) error {
	return errNotYet
}
func (s *Store) ReorderSegments(ctx context.Context, by string, flagID int64, ids []int64) error {
	return errNotYet
}
func (s *Store) CreateConstraint(ctx context.Context, by string, flagID, segmentID int64, c entity.Constraint) (*entity.Constraint, error) {
	return nil, errNotYet
}
func (s *Store) UpdateConstraint(ctx context.Context, by string, flagID, segmentID, constraintID int64, c entity.Constraint) (*entity.Constraint, error) {
	return nil, errNotYet
}
func (s *Store) DeleteConstraint(ctx context.Context, by string, flagID, segmentID, constraintID int64) error {
	return errNotYet
}
func (s *Store) ReplaceDistributions(ctx context.Context, by string, flagID, segmentID int64, distributions []entity.Distribution) ([]entity.Distribution, error) {
	return nil, errNotYet
}
