package eval

import (
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Snapshot is the state of all flags at one time, prepared for evaluation. It never changes, so any number of
// goroutines may use it.
type Snapshot struct{}

// Compile prepares flags, which it keeps: they must not change afterwards. It never fails: a constraint that does not
// parse makes its segment match nobody, and is reported by Problems.
func Compile(flags []entity.Flag) *Snapshot { panic("unfinished") }

// Problems tells what Compile could not use, for the log.
func (s *Snapshot) Problems() []error { panic("unfinished") }

// Flags returns all flags in the order of their ids, to be read only.
func (s *Snapshot) Flags() []*entity.Flag { panic("unfinished") }

// Flag returns the flag with the given id, or else the one with the given key, or else the one whose id is the key in
// decimal, or else nil. It is to be read only.
func (s *Snapshot) Flag(id int64, key string) *entity.Flag { panic("unfinished") }

// FlagsByTags returns the flags that carry any or all of the tags (see TagsAny and TagsAll), in the order of their ids,
// to be read only.
func (s *Snapshot) FlagsByTags(tags []string, operator string) []*entity.Flag { panic("unfinished") }

// Evaluate answers a request as of now. Nothing is recorded. With debug it fills SegmentLogs, which is slow.
func (s *Snapshot) Evaluate(request Request, now time.Time, debug bool) *Result { panic("unfinished") }
