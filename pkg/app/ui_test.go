package app_test

import (
	"database/sql"
	"fmt"
	"html"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/ui"
)

// secretKey is the key of a flag that must not be seen without a login.
const secretKey = "secret-flag-of-the-tests"

// TestPagesNeedTheLoginThatTheAPINeeds asks for every page and sends every form without a login.
func TestPagesNeedTheLoginThatTheAPINeeds(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]struct {
		environ map[string]string
		login   []string
		refused int // 0: this kind names the user, and rejects no request
	}{
		"token": {map[string]string{"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": secret, "FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE": "401"}, nil, 401},
		"token and redirect": {map[string]string{"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": secret,
			"FLAGR_JWT_AUTH_NO_TOKEN_REDIRECT_URL": "https://login.example.com/"}, nil, 307},
		"token below a prefix": {map[string]string{"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": secret, "FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE": "401",
			"FLAGR_WEB_PREFIX": "/shop"}, nil, 401},
		"password": {map[string]string{"FLAGR_BASIC_AUTH_ENABLED": "true", "FLAGR_BASIC_AUTH_USERNAME": "u", "FLAGR_BASIC_AUTH_PASSWORD": "p"}, nil, 401},
		"header":   {map[string]string{"FLAGR_HEADER_AUTH_ENABLED": "true"}, nil, 0},
		"cookie":   {map[string]string{"FLAGR_COOKIE_AUTH_ENABLED": "true"}, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prefix := kind.environ["FLAGR_WEB_PREFIX"]
			address := listen(t, kind.environ)
			for _, pattern := range ui.Routes() {
				method, target, _ := strings.Cut(pattern, " ")
				target = prefix + strings.NewReplacer("{id}", "1", "{$}", "").Replace(target)
				for _, path := range []string{target, strings.Replace(target, "/ui/", "/static/../ui/", 1), strings.Replace(target, "/ui/", "/static/%2e%2e/ui/", 1),
					strings.Replace(target, "/ui/", "/static%2f..%2fui/", 1), strings.Replace(target, "/ui/", "//ui/", 1), strings.Replace(target, "/ui/", "/%75i/", 1),
					strings.Replace(target, "/ui/", "/api/v1/health/../../../ui/", 1), strings.Replace(target, "/ui/", "/ui/./", 1)} {
					a := raw(t, address, method, path)
					if kind.refused != 0 && a.status != kind.refused && a.status != http.StatusNotFound {
						t.Errorf("%s %s: %d without a login", method, path, a.status)
					}
					if kind.refused != 0 && (strings.Contains(string(a.body), "<main") || path == target && a.status != kind.refused) {
						t.Errorf("%s %s: shows a page (%d)", method, path, a.status)
					}
				}
			}
		})
	}
}

func TestPagesCanBeSwitchedOff(t *testing.T) {
	t.Parallel()
	address := listen(t, map[string]string{"FLAGR_UI_ENABLED": "false"})
	for _, target := range []string{"/", "/ui", "/ui/", "/ui/flags/1", "/static/ui/x/ui.css"} {
		if a := raw(t, address, http.MethodGet, target); a.status != http.StatusNotFound {
			t.Errorf("%s: %d", target, a.status)
		}
	}
}

// TestPagesOfAWholeServer creates, switches on and shows a flag, with the name of who did it, and
// behind a prefix.
func TestPagesOfAWholeServer(t *testing.T) {
	t.Parallel()
	address := listen(t, map[string]string{"FLAGR_WEB_PREFIX": "/shop", "FLAGR_HEADER_AUTH_ENABLED": "true", "FLAGR_EVALCACHE_REFRESHINTERVAL": "1h"})
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	post := func(target, body string) (status int, location string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+target, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("X-Email", "ann@example.com")
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode, response.Header.Get("Location")
	}
	if status, to := post("/shop/ui/new", "key="+secretKey+"&kind=boolean"); status != http.StatusSeeOther || to != "flags/1/targeting" {
		t.Fatalf("create: %d to %q", status, to)
	}
	if status, to := post("/shop/ui/flags/1/enabled", "enabled=true&snapshot=1&back=flags/1"); status != http.StatusSeeOther || to != "../../flags/1" {
		t.Errorf("switch on: %d to %q", status, to)
	}
	// The flags in memory follow at once, although they are looked at every hour only.
	for target, want := range map[string][]string{
		"/shop/ui/":                {secretKey, ">On<", "ann"},
		"/shop/ui/flags/1":         {secretKey, "ann@example.com"},
		"/shop/ui/flags/1/history": {"Created.", "The flag: "},
		"/shop":                    {`href="shop/ui/"`},
		"/shop/":                   {`href="ui/"`},
	} {
		a := raw(t, address, http.MethodGet, target)
		for _, one := range want {
			if !strings.Contains(string(a.body), one) {
				t.Errorf("%s lacks %q (%d)", target, one, a.status)
			}
		}
	}
	for _, target := range []string{"/shop", "/shop/"} { // which need no login
		if a := raw(t, address, http.MethodGet, target); strings.Contains(string(a.body), secretKey) {
			t.Errorf("%s has data", target)
		}
	}
	if a := raw(t, address, http.MethodPost, "/shop/api/v1/evaluation", "X-Email: x"); a.status != http.StatusOK && a.status != 422 && a.status != 400 {
		t.Errorf("evaluation beside the pages: %d", a.status)
	}
}

// TestPagesOfCountsFromFlagr: Flagr, or an older version, wrote counts of variants into a database
// without the tables of outcomes and versions. Numbers that follow from these counts are right. All
// others are shown as unknown, with the reason, and never as 0.
func TestPagesOfCountsFromFlagr(t *testing.T) {
	t.Parallel()
	database := filepath.Join(t.TempDir(), "flagr.sqlite")
	db, err := sql.Open("sqlite", database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	yesterday := time.Now().UTC().AddDate(0, 0, -1).Truncate(time.Hour).Format("2006-01-02 15:04:05+00:00")
	for _, statement := range []string{
		"CREATE TABLE datar_hourly_events (id integer, flag_id integer NOT NULL, bucket_hour datetime NOT NULL, variant_id integer NOT NULL DEFAULT 0, " +
			"segment_id integer NOT NULL DEFAULT 0, eval_count integer NOT NULL DEFAULT 0, updated_at datetime, PRIMARY KEY (id))",
		"CREATE UNIQUE INDEX idx_datar_hourly ON datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id)",
		fmt.Sprintf("INSERT INTO datar_hourly_events VALUES (1, 1, '%[1]s', 1, 1, 300, NULL), (2, 1, '%[1]s', 0, 0, 100, NULL)", yesterday),
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	address := listen(t, map[string]string{"FLAGR_DB_DBCONNECTIONSTR": database, "FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar"})
	send := func(target, form string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+target, strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if strings.HasPrefix(target, "/api/") {
			r.Header.Set("Content-Type", "application/json")
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("POST %s: %s, %v", target, response.Status, err)
		}
	}
	tags := regexp.MustCompile(`<(?:[^<>"]|"[^"]*")*>`)
	check := func(target string, want ...string) {
		t.Helper()
		a := raw(t, address, http.MethodGet, target)
		words := strings.Join(strings.Fields(strings.ReplaceAll(tags.ReplaceAllString(string(a.body), " "), "\u00a0", " ")), " ")
		for _, one := range want {
			if !strings.Contains(words, one) {
				t.Errorf("%s lacks %q (%d) in\n%s", target, one, a.status, words)
			}
		}
		if zero := regexp.MustCompile(`\b0 (matched|evaluations)`).FindString(words); zero != "" {
			t.Errorf("%s claims %q in\n%s", target, zero, words)
		}
	}
	send("/ui/new", "key=counted-by-flagr&kind=boolean")
	send("/ui/flags/1/enabled", "enabled=true&snapshot=1&back=flags/1")
	check("/ui/", "400", "Not known")
	check("/ui/flags/1", "75.0 % of 400 evaluations got on , 25.0 % got nothing", "– matched: not known", "400 evaluations of these days are not included, because Flagr")
	check("/ui/flags/1/targeting", "– evaluations reached this segment: Flagr or an older version counted them")
	check("/ui/flags/1/traffic?by=variant", "300", "100")
	check("/ui/flags/1/traffic?by=outcome", "Not known, or –: Flagr or an older version counted these evaluations")
	check("/ui/flags/1/nothing", "100 of 400 evaluations gave no variant: 100 % of them have no known reason", "Which one is not known, because Flagr")
	check("/ui/flags/1/delete", "How is unknown: Flagr or an older version counted them.")

	send("/api/v1/evaluation", `{"flagID": 1, "entityID": "a"}`) // is counted with everything
	testwait.Until(t, "the count", func() bool {
		return strings.Contains(string(raw(t, address, http.MethodGet, "/api/v1/datar/flags/1/outcomes").body), `"total":401`)
	})
	check("/ui/flags/1", "75.1 % of 401 evaluations", "1 matched", "400 evaluations of these days are not included")
	check("/ui/flags/1/targeting", "At least 1 evaluation reached this segment")
	check("/ui/flags/1/traffic?by=outcome&days=7", " – 400 400 ") // of yesterday: a variant, not known, all
	check("/ui/flags/1/traffic?by=version&days=7", " – 400 400 ")
	check("/ui/flags/1/delete", "1 by name, 0 by tag, and 400 of which this is unknown")

	// The SQL beside the numbers of a page returns the same numbers.
	send("/api/v1/evaluation", `{"flagKey": "no-such-flag", "entityID": "a"}`)
	testwait.Until(t, "the request for a flag that does not exist", func() bool {
		return strings.Contains(string(raw(t, address, http.MethodGet, "/api/v1/datar/unknown").body), "no-such-flag")
	})
	const all, byOutcome = "401", "0 400, 1 1"
	for target, want := range map[string]string{
		"/ui/":                  "1 401", // a flag and its evaluations
		"/ui/?days=30":          "1 401",
		"/ui/flags/1":           "0 0 100, 0 1 300, 1 1 1", // by outcome and variant
		"/ui/flags/1/nothing":   byOutcome,
		"/ui/flags/1/delete":    byOutcome,
		"/ui/flags/1/traffic":   all,
		"/ui/flags/1/targeting": all,
		"/ui/unknown":           "no-such-flag 1",
		"/ui/deleted":           "no-such-flag 1",
	} {
		statement := shownSQL(string(raw(t, address, http.MethodGet, target).body))
		got := rowsText(t, db, statement, want == all)
		if got != want {
			t.Errorf("%s: %s\nreturns %q, want %q", target, statement, got, want)
		}
	}
	statement := shownSQL(string(raw(t, address, http.MethodGet, "/ui/server").body))
	if rows := testdb.Rows(t, db, statement); len(rows) != 1 {
		t.Errorf("%s returns %d rows, want one server", statement, len(rows))
	}
}

// shownSQL returns the SQL of a page.
func shownSQL(page string) string {
	found := regexp.MustCompile(`<code class="note">(SELECT [^<]*);</code>`).FindStringSubmatch(page)
	if found == nil {
		return ""
	}
	return html.UnescapeString(found[1])
}

// rowsText returns the rows of a statement, or only the sum of their last cells.
func rowsText(t *testing.T, db *sql.DB, statement string, onlySum bool) string {
	t.Helper()
	if statement == "" {
		return "no statement"
	}
	sum := 0
	var rows []string
	for _, row := range testdb.Rows(t, db, statement) {
		n, err := strconv.Atoi(row[len(row)-1])
		if err != nil {
			t.Fatalf("%s returns %q: %v", statement, row, err)
		}
		sum += n
		rows = append(rows, strings.Join(row, " "))
	}
	if onlySum {
		return strconv.Itoa(sum)
	}
	return strings.Join(rows, ", ")
}
