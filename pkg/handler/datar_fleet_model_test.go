package handler_test

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

// role is what happens to a flag of a fleetModel.
type role string

// The roles. Every flag but those of randomly and created is set up once.
const (
	randomly  role = "random"    // is changed and evaluated at random
	unasked   role = "unasked"   // is never evaluated
	early     role = "early"     // is evaluated in the first days
	tagged    role = "tagged"    // is evaluated by its tag only
	off       role = "off"       // is off and evaluated
	launched  role = "launched"  // gives blue to all entities
	lopsided  role = "lopsided"  // could give green, but is evaluated with one entity
	empty     role = "empty"     // gives nothing to those who ask
	uncounted role = "uncounted" // its records are off
	created   role = "created"   // is new at the end
)

// modelSegment is a segment of a flag with the variants blue and green.
type modelSegment struct {
	id            int64
	french        bool // has a constraint
	rollout, blue int  // in percent; the others get green
}

// modelFlag is a flag and its history, as far as the test has made it.
type modelFlag struct {
	role
	id, snapshot, assignedSnapshot int64
	key                            string
	created, changed, assigned     time.Time
	counted                        time.Time // since when; zero if records are off
	enabled                        bool
	segments                       []modelSegment
	blue, green                    int64 // IDs
}

// reached returns the segments that entities can get to: up to the first one without constraints.
func (f *modelFlag) reached() []modelSegment {
	if i := slices.IndexFunc(f.segments, func(s modelSegment) bool { return !s.french }); i >= 0 {
		return f.segments[:i+1]
	}
	return f.segments
}

// forAll returns the variant that all entities get, or "".
func (f *modelFlag) forAll() string {
	reached := f.reached()
	if len(reached) == 0 || reached[len(reached)-1].french {
		return ""
	}
	for _, s := range reached {
		if s.rollout != 100 || s.blue != reached[0].blue || s.blue != 0 && s.blue != 100 {
			return ""
		}
	}
	return map[int]string{0: "green", 100: "blue"}[reached[0].blue]
}

// canGive returns the variants that some entities can get.
func (f *modelFlag) canGive() map[string]bool {
	can := map[string]bool{}
	for _, s := range f.reached() {
		can["blue"] = can["blue"] || s.rollout > 0 && s.blue > 0
		can["green"] = can["green"] || s.rollout > 0 && s.blue < 100
	}
	return can
}

// fleetModel is an answersModel of several server processes that share a database. They are killed
// and restarted at random. A request goes to any of them.
type fleetModel struct {
	*answersModel
	picks   *rand.Rand // picks servers; polls also do, so it is not the one of the history
	environ map[string]string
	clock   string // file
	start   time.Time
	dirs    map[string]string   // of the journals, by server
	running map[string]*process // by name
	silent  map[string]bool     // killed, and not started again
	since   time.Time           // since when a server has been running
	all     []*modelFlag
	seen    map[string]int // checked states and answers
}

// TestStatesOfAFleetAgainstAllEvaluations derives the states of flags, their deletion checks and
// forecasts from a list of all changes and evaluations, and compares the responses of a fleet whose
// servers are killed.
func TestStatesOfAFleetAgainstAllEvaluations(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		dsn := kind.Fresh(t)
		if kind.Driver == "sqlite3" {
			dsn += "?_pragma=synchronous(OFF)" // a busy disk takes long
		}
		m := newFleetModel(t, map[string]string{"FLAGR_DB_DBDRIVER": kind.Driver, "FLAGR_DB_DBCONNECTIONSTR": dsn})
		m.live()
		m.die()
		for _, state := range []string{"new", "not_counted", "never_evaluated", "inactive", "off_but_asked", "gives_nothing", "changing", "launched", "one_sided", "active", "yes", "no", "unknown"} {
			if m.seen[state] == 0 {
				t.Errorf("no flag was %s: %v", state, m.seen)
			}
		}
		t.Logf("%d evaluations; checked %v", len(m.list), m.seen)
	})
}

func newFleetModel(t *testing.T, environ map[string]string) *fleetModel {
	t.Helper()
	m := &fleetModel{
		answersModel: &answersModel{t: t, random: rand.New(rand.NewPCG(68, 17)), enabled: map[int64]bool{}},
		picks:        rand.New(rand.NewPCG(68, 18)),
		environ:      environ, clock: filepath.Join(t.TempDir(), "clock"), start: time.Date(2026, 3, 2, 9, 20, 0, 0, time.UTC),
		dirs: map[string]string{}, running: map[string]*process{}, silent: map[string]bool{}, seen: map[string]int{},
	}
	m.server = &server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { m.any().ServeHTTP(rw, r) })}
	m.setClock(m.start)
	m.since = m.start
	m.run("a")
	m.run("b")
	for _, r := range []role{randomly, randomly, unasked, early, tagged, off, launched, lopsided, empty, uncounted} {
		m.create(r)
	}
	return m
}

func (m *fleetModel) setClock(now time.Time) {
	m.answersModel.clock.Store(now.UnixMilli())
	writeClock(m.t, m.clock, now)
}

// any returns a running server.
func (m *fleetModel) any() *process {
	names := slices.Sorted(maps.Keys(m.running))
	return m.running[names[m.picks.IntN(len(names))]]
}

// run starts a server, which adopts the journal of its last run.
func (m *fleetModel) run(name string) {
	m.t.Helper()
	if m.dirs[name] == "" {
		m.dirs[name] = m.t.TempDir()
	}
	environ := map[string]string{
		"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar", "FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "50ms",
		"FLAGR_RECORDER_DATAR_SERVER_NAME": name, "FLAGR_RECORDER_DATAR_JOURNAL_DIR": m.dirs[name], "FLAGR_EVALCACHE_REFRESHINTERVAL": "5ms",
	}
	maps.Copy(environ, m.environ)
	m.running[name] = startProcess(m.t, name, processOptions{environ, m.clock})
	delete(m.silent, name)
}

// kill kills a server that may have counts only in its journal.
func (m *fleetModel) kill(name string) {
	m.running[name].kill()
	delete(m.running, name)
	m.silent[name] = true
}

// settle waits until each running server has stored everything. The clock does not move until then.
func (m *fleetModel) settle() {
	m.t.Helper()
	m.setClock(m.now().Add(time.Minute))
	testwait.Until(m.t, "all servers to have stored their counts", func() bool {
		var fleet models.DatarFleet
		m.get("/datar/fleet", nil, &fleet)
		if !*fleet.Balanced {
			m.t.Fatalf("the fleet is not balanced: %+v", fleet.Unbalanced[0])
		}
		current := 0
		for _, s := range fleet.Servers {
			if s.LastFlushAt != nil && time.Time(*s.LastFlushAt).Equal(m.now()) && m.running[*s.Name] != nil {
				current++
			}
		}
		return current == len(m.running)
	})
}

// create creates a flag, and configures it for its role.
func (m *fleetModel) create(r role) {
	m.t.Helper()
	f := &modelFlag{role: r, key: fmt.Sprintf("%s-%d", r, len(m.all)), created: m.now()}
	answer := must(m.t, m, http.MethodPost, "/flags", object{"description": "d", "key": f.key})
	f.id = int64(answer["id"].(float64))
	if r == tagged || r == randomly {
		must(m.t, m, http.MethodPost, fmt.Sprintf("/flags/%d/tags", f.id), object{"value": "web"})
	}
	m.all = append(m.all, f)
	m.change(f, r != off, m.segmentsFor(r)...)
}

// segmentsFor returns segments for a role.
func (m *fleetModel) segmentsFor(r role) []modelSegment {
	switch r {
	case launched, created, tagged:
		return []modelSegment{{french: true, rollout: 100, blue: 100}, {rollout: 100, blue: 100}, {rollout: 30, blue: 50}}
	case lopsided:
		return []modelSegment{{rollout: 100, blue: 50}}
	case empty:
		return []modelSegment{{french: true, rollout: 100, blue: 50}}
	case randomly:
		segments := make([]modelSegment, 1+m.random.IntN(3))
		for i := range segments {
			segments[i] = modelSegment{french: m.random.IntN(3) > 0, rollout: []int{0, 30, 100, 100}[m.random.IntN(4)], blue: []int{0, 70, 100}[m.random.IntN(3)]}
		}
		return segments
	default:
		return []modelSegment{{french: true, rollout: 50, blue: 50}, {rollout: 100, blue: 20}}
	}
}

// change saves a flag with other segments, and waits until all servers evaluate with the change.
func (m *fleetModel) change(f *modelFlag, enabled bool, segments ...modelSegment) {
	m.t.Helper()
	path := fmt.Sprintf("/flags/%d/definition", f.id)
	d := must(m.t, m, http.MethodGet, path, nil)
	if f.blue == 0 {
		d["variants"] = []object{{"key": "blue"}, {"key": "green"}}
	}
	list := make([]object, len(segments))
	for i, s := range segments {
		list[i] = object{"description": "s", "rolloutPercent": s.rollout,
			"distributions": []object{{"variantKey": "blue", "percent": s.blue}, {"variantKey": "green", "percent": 100 - s.blue}}}
		if s.french {
			list[i]["constraints"] = []object{{"property": "country", "operator": "EQ", "value": `"FR"`}}
		}
	}
	d["enabled"], d["dataRecordsEnabled"], d["segments"] = enabled, f.role != uncounted, list
	saved := must(m.t, m, http.MethodPut, path, d)
	f.snapshot = int64(saved["snapshotID"].(float64))
	f.changed, f.assigned, f.assignedSnapshot = m.now(), m.now(), f.snapshot // its segments are new
	f.enabled, f.segments = enabled, slices.Clone(segments)
	if f.role != uncounted && f.counted.IsZero() {
		f.counted = m.now()
	}
	for i, one := range saved["segments"].([]any) {
		f.segments[i].id = int64(one.(map[string]any)["id"].(float64))
	}
	for _, one := range saved["variants"].([]any) {
		v := one.(map[string]any)
		id := int64(v["id"].(float64))
		f.blue, f.green = cmp.Or(map[bool]int64{true: id}[v["key"] == "blue"], f.blue), cmp.Or(map[bool]int64{true: id}[v["key"] == "green"], f.green)
	}
	m.enabled[f.id] = enabled
	for name := range m.running {
		m.awaitVersion(name, f.snapshot)
	}
}

// awaitVersion waits until a server evaluates with a snapshot.
func (m *fleetModel) awaitVersion(name string, snapshot int64) {
	m.t.Helper()
	testwait.Until(m.t, "the change to be evaluated", func() bool {
		flags := must(m.t, m.running[name], http.MethodGet, "/export/eval_cache/json", nil)["Flags"].([]any)
		return slices.ContainsFunc(flags, func(f any) bool { return f.(map[string]any)["SnapshotID"] == float64(snapshot) })
	})
}

// evaluateSome evaluates some flags by their roles, on any server.
func (m *fleetModel) evaluateSome() {
	m.t.Helper()
	for _, f := range m.all {
		var entities []object
		country := []any{"FR", "DE", nil, 5}
		switch f.role {
		case unasked, created, uncounted, tagged:
			continue
		case early:
			if m.now().Sub(m.start) > 5*aDay {
				continue
			}
		case lopsided:
			entities = []object{{"entityID": "person-1"}, {"entityID": "person-1"}}
		case empty:
			country = country[1:]
		case randomly, off, launched:
		}
		if m.random.IntN(2) == 0 {
			continue
		}
		for len(entities) < 2+m.random.IntN(8) && f.role != lopsided {
			entity := object{"entityID": fmt.Sprint("person-", m.random.IntN(50))}
			if m.random.IntN(6) == 0 {
				delete(entity, "entityID")
			}
			if c := country[m.random.IntN(len(country))]; c != nil {
				entity["entityContext"] = object{"country": c}
			}
			entities = append(entities, entity)
		}
		m.ask(m.any(), object{"entities": entities, "flagIDs": []int64{f.id}}, 1)
	}
	if m.random.IntN(2) == 0 {
		withTag := 0
		for _, f := range m.all {
			if f.role == tagged || f.role == randomly {
				withTag++
			}
		}
		m.ask(m.any(), object{"entities": []object{{"entityID": "x", "entityContext": object{"country": "FR"}}, {"entityID": "y"}}, "flagTags": []string{"web"}}, withTag)
	}
}

// live lets about 30 days pass.
func (m *fleetModel) live() {
	m.t.Helper()
	for step := range 20 {
		m.setClock(m.now().Add(time.Duration(12+m.random.IntN(48)) * time.Hour))
		m.evaluateSome()
		switch f := m.all[m.random.IntN(2)]; {
		case step == 5: // killed right after an evaluation, and started again an hour later
			m.kill("a")
			m.setClock(m.now().Add(time.Hour))
			m.evaluateSome()
			m.run("a")
		case step == 11: // stopped
			m.running["a"].stop(m.t)
			delete(m.running, "a")
			m.setClock(m.now().Add(time.Hour))
			m.evaluateSome()
			m.run("a")
		case step == 19:
			m.create(created)
		case step > 13: // nothing changes
		case m.random.IntN(2) == 0:
			m.change(f, m.random.IntN(4) > 0, m.segmentsFor(f.role)...)
		}
		if step%10 == 9 {
			m.settle()
			m.check()
		}
	}
}

// die kills one server, and later the whole fleet.
func (m *fleetModel) die() {
	m.t.Helper()
	m.kill("b")
	m.setClock(m.now().Add(31 * aDay)) // nothing is evaluated
	m.settle()
	m.check() // b is silent
	m.run("b")
	m.settle()
	m.check()
	m.evaluateSome()
	m.settle() // what is only in the journal of b stays there
	m.kill("a")
	m.kill("b")
	m.setClock(m.now().Add(aDay))
	m.since = m.now()
	m.run("a")
	m.settle()
	m.check()
}

// check compares all responses.
func (m *fleetModel) check() {
	m.t.Helper()
	for _, days := range []int64{30, 7} {
		var states models.DatarStates
		m.get("/datar/states", url.Values{"days": {fmt.Sprint(days)}}, &states)
		byState := map[string]int64{}
		for _, f := range m.all {
			want := m.derive(f, int(days))
			byState[want.state]++
			m.seen[want.state]++
			m.seen[want.answer]++
			m.checkState(f, days, want)
			i := slices.IndexFunc(states.Flags, func(r *models.DatarStateRow) bool { return *r.FlagID == f.id })
			if i < 0 {
				m.t.Fatalf("%s is not in the list", f.key)
			}
			if r := states.Flags[i]; *r.State != want.state || *r.CanDelete != want.answer || *r.Stale != want.stale || *r.Total != want.count || *r.Reason != want.reason {
				m.t.Errorf("%d days, %s in the list: %s, can delete %s, stale %t, %d, %q; want %+v", days, f.key, *r.State, *r.CanDelete, *r.Stale, *r.Total, *r.Reason, want)
			}
		}
		maps.DeleteFunc(states.ByState, func(_ string, n int64) bool { return n == 0 })
		if !maps.Equal(states.ByState, byState) {
			m.t.Errorf("%d days: flags by state %v, want %v", days, states.ByState, byState)
		}
	}
	from, to := m.start.Truncate(time.Hour), m.now().Truncate(time.Hour).Add(time.Hour)
	query := url.Values{"from": {from.Format(time.RFC3339)}, "to": {to.Format(time.RFC3339)}}
	for _, f := range m.all {
		if len(m.silent) == 0 {
			list := m.of(f, from)
			m.compareOutcomes(f.id, query, list)
			m.compareRollout(f.id, query, list)
			m.compareSeries(f.id, query, list)
		}
		m.checkForecast(f)
		m.checkReasons(f)
	}
}

// of returns the evaluations of a flag from a time on. Those of an uncounted flag are not expected.
func (m *fleetModel) of(f *modelFlag, from time.Time) (list []asked) {
	for _, a := range m.list {
		if a.flag == f.id && !a.at.Before(from) && f.role != uncounted {
			list = append(list, a)
		}
	}
	return list
}

// verdict is what follows from the list of evaluations.
type verdict struct {
	state, answer, reason string
	stale                 bool
	count                 int64
	last                  time.Time
	ok                    [5]bool // counted, not_asked, all_heard, none_lost, unchanged
}

// derive applies the rules of states and of deletion, as docs/answers.md has them, to the list of
// evaluations.
func (m *fleetModel) derive(f *modelFlag, days int) (v verdict) {
	now := m.now()
	length := time.Duration(days) * aDay
	lately := m.of(f, now.Add(-length).Truncate(time.Hour))
	ever := m.of(f, time.Time{})
	got, byName := map[int64]int64{}, int64(0)
	for _, a := range lately {
		if a.variant != 0 {
			got[a.variant]++
		}
		if !a.byTag {
			byName++
		}
	}
	v.count = int64(len(lately))
	if len(ever) > 0 {
		v.last = ever[len(ever)-1].at
	}
	counted := f.counted
	if !counted.IsZero() && m.since.After(counted) {
		counted = m.since
	}
	ofAll := now.Sub(f.created)
	begin := now.Add(-length)
	if f.created.After(begin) {
		begin = f.created
	}
	day := func(at time.Time) string { return at.Format("2 January 2006") }
	many := func(n int64, noun string) string {
		if n == 1 {
			return "1 " + noun
		}
		return fmt.Sprintf("%d %ss", n, noun)
	}
	keys := map[int64]string{f.blue: "blue", f.green: "green"}
	onlyVariant, sinceChange := m.sinceChange(f, lately)
	switch {
	case counted.IsZero():
		v.state, v.reason = "not_counted", "The flag is not counted, so nothing is known about it."
	case now.Sub(counted) < length && ofAll > length:
		v.state, v.reason = "not_counted", fmt.Sprintf("Counted without a break since %s only, which is less than the %s asked about.", day(counted), many(int64(days), "day"))
	case ofAll < 7*aDay && len(ever) == 0:
		v.state, v.reason = "new", fmt.Sprintf("Created on %s, and not asked for yet.", day(f.created))
	case now.Sub(counted) >= length && len(ever) == 0:
		v.state, v.reason = "never_evaluated", fmt.Sprintf("Never asked for since counting began on %s.", day(counted))
	case len(ever) > 0 && v.count == 0:
		v.state, v.reason = "inactive", fmt.Sprintf("Last asked for on %s, and not in the last %s.", day(v.last), many(int64(days), "day"))
	case !f.enabled && v.count > 0:
		asked := "once"
		if v.count != 1 {
			asked = many(v.count, "time")
		}
		v.state, v.reason = "off_but_asked", fmt.Sprintf("Switched off, and asked for %s since %s.", asked, day(begin))
	case f.enabled && v.count > 0 && len(got) == 0:
		v.state, v.reason = "gives_nothing", fmt.Sprintf("None of %s since %s got a variant.", many(v.count, "evaluation"), day(begin))
	case now.Sub(f.assigned) < 7*aDay:
		v.state, v.reason = "changing", fmt.Sprintf("Who gets what was last changed on %s.", day(f.assigned))
	case f.enabled && f.forAll() != "" && onlyVariant == f.forAll() && sinceChange > 0:
		from := begin
		if f.assigned.After(from) {
			from = f.assigned
		}
		v.state, v.reason = "launched", fmt.Sprintf("All %s since %s got `%s`, and the configuration gives everybody `%s`.", many(sinceChange, "evaluation"), day(from), onlyVariant, onlyVariant)
	case f.enabled && len(got) == 1 && len(others(f, keys, got)) > 0:
		for id, n := range got {
			v.state, v.reason = "one_sided", fmt.Sprintf("All %s that got a variant since %s got `%s`; the configuration can also give `%s`.",
				many(n, "evaluation"), day(begin), keys[id], others(f, keys, got)[0])
		}
	case v.count == 0:
		v.state, v.reason = "active", fmt.Sprintf("Created on %s, and not asked for yet.", day(f.created))
	default:
		v.state, v.reason = "active", fmt.Sprintf("%d of %s since %s got a variant.", got[f.blue]+got[f.green], many(v.count, "evaluation"), day(begin))
	}
	v.stale = slices.Contains([]string{"never_evaluated", "inactive", "launched"}, v.state) && now.Sub(f.changed) >= length
	v.ok = [5]bool{!counted.IsZero() && now.Sub(counted) >= length, v.count == 0, len(m.silent) == 0, true, now.Sub(f.changed) >= 7*aDay}
	switch {
	case byName > 0 || !v.ok[4]:
		v.answer = "no"
	case !slices.Contains(v.ok[:], false):
		v.answer = "yes"
	default:
		v.answer = "unknown"
	}
	return v
}

// sinceChange returns how many of the evaluations used the newest assignment of variants, and the
// only variant that they got, if it is the only one.
func (m *fleetModel) sinceChange(f *modelFlag, lately []asked) (only string, n int64) {
	got := map[int64]bool{}
	for _, a := range lately {
		if a.snapshot >= f.assignedSnapshot {
			got[a.variant] = true
			n++
		}
	}
	switch {
	case len(got) == 1 && got[f.blue]:
		return "blue", n
	case len(got) == 1 && got[f.green]:
		return "green", n
	}
	return "", n
}

// others returns the variants that the configuration can give and that are not in got.
func others(f *modelFlag, keys map[int64]string, got map[int64]int64) (list []string) {
	can := f.canGive()
	for id, key := range keys {
		if can[key] && got[id] == 0 {
			list = append(list, key)
		}
	}
	return list
}

func (m *fleetModel) checkState(f *modelFlag, days int64, want verdict) {
	m.t.Helper()
	var s models.DatarFlagState
	m.get(fmt.Sprintf("/datar/flags/%d/state", f.id), url.Values{"days": {fmt.Sprint(days)}}, &s)
	got := verdict{state: *s.State, answer: *s.CanDelete.Answer, reason: *s.Reason, stale: *s.Stale, count: *s.Evidence.Count}
	if s.Evidence.LastAt != nil {
		got.last = time.Time(*s.Evidence.LastAt).UTC()
	}
	names := []string{"counted", "not_asked", "all_heard", "none_lost", "unchanged"}
	for i, c := range s.CanDelete.Checks {
		if i >= len(names) || *c.Check != names[i] {
			m.t.Fatalf("check %d is %s", i, *c.Check)
		}
		got.ok[i] = *c.Ok
	}
	if got != want {
		m.t.Errorf("%s, %d days, %s:\n got %+v\nwant %+v", m.now().Format(time.RFC3339), days, f.key, got, want)
	}
}

// checkForecast changes the rollout of the first segment in a draft.
func (m *fleetModel) checkForecast(f *modelFlag) {
	m.t.Helper()
	path := fmt.Sprintf("/flags/%d/definition", f.id)
	segments := must(m.t, m, http.MethodGet, path, nil)["segments"].([]any)
	draft := f.segments[0]
	draft.rollout = []int{0, 20, 60, 100}[m.random.IntN(4)]
	segments[0].(map[string]any)["rolloutPercent"] = draft.rollout
	got := must(m.t, m, http.MethodPost, fmt.Sprintf("/datar/flags/%d/forecast", f.id), object{"draft": object{"segments": segments}})

	// Both variants have whole buckets, since all percentages are multiples of 10.
	more := 10 * (draft.rollout - f.segments[0].rollout)
	week := m.now().Add(-7 * aDay)
	alive := min(m.now().Sub(f.assigned), 7*aDay)
	if !f.enabled {
		alive = 0 // its segments are not in use
	}
	perDay := make([]float64, len(f.segments))
	for _, a := range m.of(f, week.Truncate(time.Hour)) {
		i := slices.IndexFunc(f.segments, func(s modelSegment) bool { return s.id == a.segment })
		if i >= 0 && f.enabled {
			perDay[i] += 1 / max(alive, time.Hour).Hours() * 24
		}
	}
	now, then := map[string]float64{}, map[string]float64{}
	for i, s := range f.segments {
		spread := func(to map[string]float64, s modelSegment) {
			to["blue"] += perDay[i] * float64(s.blue*s.rollout) / 1e4
			to["green"] += perDay[i] * float64((100-s.blue)*s.rollout) / 1e4
			to[""] += perDay[i] * float64(100-s.rollout) / 100
		}
		spread(now, s)
		if i == 0 {
			s = draft
		}
		spread(then, s)
	}
	want := map[string]float64{"moved": 0, "gained": float64(max(more, 0)), "lost": float64(max(-more, 0)), "now": 0, "then": 0}
	for name, n := range want {
		if part, ok := got[name].(float64); ok && part != n {
			m.t.Errorf("%s: a rollout of %d instead of %d: %s is %v, want %v", f.key, draft.rollout, f.segments[0].rollout, name, part, n)
		}
	}
	for member, expected := range map[string]map[string]float64{"now": now, "then": then} {
		for _, one := range got[member].([]any) {
			key, _ := one.(map[string]any)["variantKey"].(string)
			if n := one.(map[string]any)["perDay"].(float64); math.Abs(n-expected[key]) > 0.5001 {
				m.t.Errorf("%s: %s: %q gets %v a day, want %v", f.key, member, key, n, expected[key])
			}
			delete(expected, key)
		}
		for key, n := range expected {
			if n > 0 {
				m.t.Errorf("%s: %s: %q is missing, want %v a day", f.key, member, key, n)
			}
		}
	}
	for i, one := range got["segments"].([]any) {
		s := one.(map[string]any)
		if n, _ := s["perDay"].(float64); math.Abs(n-perDay[i]) > 0.5001 || s["unknown"] == true {
			m.t.Errorf("%s: segment %d: %v a day, want %v", f.key, i, s, perDay[i])
		}
	}
}

// checkReasons checks that a sample is no more than what happened.
func (m *fleetModel) checkReasons(f *modelFlag) {
	m.t.Helper()
	var r models.DatarReasons
	m.get(fmt.Sprintf("/datar/flags/%d/reasons", f.id), nil, &r)
	var of, stopped int64
	for _, a := range m.of(f, m.now().Add(-7*aDay).Truncate(time.Hour)) {
		if a.outcome == datar.NoMatch.String() {
			of++
		}
	}
	for _, s := range r.Segments {
		for _, c := range s.Constraints {
			stopped += *c.Stopped
			if *c.Missing+*c.OtherType+*c.False != *c.Stopped {
				m.t.Errorf("%s: causes of %+v", f.key, c)
			}
		}
	}
	if len(m.silent) == 0 && *r.Of != of || *r.Examined > of && f.role != uncounted || of == 0 && stopped > 0 && f.role != uncounted {
		m.t.Errorf("%s: a sample of %d of %d, %d stopped; want of %d", f.key, *r.Examined, *r.Of, stopped, of)
	}
}
