package config

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// row is what the two references say about one variable.
type row struct{ Type, Default, Accepts, Works string }

func readLines(t *testing.T, path string) []string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var lines []string
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

// testdata/contract.txt holds what deployments of Flagr rely on: a change there breaks them. Other
// variables are our own.
func TestVariablesKeepTheContract(t *testing.T) {
	t.Parallel()
	want := map[string]row{}
	for _, line := range readLines(t, "testdata/contract.txt") {
		cells := strings.Split(line, "|")
		if len(cells) != 3 {
			t.Fatalf("not name|type|default: %q", line)
		}
		want[cells[0]] = row{Type: cells[1], Default: cells[2]}
	}
	got := map[string]row{}
	for _, v := range Variables() {
		if _, ok := got[v.Name]; ok {
			t.Errorf("%s has two fields", v.Name)
		}
		if _, ok := want[v.Name]; ok {
			got[v.Name] = row{Type: v.Type, Default: v.Default}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-contract +struct):\n%s", diff)
	}
}

func TestReferenceAgreesWithVariables(t *testing.T) {
	t.Parallel()
	got := map[string]row{}
	for _, line := range readLines(t, "../../docs/environment.md") {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != 6 {
			t.Fatalf("not six cells: %s", line)
		}
		name := strings.Trim(cells[0], "`")
		if _, ok := got[name]; ok {
			t.Errorf("%s has two rows", name)
		}
		if cells[5] == "" {
			t.Errorf("%s is not described", name)
		}
		got[name] = row{
			Type:    strings.Trim(cells[1], "`"),
			Default: strings.Trim(strings.TrimSuffix(cells[2], "(empty)"), "`"),
			Accepts: cells[3],
			Works:   cells[4],
		}
	}
	want := map[string]row{}
	for _, v := range Variables() {
		works := "yes"
		if _, ok := findUnavailable(v.Name); ok {
			works = "no"
		}
		want[v.Name] = row{Type: v.Type, Default: v.Default, Accepts: v.Accepts, Works: works}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/environment.md (-struct +page):\n%s", diff)
	}
}

// A row of the table that no variable falls into is a leftover or misspelt.
func TestUnavailablesAreVariables(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, v := range Variables() {
		if u, ok := findUnavailable(v.Name); ok {
			used[u.variable] = true
		}
	}
	for _, u := range unavailables {
		if !used[u.variable] {
			t.Errorf("%s fits no variable", u.variable)
		}
	}
}

// What may hold a credential must be tagged, or error messages would show it.
func TestSecrets(t *testing.T) {
	t.Parallel()
	want := []string{
		"FLAGR_JWT_AUTH_SECRET", "FLAGR_BASIC_AUTH_PASSWORD", "FLAGR_DB_DBCONNECTIONSTR", "FLAGR_RECORDER_DATAR_STORE", "FLAGR_RECORDER_DATAR_FORWARD_URL", "FLAGR_RECORDER_DATAR_FORWARD_HEADERS",
		"FLAGR_RECORDER_KAFKA_SASL_PASSWORD", "FLAGR_RECORDER_KAFKA_ENCRYPTION_KEY", "FLAGR_NOTIFICATION_WEBHOOK_URL",
		"FLAGR_NOTIFICATION_WEBHOOK_HEADERS", "FLAGR_OFREP_API_KEYS", "FLAGR_SENTRY_DSN", "FLAGR_NEWRELIC_KEY",
	}
	var got []string
	for _, v := range Variables() {
		if v.Secret {
			got = append(got, v.Name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
