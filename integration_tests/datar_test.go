package integration_tests

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// job is what runMainJob did.
type job struct {
	flag       flagAnswer // evaluated ten times
	quiet      flagAnswer // evaluated twice
	begin, end time.Time  // the evaluations happened between these
}

// runMainJob creates flags on an empty server and evaluates them through all four evaluation
// endpoints. The counts are known: 7 of "off" through the segment FR and 3 of "on" of one flag, and
// 2 of another flag.
func runMainJob(t *testing.T, s *server) job {
	t.Helper()
	j := job{flag: newFlag(t, s, "main-job"), quiet: newFlag(t, s, "quiet")}
	off := newVariant(t, s, j.flag, "off")
	french := newSegment(t, s, j.flag, "FR", "off", off)
	send[any](t, s, http.MethodPut, j.flag.path()+"/segments/reorder",
		object{"segmentIDs": []int64{french, j.flag.Segments[0].ID}})
	awaitChanges(t, s)

	j.begin = time.Now().Truncate(time.Millisecond)
	single := object{"flagID": j.flag.ID, "entityID": "u", "entityContext": object{"country": "FR"}}
	batch := object{
		"flagIDs": []int64{j.flag.ID},
		"entities": []object{
			{"entityID": "a", "entityContext": object{"country": "FR"}},
			{"entityID": "b", "entityContext": object{"country": "FR"}},
			{"entityID": "c", "entityContext": object{"country": "DE"}},
		},
	}
	send[any](t, s, http.MethodPost, "/evaluation", single)
	send[any](t, s, http.MethodPost, "/evaluation", single)
	send[any](t, s, http.MethodGet, "/evaluation?json="+queryJSON(t, single), nil)
	send[any](t, s, http.MethodPost, "/evaluation", object{"flagKey": "main-job"}) // the entity is not from FR
	send[any](t, s, http.MethodPost, "/evaluation/batch", batch)
	send[any](t, s, http.MethodGet, "/evaluation/batch?json="+queryJSON(t, batch), nil)
	evaluate(t, s, j.quiet, "u", nil)
	evaluate(t, s, j.quiet, "v", nil)
	j.end = time.Now()
	return j
}

// checkMainJob compares both summaries with what runMainJob did, except for the days.
func checkMainJob(t *testing.T, s *server, j job) {
	t.Helper()
	got := get[summary](t, s, "/datar/summary")
	for i, f := range got.Flags {
		if f.LastEvaluatedAt.Before(j.begin) || f.LastEvaluatedAt.After(j.end) {
			t.Errorf("lastEvaluatedAt of %s is %s, but its evaluations were between %s and %s", f.FlagKey, f.LastEvaluatedAt,
				j.begin.UTC(), j.end.UTC())
		}
		got.Flags[i].LastEvaluatedAt = time.Time{}
	}
	want := summary{[]summaryFlag{
		{FlagID: j.flag.ID, FlagKey: "main-job", Enabled: true, Description: "made by a test", TotalEvalCount: 10},
		{FlagID: j.quiet.ID, FlagKey: "quiet", Enabled: true, Description: "made by a test", TotalEvalCount: 2},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}

	parts := get[flagAnswer](t, s, j.flag.path())
	var off, on int64
	for _, v := range parts.Variants {
		switch v.Key {
		case "off":
			off = v.ID
		case "on":
			on = v.ID
		}
	}
	french, everybody := parts.Segments[0].ID, parts.Segments[1].ID
	b := get[breakdown](t, s, fmt.Sprintf("/datar/flags/%d/summary", j.flag.ID))
	if b.FlagID != j.flag.ID {
		t.Errorf("breakdown is of flag %d, want %d", b.FlagID, j.flag.ID)
	}
	if diff := cmp.Diff([]struct{ VariantID, Count int64 }{{off, 7}, {on, 3}}, b.TrafficByVariant); diff != "" {
		t.Errorf("by variant (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]struct{ SegmentID, Count int64 }{{french, 7}, {everybody, 3}}, b.TrafficBySegment); diff != "" {
		t.Errorf("by segment (-want +got):\n%s", diff)
	}
	var sum int64
	for _, day := range b.TrafficByDay {
		sum += day.Count
		// The test may run across midnight.
		if day.Date != j.begin.UTC().Format(time.DateOnly) && day.Date != j.end.UTC().Format(time.DateOnly) {
			t.Errorf("counts on day %s, but the evaluations were between %s and %s", day.Date, j.begin.UTC(), j.end.UTC())
		}
	}
	if sum != 10 {
		t.Errorf("the days sum to %d, want 10: %v", sum, b.TrafficByDay)
	}
}

func TestMainJob(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		s := start(t, db, db.fresh(t), nil)
		j := runMainJob(t, s)
		checkMainJob(t, s, j)
	})
}

// TestLastEvaluatedAtIsNotTheFlush queries after a restart, which takes much longer than the
// evaluations. The counts were stored when the first server stopped, so a flush time would be too
// late.
func TestLastEvaluatedAtIsNotTheFlush(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		s := start(t, db, db.fresh(t), environ{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "1h"})
		j := runMainJob(t, s)
		s.stop(t, syscall.SIGTERM)
		checkMainJob(t, s.again(t), j)
	})
}

func TestDatarWindow(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		s := start(t, db, db.fresh(t), nil)
		j := runMainJob(t, s)
		checkMainJob(t, s, j)

		in := func(zone string, at time.Time) string {
			offset, err := time.Parse("-07:00", zone)
			if err != nil {
				t.Fatal(err)
			}
			return url.QueryEscape(at.In(offset.Location()).Format(time.RFC3339))
		}
		utc := func(at time.Time) string { return in("+00:00", at) }
		const hour = time.Hour
		for _, tc := range []struct {
			name  string
			query string
			want  int64 // of both flags, and 10 of the first
		}{
			{"default", "", 12},
			{"only from", "from=" + utc(j.begin), 12},
			{"only to", "to=" + utc(j.end.Add(hour)), 12},
			{"widened to whole hours", "from=" + utc(j.begin) + "&to=" + utc(j.end.Add(time.Second)), 12},
			{"another zone", "from=" + in("+05:30", j.begin) + "&to=" + in("-03:30", j.end.Add(time.Second)), 12},
			{"the hours before", "from=" + utc(j.begin.Add(-3*hour)) + "&to=" + utc(j.begin.Truncate(hour)), 0},
			{"the hours after", "from=" + utc(j.end.Truncate(hour).Add(hour)) + "&to=" + utc(j.end.Add(3*hour)), 0},
			{"centuries", "from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z", 12},
			{"with fractions of seconds", "from=" + url.QueryEscape(j.begin.UTC().Format("2006-01-02T15:04:05.000Z")), 12},
		} {
			t.Run(tc.name, func(t *testing.T) {
				if got := get[summary](t, s, "/datar/summary?"+tc.query); got.sum() != tc.want {
					t.Errorf("summary has %d evaluations, want %d", got.sum(), tc.want)
				}
				b := get[breakdown](t, s, fmt.Sprintf("/datar/flags/%d/summary?%s", j.flag.ID, tc.query))
				var variants, segments, days int64
				for _, v := range b.TrafficByVariant {
					variants += v.Count
				}
				for _, v := range b.TrafficBySegment {
					segments += v.Count
				}
				for _, v := range b.TrafficByDay {
					days += v.Count
				}
				want := min(tc.want, 10)
				if variants != want || segments != want || days != want {
					t.Errorf("breakdown has %d by variant, %d by segment, %d by day, want %d", variants, segments, days, want)
				}
			})
		}

		t.Run("pages", func(t *testing.T) {
			for query, want := range map[string]int64{
				"limit=1":           j.flag.ID,
				"limit=1&offset=1":  j.quiet.ID,
				"limit=1000":        j.flag.ID,
				"offset=1":          j.quiet.ID,
				"limit=1&offset=2":  0,
				"offset=2147483647": 0,
			} {
				flags := get[summary](t, s, "/datar/summary?"+query).Flags
				var first int64
				if len(flags) > 0 {
					first = flags[0].FlagID
				}
				if first != want {
					t.Errorf("%s: first flag is %d, want %d", query, first, want)
				}
			}
		})

		t.Run("nothing is an empty list", func(t *testing.T) {
			a := s.call(t, http.MethodGet, "/datar/summary?offset=2", nil)
			if a.status != http.StatusOK || !strings.HasSuffix(strings.TrimSpace(string(a.body)), `"flags":[]}`) {
				t.Errorf("answer is %s", a)
			}
		})

		t.Run("a deleted flag still answers", func(t *testing.T) {
			send[any](t, s, http.MethodDelete, j.quiet.path(), nil)
			if got := get[summary](t, s, "/datar/summary").total(j.quiet.ID); got != 2 {
				t.Errorf("summary has %d, want 2", got)
			}
			b := get[breakdown](t, s, fmt.Sprintf("/datar/flags/%d/summary", j.quiet.ID))
			if len(b.TrafficByVariant) != 1 || b.TrafficByVariant[0].Count != 2 {
				t.Errorf("breakdown is %+v", b)
			}
		})
	})
}

// TestTimeZoneOfTheHost runs the main job on a server in a zone far from UTC, and then shares its
// database with a server in UTC.
func TestTimeZoneOfTheHost(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		if _, err := os.Stat("/usr/share/zoneinfo/Asia/Kolkata"); err != nil {
			t.Skip("this machine has no time zones:", err)
		}
		dsn := db.fresh(t)
		far := start(t, db, dsn, environ{"TZ": "Asia/Kolkata"})
		if !strings.Contains(far.log.String(), "+05:30") {
			t.Fatalf("the server is not in the zone of this test; its log:\n%s", far.log)
		}
		j := runMainJob(t, far)
		checkMainJob(t, far, j)
		for name, at := range map[string]string{
			"updatedAt of a flag":        get[flagAnswer](t, far, j.flag.path()).UpdatedAt,
			"timestamp of an evaluation": evaluate(t, far, j.quiet, "u", nil).Timestamp,
		} {
			parsed, err := time.Parse(time.RFC3339, at)
			if err != nil || !strings.HasSuffix(at, "Z") || parsed.Before(j.begin.Add(-time.Minute)) || parsed.After(time.Now()) {
				t.Errorf("%s is %q, want the time in UTC", name, at)
			}
		}
		far.stop(t, syscall.SIGTERM)

		near := start(t, db, dsn, environ{"TZ": "UTC"})
		if got := get[summary](t, near, "/datar/summary").total(j.flag.ID); got != 10 {
			t.Errorf("a server in UTC reads %d evaluations, want 10", got)
		}
		if got := evaluate(t, near, j.flag, "u", object{"country": "FR"}); got.VariantID == 0 {
			t.Errorf("a server in UTC assigns no variant: %+v", got)
		}
		near.stop(t, syscall.SIGTERM)

		type row struct {
			flag, variant, segment int64
			hour                   int64
		}
		seen := map[row]bool{}
		var sum int64
		rows, err := db.open(t, dsn).Query("SELECT flag_id, variant_id, segment_id, bucket_hour, eval_count FROM datar_hourly_events")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rows.Close() }() // errors are in rows.Err
		for rows.Next() {
			var r row
			var hour time.Time
			var count int64
			if err := rows.Scan(&r.flag, &r.variant, &r.segment, &hour, &count); err != nil {
				t.Fatal(err)
			}
			r.hour = hour.Unix()
			if r.hour%3600 != 0 || hour.Before(j.begin.Add(-time.Hour)) || hour.After(time.Now()) {
				t.Errorf("a row is for the hour %s, want an hour of UTC around %s", hour, j.begin.UTC())
			}
			if seen[r] {
				t.Errorf("two rows for the same hour: %+v", r)
			}
			seen[r] = true
			sum += count
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		if sum != 14 {
			t.Errorf("the rows sum to %d, want 14", sum)
		}
	})
}

// TestWhatIsCounted checks the conditions for counting, with one flag for each.
func TestWhatIsCounted(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		s := start(t, db, db.fresh(t), nil)

		counted := newFlag(t, s, "counted")
		records := newFlag(t, s, "records-off")
		send[any](t, s, http.MethodPut, records.path(), object{"dataRecordsEnabled": false})
		disabled := newFlag(t, s, "disabled")
		send[any](t, s, http.MethodPut, disabled.path()+"/enabled", object{"enabled": false})
		bare := send[flagAnswer](t, s, http.MethodPost, "/flags", object{"description": "no segments", "key": "bare"})
		send[any](t, s, http.MethodPut, bare.path(), object{"dataRecordsEnabled": true})
		send[any](t, s, http.MethodPut, bare.path()+"/enabled", object{"enabled": true})
		picky := newFlag(t, s, "picky")
		send[any](t, s, http.MethodPost, fmt.Sprintf("%s/segments/%d/constraints", picky.path(), picky.Segments[0].ID),
			object{"property": "country", "operator": "EQ", "value": `"FR"`})
		rollout := newFlag(t, s, "rollout")
		send[any](t, s, http.MethodPut, fmt.Sprintf("%s/segments/%d", rollout.path(), rollout.Segments[0].ID),
			object{"description": "nobody", "rolloutPercent": 0})
		awaitChanges(t, s)

		for _, f := range []flagAnswer{counted, records, disabled, bare, picky, rollout} {
			for i := range 3 {
				evaluate(t, s, f, fmt.Sprint("u", i), object{"country": "DE"})
			}
		}
		send[any](t, s, http.MethodPost, "/evaluation", object{"flagID": 999, "entityID": "u"})
		evaluate(t, s, picky, "u", object{"country": "FR"})

		got := map[string]int64{}
		for _, f := range counts(t, s, 10).Flags {
			got[f.FlagKey] = f.TotalEvalCount
		}
		if diff := cmp.Diff(map[string]int64{"counted": 3, "picky": 4, "rollout": 3}, got); diff != "" {
			t.Errorf("counts by flag (-want +got):\n%s", diff)
		}

		// Responses omit the ID 0 of no variant. Evaluations without a segment have no entry.
		for _, tc := range []struct {
			flag               flagAnswer
			variants, segments string
		}{
			{counted, `[{"count":3,"variantID":1}]`, `[{"count":3,"segmentID":1}]`},
			{picky, fmt.Sprintf(`[{"count":3},{"count":1,"variantID":%d}]`, picky.Variants[0].ID),
				fmt.Sprintf(`[{"count":1,"segmentID":%d}]`, picky.Segments[0].ID)},
			{rollout, `[{"count":3}]`, `[]`},
		} {
			b := get[object](t, s, fmt.Sprintf("/datar/flags/%d/summary", tc.flag.ID))
			var variants, segments any
			decode(t, []byte(tc.variants), &variants)
			decode(t, []byte(tc.segments), &segments)
			if diff := cmp.Diff(variants, b["trafficByVariant"]); diff != "" {
				t.Errorf("%s by variant (-want +got):\n%s", tc.flag.Key, diff)
			}
			if diff := cmp.Diff(segments, b["trafficBySegment"]); diff != "" {
				t.Errorf("%s by segment (-want +got):\n%s", tc.flag.Key, diff)
			}
		}
	})
}
