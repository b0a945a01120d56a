// Package insight answers questions about flags: whether a flag can be deleted, whether a rollout
// works as configured, why evaluations gave no variant, and what changed. It uses counts (package
// datar), flag snapshots (package entity) and compiled segments (package eval).
//
// The functions on plain values are pure. Service reads their inputs through small interfaces, and
// gets its clock from the caller. The package contains no HTTP and no SQL.
//
// Counts are exact. Inexact values have a field that says so. Text and Reason fields are for users.
// The enums beside them are for programs.
package insight

import (
	"fmt"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// invalid returns an error that matches datar.ErrInvalidQuery. The message must name the parameter
// and what is accepted.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", datar.ErrInvalidQuery, fmt.Sprintf(format, args...))
}

// queryError matches datar.ErrInvalidQuery and has a message that pages show.
type queryError struct{ message catalog.Message }

func (e *queryError) Error() string            { return fmt.Sprintf("%v: %s", datar.ErrInvalidQuery, e.message) }
func (e *queryError) Unwrap() error            { return datar.ErrInvalidQuery }
func (e *queryError) Message() catalog.Message { return e.message }

// invalidWindow is invalid with a message of the catalog, for what the Traffic page can ask.
func invalidWindow(name string, args ...any) error { return &queryError{catalog.Say(name, args...)} }
