package browser

import (
	"database/sql"
	"flag"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	_ "github.com/glebarez/go-sqlite" // the driver of the database that is filled with a month of counts
)

var screenshots = flag.String("screenshots", "", "folder to write pictures of the main pages to; without it none are made")

// Outcomes as numbers in the database.
const matched, heldOut, noMatch, disabled = 1, 2, 3, 5

// demo is a flag of the screenshots, with its approximate evaluations per hour.
type demo struct {
	key, description, by string
	tags                 []string
	on, recorded         bool
	perHour              float64
	variants             []string
	segments             []object
}

func segment(description string, rollout int, constraints []object, shares ...any) object {
	var all []object
	for i := 0; i+1 < len(shares); i += 2 {
		all = append(all, object{"variantKey": shares[i], "percent": shares[i+1]})
	}
	return object{"description": description, "rolloutPercent": rollout, "constraints": constraints, "distributions": all}
}

func demos() []demo {
	fr := []object{{"property": "country", "operator": "EQ", "value": `"FR"`}, {"property": "age", "operator": "GTE", "value": "18"}}
	beta := []object{{"property": "beta", "operator": "EQ", "value": `"true"`}}
	everybody := []object{segment("", 100, nil, "on", 100)}
	all := []demo{
		{"old-banner", "Banner of the winter sale", "mei", []string{"web"}, true, true, 0, []string{"on"}, everybody},
		{"api-rate-limit", "Requests a minute by plan, as an attachment", "omar", []string{"api"}, true, true, 13_700, []string{"pro", "free"}, []object{segment("Everybody", 100, nil, "pro", 61, "free", 39)}},
		{"sms-fallback", "Send the code by SMS when push fails", "omar", []string{"auth"}, true, true, 0, []string{"on"}, everybody},
		{"new-onboarding", "Three steps instead of seven after sign-up", "linus", []string{"web"}, true, true, 525, []string{"on"}, everybody},
		{"legacy-tax-engine", "Old VAT rules, kept for refunds", "ada", nil, true, false, 0, []string{"on"}, everybody},
		{"checkout-button", "Color of the checkout button", "ada", []string{"web", "ios"}, true, true, 950, []string{"blue", "green"},
			[]object{segment("Adults in France", 50, fr, "blue", 50, "green", 50), segment("Beta testers", 100, beta, "green", 100)}},
		{"dark-mode", "Dark mode in account settings", "ada", []string{"web"}, false, true, 2, []string{"on"}, everybody},
		{"cart-upsell", "Suggest a case with every phone", "linus", []string{"web", "ios"}, true, true, 172, []string{"control", "case"}, []object{segment("", 100, nil, "control", 50, "case", 50)}},
		{"price-rounding", "Round prices to .90 in the storefront", "grace", []string{"web"}, true, true, 245, []string{"round"}, []object{segment("", 0, nil, "round", 100)}},
		{"kuchikomi-sort", "口コミの並び順を「参考になった順」に変更する", "yuki", []string{"ios", "android"}, true, true, 570, []string{"helpful", "newest"}, []object{segment("", 100, nil, "helpful", 50, "newest", 50)}},
		{"checkout-express-payment-eu-rollout-2026", "Wallet buttons above the cart in the EU", "mei", []string{"web", "eu"}, true, true, 2_400, []string{"on"}, []object{segment("EU", 20, nil, "on", 100)}},
	}
	var twelve []string
	var shares []any
	for i := range 12 {
		twelve = append(twelve, fmt.Sprintf("design-%c", 'a'+i))
		shares = append(shares, twelve[i], 8+(12-i)/12*4)
	}
	var countries []object
	for i := range 30 {
		countries = append(countries, segment(fmt.Sprintf("Country %d", i+1), 100, []object{{"property": "country", "operator": "EQ", "value": fmt.Sprintf("%q", fmt.Sprint("C", i+1))}}, "on", 100))
	}
	hard := []demo{
		{"landing-page", "Twelve designs of the landing page", "yuki", []string{"web"}, true, true, 4_000, twelve, []object{segment("", 100, nil, shares...)}},
		{"delivery-by-country", "One segment for each country", "omar", nil, true, true, 300, []string{"on"}, countries},
		{"session-cache", "Cache sessions beside the database", "omar", []string{"api"}, true, true, 1_000_000, []string{"on", "off"}, []object{segment("", 100, nil, "on", 99, "off", 1)}},
		{"rtl-checkout", "زر الدفع باللغة العربية (جديد)", "mei", []string{"ios"}, true, true, 90, []string{"left"}, []object{segment("مستخدمون في مصر", 50, fr[:1], "left", 100)}},
	}
	for i := range 113 {
		all = append([]demo{{fmt.Sprintf("experiment-%d", i), fmt.Sprintf("Experiment %d of the shop", i), "grace", []string{"web"}, i%5 != 0, true, float64(i%7) * 60, []string{"control", "treatment"},
			[]object{segment("", 100, nil, "control", 50, "treatment", 50)}}}, all...)
	}
	return append(hard, all...)
}

// TestScreenshots writes screenshots of the main pages, in both themes, over a month of generated
// counts.
func TestScreenshots(t *testing.T) {
	t.Parallel()
	if *screenshots == "" {
		t.Skip("-screenshots is not set")
	}
	folder, err := filepath.Abs(*screenshots)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, "FLAGR_RECORDER_DATAR_TAIL_ENABLED=true")
	all := demos()
	checkout := 1 + slices.IndexFunc(all, func(d demo) bool { return d.key == "checkout-button" })
	s.demonstrate(t, all, 30*24)
	s.folder, s.database = filepath.Dir(s.file), filepath.Base(s.file) // the page of the server shows the name
	s.startOn(t)
	s.sample(t, checkout)
	flag := fmt.Sprintf("/ui/flags/%d", checkout)
	for _, theme := range []string{"light", "dark"} {
		p := open(t, s)
		call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}})
		call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 1280, Height: 900, DeviceScaleFactor: 1})
		for name, path := range map[string]string{"list": "/ui/", "overview": flag, "targeting": flag + "/targeting", "traffic": flag + "/traffic", "nothing": flag + "/nothing", "server": "/ui/server"} {
			p.visit(path)
			p.picture(filepath.Join(folder, "ui-"+name+"-"+theme+".png"))
		}
		p.visit(flag)
		p.until("an open number", `(document.querySelector(".setgot td.got-c").click(), document.querySelector("#number:popover-open"))`)
		p.picture(filepath.Join(folder, "ui-number-"+theme+".png"))
		p.visit(flag + "/targeting")
		p.fill("s.0.rollout", "80")
		p.press("Review and save")
		p.has("Save 1 change as a new version?")
		p.picture(filepath.Join(folder, "ui-review-"+theme+".png"))
	}
}

// sample evaluates the flag for entities that no segment matches, until the server has explained 20
// of them.
func (s *server) sample(t *testing.T, flagID int) {
	t.Helper()
	contexts := []object{{"age": 30}, {"country": "DE"}, {"country": "FR", "age": "31"}, {"country": "FR", "age": 17}, {"age": "44"}}
	i := 0
	poll(t, "20 explained evaluations", func() bool {
		s.api(t, http.MethodPost, "/evaluation", object{"flagID": flagID, "entityID": fmt.Sprint("sample-", i), "entityContext": contexts[i%len(contexts)]})
		i++
		n, _ := s.api(t, http.MethodGet, fmt.Sprintf("/datar/flags/%d/reasons", flagID), nil)["examined"].(float64)
		return n >= 20
	})
}

func (p *tab) picture(file string) {
	p.t.Helper()
	image, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(file, image, 0o644); err != nil { // readable by all users
		p.t.Fatal(err)
	}
}

// demonstrate creates flags on an empty server, stops it, and gives the flags counts of the last
// hours.
func (s *server) demonstrate(t *testing.T, flags []demo, hours int) {
	t.Helper()
	for i, d := range flags {
		s.by = d.by + "@example.com"
		s.api(t, http.MethodPost, "/flags", object{"key": d.key, "description": d.description})
		id := i + 1
		variants := []object{}
		for _, v := range d.variants {
			variants = append(variants, object{"key": v})
		}
		s.api(t, http.MethodPut, fmt.Sprintf("/flags/%d/definition", id), object{"snapshotID": s.definition(t, id)["snapshotID"], "enabled": d.on, "dataRecordsEnabled": d.recorded, "tags": d.tags,
			"variants": variants, "segments": d.segments, "notes": "Decide on 7 February: keep the variant with **more orders**."})
	}
	s.stop(t)
	s.fill(t, flags, hours)
}

// fill writes counts of the last hours to the database of a stopped server, and makes its flags
// older than a month.
func (s *server) fill(t *testing.T, flags []demo, hours int) {
	t.Helper()
	db, err := sql.Open("sqlite", s.file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := tx.Exec(statement, args...); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	number := func(query string, args ...any) (n int64) {
		t.Helper()
		if err := tx.QueryRow(query, args...).Scan(&n); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		return n
	}
	for _, table := range []string{"datar_rollups", "datar_rollup_details", "datar_rollup_totals", "datar_rollup_outcomes"} { // of the empty database, now outdated
		exec("DELETE FROM " + table)
	}
	at := time.Now().UnixMilli()
	exec("INSERT INTO datar_servers (name, run, kind, started_ms, at_ms, last_flush_ms, flush_interval_ms, ended, recorded, adopted, stored, pending, dropped, first_drop_ms, last_drop_ms) "+
		"VALUES ('flagr-0', 'r', 'server', ?, ?, ?, 3600000, 0, 9120034, 0, 9119876, 158, '{}', 0, 0)", at-60*24*3_600_000, at, at)
	const layout = "2006-01-02 15:04:05.000000-07:00"
	now := time.Now().UTC()
	for i, d := range flags {
		id := i + 1
		days := 40 + i%20
		last := days - 2
		switch d.key {
		case "checkout-button":
			last = 7
		case "experiment-3":
			last = 1
		}
		exec("UPDATE flags SET created_at = ?, updated_at = ? WHERE id = ?", now.AddDate(0, 0, -days).Format(layout), now.AddDate(0, 0, -last).Format(layout), id)
		exec("UPDATE flag_snapshots SET created_at = ? WHERE flag_id = ?", now.AddDate(0, 0, -days).Format(layout), id)
		exec("UPDATE flag_snapshots SET flag = replace(flag, '\"DataRecordsEnabled\":false', '\"DataRecordsEnabled\":true') WHERE flag_id = ? AND ?", id, d.recorded)
		version := number("SELECT MAX(id) FROM flag_snapshots WHERE flag_id = ?", id)
		exec("UPDATE flag_snapshots SET created_at = ? WHERE id = ?", now.AddDate(0, 0, -last).Format(layout), version)
		if !d.recorded {
			continue
		}
		step := 1 // fewer rows for the experiments, so that filling the database is fast
		if strings.HasPrefix(d.key, "experiment-") {
			step = 8
		}
		for back := 0; back < hours; back += step {
			at := now.Truncate(time.Hour).Add(-time.Duration(back) * time.Hour)
			n := int64(float64(step) * d.perHour * (1 + .6*math.Sin(float64(at.Hour()-8)/12*math.Pi)) * (1 - .3*float64(int(at.Weekday())/6)))
			s.fillHour(t, exec, number, &d, id, version, at, n)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// fillHour divides the evaluations of an hour by the shares of the flag.
func (s *server) fillHour(t *testing.T, exec func(string, ...any), number func(string, ...any) int64, d *demo, id int, version int64, at time.Time, n int64) {
	t.Helper()
	add := func(outcome int, variant, segment, count int64) {
		if count > 0 {
			exec("INSERT INTO datar_hourly_details (flag_id, bucket_hour, outcome, variant_id, segment_id, version, asked, eval_count, ingested_count, first_evaluated_ms, last_evaluated_ms) "+
				"VALUES (?, ?, ?, ?, ?, ?, 0, ?, 0, ?, ?)", id, at.Format("2006-01-02 15:04:05-07:00"), outcome, variant, segment, version, count, at.UnixMilli(), min(at.Add(time.Hour).UnixMilli(), time.Now().UnixMilli())-1)
			if outcome != disabled { // the other outcomes are also in the events
				exec("INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count) VALUES (?, ?, ?, ?, ?)", id, at.Format("2006-01-02 15:04:05-07:00"), variant, segment, count)
			}
		}
	}
	if !d.on {
		add(disabled, 0, 0, n)
		return
	}
	first := number("SELECT MIN(id) FROM variants WHERE flag_id = ?", id)
	for i, one := range d.segments {
		segment := number("SELECT id FROM segments WHERE flag_id = ? ORDER BY rank, id LIMIT 1 OFFSET ?", id, i)
		came := n
		if len(one["constraints"].([]object)) > 0 {
			came = n / int64(len(d.segments)+1-i)
			if len(d.segments) <= 2 {
				came = n * 3 / 4 * int64(1-i)
			}
		}
		rest := came
		for _, share := range one["distributions"].([]object) {
			place := int64(0)
			for j, key := range d.variants {
				if key == share["variantKey"] {
					place = int64(j)
				}
			}
			count := came * int64(one["rolloutPercent"].(int)) * int64(share["percent"].(int)) / 10_000
			if d.key == "cart-upsell" {
				count = came * (1 - place)
			}
			if one["rolloutPercent"] == 100 && place == int64(len(d.variants)-1) && d.key != "cart-upsell" {
				count = rest // the rest of rounding
			}
			add(matched, first+place, segment, count)
			rest -= count
		}
		add(heldOut, 0, segment, rest)
		n -= came
	}
	add(noMatch, 0, 0, n)
}
