package ingest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// Evaluation is a row of a batch on the wire: one item of flagEvaluations in the body of POST
// /datar/evaluations. Other members are ignored.
type Evaluation struct {
	// Timestamp is the same as FirstEvaluation. It is not used.
	Timestamp  int64       `json:"timestamp,omitempty"`
	Flag       *Identifier `json:"flag,omitempty"`
	Variant    *Identifier `json:"variant,omitempty"`
	Allocation *Identifier `json:"allocation,omitempty"`
	// FirstEvaluation and LastEvaluation are in Unix milliseconds.
	FirstEvaluation int64 `json:"first_evaluation,omitempty"`
	LastEvaluation  int64 `json:"last_evaluation,omitempty"`
	EvaluationCount int64 `json:"evaluation_count,omitempty"`
	// RuntimeDefaultUsed is parsed but not stored, and so is the message of Error.
	RuntimeDefaultUsed bool             `json:"runtime_default_used,omitempty"`
	Error              *EvaluationError `json:"error,omitempty"`
	// Outcome is the name of a datar.Outcome except "not_found". Empty means "matched" if there is
	// a variant, else "error" if there is an Error, else "unattributed".
	Outcome string `json:"outcome,omitempty"`
	// Version is the ID of the flag's snapshot, or this ID modulo 65,536, or 0.
	Version int64 `json:"version,omitempty"`
	// Asked has any of "byTag", "withoutEntityID" and "unevaluable".
	Asked []string `json:"asked,omitempty"`

	wrong string // why the row cannot be parsed; empty for a valid row
}

// UnmarshalJSON implements json.Unmarshaler. A member of the wrong type affects only the row, not
// the batch: Row then has the reason. Whole numbers may be written with a fraction, as in 3.0.
func (e *Evaluation) UnmarshalJSON(data []byte) error {
	type plain Evaluation
	var row struct {
		plain
		Timestamp       json.RawMessage `json:"timestamp"`
		FirstEvaluation wholeNumber     `json:"first_evaluation"`
		LastEvaluation  wholeNumber     `json:"last_evaluation"`
		EvaluationCount wholeNumber     `json:"evaluation_count"`
		Version         wholeNumber     `json:"version"`
	}
	err := json.Unmarshal(data, &row)
	*e = Evaluation(row.plain)
	e.FirstEvaluation, e.LastEvaluation, e.EvaluationCount = int64(row.FirstEvaluation), int64(row.LastEvaluation), int64(row.EvaluationCount)
	e.Version = int64(row.Version)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		*e = Evaluation{wrong: fmt.Sprintf("%s is a JSON %s, want flag, variant and allocation as objects with a string key, and whole numbers",
			cmp.Or(strings.TrimPrefix(wrong.Field, "plain."), "the row"), wrong.Value)}
		return nil
	}
	return err
}

// wholeNumber is an integer that may be written with a fraction or an exponent.
type wholeNumber int64

// UnmarshalJSON implements json.Unmarshaler.
func (n *wholeNumber) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	if i, err := strconv.ParseInt(string(data), 10, 64); err == nil {
		*n = wholeNumber(i)
		return nil
	}
	const exact = 1 << 53 // float64 has every whole number up to this one
	f, err := strconv.ParseFloat(string(data), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > exact {
		return &json.UnmarshalTypeError{Value: "value " + shorten(string(data)), Type: reflect.TypeFor[int64]()}
	}
	*n = wholeNumber(f)
	return nil
}

// Identifier names a flag, a variant or an allocation by its key.
type Identifier struct {
	Key string `json:"key,omitempty"`
}

// EvaluationError is an error in the application.
type EvaluationError struct {
	Message string `json:"message,omitempty"`
}

// Row converts the row. For nil, which is a null in the array, it returns a row without a flag,
// which is rejected.
func (e *Evaluation) Row() Row {
	if e == nil {
		return Row{}
	}
	if e.wrong != "" {
		return Row{Wrong: e.wrong}
	}
	return Row{
		FlagKey: e.Flag.key(), VariantKey: e.Variant.key(), AllocationKey: e.Allocation.key(),
		First: e.FirstEvaluation, Last: e.LastEvaluation, Count: e.EvaluationCount,
		Failed: e.Error != nil, Outcome: e.Outcome, Version: e.Version, Asked: e.Asked,
	}
}

func (i *Identifier) key() string {
	if i == nil {
		return ""
	}
	return i.Key
}

// askedNames are the names of the bits of datar.Asked, the least one first.
var askedNames = [...]string{"byTag", "withoutEntityID", "unevaluable"}

// AskedNames returns the names of the bits on the wire.
func AskedNames(asked datar.Asked) (names []string) {
	for i, name := range askedNames {
		if asked&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

func parseAsked(names []string) (asked datar.Asked, err error) {
next:
	for _, name := range names {
		for i, known := range askedNames {
			if name == known {
				asked |= 1 << i
				continue next
			}
		}
		return 0, fmt.Errorf("asked has %q, want some of %s", shorten(name), strings.Join(askedNames[:], ", "))
	}
	return asked, nil
}

// Unknown counts requests for a flag that does not exist: one item of unknown in the body of POST
// /datar/evaluations.
type Unknown struct {
	Asked string `json:"asked"`
	// First and Last are in Unix milliseconds, of one hour.
	First int64 `json:"first"`
	Last  int64 `json:"last"`
	Count int64 `json:"count"`
}

// UnmarshalJSON implements json.Unmarshaler. A row with a member of the wrong type becomes the zero
// row, which is not counted, so that it affects no other row. Whole numbers may be written with a
// fraction, as in 3.0.
func (u *Unknown) UnmarshalJSON(data []byte) error {
	var row struct {
		Asked string      `json:"asked"`
		First wholeNumber `json:"first"`
		Last  wholeNumber `json:"last"`
		Count wholeNumber `json:"count"`
	}
	err := json.Unmarshal(data, &row)
	*u = Unknown{Asked: row.Asked, First: int64(row.First), Last: int64(row.Last), Count: int64(row.Count)}
	if _, wrong := errors.AsType[*json.UnmarshalTypeError](err); wrong {
		*u = Unknown{}
		return nil
	}
	return err
}

// Sender is the record of an edge server on the wire: the member sender in the body of POST
// /datar/evaluations. Times and the flush interval are in milliseconds, times since 1970.
type Sender struct {
	Name          string           `json:"name"`
	Run           string           `json:"run"`
	Kind          string           `json:"kind"`
	Start         int64            `json:"start"`
	At            int64            `json:"at"`
	LastFlush     int64            `json:"last_flush,omitempty"`
	FlushInterval int64            `json:"flush_interval"`
	Ended         bool             `json:"ended,omitempty"`
	Recorded      int64            `json:"recorded"`
	Adopted       int64            `json:"adopted,omitempty"`
	Stored        int64            `json:"stored"`
	Pending       int64            `json:"pending"`
	Dropped       map[string]int64 `json:"dropped,omitempty"`
	FirstDrop     int64            `json:"first_drop,omitempty"`
	LastDrop      int64            `json:"last_drop,omitempty"`
	// Journal is nil if the sender does not tell.
	Journal *datar.JournalRecord `json:"journal,omitempty"`
}

// NewSender converts a record for the wire.
func NewSender(r *datar.ServerRecord) *Sender {
	if r == nil {
		return nil
	}
	return &Sender{
		Name: r.Name, Run: r.Run, Kind: string(r.Kind), Start: milli(r.Start), At: milli(r.At), LastFlush: milli(r.LastFlush),
		FlushInterval: r.FlushInterval.Milliseconds(), Ended: r.Ended,
		Recorded: r.Recorded, Adopted: r.Adopted, Stored: r.Stored, Pending: r.Pending, Dropped: r.Dropped,
		FirstDrop: milli(r.FirstDrop), LastDrop: milli(r.LastDrop), Journal: r.Journal,
	}
}

// Record returns the record for a store, or nil if it is missing or invalid. A sender is never a
// server of this database.
func (s *Sender) Record(now time.Time) *datar.ServerRecord {
	const latest, longest, reasons = 5 * time.Minute, 7 * 24 * time.Hour, 20
	if s == nil || s.Name == "" || !isRun(s.Run) {
		return nil
	}
	if s.Start <= 0 || s.At < s.Start || s.At > now.Add(latest).UnixMilli() || s.FlushInterval < 0 || s.FlushInterval > longest.Milliseconds() ||
		min(s.Recorded, s.Adopted, s.Stored, s.Pending, s.LastFlush, s.FirstDrop, s.LastDrop) < 0 || len(s.Dropped) > reasons || !isValidJournal(s.Journal) {
		return nil
	}
	r := &datar.ServerRecord{
		Name: datar.CleanServerName(s.Name), Run: s.Run, Kind: datar.KindEdge, Start: fromMilli(s.Start), At: fromMilli(s.At), LastFlush: fromMilli(s.LastFlush),
		FlushInterval: time.Duration(s.FlushInterval) * time.Millisecond, Ended: s.Ended,
		Recorded: s.Recorded, Adopted: s.Adopted, Stored: s.Stored, Pending: s.Pending, Dropped: map[string]int64{},
		FirstDrop: fromMilli(s.FirstDrop), LastDrop: fromMilli(s.LastDrop), Journal: s.Journal,
	}
	if s.Kind == string(datar.KindApplication) {
		r.Kind = datar.KindApplication
	}
	for reason, n := range s.Dropped {
		if reason == "" || len(reason) > 20 || datar.CleanServerName(reason) != reason || n < 0 {
			return nil
		}
		r.Dropped[reason] = n
	}
	return r
}

func isRun(run string) bool { return run != "" && len(run) <= 36 && datar.CleanServerName(run) == run }

func isValidJournal(j *datar.JournalRecord) bool {
	return j == nil || len(j.Adopted) <= datar.MaxAdoptedRuns && !slices.ContainsFunc(j.Adopted, func(run string) bool { return !isRun(run) })
}

// milli and fromMilli keep the zero time.
func milli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
