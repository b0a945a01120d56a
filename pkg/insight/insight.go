// Package insight answers questions about flags: whether one can be deleted, whether a rollout does what was set, why
// evaluations gave no variant, and what changed. Its answers are made of counts (package datar), of flag snapshots (package
// entity) and of compiled segments (package eval).
//
// The functions on plain values are pure. Service reads what they need through small interfaces, and is told the time by
// its caller. The package has no HTTP and no SQL.
//
// Counts are exact. What is not exact has a field that says so. Text and Reason fields are for people; the enums beside
// them are for programs.
package insight

import (
	"fmt"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// invalid returns an error that matches datar.ErrInvalidQuery. It must name the parameter and what is accepted.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", datar.ErrInvalidQuery, fmt.Sprintf(format, args...))
}
