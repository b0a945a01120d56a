package gormstore

import (
	"reflect"
	"slices"
	"testing"
)

// TestDialectsAreComplete requires each field of each dialect, except the fields whose zero value
// is documented. A new dialect could otherwise forget one.
func TestDialectsAreComplete(t *testing.T) {
	t.Parallel()
	optional := []string{
		"arrays", "staging", "alias", "sentTime", "offsets", "indexes", "widen", "narrow", "lockMigration", "unlockMigration", "writeTx",
		"oneMoment", "tableOptions", "checkDeferred",
	}
	for name, d := range dialects {
		for field := range reflect.TypeFor[dialect]().Fields() {
			if reflect.ValueOf(d).FieldByIndex(field.Index).IsZero() && !slices.Contains(optional, field.Name) {
				t.Errorf("%s has no %s", name, field.Name)
			}
		}
		for _, of := range []table{eventsTable, detailsTable, unknownTable, writersTable, serversTable} {
			if d.growth[of] == "" {
				t.Errorf("%s: rows of %s do not grow", name, of)
			}
		}
		if (d.widen == "") != (d.narrow == nil) {
			t.Errorf("%s has one of widen and narrow", name)
		}
	}
}
