package handler_test

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/services/servicestest"
	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// fleetStory is a flag on two servers that share a database. One of them never loads changes of
// flags. Everything is done by requests, and the test sets the time.
type fleetStory struct {
	t          *testing.T
	environ    map[string]string // of the databases
	clock      atomic.Int64      // Unix milliseconds
	main, held *server
	flag       string // path of the flag
	segment    int
	blue       int
}

func (s *fleetStory) now() time.Time { return time.UnixMilli(s.clock.Load()).UTC() }

func (s *fleetStory) wait(d time.Duration) { s.clock.Add(d.Milliseconds()) }

func (s *fleetStory) server(name, refresh string) *server {
	s.t.Helper()
	environ := map[string]string{
		"FLAGR_EVALCACHE_REFRESHINTERVAL": refresh,
		"FLAGR_RECORDER_ENABLED":          "true", "FLAGR_RECORDER_TYPE": "datar", "FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "50ms",
		"FLAGR_RECORDER_DATAR_SERVER_NAME": name,
	}
	maps.Copy(environ, s.environ)
	return setupAt(s.t, environ, s.now)
}

// change changes the flag by a request, and waits until the main server evaluates with the change.
func (s *fleetStory) change(path string, body any) {
	s.t.Helper()
	must(s.t, s.main, http.MethodPut, path, body)
	newest := must(s.t, s.main, http.MethodGet, "/flags/snapshots/max_id", nil)["maxID"]
	testwait.Until(s.t, "the main server to evaluate the change", func() bool {
		flags := must(s.t, s.main, http.MethodGet, "/export/eval_cache/json", nil)["Flags"].([]any)
		return len(flags) == 1 && flags[0].(map[string]any)["SnapshotID"] == newest
	})
}

// evaluate evaluates n entities on a server, and returns how many of them got a variant.
func (s *fleetStory) evaluate(on *server, n int, properties object) (assigned int) {
	s.t.Helper()
	entities := make([]object, n)
	for i := range entities {
		entities[i] = object{"entityID": fmt.Sprint("person-", i), "entityContext": properties}
	}
	results := must(s.t, on, http.MethodPost, "/evaluation/batch", object{"entities": entities, "flagKeys": []string{"checkout-button"}})["evaluationResults"].([]any)
	for _, r := range results {
		if id, _ := r.(map[string]any)["variantID"].(float64); id != 0 {
			assigned++
		}
	}
	s.wait(time.Minute)
	return assigned
}

// value follows a path such as "outcomes.0.count" into a response. It returns nil if the path does
// not exist.
func value(in any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		switch v := in.(type) {
		case map[string]any:
			in = v[name]
		case []any:
			var i int
			if _, err := fmt.Sscan(name, &i); err != nil || i >= len(v) {
				return nil
			}
			in = v[i]
		default:
			return nil
		}
	}
	return in
}

// isEmpty reports whether a value is missing, 0, or an empty list.
func isEmpty(v any) bool {
	list, ok := v.([]any)
	return v == nil || v == 0.0 || ok && len(list) == 0
}

// want polls a response until it has these values. nil stands for an empty value. Polling is needed
// because a server stores its counts every 50 ms.
func (s *fleetStory) want(path string, values map[string]any) {
	s.t.Helper()
	var got any
	var wrong string
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		got, wrong = must(s.t, s.main, http.MethodGet, path, nil), ""
		for member, want := range values {
			if n, ok := want.(int); ok {
				want = float64(n)
			}
			if is := value(got, member); want == nil && !isEmpty(is) || want != nil && is != want {
				wrong = fmt.Sprintf("%s is %v, want %v", member, is, want)
			}
		}
		if wrong == "" {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s: %s in %v", path, wrong, got)
		}
	}
}

// The paths of the four answers.
func (s *fleetStory) state() string    { return "/datar" + s.flag + "/state" }
func (s *fleetStory) rollout() string  { return "/datar" + s.flag + "/rollout" }
func (s *fleetStory) outcomes() string { return "/datar" + s.flag + "/outcomes" }

// ask asks the four questions: can the flag be deleted, does its rollout work as configured, why
// did some get nothing (which the total and the outcomes of the steps tell), and can the numbers be
// trusted. findings are the rules of all findings.
func (s *fleetStory) ask(state, canDelete string, total, servers int, findings ...string) {
	s.t.Helper()
	s.want(s.state(), map[string]any{"state": state, "canDelete.answer": canDelete})
	rules := map[string]any{fmt.Sprint("findings.", len(findings)): nil}
	for i, rule := range findings {
		rules[fmt.Sprint("findings.", i, ".rule")] = rule
	}
	s.want(s.rollout(), rules)
	s.want(s.outcomes(), map[string]any{
		"total": orNil(total), "complete.servers": servers, "complete.silent": nil, "complete.dropped": nil, "complete.holes": nil,
	})
	s.want("/datar/fleet", map[string]any{"balanced": true, "pending": nil, "servers.0.state": "heard"})
}

// orNil returns nil for 0, as want expects it.
func orNil(n int) any {
	if n == 0 {
		return nil
	}
	return n
}

// TestStoryOfAFlagOnEachDatabase follows a flag from its creation to its deletion over HTTP. On the
// way, it asks four questions: can it be deleted, does the rollout work as configured, why did some
// entities get no variant, and are the numbers complete.
func TestStoryOfAFlagOnEachDatabase(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := &fleetStory{t: t, environ: map[string]string{"FLAGR_DB_DBDRIVER": kind.Driver, "FLAGR_DB_DBCONNECTIONSTR": kind.Fresh(t)}}
		s.tell(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
	})
}

// TestStoryOfAFlagOnClickHouse is the same story with counts in ClickHouse, and flags in SQLite.
func TestStoryOfAFlagOnClickHouse(t *testing.T) {
	t.Parallel()
	if os.Getenv("FLAGR_TEST_CLICKHOUSE") == "" {
		t.Skip("FLAGR_TEST_CLICKHOUSE is not set: make test-clickhouse runs this test")
	}
	s := &fleetStory{t: t, environ: map[string]string{
		"FLAGR_DB_DBCONNECTIONSTR":   filepath.Join(t.TempDir(), "flagr.sqlite"),
		"FLAGR_RECORDER_DATAR_STORE": servicestest.Own(t, "clickhouse").DSN,
	}}
	s.tell(time.Now().UTC().Truncate(24 * time.Hour).Add(-80*24*time.Hour + 12*time.Hour)) // retention is by the clock of ClickHouse
}

// tell tells the story, which begins at this time and takes 60 days.
func (s *fleetStory) tell(begin time.Time) {
	s.clock.Store(begin.UnixMilli())
	s.main = s.server("main", "5ms")
	s.create()
	s.rollOut()
	s.holdAServer()
	s.askWrongly()
	s.launch()
	s.retire()
}

func (s *fleetStory) create() {
	f := must(s.t, s.main, http.MethodPost, "/flags", object{"description": "d", "key": "checkout-button"})
	s.flag = fmt.Sprint("/flags/", f["id"])
	id := func(answer map[string]any) int { return int(answer["id"].(float64)) }
	s.blue = id(must(s.t, s.main, http.MethodPost, s.flag+"/variants", object{"key": "blue"}))
	s.segment = id(must(s.t, s.main, http.MethodPost, s.flag+"/segments", object{"description": "Adults in France", "rolloutPercent": 20}))
	part := fmt.Sprint(s.flag, "/segments/", s.segment)
	must(s.t, s.main, http.MethodPost, part+"/constraints", object{"property": "country", "operator": "EQ", "value": `"FR"`})
	must(s.t, s.main, http.MethodPost, part+"/constraints", object{"property": "age", "operator": "GTE", "value": "18"})
	must(s.t, s.main, http.MethodPut, part+"/distributions", object{"distributions": []object{{"variantID": s.blue, "variantKey": "blue", "percent": 100}}})
	s.change(s.flag, object{"dataRecordsEnabled": true})
	s.wait(hour)
	s.want(s.state(), map[string]any{"state": "new", "canDelete.answer": "no"})
	s.want(s.outcomes(), map[string]any{"total": nil})

	s.evaluate(s.main, 10, object{"country": "FR", "age": 30})
	s.want(s.outcomes(), map[string]any{"outcomes.0.outcome": "disabled", "outcomes.0.count": 10})
	s.ask("off_but_asked", "no", 10, 1)
	s.wait(hour)
}

func (s *fleetStory) rollOut() {
	french := object{"country": "FR", "age": 30}
	s.change(s.flag+"/enabled", object{"enabled": true})
	s.held = s.server("held", "1h") // keeps the current flag until the end
	s.wait(hour)
	twenty := s.evaluate(s.main, 500, french)
	s.ask("changing", "no", 510, 2)
	s.want(s.outcomes(), map[string]any{"total": 510, "segments.0.matched": twenty, "segments.0.heldOut": 500 - twenty})
	s.want(s.rollout(), map[string]any{"versions.1.segments.0.given.0.buckets": 200, "versions.1.segments.0.given.0.count": twenty, "findings": nil})

	s.change(fmt.Sprint(s.flag, "/segments/", s.segment), object{"description": "Adults in France", "rolloutPercent": 80})
	s.want("/datar"+s.flag+"/changes", map[string]any{
		"changes.0.text": fmt.Sprintf("Rollout of segment %d: 20%% to 80%%", s.segment), "changes.0.affects": "assignment",
	})
	s.wait(2 * hour)
	eighty := s.evaluate(s.main, 500, french)
	s.want(s.rollout(), map[string]any{
		"versions.2.segments.0.given.0.buckets": 800, "versions.2.segments.0.given.0.count": eighty,
		"versions.2.segments.0.given.1.count": 500 - eighty, "findings": nil,
	})
	s.want(s.outcomes(), map[string]any{"total": 1010, "segments.0.matched": twenty + eighty, "segments.0.heldOut": 1000 - twenty - eighty})
	s.ask("changing", "no", 1010, 2)
}

func (s *fleetStory) holdAServer() {
	before := value(must(s.t, s.main, http.MethodGet, s.rollout(), nil), "versions.1.segments.0.given.0.count").(float64)
	assigned := s.evaluate(s.held, 300, object{"country": "FR", "age": 30})
	s.want(s.rollout(), map[string]any{
		"findings.0.rule": "old_version", "findings.0.severity": "contradiction", "findings.0.count": 300, "findings.1": nil,
		"versions.1.segments.0.given.0.count": int(before) + assigned,
	})
	s.ask("changing", "no", 1310, 2, "old_version")
}

func (s *fleetStory) askWrongly() {
	s.wait(hour)
	if n := s.evaluate(s.main, 30, object{"country": "FR", "age": "30"}); n != 0 {
		s.t.Errorf("%d were assigned whose age is text", n)
	}
	s.evaluate(s.main, 70, object{"country": "DE", "age": 30})
	s.want(s.outcomes(), map[string]any{"total": 1410, "outcomes.2.outcome": "no_match", "outcomes.2.count": 100, "outcomes.2.unevaluable": 30})
	s.want("/datar"+s.flag+"/reasons", map[string]any{
		"kind": "sample", "examined": 10, "of": 100, // 5 of each second, whose evaluations are alike
		"segments.0.constraints.0.stopped": 5, "segments.0.constraints.0.false": 5,
		"segments.0.constraints.1.stopped": 5, "segments.0.constraints.1.otherType": 5,
	})
	tried := must(s.t, s.main, http.MethodPost, s.flag+"/try", object{"entities": []object{{"entityID": "a", "entityContext": object{"country": "FR", "age": "30"}}}})
	if value(tried, "results.0.outcome") != "no_match" {
		s.t.Errorf("try: %v", tried)
	}

	for range 7 {
		call(s.t, s.main, http.MethodPost, "/evaluation", object{"flagKey": "chekout-button", "entityID": "a"})
	}
	s.want("/datar/unknown", map[string]any{"unknown.0.asked": "chekout-button", "unknown.0.count": 7, "unknown.0.similar": "checkout-button", "unknown.1": nil})
	s.ask("changing", "no", 1410, 2, "old_version", "unevaluable") // try does not count either
}

func (s *fleetStory) launch() {
	s.wait(hour)
	definition := must(s.t, s.main, http.MethodGet, s.flag+"/definition", nil)
	segment := value(definition, "segments.0").(map[string]any)
	segment["rolloutPercent"], segment["constraints"] = 100, []any{}
	s.change(s.flag+"/definition", definition)
	for range 9 {
		s.wait(aDay)
		s.evaluate(s.main, 20, object{"country": "DE"})
	}
	s.wait(hour)
	s.want(s.state()+"?days=8", map[string]any{
		"state": "launched", "stale": true, "evidence.variantKey": "blue", "advice.do": "remove_from_code", "canDelete.answer": "no", "canDelete.checks.1.ok": false,
	})
	s.want(s.outcomes(), map[string]any{"total": 140, "segments.0.matched": 140}) // of 7 days
	s.ask("launched", "no", 140, 2)
}

func (s *fleetStory) retire() {
	for range 40 { // in steps, in which both servers report
		s.wait(aDay)
	}
	s.want(s.state(), map[string]any{"state": "inactive", "stale": true, "advice.do": "delete", "canDelete.answer": "yes"})
	s.want("/datar/states?canDelete=yes", map[string]any{"total": 1, "flags.0.flagKey": "checkout-button", "byState.inactive": 1})
	s.ask("inactive", "yes", 0, 2)

	must(s.t, s.main, http.MethodDelete, s.flag, nil)
	testwait.Until(s.t, "the main server to evaluate no flag", func() bool {
		return len(must(s.t, s.main, http.MethodGet, "/export/eval_cache/json", nil)["Flags"].([]any)) == 0
	})
	s.wait(hour)
	for range 4 {
		call(s.t, s.main, http.MethodPost, "/evaluation", object{"flagKey": "checkout-button", "entityID": "a"})
	}
	if got := call(s.t, s.main, http.MethodGet, s.state(), nil); got.status != http.StatusNotFound || !strings.Contains(got.raw, "deleted") {
		s.t.Errorf("state of a deleted flag: %d %s", got.status, got.raw)
	}
	s.want("/datar"+s.flag+"/changes", map[string]any{"changes.0.text": "Deleted"})
	s.want(s.rollout(), map[string]any{"findings.0.rule": "asked_deleted", "findings.0.count": 4})
	s.want("/datar/unknown", map[string]any{"unknown.0.asked": "checkout-button", "unknown.0.count": 4})
}
