// Package promrules checks the dashboard and the alert rules of the documentation with Prometheus's
// own parsers.
package promrules

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

const top = "../.."

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// known lists the metrics of the server, whose names are in its source.
func known(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(top, "pkg", "*", "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources: %v", err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

var (
	metricName = regexp.MustCompile(`\bflagr_[a-z_]+`)
	// group is the beginning of names that the source adds to the rest.
	group = regexp.MustCompile(`^flagr_(ofrep|evalcache|otel)_`)
)

// check parses a query, and checks that the server has its metrics.
func check(t *testing.T, source, query string) {
	t.Helper()
	query = strings.NewReplacer("$__rate_interval", "5m", "$flag", ".*").Replace(query)
	if _, err := parser.NewParser(parser.Options{}).ParseExpr(query); err != nil {
		t.Errorf("%s: %v", query, err)
	}
	for _, name := range metricName.FindAllString(query, -1) {
		short := strings.TrimSuffix(name, "_bucket")
		if !strings.Contains(source, `"`+short+`"`) && !strings.Contains(source, `"`+group.ReplaceAllString(short, "")+`"`) {
			t.Errorf("%s: the server has no metric %s", query, name)
		}
	}
}

func TestAlerts(t *testing.T) {
	t.Parallel()
	source := known(t)
	groups, errs := rulefmt.Parse([]byte(read(t, "docs/telemetry/alerts.yml")), false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if groups == nil || len(groups.Groups) == 0 {
		t.Fatal("no groups")
	}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			check(t, source, rule.Expr)
			if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" || rule.Labels["severity"] == "" {
				t.Errorf("%s lacks a summary, a description or a severity", rule.Alert)
			}
		}
	}
}

func TestDashboard(t *testing.T) {
	t.Parallel()
	var dashboard struct {
		Title  string
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "docs/telemetry/dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	source, ids := known(t), map[int]bool{}
	for _, panel := range dashboard.Panels {
		if ids[panel.ID] || panel.Title == "" || len(panel.Targets) == 0 {
			t.Errorf("panel %d %q", panel.ID, panel.Title)
		}
		ids[panel.ID] = true
		for _, target := range panel.Targets {
			check(t, source, target.Expr)
		}
	}
	if len(ids) < 10 {
		t.Errorf("%d panels", len(ids))
	}
}

// TestQueriesOfTheDocumentation parses the queries in the table of docs/telemetry.md.
func TestQueriesOfTheDocumentation(t *testing.T) {
	t.Parallel()
	source, queries := known(t), 0
	for line := range strings.SplitSeq(read(t, "docs/telemetry.md"), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) == 2 && strings.HasSuffix(cells[0], "?") {
			check(t, source, strings.Trim(cells[1], "`"))
			queries++
		}
	}
	if queries < 10 {
		t.Errorf("%d queries found", queries)
	}
}
