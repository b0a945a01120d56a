package store

import (
	"reflect"
	"slices"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/config"
)

// TestDialectsAreComplete requires each field of each dialect, except the fields whose zero value
// is documented. A new dialect could otherwise forget one.
func TestDialectsAreComplete(t *testing.T) {
	t.Parallel()
	optional := []string{"bytes", "writeTx", "tooLong", "unfit", "incomparable", "lockMigration", "unlockMigration", "oneWriter", "probe"}
	for name, d := range dialects {
		for field := range reflect.TypeFor[dialect]().Fields() {
			if reflect.ValueOf(d).FieldByIndex(field.Index).IsZero() && !slices.Contains(optional, field.Name) {
				t.Errorf("%s has no %s", name, field.Name)
			}
		}
		if (d.tooLong == nil) != (d.unfit == nil) {
			t.Errorf("%s has one of tooLong and unfit", name)
		}
		if !d.oneWriter && d.lockMigration == "" {
			t.Errorf("%s has several writers, and no lock for migrations", name)
		}
	}
	for _, driver := range []string{config.DriverSQLite, config.DriverPostgres, config.DriverMySQL} {
		if _, ok := dialects[driver]; !ok {
			t.Errorf("%s has no dialect", driver)
		}
	}
}
