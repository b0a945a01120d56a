package handler_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

// asked is one evaluation: the request and its result.
type asked struct {
	flag, snapshot, segment, variant int64
	outcome                          string
	byTag, withoutEntityID           bool
	at                               time.Time
}

// answersModel is a server whose flags are changed and evaluated at random, with a list of all
// evaluations.
type answersModel struct {
	*server
	t       *testing.T
	random  *rand.Rand
	clock   atomic.Int64 // Unix milliseconds
	flags   []int64
	enabled map[int64]bool
	list    []asked
}

// TestAnswersAgainstAllEvaluations compares HTTP responses with a list of all evaluations, over
// random flags, changes, windows and time zones.
func TestAnswersAgainstAllEvaluations(t *testing.T) {
	t.Parallel()
	m := &answersModel{t: t, random: rand.New(rand.NewPCG(17, 2)), enabled: map[int64]bool{}}
	begin := time.Date(2026, 3, 28, 17, 20, 0, 0, time.UTC) // Berlin's day of 23 hours is the next day
	m.clock.Store(begin.UnixMilli())
	m.server = setupAt(t, datarOn, m.now)
	for i := range 3 {
		f := must(t, m, http.MethodPost, "/flags", object{"description": "d", "key": fmt.Sprint("flag-", i)})
		id := int64(f["id"].(float64))
		must(t, m, http.MethodPost, fmt.Sprintf("/flags/%d/tags", id), object{"value": "web"})
		m.flags = append(m.flags, id)
		m.change(id)
	}
	for range 40 {
		switch m.random.IntN(4) {
		case 0:
			m.change(m.flags[m.random.IntN(len(m.flags))])
		default:
			m.evaluate()
		}
		m.clock.Add(int64(m.random.IntN(150)) * time.Minute.Milliseconds())
	}
	m.clock.Add(time.Minute.Milliseconds())
	testwait.Until(t, "all evaluations to be stored", func() bool {
		return must(t, m, http.MethodGet, "/datar/fleet", nil)["stored"] == float64(len(m.list))
	})
	windows := [][2]time.Time{{begin.Add(-time.Hour), m.now().Add(time.Hour)}}
	for range 3 {
		from := begin.Add(time.Duration(m.random.IntN(30)) * time.Hour)
		windows = append(windows, [2]time.Time{from, from.Add(time.Duration(1+m.random.IntN(30)) * time.Hour)})
	}
	for _, id := range m.flags {
		for _, w := range windows {
			from, to := w[0].Truncate(time.Hour), w[1].Truncate(time.Hour).Add(time.Hour)
			query := url.Values{"from": {from.Format(time.RFC3339)}, "to": {to.Format(time.RFC3339)}}
			inside := slices.DeleteFunc(slices.Clone(m.list), func(a asked) bool { return a.flag != id || a.at.Before(from) || !a.at.Before(to) })
			m.compareOutcomes(id, query, inside)
			m.compareRollout(id, query, inside)
			m.compareSeries(id, query, inside)
		}
	}
	m.compareLists()
}

func (m *answersModel) now() time.Time { return time.UnixMilli(m.clock.Load()).UTC() }

// get reads a response.
func (m *answersModel) get(path string, query url.Values, into any) {
	m.t.Helper()
	got := call(m.t, m, http.MethodGet, path+"?"+query.Encode(), nil)
	if got.status != http.StatusOK {
		m.t.Fatalf("%s?%s: %d %s", path, query.Encode(), got.status, got.raw)
	}
	if err := json.Unmarshal([]byte(got.raw), into); err != nil {
		m.t.Fatalf("%s: %v: %s", path, err, got.raw)
	}
}

// change changes a flag's segments or enables or disables it, and waits until evaluation uses the
// change.
func (m *answersModel) change(id int64) {
	m.t.Helper()
	path := fmt.Sprintf("/flags/%d/definition", id)
	d := must(m.t, m, http.MethodGet, path, nil)
	variants := d["variants"]
	if list, _ := variants.([]any); len(list) == 0 {
		variants = []object{{"key": "blue"}, {"key": "green"}}
	}
	m.enabled[id] = m.random.IntN(5) > 0
	var segments []object
	for range m.random.IntN(3) {
		blue := m.random.IntN(101)
		s := object{"description": "s", "rolloutPercent": []int{0, 35, 100}[m.random.IntN(3)],
			"distributions": []object{{"variantKey": "blue", "percent": blue}, {"variantKey": "green", "percent": 100 - blue}}}
		if m.random.IntN(3) > 0 {
			s["constraints"] = []object{{"property": "country", "operator": "EQ", "value": `"FR"`}}
		}
		segments = append(segments, s)
	}
	must(m.t, m, http.MethodPut, path, object{"snapshotID": d["snapshotID"], "enabled": m.enabled[id], "dataRecordsEnabled": true,
		"variants": variants, "segments": segments})
	newest := must(m.t, m, http.MethodGet, "/flags/snapshots/max_id", nil)["maxID"]
	testwait.Until(m.t, "the change to be evaluated", func() bool {
		flags := must(m.t, m, http.MethodGet, "/export/eval_cache/json", nil)["Flags"].([]any)
		return slices.ContainsFunc(flags, func(f any) bool { return f.(map[string]any)["SnapshotID"] == newest })
	})
}

// evaluate evaluates one flag by its ID, or all flags by tag.
func (m *answersModel) evaluate() {
	m.t.Helper()
	entities := make([]object, 1+m.random.IntN(30))
	for i := range entities {
		entities[i] = object{"entityContext": object{"country": []string{"FR", "DE"}[m.random.IntN(2)]}}
		if m.random.IntN(5) > 0 {
			entities[i]["entityID"] = fmt.Sprint("person-", m.random.IntN(50))
		}
	}
	if m.random.IntN(3) == 0 {
		m.ask(m, object{"entities": entities, "flagTags": []string{"web"}}, len(m.flags))
		return
	}
	m.ask(m, object{"entities": entities, "flagIDs": []int64{m.flags[m.random.IntN(len(m.flags))]}}, 1)
}

// ask sends a batch to a server, and adds its results to the list. flags is the number of flags
// that it evaluates.
func (m *answersModel) ask(on http.Handler, request object, flags int) {
	m.t.Helper()
	request["enableDebug"] = true
	entities := request["entities"].([]object)
	results := must(m.t, on, http.MethodPost, "/evaluation/batch", request)["evaluationResults"].([]any)
	if len(results) != flags*len(entities) {
		m.t.Fatalf("%d results for %d entities and %d flags", len(results), len(entities), flags)
	}
	for _, one := range results {
		r := one.(map[string]any)
		number := func(name string) int64 { n, _ := r[name].(float64); return int64(n) }
		a := asked{flag: number("flagID"), snapshot: number("flagSnapshotID"), segment: number("segmentID"), variant: number("variantID"), byTag: request["flagTags"] != nil, at: m.now()}
		context, _ := r["evalContext"].(map[string]any)
		entityID, _ := context["entityID"].(string)
		a.withoutEntityID = strings.HasPrefix(entityID, "randomly_generated_") // unless the flag decides without it
		logs, _ := r["evalDebugLog"].(map[string]any)["segmentDebugLogs"].([]any)
		a.outcome = m.outcomeOf(&a, logs)
		m.list = append(m.list, a)
	}
}

// outcomeOf derives the outcome from a response. Only the log contains the segment that held an
// entity out.
func (m *answersModel) outcomeOf(a *asked, logs []any) string {
	switch {
	case !m.enabled[a.flag]:
		return datar.Disabled.String()
	case a.variant != 0:
		return datar.Matched.String()
	case len(logs) == 0:
		return datar.NoSegments.String()
	}
	last := logs[len(logs)-1].(map[string]any)
	if !strings.HasPrefix(last["msg"].(string), "match: ") {
		return datar.NoMatch.String()
	}
	a.segment = int64(last["segmentID"].(float64))
	return datar.HeldOut.String()
}

// counts counts evaluations by the result of by. It skips evaluations for which by returns "".
func counts(list []asked, by func(asked) string) map[string]int64 {
	n := map[string]int64{}
	for _, a := range list {
		if name := by(a); name != "" {
			n[name]++
		}
	}
	return n
}

func (m *answersModel) same(what string, query url.Values, want, got map[string]int64) {
	m.t.Helper()
	maps.DeleteFunc(got, func(_ string, n int64) bool { return n == 0 })
	if diff := cmp.Diff(want, got); diff != "" {
		m.t.Fatalf("%s of %s: (-want +got):\n%s", what, query.Encode(), diff)
	}
}

func (m *answersModel) compareOutcomes(id int64, query url.Values, inside []asked) {
	m.t.Helper()
	var o models.DatarOutcomes
	m.get(fmt.Sprintf("/datar/flags/%d/outcomes", id), query, &o)
	got := map[string]int64{"total": *o.Total, "by name": *o.Asked.ByName, "by tag": *o.Asked.ByTag, "without an ID": o.Asked.WithoutEntityID}
	for _, one := range o.Outcomes {
		got[*one.Outcome] = *one.Count
	}
	for _, s := range o.Segments {
		got[fmt.Sprint("held out by ", s.SegmentID)] = *s.HeldOut
		for _, v := range s.Variants {
			got[fmt.Sprint("variant ", *v.VariantID, " of ", s.SegmentID)] = *v.Count
		}
	}
	want := counts(inside, func(a asked) string { return a.outcome })
	for _, by := range []func(asked) string{
		func(asked) string { return "total" },
		func(a asked) string { return map[bool]string{true: "by tag", false: "by name"}[a.byTag] },
		func(a asked) string { return map[bool]string{true: "without an ID"}[a.withoutEntityID] },
		func(a asked) string { return segmentPart(a) },
	} {
		maps.Copy(want, counts(inside, by))
	}
	m.same("outcomes", query, want, got)
}

// segmentPart returns the name of a segment's result, or "" without a result.
func segmentPart(a asked) string {
	switch {
	case a.outcome == datar.Matched.String():
		return fmt.Sprint("variant ", a.variant, " of ", a.segment)
	case a.outcome == datar.HeldOut.String():
		return fmt.Sprint("held out by ", a.segment)
	default:
		return ""
	}
}

func (m *answersModel) compareRollout(id int64, query url.Values, inside []asked) {
	m.t.Helper()
	var r models.DatarRollout
	m.get(fmt.Sprintf("/datar/flags/%d/rollout", id), query, &r)
	got := map[string]int64{}
	for _, v := range r.Versions {
		for _, s := range v.Segments {
			for _, g := range s.Given {
				name := fmt.Sprint("variant ", g.VariantID, " of ", s.SegmentID)
				if g.HeldOut {
					name = fmt.Sprint("held out by ", s.SegmentID)
				}
				got[fmt.Sprint(name, " in ", *v.SnapshotID)] = g.Count
			}
		}
	}
	m.same("rollout", query, counts(inside, func(a asked) string {
		if part := segmentPart(a); part != "" {
			return fmt.Sprint(part, " in ", a.snapshot)
		}
		return ""
	}), got)
	for _, f := range r.Findings {
		if *f.Severity == "contradiction" {
			m.t.Errorf("a contradiction of %s: %s", query.Encode(), *f.Text)
		}
	}
}

func (m *answersModel) compareSeries(id int64, query url.Values, inside []asked) {
	m.t.Helper()
	query = maps.Clone(query)
	query.Set("tz", []string{"UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"}[m.random.IntN(4)])
	query.Set("bucket", []string{"hour", "day", "week"}[m.random.IntN(3)])
	for by, name := range map[string]func(asked) string{
		"outcome": func(a asked) string { return a.outcome },
		"variant": func(a asked) string { return fmt.Sprint(a.variant) },
		"segment": func(a asked) string { return fmt.Sprint(a.segment) },
		"version": func(a asked) string { return fmt.Sprint(a.snapshot) },
	} {
		query.Set("by", by)
		var s models.DatarSeries
		m.get(fmt.Sprintf("/datar/flags/%d/series", id), query, &s)
		starts := make([]time.Time, len(s.Starts))
		for i, text := range s.Starts {
			var err error
			if starts[i], err = time.Parse(time.RFC3339, text); err != nil {
				m.t.Fatal(err)
			}
		}
		got := map[string]int64{}
		for _, l := range s.Lines {
			line := map[string]string{"outcome": l.Outcome, "variant": fmt.Sprint(l.VariantID), "segment": fmt.Sprint(l.SegmentID), "version": fmt.Sprint(l.SnapshotID)}[by]
			for i, n := range l.Counts {
				got[fmt.Sprint(line, " from ", s.Starts[i])] = n
			}
		}
		m.same("series", query, counts(inside, func(a asked) string {
			i := 0
			for i+1 < len(starts) && !starts[i+1].After(a.at.Truncate(time.Hour)) { // counts are kept by hour
				i++
			}
			return fmt.Sprint(name(a), " from ", s.Starts[i])
		}), got)
	}
}

// compareLists compares the states of all flags, and the summary, which contains only events.
func (m *answersModel) compareLists() {
	m.t.Helper()
	byFlag := func(a asked) string { return fmt.Sprint(a.flag) }
	var states models.DatarStates
	m.get("/datar/states", nil, &states)
	got, sparks := map[string]int64{}, map[string]int64{}
	for _, f := range states.Flags {
		got[fmt.Sprint(*f.FlagID)] = *f.Total
		for _, n := range f.Spark {
			sparks[fmt.Sprint(*f.FlagID)] += n
		}
	}
	m.same("states", nil, counts(m.list, byFlag), got)
	m.same("sparks", nil, counts(m.list, byFlag), sparks)
	var summary models.DatarSummaryResponse
	m.get("/datar/summary", nil, &summary)
	got = map[string]int64{}
	for _, f := range summary.Flags {
		got[fmt.Sprint(f.FlagID)] = f.TotalEvalCount
	}
	m.same("summary", nil, counts(m.list, func(a asked) string {
		if outcome, err := datar.ParseOutcome(a.outcome); err != nil || !outcome.IsEvent() {
			return ""
		}
		return byFlag(a)
	}), got)
}
