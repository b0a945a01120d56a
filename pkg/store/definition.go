package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// errUnchanged ends the transaction of a definition that changes nothing.
var errUnchanged = errors.New("nothing changes")

// ReplaceDefinition replaces the definition of a flag in one transaction with one snapshot, and
// returns the flag with all its parts. Parts keep their IDs. A definition that changes nothing
// writes no snapshot.
//
// The error is an *entity.ConflictError if the flag has changed since the definition's snapshot. It
// matches entity.ErrInvalid if the definition breaks a rule, or if the flag has a value that cannot
// be read, which the definition would replace. In these cases nothing is saved.
func (s *Store) ReplaceDefinition(ctx context.Context, by string, id int64, d entity.Definition) (*entity.Flag, error) {
	if err := entity.ProblemsError(d.Problems()); err != nil {
		return nil, err
	}
	var current *entity.Flag
	change := &entity.Change{Operation: entity.OperationUpdate, Component: entity.ComponentFlag}
	after, err := s.mutateFlag(ctx, by, change, id, func(tx *gorm.DB, locked *entity.Flag) error {
		flags := []entity.Flag{*locked}
		if err := loadParts(tx, flags, whole()); err != nil {
			return err
		}
		current = &flags[0]
		if current.SnapshotID != d.SnapshotID {
			base, err := flagAt(tx, current.ID, d.SnapshotID)
			if err != nil {
				return err
			}
			return &entity.ConflictError{Current: current, Base: base, Named: d.SnapshotID}
		}
		if problem := cmp.Or(current.Unreadable, locked.Unreadable); problem != "" {
			return unreadableError(current.ID, problem)
		}
		wanted, problems := d.Apply(current)
		if err := entity.ProblemsError(problems); err != nil {
			return err
		}
		w := definitionWriter{tx: tx}
		if err := w.write(current, wanted); err != nil {
			return err
		}
		if !w.changed {
			return errUnchanged
		}
		return nil
	})
	if errors.Is(err, errUnchanged) {
		return current, nil
	}
	if d.Key != nil {
		err = s.nameOwner(ctx, err, *d.Key)
	}
	return after, err
}

// flagAt reads a flag as it was in one of its snapshots. It returns nil if that snapshot does not
// exist, or is not the JSON of a flag.
func flagAt(tx *gorm.DB, flagID, snapshotID uint) (*entity.Flag, error) {
	snapshots, err := find(tx.Where("flag_id = ? AND id = ?", flagID, snapshotID), snapshotColumns(), whole())
	if err != nil || len(snapshots) == 0 {
		return nil, err
	}
	flag, err := entity.DecodeFlag(snapshots[0].Flag)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // see above
	}
	flag.SnapshotID = snapshotID
	return flag, nil
}

// definitionWriter writes the rows in which two states of a flag differ.
type definitionWriter struct {
	tx      *gorm.DB
	changed bool
}

func (w *definitionWriter) write(before, after *entity.Flag) error {
	if err := w.fields(before, after); err != nil {
		return err
	}
	if err := w.tags(before, after); err != nil {
		return err
	}
	if err := w.variants(before, after); err != nil {
		return err
	}
	return w.segments(before, after)
}

func (w *definitionWriter) fields(before, after *entity.Flag) error {
	columns := map[string]any{}
	differ(columns, "key", before.Key, after.Key)
	differ(columns, "description", before.Description, after.Description)
	differ(columns, "notes", before.Notes, after.Notes)
	differ(columns, "entity_type", before.EntityType, after.EntityType)
	differ(columns, "enabled", before.Enabled, after.Enabled)
	differ(columns, "data_records_enabled", before.DataRecordsEnabled, after.DataRecordsEnabled)
	if _, ok := columns["entity_type"]; ok {
		if err := keepEntityType(w.tx, after.EntityType); err != nil {
			return err
		}
	}
	if _, ok := columns["key"]; ok {
		if err := checkKeyIsFree(w.tx, after.Key, before.ID); err != nil {
			return fmt.Errorf("cannot update flag. %w", err)
		}
	}
	if err := duplicate(w.update(&entity.Flag{}, before.ID, columns)); err != nil {
		return fmt.Errorf("cannot update flag. %w", err)
	}
	return nil
}

func differ[T comparable](columns map[string]any, name string, before, after T) {
	if before != after {
		columns[name] = after
	}
}

func (w *definitionWriter) update(table any, id uint, columns map[string]any) error {
	if len(columns) == 0 {
		return nil
	}
	w.changed = true
	return updateRow(w.tx, table, id, columns)
}

func create[T any](w *definitionWriter, row *T) error {
	w.changed = true
	return insert(w.tx, row)
}

// remove deletes the rows of before whose IDs are missing from after.
func remove[T any](w *definitionWriter, before, after []T, id func(*T) uint) error {
	kept := make(map[uint]bool, len(after))
	for i := range after {
		kept[id(&after[i])] = true
	}
	for i := range before {
		if kept[id(&before[i])] {
			continue
		}
		w.changed = true
		if err := w.tx.Delete(new(T), id(&before[i])).Error; err != nil {
			return err
		}
	}
	return nil
}

func (w *definitionWriter) tags(before, after *entity.Flag) error {
	kept := map[string]bool{}
	for _, tag := range after.Tags {
		kept[tag.Value] = true
		if tag.ID != 0 {
			continue
		}
		w.changed = true
		row, err := keepTag(w.tx, tag.Value)
		if err != nil {
			return err
		}
		if err := attach(w.tx, before.ID, row.ID); err != nil {
			return err
		}
	}
	for _, tag := range before.Tags {
		if kept[tag.Value] {
			continue
		}
		w.changed = true
		if err := w.tx.Where("flag_id = ? AND tag_id = ?", before.ID, tag.ID).Delete(&flagTag{}).Error; err != nil {
			return err
		}
	}
	return nil
}

// variants writes variants. It sets the IDs of new variants in after, and in the distributions that
// name them by key.
func (w *definitionWriter) variants(before, after *entity.Flag) error {
	known := byID(before.Variants, variantID)
	created := map[string]uint{}
	for i := range after.Variants {
		v := &after.Variants[i]
		if v.ID == 0 {
			if err := create(w, v); err != nil {
				return err
			}
			created[v.Key] = v.ID
			continue
		}
		columns := map[string]any{}
		differ(columns, "key", known[v.ID].Key, v.Key)
		differ(columns, "attachment", known[v.ID].Attachment, v.Attachment)
		if err := w.update(&entity.Variant{}, v.ID, columns); err != nil {
			return err
		}
	}
	for i := range after.Segments {
		shares := after.Segments[i].Distributions
		for j := range shares {
			if shares[j].VariantID == 0 {
				shares[j].VariantID = created[shares[j].VariantKey]
			}
		}
	}
	return remove(w, before.Variants, after.Variants, variantID)
}

func (w *definitionWriter) segments(before, after *entity.Flag) error {
	known := byID(before.Segments, segmentID)
	for i := range after.Segments {
		s := &after.Segments[i]
		was := &entity.Segment{}
		if s.ID == 0 {
			if err := create(w, s); err != nil {
				return err
			}
		} else {
			was = known[s.ID]
			columns := map[string]any{}
			differ(columns, "description", was.Description, s.Description)
			differ(columns, "rollout_percent", was.RolloutPercent, s.RolloutPercent)
			differ(columns, "rank", was.Rank, s.Rank)
			if err := w.update(&entity.Segment{}, s.ID, columns); err != nil {
				return err
			}
		}
		if err := w.constraints(s.ID, was.Constraints, s.Constraints); err != nil {
			return err
		}
		if err := w.distributions(s.ID, was.Distributions, s.Distributions); err != nil {
			return err
		}
	}
	return remove(w, before.Segments, after.Segments, segmentID)
}

func (w *definitionWriter) constraints(segmentID uint, before, after []entity.Constraint) error {
	known := byID(before, func(c *entity.Constraint) uint { return c.ID })
	for i := range after {
		c := &after[i]
		if c.ID == 0 {
			c.SegmentID = segmentID
			if err := create(w, c); err != nil {
				return err
			}
			continue
		}
		columns := map[string]any{}
		differ(columns, "property", known[c.ID].Property, c.Property)
		differ(columns, "operator", known[c.ID].Operator, c.Operator)
		differ(columns, "value", known[c.ID].Value, c.Value)
		if err := w.update(&entity.Constraint{}, c.ID, columns); err != nil {
			return err
		}
	}
	return remove(w, before, after, func(c *entity.Constraint) uint { return c.ID })
}

func (w *definitionWriter) distributions(segmentID uint, before, after []entity.Distribution) error {
	known := byID(before, func(d *entity.Distribution) uint { return d.ID })
	for i := range after {
		d := &after[i]
		if d.ID == 0 {
			d.SegmentID = segmentID
			if err := create(w, d); err != nil {
				return err
			}
			continue
		}
		columns := map[string]any{}
		differ(columns, "percent", known[d.ID].Percent, d.Percent)
		differ(columns, "variant_key", known[d.ID].VariantKey, d.VariantKey)
		if err := w.update(&entity.Distribution{}, d.ID, columns); err != nil {
			return err
		}
	}
	return remove(w, before, after, func(d *entity.Distribution) uint { return d.ID })
}

func byID[T any](all []T, id func(*T) uint) map[uint]*T {
	m := make(map[uint]*T, len(all))
	for i := range all {
		m[id(&all[i])] = &all[i]
	}
	return m
}

func variantID(v *entity.Variant) uint { return v.ID }
func segmentID(s *entity.Segment) uint { return s.ID }
