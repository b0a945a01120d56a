package handler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testpath"
	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// story is a server with a clock that the test sets, and one flag that the test changes and
// evaluates.
type story struct {
	memstore.Store
	http.Handler
	t         *testing.T
	now       time.Time
	flag      *entity.Flag
	snapshots []entity.FlagSnapshot
	sequence  int64
	sampler   *insight.Sampler
}

func (s *story) Refresh(context.Context) {}
func (s *story) AnyFlag(_ context.Context, id int64) (*entity.Flag, error) {
	if s.flag == nil || int64(s.flag.ID) != id {
		return nil, entity.NotFound("unable to find flag %d in the database", id)
	}
	return s.flag, nil
}
func (s *story) SnapshotHeads(ctx context.Context, id int64, limit int) ([]entity.SnapshotHead, error) {
	heads, err := s.HeadsOfFlags(ctx, []int64{id})
	slices.Reverse(heads)
	return heads[:min(limit, len(heads))], err
}
func (s *story) HeadsOfFlags(context.Context, []int64) (heads []entity.SnapshotHead, _ error) {
	for _, one := range s.snapshots {
		heads = append(heads, entity.SnapshotHead{ID: one.ID, FlagID: one.FlagID, CreatedAt: one.CreatedAt})
	}
	return heads, nil
}
func (s *story) SnapshotsByID(_ context.Context, ids []int64) (list []entity.FlagSnapshot, _ error) {
	for _, one := range s.snapshots {
		if slices.Contains(ids, int64(one.ID)) {
			list = append(list, one)
		}
	}
	return list, nil
}
func (s *story) EachSnapshot(_ context.Context, ids []int64, each func(*entity.FlagSnapshot)) error {
	for _, id := range ids {
		for i := range s.snapshots {
			if int64(s.snapshots[i].ID) == id {
				each(&s.snapshots[i])
			}
		}
	}
	return nil
}
func (s *story) DeletedAmong(_ context.Context, keys []string, _ []int64) (list []entity.Flag, _ error) {
	if s.flag != nil && s.flag.DeletedAt.Valid && slices.Contains(keys, s.flag.Key) {
		list = append(list, *s.flag)
	}
	return list, nil
}
func (s *story) Snapshot() *eval.Snapshot {
	if s.flag == nil {
		return eval.Compile(nil)
	}
	return eval.Compile([]entity.Flag{*s.flag})
}

func newStory(t *testing.T) *story {
	s := &story{t: t, now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), sampler: insight.NewSampler(time.Unix(0, 0))}
	api := newAPI(t)
	handler.New(handler.Options{
		Snapshots: s, Logger: slog.New(slog.DiscardHandler),
		Answers: insight.NewService(insight.Options{Counts: s, Flags: s, Snapshots: s, Sampler: s.sampler, Refresh: 3 * time.Second, Now: func() time.Time { return s.now }}),
	}).Register(api)
	s.Handler = api.Serve(nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { s.sampler.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// change saves a new state of the flag.
func (s *story) change(change func(f *entity.Flag)) {
	s.t.Helper()
	next := &entity.Flag{}
	if s.flag != nil {
		copied := *s.flag
		next = &copied
		next.Segments = slices.Clone(next.Segments)
	}
	change(next)
	text, err := json.Marshal(next)
	if err != nil {
		s.t.Fatal(err)
	}
	next.SnapshotID = uint(100 + len(s.snapshots))
	s.snapshots = append(s.snapshots, entity.FlagSnapshot{Model: entity.Model{ID: next.SnapshotID, CreatedAt: s.now}, FlagID: next.ID, UpdatedBy: "ada", Flag: text})
	s.flag = next
}

// evaluate evaluates a state of the flag for n entities, and counts the evaluations. It returns the
// number of assignments.
func (s *story) evaluate(f *entity.Flag, n int, properties map[string]any) (assigned int64) {
	s.t.Helper()
	rows := map[datar.Key]datar.Row{}
	snapshot := eval.Compile([]entity.Flag{*f})
	for i := range n {
		r := snapshot.Evaluate(eval.Request{FlagID: int64(f.ID), EntityID: fmt.Sprint("person-", i), EntityContext: properties}, s.now, true)
		s.sampler.Observe(r)
		key := datar.Key{FlagID: r.FlagID, VariantID: r.VariantID, SegmentID: r.SegmentID, Hour: datar.HourOf(s.now), Version: uint16(r.FlagSnapshotID)}
		logs := fmt.Sprint(r.SegmentLogs)
		switch {
		case r.Reason == eval.FlagDisabled:
			key.Outcome = datar.Disabled
		case r.Reason == eval.Matched:
			key.Outcome = datar.Matched
			assigned++
		case strings.Contains(logs, "match: bucket"):
			key.Outcome, key.SegmentID = datar.HeldOut, r.SegmentLogs[len(r.SegmentLogs)-1].SegmentID
		default:
			key.Outcome = datar.NoMatch
			if strings.Contains(logs, "cannot be evaluated") {
				key.Asked = datar.AskedUnevaluable
			}
		}
		row := rows[key]
		row.Key, row.First, row.Last = key, s.now.UnixMilli(), s.now.UnixMilli()
		row.Count++
		rows[key] = row
	}
	batch := datar.Batch{Rows: make([]datar.Row, 0, len(rows))}
	for _, row := range rows {
		batch.Rows = append(batch.Rows, row)
	}
	s.apply(batch)
	return assigned
}

func (s *story) apply(batch datar.Batch) {
	s.t.Helper()
	s.sequence++
	batch.Writer, batch.Sequence = "story", s.sequence
	slices.SortFunc(batch.Rows, func(a, b datar.Row) int { return a.Compare(b.Key) })
	batch.Server = &datar.ServerRecord{
		Name: "flagr-0", Run: "1", Kind: datar.KindServer, Start: time.Date(2025, 12, 1, 0, 0, 0, 0, time.UTC), At: s.now, LastFlush: s.now, FlushInterval: time.Minute,
	}
	if err := s.Apply(s.t.Context(), batch); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) wait(d time.Duration) {
	s.now = s.now.Add(d)
	s.apply(datar.Batch{}) // so that the server reports
}

// get returns a value from a response, such as "outcomes.0.count".
func (s *story) get(path, member string) any {
	s.t.Helper()
	var value any = must(s.t, s, http.MethodGet, "/datar/flags/7/"+path, nil)
	for name := range strings.SplitSeq(member, ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[name]
		case []any:
			var i int
			if _, err := fmt.Sscan(name, &i); err != nil || i >= len(v) {
				s.t.Fatalf("%s: no %s in %v", path, member, v)
			}
			value = v[i]
		}
	}
	return value
}

func (s *story) want(path, member string, want any) {
	s.t.Helper()
	if n, ok := want.(int64); ok {
		want = float64(n)
	}
	if n, ok := want.(int); ok {
		want = float64(n)
	}
	if got := s.get(path, member); got != want {
		s.t.Errorf("%s: %s is %v, want %v", path, member, got, want)
	}
}

// isDocumented compares a response with the one in docs/answers.md for the request and its jq
// filter: some members of the response, or one member, or an item of one. With -update it writes
// the document.
func (s *story) isDocumented(path, filter string) {
	s.t.Helper()
	s.compareDocumented("\ncurl 'localhost:18000/api/v1"+path+"'", must(s.t, s, http.MethodGet, path, nil), filter)
}

// isDocumentedPost is isDocumented for a request with a body.
func (s *story) isDocumentedPost(path, body, filter string) {
	s.t.Helper()
	s.compareDocumented("\ncurl -X POST 'localhost:18000/api/v1"+path+"' -H 'Content-Type: application/json' \\\n  -d '"+body+"'",
		must(s.t, s, http.MethodPost, path, body), filter)
}

func (s *story) compareDocumented(command string, answer map[string]any, filter string) {
	s.t.Helper()
	var shown any = answer
	for part := range strings.SplitSeq(filter, " | ") {
		shown = s.filtered(shown.(map[string]any), part)
	}
	file := testpath.InRepository("docs", "answers.md")
	document, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	head := command + " | jq '" + filter + "'\n```\n\n```json\n"
	before, after, ok := strings.Cut(string(document), head)
	block, rest, closed := strings.Cut("\n"+after, "\n```\n")
	if !ok || !closed {
		s.t.Errorf("docs/answers.md has no answer below %q", head)
		return
	}
	if *updateDocs {
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(shown); err != nil {
			s.t.Fatal(err)
		}
		document = []byte(before + head + strings.TrimSpace(text.String()) + "\n```\n" + rest)
		if err := os.WriteFile(file, document, 0o600); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(decoded(s.t, []byte(block)), shown); diff != "" {
		s.t.Errorf("docs/answers.md shows another answer to %s; if it is meant: go test ./pkg/handler -run Story -update (-document +answer):\n%s", command, diff)
	}
}

// filtered applies a jq filter: some members of an object, or one member, or an item of one.
func (s *story) filtered(in map[string]any, filter string) any {
	s.t.Helper()
	if members, many := strings.CutPrefix(filter, "{"); many {
		part := map[string]any{}
		for member := range strings.SplitSeq(strings.TrimSuffix(members, "}"), ", ") {
			part[member] = in[member]
		}
		return part
	}
	member, item, isItem := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(filter, "."), "]"), "[")
	if !isItem {
		return in[member]
	}
	i, err := strconv.Atoi(item)
	if err != nil {
		s.t.Fatal(err)
	}
	return in[member].([]any)[i]
}

// rules returns the rules of the findings.
func (s *story) rules(from time.Time) string {
	s.t.Helper()
	var rules []string
	for _, f := range must(s.t, s, http.MethodGet, "/datar/flags/7/rollout?from="+from.Format(time.RFC3339), nil)["findings"].([]any) {
		rules = append(rules, f.(map[string]any)["rule"].(string))
	}
	return strings.Join(rules, " ")
}

func (s *story) outcomes() map[string]int64 {
	s.t.Helper()
	counts := map[string]int64{}
	for _, o := range s.get("outcomes", "outcomes").([]any) {
		counts[o.(map[string]any)["outcome"].(string)] = int64(o.(map[string]any)["count"].(float64))
	}
	return counts
}

var updateDocs = flag.Bool("update", false, "write the answers that docs/answers.md shows")

const hour, aDay = time.Hour, 24 * time.Hour

// TestStoryOfAFlag follows a flag from its creation to its deletion, and requests the four answers
// on the way.
func TestStoryOfAFlag(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	french, other, text := map[string]any{"country": "FR", "age": 30.0}, map[string]any{"country": "DE", "age": 30.0}, map[string]any{"country": "FR", "age": "30"}

	// Created.
	s.change(func(f *entity.Flag) {
		*f = entity.Flag{Model: entity.Model{ID: 7, CreatedAt: s.now}, Key: "checkout-button", Description: "d", DataRecordsEnabled: true,
			Variants: []entity.Variant{{Model: entity.Model{ID: 61}, Key: "blue"}, {Model: entity.Model{ID: 62}, Key: "green"}},
			Segments: []entity.Segment{{Model: entity.Model{ID: 23}, Description: "Adults in France", RolloutPercent: 20,
				Constraints:   []entity.Constraint{{Model: entity.Model{ID: 31}, Property: "country", Operator: "EQ", Value: `"FR"`}, {Model: entity.Model{ID: 32}, Property: "age", Operator: "GTE", Value: "18"}},
				Distributions: []entity.Distribution{{VariantID: 61, VariantKey: "blue", Percent: 100}}}}}
	})
	s.wait(hour)
	s.want("state", "state", "new")
	s.want("state", "canDelete.answer", "no") // it has just been changed
	s.want("outcomes", "total", 0)

	// Requested while it is off, then rolled out to 20 percent.
	s.evaluate(s.flag, 10, french)
	s.want("state", "state", "off_but_asked")
	s.wait(hour)
	s.change(func(f *entity.Flag) { f.Enabled = true })
	off := s.flag
	s.wait(hour)
	twenty := s.evaluate(s.flag, 1000, french)
	s.want("state", "state", "changing")
	s.want("rollout", "versions.1.segments.0.given.0.buckets", 200)
	s.want("rollout", "versions.1.segments.0.given.0.count", twenty)
	if got := s.outcomes(); got["matched"] != twenty || got["held_out"] != 1000-twenty || got["disabled"] != 10 {
		t.Errorf("at 20%%: %v", got)
	}

	// Rolled out to 80 percent: no entity changes from one variant to another.
	segment := object{"id": 23, "rolloutPercent": 80, "description": "Adults in France"}
	s.isDocumentedPost("/datar/flags/7/forecast", `{"draft": {"segments": [{"id": 23, "rolloutPercent": 80, "description": "Adults in France"}]}}`, "{moved, gained, lost, now, then}")
	forecast := must(t, s, http.MethodPost, "/datar/flags/7/forecast", object{"draft": object{"segments": []object{segment}}})
	if forecast["moved"] != 0.0 || forecast["gained"] != 600.0 || forecast["lost"] != 0.0 {
		t.Errorf("forecast: %v", forecast)
	}
	s.change(func(f *entity.Flag) { f.Segments[0].RolloutPercent = 80 })
	eighty := s.now
	s.want("changes", "changes.0.text", "Rollout of segment 23: 20% to 80%")
	s.want("changes", "changes.0.affects", "assignment")
	s.wait(hour)
	many := s.evaluate(s.flag, 1000, french)
	s.want("rollout", "versions.2.segments.0.given.0.count", many)
	s.want("rollout", "versions.2.segments.0.given.0.set", 0.8)
	if rules := s.rules(eighty); rules != "" {
		t.Errorf("findings of a healthy rollout: %s", rules)
	}

	s.isDocumented("/datar/flags/7/rollout", ".versions[2]")

	// One server keeps using the old version.
	held := s.evaluate(off, 412, french)
	s.want("rollout", "findings.0.rule", "old_version")
	s.want("rollout", "findings.0.snapshotID", int64(off.SnapshotID))
	s.want("rollout", "findings.0.count", 412)
	s.want("rollout", "versions.1.segments.0.given.0.count", twenty+held)
	s.isDocumented("/datar/flags/7/rollout", ".findings")
	s.isDocumented("/datar/flags/7/changes", ".changes[0]")

	// One application sends a wrong type, and another one entities that match no segment.
	s.wait(hour)
	s.evaluate(s.flag, 30, text)
	s.now = s.now.Add(time.Second)
	s.evaluate(s.flag, 70, other)
	if got := s.outcomes(); got["no_match"] != 100 || s.get("outcomes", "outcomes.2.unevaluable") != 30.0 {
		t.Errorf("no match: %v", got)
	}
	testwait.Until(s.t, "the reasons to be examined", func() bool { return s.get("reasons", "examined") == 10.0 })
	s.isDocumented("/datar/flags/7/outcomes", "{total, outcomes, segments, asked, complete}")
	s.isDocumented("/datar/flags/7/reasons", "{kind, examined, of, segments}")
	s.want("reasons", "of", 100)
	s.want("reasons", "segments.0.constraints.0.stopped", 5)
	s.want("reasons", "segments.0.constraints.1.otherType", 5)
	s.isDocumentedPost("/flags/7/try", `{"entities": [{"entityID": "a1234", "entityContext": {"country": "FR", "age": "19"}}]}`, ".results[0]")
	tried := must(t, s, http.MethodPost, "/flags/7/try", object{"entities": []object{{"entityID": "a", "entityContext": object{"country": "FR", "age": "30"}}}})
	if first := tried["results"].([]any)[0].(map[string]any); first["outcome"] != "no_match" || !strings.Contains(fmt.Sprint(first["debug"]), "cannot be evaluated") {
		t.Errorf("try: %v", first)
	}

	// A misspelled key is requested.
	ms := s.now.UnixMilli()
	s.apply(datar.Batch{Unknown: []datar.UnknownRow{{Asked: "chekout-button", Hour: datar.HourOf(s.now), Count: 311, First: ms, Last: ms}}})
	unknown := must(t, s, http.MethodGet, "/datar/unknown", nil)["unknown"].([]any)[0].(map[string]any)
	s.isDocumented("/datar/unknown", ".unknown")
	if unknown["count"] != 311.0 || unknown["similar"] != "checkout-button" {
		t.Errorf("unknown: %v", unknown)
	}

	// Launched: all entities get blue.
	s.wait(hour)
	s.change(func(f *entity.Flag) { f.Segments[0].RolloutPercent, f.Segments[0].Constraints = 100, nil })
	for range 9 {
		s.wait(aDay)
		s.evaluate(s.flag, 100, other)
	}
	s.want("state?days=20", "state", "launched")
	s.want("state?days=20", "evidence.variantKey", "blue")
	s.isDocumented("/datar/flags/7/state?days=20", "{state, stale, reason, evidence, advice, canDelete}")
	s.isDocumented("/datar/flags/7/series?bucket=day&tz=Europe/Berlin&by=variant", "{starts, lines, whole}")
	s.want("state?days=20", "advice.do", "remove_from_code")
	s.want("state?days=20", "canDelete.answer", "no")
	s.want("outcomes", "total", 800) // the window of 7 days is extended to whole hours

	// Stale: the code is removed, and all checks pass.
	for range 40 {
		s.wait(aDay)
	}
	s.want("state", "state", "inactive")
	s.want("state", "stale", true)
	s.want("state", "canDelete.answer", "yes")
	s.want("state", "advice.do", "delete")
	s.isDocumented("/datar/states?stale=true&sort=updated", ".flags[0] | {flagID, flagKey, state, stale, reason, canDelete, total, lastAt}")
	s.want("outcomes", "total", 0)

	// Deleted, but still requested.
	s.change(func(f *entity.Flag) { f.DeletedAt = entity.DeletedAt{Time: s.now, Valid: true} })
	s.wait(hour)
	ms = s.now.UnixMilli()
	s.apply(datar.Batch{Unknown: []datar.UnknownRow{{Asked: "checkout-button", Hour: datar.HourOf(s.now), Count: 4, First: ms, Last: ms}}})
	if got := call(t, s, http.MethodGet, "/datar/flags/7/state", nil); got.status != http.StatusNotFound || !strings.Contains(got.raw, "deleted") {
		t.Errorf("state of a deleted flag: %d %s", got.status, got.raw)
	}
	s.want("changes", "changes.0.text", "Deleted")
	s.want("rollout", "findings.0.rule", "asked_deleted")
	s.want("rollout", "findings.0.count", 4)
	unknown = must(t, s, http.MethodGet, "/datar/unknown", nil)["unknown"].([]any)[0].(map[string]any)
	if unknown["deletedFlagID"] != 7.0 || unknown["count"] != 4.0 {
		t.Errorf("unknown: %v", unknown)
	}
}
