// Package ingest adds counts that were aggregated elsewhere, in applications and edge servers, to a
// Datar store. It checks each row separately, and applies a batch once, even if it is sent
// repeatedly.
package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

const (
	// MaxRows is the maximum number of rows of a batch.
	MaxRows = 1000
	// MaxBytes is the maximum size of a batch's body, after decompression.
	MaxBytes = 1 << 20
	// MaxCount is the maximum count of a row.
	MaxCount = 10_000_000
	// MaxKeyLength is the maximum length of an idempotency key, in characters.
	MaxKeyLength = 200

	// maxSkew is how far a sender's clock may be ahead.
	maxSkew = 5 * time.Minute
	// maxAge is the maximum age of a row. It is so much shorter than ReceiptLifetime that no batch
	// can be repeated after its receipt is deleted.
	maxAge = 24 * time.Hour
	// ReceiptLifetime is how long the response to a batch is kept.
	ReceiptLifetime = 48 * time.Hour
	// maxWriterAge is the maximum age of a row in a batch with a key of writer and sequence. Stores
	// keep the ledger of writers longer.
	maxWriterAge = datar.RecordLifetime - 24*time.Hour
	// maxChecks is the maximum number of transactions to search for refused rows of a batch. They
	// find 40 of 1,000 rows at any positions, and 200 adjacent ones.
	maxChecks = 500
	// senderPrefix separates senders from the server's own engine in the ledger of writers.
	// Otherwise a high sequence number under the engine's UUID, which /datar/status shows, would
	// make the store ignore the engine's next batches.
	senderPrefix = "sent-in:"
)

// Errors of Ingester.Ingest and of stores.
var (
	// ErrInvalid is the error of a batch that is rejected as a whole; its string has the reason.
	ErrInvalid = errors.New("invalid batch")
	// ErrTooManyRows is the error of a batch with more than MaxRows rows.
	ErrTooManyRows = errors.New("a batch has at most 1000 rows")
	// ErrKeyReused is the error of an idempotency key that was used before with another body.
	ErrKeyReused = errors.New("this Idempotency-Key was used for another body")
)

// Code is why a row was not counted as it was sent.
type Code string

// The codes.
const (
	// FlagNotFound: the row counts as requests for a flag that does not exist, if the batch has a
	// key of writer and sequence.
	FlagNotFound      Code = "FLAG_NOT_FOUND"
	RecordingDisabled Code = "RECORDING_DISABLED"
	VariantNotFound   Code = "VARIANT_NOT_FOUND"
	// SegmentUnknown: the row was counted, without a segment.
	SegmentUnknown Code = "SEGMENT_UNKNOWN"
	BadCount       Code = "BAD_COUNT"
	BadTime        Code = "BAD_TIME"
	// BadOutcome: the outcome, version or asked is unknown, or the outcome does not match the
	// variant.
	BadOutcome Code = "BAD_OUTCOME"
	// BadRow: a member of the row has the wrong type.
	BadRow Code = "BAD_ROW"
	// Refused: the store accepts the batch, but never this row, for example because of a constraint
	// of its database.
	Refused Code = "REFUSED"
)

// Row is the count of one outcome over some time, as an application counted it.
type Row struct {
	FlagKey string
	// VariantKey is empty if no variant was assigned.
	VariantKey string
	// AllocationKey is the ID of a segment in decimal; empty if none matched.
	AllocationKey string
	// Wrong is why the row could not be parsed; such a row is rejected with BadRow. It is empty for
	// a valid row.
	Wrong string
	// First and Last are the times of the first and the last evaluation, in Unix milliseconds.
	First, Last int64
	Count       int64
	// Failed: the application's evaluation had an error.
	Failed bool
	// Outcome, Version and Asked are as in Evaluation.
	Outcome string
	Version int64
	Asked   []string
}

// Batch is the content of one request.
type Batch struct {
	// Key identifies the batch. If it is empty, the batch is applied each time it is sent. A key of
	// the form <writer UUID>:<sequence> is checked against the ledger of writers.
	Key string
	// Digest distinguishes bodies with the same key.
	Digest string
	Rows   []Row
	// Unknown and Sender are from edge servers, whose batches have a key of writer and sequence; in
	// other batches they are ignored. Invalid values in them are omitted without an error, so that
	// they do not prevent counts from being stored.
	Unknown []Unknown
	Sender  *Sender
}

// RowError describes a row that was not counted as it was sent.
type RowError struct {
	Index   int    `json:"index"`
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Result is the response to a batch.
type Result struct {
	// Duplicate: the batch had been applied before, and this is its first response.
	Duplicate     bool       `json:"duplicate"`
	AcceptedRows  int        `json:"acceptedRows"`
	AcceptedCount int64      `json:"acceptedCount"`
	Errors        []RowError `json:"errors"`
}

// Flag has the data of a flag that a row needs.
type Flag struct {
	ID             int64
	RecordsEnabled bool
	// Variants are IDs by key.
	Variants map[string]int64
	Segments []int64
}

// Flags finds flags. The host implements it for its own flags.
type Flags interface {
	FlagByKey(key string) (Flag, bool)
}

// Receipt is stored with the counts of a batch, for at least ReceiptLifetime.
type Receipt struct {
	// Key has at most MaxKeyLength characters.
	Key string
	// Digest has at most 64 characters.
	Digest string
	// Answer is the JSON of the Result, compressed if it is long.
	Answer string
}

// Store applies batches. ApplyBatch and ApplyReceipt return only when the counts are stored; on an
// error nothing is stored. An error of any method matches datar.ErrRefused if the store refuses one
// of the rows, and always will.
type Store interface {
	// ApplyBatch is datar.Store.Apply, and stores the receipt in the same transaction if it has an
	// answer. If the batch was applied before, it changes nothing, and returns the receipt stored
	// then, or nil.
	ApplyBatch(ctx context.Context, batch datar.Batch, receipt Receipt) (known bool, found *Receipt, err error)
	// ApplyReceipt adds the rows and stores the receipt in one transaction. If a receipt has the
	// same key, it changes nothing and returns that receipt. A receipt without a key is not stored.
	ApplyReceipt(ctx context.Context, rows []datar.Row, receipt Receipt) (found *Receipt, err error)
	// Check returns the error that adding the rows would return, and changes nothing.
	Check(ctx context.Context, rows []datar.Row) error
}

// Ingester accepts batches. Store and Flags are required.
type Ingester struct {
	Store Store
	Flags Flags
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// Logger receives a line for each batch with rows that the store refuses. Nil means
	// slog.Default().
	Logger *slog.Logger

	senders bounds
}

// errIncomplete is the error of an Ingester without its required fields.
var errIncomplete = errors.New("ingest: Ingester.Store or Ingester.Flags is missing")

// Ingest checks the rows of the batch and applies the valid ones. An error matches ErrInvalid,
// ErrTooManyRows or ErrKeyReused, or is the store's error; the batch may then be retried with the
// same key.
func (in *Ingester) Ingest(ctx context.Context, batch Batch) (Result, error) {
	if in.Store == nil || in.Flags == nil {
		return Result{}, errIncomplete
	}
	now := time.Now()
	if in.Now != nil {
		now = in.Now()
	}
	writer, sequence, ofWriter := writerKey(batch.Key)
	age := maxAge
	if ofWriter {
		age = maxWriterAge
	}
	if err := check(batch, now, age); err != nil {
		return Result{}, err
	}
	j := in.judge(batch.Rows, now, age)
	_, j.details = in.Store.(datar.DetailStore)
	s := search{store: in.Store, checks: maxChecks}
	for {
		var result Result
		var err error
		if ofWriter {
			result, err = in.applyBatch(ctx, batch, j, writer, sequence, now)
		} else {
			result, err = in.applyReceipt(ctx, batch, j)
		}
		if !errors.Is(err, datar.ErrRefused) {
			return result, err
		}
		if err := s.run(ctx, j.rows()); err != nil {
			return Result{}, err
		}
		if len(s.refused) == 0 {
			return Result{}, err // not because of a single row
		}
		in.refuse(j, s.refused)
	}
}

// applyReceipt applies a batch whose response is stored under its key.
func (in *Ingester) applyReceipt(ctx context.Context, batch Batch, j *judged) (Result, error) {
	result := j.result()
	receipt, err := newReceipt(batch, result)
	if err != nil {
		return Result{}, err
	}
	found, err := in.Store.ApplyReceipt(ctx, j.rows(), receipt)
	switch {
	case err != nil:
		return Result{}, err
	case found == nil:
		return result, nil
	case found.Digest != batch.Digest:
		return Result{}, ErrKeyReused
	}
	return repeated(found)
}

// applyBatch applies a batch that the ledger of writers identifies by its number. Its response is
// stored if not all of its rows were counted, because another check may give other results: flags
// change, time passes, and another server may respond.
func (in *Ingester) applyBatch(ctx context.Context, batch Batch, j *judged, writer string, sequence int64, now time.Time) (Result, error) {
	result := j.result()
	receipt := Receipt{Key: batch.Key}
	if result.AcceptedRows < len(batch.Rows) {
		var err error
		if receipt, err = newReceipt(batch, result); err != nil {
			return Result{}, err
		}
	}
	stored := datar.Batch{Writer: senderPrefix + writer, Sequence: sequence, Rows: j.rows()}
	if j.details {
		stored.Unknown = in.senders.unknown(append(j.unknown(), batch.Unknown[:min(len(batch.Unknown), MaxUnknown)]...), now)
		stored.Server = in.senders.record(batch.Sender, now)
	}
	known, found, err := in.Store.ApplyBatch(ctx, stored, receipt)
	switch {
	case err != nil:
		return Result{}, err
	case found != nil:
		return repeated(found)
	case known && newest(batch.Rows) >= now.Add(-maxAge).UnixMilli():
		j.acceptAll() // a receipt would not be too old to exist
		result = j.result()
	}
	result.Duplicate = known
	return result, nil
}

func newReceipt(batch Batch, result Result) (Receipt, error) {
	answer, err := json.Marshal(result)
	if err != nil {
		return Receipt{}, fmt.Errorf("store the receipt: %w", err)
	}
	return Receipt{Key: batch.Key, Digest: batch.Digest, Answer: packed(answer)}, nil
}

// repeated returns the stored response.
func repeated(found *Receipt) (Result, error) {
	var first Result
	answer, err := unpacked(found.Answer)
	if err == nil {
		err = json.Unmarshal(answer, &first)
	}
	if err != nil {
		return Result{}, fmt.Errorf("read the receipt: %w", err)
	}
	first.Duplicate = true
	return first, nil
}

// errUntried is why a row is omitted that the store might accept.
var errUntried = errors.New("too many rows are refused to try each one separately")

// search finds the rows of a batch that the store refuses. It is limited, because a batch that
// needed more time than its request has would fail, be retried, and fail forever. Rows that are not
// tried in time are omitted as if they were refused.
type search struct {
	store  Store
	checks int       // remaining checks of all runs
	until  time.Time // end of the time for it; zero means no limit
	// refused has the rows that the newest run has found, and their errors: an error of the store,
	// or errUntried.
	refused map[datar.Key]error
}

// run searches the rows. It uses half of the time that ctx has left; the rest is for applying the
// other rows.
func (s *search) run(ctx context.Context, rows []datar.Row) error {
	if deadline, ok := ctx.Deadline(); ok && s.until.IsZero() {
		s.until = time.Now().Add(time.Until(deadline) / 2)
	}
	s.refused = map[datar.Key]error{}
	return s.in(ctx, rows)
}

// in halves the rows until each refused row is alone. Finding one of n takes about 2·log2(n)
// checks.
func (s *search) in(ctx context.Context, rows []datar.Row) error {
	if len(rows) == 0 {
		return nil
	}
	if s.checks == 0 || !s.until.IsZero() && time.Now().After(s.until) {
		for _, r := range rows {
			s.refused[r.Key] = errUntried
		}
		return nil
	}
	s.checks--
	err := s.store.Check(ctx, rows)
	switch {
	case !errors.Is(err, datar.ErrRefused):
		return err
	case len(rows) == 1:
		s.refused[rows[0].Key] = err
		return nil
	}
	half := len(rows) / 2
	if err := s.in(ctx, rows[:half]); err != nil {
		return err
	}
	return s.in(ctx, rows[half:])
}

// refuse changes the results of rows that the store refuses.
func (in *Ingester) refuse(j *judged, refused map[datar.Key]error) {
	var first error
	for i, key := range j.keys {
		err := refused[key]
		if err == nil || !j.counted(i) {
			continue
		}
		j.verdicts[i] = RowError{Code: Refused, Message: "the database refuses this count"}
		if errors.Is(err, errUntried) {
			j.verdicts[i].Message = "not counted: the database refuses many counts of this batch, and this one was not tried by itself"
		}
		if first == nil || errors.Is(first, errUntried) {
			first = err
		}
	}
	logger := in.Logger
	if logger == nil {
		logger = slog.Default()
	}
	untried := 0
	for _, err := range refused {
		if errors.Is(err, errUntried) {
			untried++
		}
	}
	logger.Error("the database refused reported counts; the other counts of the batch are stored",
		"counters", len(refused), "of_them_not_tried", untried, "error", first)
}

// check rejects errors of the batch as a whole.
func check(batch Batch, now time.Time, age time.Duration) error {
	if len(batch.Rows) > MaxRows {
		return ErrTooManyRows
	}
	if n := utf8.RuneCountInString(batch.Key); n > MaxKeyLength {
		return fmt.Errorf("%w: the Idempotency-Key has %d characters, at most %d are accepted", ErrInvalid, n, MaxKeyLength)
	}
	if !slices.ContainsFunc(batch.Rows, func(r Row) bool { return r.Wrong == "" }) {
		return nil
	}
	if last := newest(batch.Rows); last < now.Add(-age).UnixMilli() {
		return fmt.Errorf("%w: the newest last_evaluation in flagEvaluations, %d, is more than %v ago, in Unix milliseconds", ErrInvalid, last, age)
	}
	return nil
}

// newest returns the time of the last evaluation in any of the rows, in Unix milliseconds.
func newest(rows []Row) int64 {
	last := int64(math.MinInt64)
	for _, r := range rows {
		if r.Wrong == "" {
			last = max(last, r.Last)
		}
	}
	return last
}

// writerKey parses a key of the form <UUID>:<sequence>.
func writerKey(key string) (writer string, sequence int64, ok bool) {
	writer, number, found := strings.Cut(key, ":")
	if !found || len(writer) != 36 {
		return "", 0, false
	}
	for i, c := range writer {
		hyphen := i == 8 || i == 13 || i == 18 || i == 23
		if hyphen != (c == '-') || !hyphen && !strings.ContainsRune("0123456789abcdef", c) {
			return "", 0, false
		}
	}
	sequence, err := strconv.ParseInt(number, 10, 64)
	return writer, sequence, err == nil && sequence > 0
}

// judged has the results of the rows of a batch.
type judged struct {
	sent []Row
	// details: the store keeps details; other stores accept evaluations that are not events, but do
	// not keep them.
	details bool
	// keys are the keys to count the rows under. verdicts are the results of the rows, with an
	// empty code for a valid row. Both are by index of the row.
	keys     []datar.Key
	verdicts []RowError
}

func (in *Ingester) judge(rows []Row, now time.Time, age time.Duration) *judged {
	j := &judged{sent: rows, keys: make([]datar.Key, len(rows)), verdicts: make([]RowError, len(rows))}
	known := map[string]*Flag{}
	find := func(key string) *Flag {
		flag, asked := known[key]
		if !asked {
			if found, ok := in.Flags.FlagByKey(key); ok {
				flag = &found
			}
			known[key] = flag
		}
		return flag
	}
	for i, row := range rows {
		j.keys[i], j.verdicts[i] = judgeRow(row, now, age, find)
	}
	return j
}

// counted reports whether the row is counted.
func (j *judged) counted(i int) bool {
	code := j.verdicts[i].Code
	return code == "" || code == SegmentUnknown
}

// acceptAll marks all rows as counted that can be counted.
func (j *judged) acceptAll() {
	for i := range j.verdicts {
		if !j.counted(i) && j.verdicts[i].Code != BadCount {
			j.verdicts[i] = RowError{}
		}
	}
}

// rows returns the rows for a store, sorted, each key once.
func (j *judged) rows() []datar.Row {
	merged := map[datar.Key]datar.Row{}
	for i, row := range j.sent {
		if !j.counted(i) {
			continue
		}
		sum, found := merged[j.keys[i]]
		if !found {
			sum = datar.Row{Key: j.keys[i], First: row.First, Last: row.Last}
		}
		sum.Count += row.Count
		sum.Ingested += row.Count
		sum.First, sum.Last = min(sum.First, row.First), max(sum.Last, row.Last)
		merged[sum.Key] = sum
	}
	rows := slices.SortedFunc(maps.Values(merged), func(a, b datar.Row) int { return a.Compare(b.Key) })
	if !j.details {
		rows = datar.EventRows(rows)
	}
	return rows
}

// unknown returns requests for flags that do not exist, from rows: an application has asked for the
// flag, so it counts like a request to this server.
func (j *judged) unknown() (all []Unknown) {
	for i, row := range j.sent {
		if j.verdicts[i].Code == FlagNotFound && row.FlagKey != "" {
			all = append(all, Unknown{Asked: row.FlagKey, First: row.First, Last: row.Last, Count: row.Count})
		}
	}
	return all
}

// result returns the response.
func (j *judged) result() Result {
	result := Result{Errors: []RowError{}}
	for i, verdict := range j.verdicts {
		if verdict.Code != "" {
			verdict.Index = i
			result.Errors = append(result.Errors, verdict)
		}
		if j.counted(i) {
			result.AcceptedRows++
			result.AcceptedCount += j.sent[i].Count
		}
	}
	return result
}

// judgeRow returns the key to count the row under. The verdict's code is empty for a valid row.
// find returns nil for an unknown flag.
func judgeRow(row Row, now time.Time, age time.Duration, find func(key string) *Flag) (datar.Key, RowError) {
	refuse := func(code Code, format string, args ...any) (datar.Key, RowError) {
		return datar.Key{}, RowError{Code: code, Message: fmt.Sprintf(format, args...)}
	}
	if row.Wrong != "" {
		return refuse(BadRow, "%s", row.Wrong)
	}
	switch earliest, latest := now.Add(-age).UnixMilli(), now.Add(maxSkew).UnixMilli(); {
	case row.Count < 1 || row.Count > MaxCount:
		return refuse(BadCount, "evaluation_count is %d, want 1 to %d", row.Count, MaxCount)
	case row.First > row.Last:
		return refuse(BadTime, "first_evaluation (%d) is after last_evaluation (%d)", row.First, row.Last)
	case row.First < earliest:
		return refuse(BadTime, "first_evaluation (%d) is more than %v ago", row.First, age)
	case row.Last > latest:
		return refuse(BadTime, "last_evaluation (%d) is more than %v in the future", row.Last, maxSkew)
	}
	flag := find(row.FlagKey)
	if flag == nil {
		return refuse(FlagNotFound, "there is no flag %q", shorten(row.FlagKey))
	}
	if !flag.RecordsEnabled {
		return refuse(RecordingDisabled, "flag %q is not recorded: dataRecordsEnabled is off", shorten(row.FlagKey))
	}
	// A row that spans two hours is counted in the hour in which it ends.
	key := datar.Key{FlagID: flag.ID, Hour: datar.HourOf(time.UnixMilli(row.Last))}
	if row.VariantKey != "" {
		var ok bool
		if key.VariantID, ok = flag.Variants[row.VariantKey]; !ok {
			return refuse(VariantNotFound, "flag %q has no variant %q", shorten(row.FlagKey), shorten(row.VariantKey))
		}
	}
	if err := row.addDetails(&key); err != nil {
		return refuse(BadOutcome, "%s", err)
	}
	if row.AllocationKey == "" {
		return key, RowError{}
	}
	segment, err := strconv.ParseInt(row.AllocationKey, 10, 64)
	if err != nil || !slices.Contains(flag.Segments, segment) {
		return key, RowError{Code: SegmentUnknown, Message: fmt.Sprintf("flag %q has no segment %q: counted without one",
			shorten(row.FlagKey), shorten(row.AllocationKey))}
	}
	key.SegmentID = segment
	return key, RowError{}
}

// addDetails sets the outcome, version and asked of a key with its variant.
func (r Row) addDetails(key *datar.Key) (err error) {
	switch {
	case r.Outcome != "":
		if key.Outcome, err = datar.ParseOutcome(r.Outcome); err != nil {
			return fmt.Errorf("outcome is %q, want one of matched, held_out, no_match, no_segments, disabled, error or unattributed", shorten(r.Outcome))
		}
	case r.VariantKey != "":
		key.Outcome = datar.Matched
	case r.Failed:
		key.Outcome = datar.Error
	}
	if !key.Outcome.Fits(key.VariantID) {
		return fmt.Errorf("outcome %s does not match variant %q: matched requires a variant; held_out, no_match, no_segments and disabled do not allow one",
			key.Outcome, shorten(r.VariantKey))
	}
	if r.Version < 0 {
		return fmt.Errorf("version is %d, want the ID of a snapshot, or 0 if unknown", r.Version)
	}
	if key.Outcome == datar.Unattributed {
		return nil
	}
	key.Version = uint16(r.Version % (1 << 16))
	key.Asked, err = parseAsked(r.Asked)
	return err
}

// shorten keeps messages readable, regardless of a sender's keys.
func shorten(s string) string {
	const longest = 100
	if len(s) <= longest {
		return s
	}
	return s[:longest] + "..."
}
