package entity

import "time"

// Operation is the kind of a change.
type Operation string

// The operations.
const (
	OperationCreate  Operation = "create"
	OperationUpdate  Operation = "update"
	OperationDelete  Operation = "delete"
	OperationRestore Operation = "restore"
)

// Component is the kind of a changed object: a flag or a part of one.
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
	// FlagID and FlagKey name the flag, with its key after the change.
	FlagID  uint
	FlagKey string
	// Component is the kind of the changed object. ComponentID is its ID: the ID of the segment for
	// distributions, which change together, and 0 for a new order of segments.
	Component   Component
	ComponentID uint
	// ComponentKey is the key of the flag or variant, the value of the tag, or the property of the
	// constraint. Segments and distributions have none.
	ComponentKey string
	// User is the author of the change; empty if unknown.
	User string
	// Time is the time of the change, in UTC. A later change of the same flag has a later time.
	Time time.Time
	// Before and After are the flag's snapshots before and after the change, as JSON of a Flag.
	// Both are nil unless they were requested, and Before is nil for a flag without a snapshot.
	Before, After []byte
}
