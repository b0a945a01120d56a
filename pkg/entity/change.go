package entity

import "time"

// Operation is what was done to a flag or to one of its parts.
type Operation string

// The operations.
const (
	OperationCreate  Operation = "create"
	OperationUpdate  Operation = "update"
	OperationDelete  Operation = "delete"
	OperationRestore Operation = "restore"
)

// Component is a kind of thing that can change: a flag or a part of one.
type Component string

// The components.
const (
	ComponentFlag         Component = "flag"
	ComponentSegment      Component = "segment"
	ComponentVariant      Component = "variant"
	ComponentConstraint   Component = "constraint"
	ComponentDistribution Component = "distribution"
	ComponentTag          Component = "tag"
)

// Change is one committed change of a flag or of one of its parts.
type Change struct {
	Operation Operation
	// FlagID and FlagKey name the flag, the key as it is after the change.
	FlagID  uint
	FlagKey string
	// Component is what changed. ComponentID is its id: that of the segment for distributions, which change together, and 0
	// for a new order of segments.
	Component   Component
	ComponentID uint
	// ComponentKey is the key of the flag or variant, the value of the tag, or the property of the constraint. Segments and
	// distributions have none.
	ComponentKey string
	// User is who made the change; empty if that is not known.
	User string
	// Time is when it was made, in UTC. A later change of the same flag has a later time.
	Time time.Time
	// Before and After are the flag's snapshots before and after the change, as JSON of a Flag. Both are nil unless they
	// were asked for, and Before is nil for a flag without a snapshot.
	Before, After []byte
}
