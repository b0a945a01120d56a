package chstore_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// constants are the constants of docs/scaling.md, by name.
type constants map[string]float64

// readConstants reads rows such as | `PostgreSQL key` | 0.094 | ms |.
func readConstants(t *testing.T, page string) constants {
	t.Helper()
	found := constants{}
	for _, match := range regexp.MustCompile("(?m)^\\| `([A-Za-z ]+)` \\| ([0-9.]+) \\|").FindAllStringSubmatch(page, -1) {
		value, err := strconv.ParseFloat(match[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		found[match[1]] = value
	}
	return found
}

var scalingStores = []string{"PostgreSQL", "MariaDB", "ClickHouse"}

// flush returns the CPU time of a database per flush, in milliseconds.
func (c constants) flush(store string, keys float64) float64 {
	return c[store+" flush"] + c[store+" key"]*keys
}

// cores returns the load of a database.
func (c constants) cores(store string, servers, keys, seconds float64) float64 {
	return servers * c.flush(store, keys) / (seconds * 1000)
}

func (c constants) megabytes(store string, servers, keys float64) float64 {
	if store == "ClickHouse" {
		return servers * keys * 24 * c["ClickHouse disk"] / 1e6
	}
	return keys * 24 * max(c["PostgreSQL disk"], c["MariaDB disk"]) / 1e6
}

// running returns the time that a summary of all flags takes for the rows of a whole quarter of a
// day, in seconds on one core.
func (c constants) running(servers, keys float64) float64 {
	return servers * keys * 6 * c["ClickHouse row"] / 1e6
}

func short(x float64) string { return strconv.FormatFloat(x, 'g', 2, 64) }

// number formats two significant digits, without an exponent.
func number(x float64) string {
	rounded, err := strconv.ParseFloat(short(x), 64)
	if err != nil {
		return short(x)
	}
	return strconv.FormatFloat(rounded, 'f', -1, 64)
}

// scalingTables returns the rows of docs/scaling.md that are computed from its constants.
func scalingTables(c constants) (rows []string) {
	for _, servers := range []float64{1, 10, 100, 1000, 10_000} {
		row := fmt.Sprintf("| %.0f |", servers)
		for _, store := range scalingStores {
			row += " " + number(c.cores(store, servers, 1000, 60)) + " |"
		}
		rows = append(rows, row+fmt.Sprintf(" %s MB | %s MB | %s s |", number(c.megabytes("PostgreSQL", servers, 1000)),
			number(c.megabytes("ClickHouse", servers, 1000)), number(c.running(servers, 1000))))
	}
	for _, keys := range []float64{100, 1000, 10_000} {
		for _, seconds := range []float64{60, 600} {
			row := fmt.Sprintf("| %.0f | %.0f s |", keys, seconds)
			for _, store := range scalingStores {
				row += " " + number(seconds*1000/c.flush(store, keys)/2) + " |"
			}
			rows = append(rows, row)
		}
	}
	for _, example := range []struct{ servers, keys, seconds float64 }{{100, 1000, 60}, {500, 5000, 60}, {500, 5000, 300}} {
		row := fmt.Sprintf("| %.0f servers, %.0f keys, %.0f s | %s |", example.servers, example.keys, example.seconds, number(example.servers*example.keys/example.seconds))
		for _, store := range scalingStores {
			row += " " + number(c.cores(store, example.servers, example.keys, example.seconds)) + " |"
		}
		rows = append(rows, row+fmt.Sprintf(" %s MB | %s MB | %s MB |", number(c.megabytes("PostgreSQL", example.servers, example.keys)),
			number(c.megabytes("ClickHouse", example.servers, example.keys)), number(2*example.keys*c["server key"]/1e6)))
	}
	return rows
}

// TestScalingTables checks that the tables of docs/scaling.md are computed from its constants.
func TestScalingTables(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/scaling.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	c := readConstants(t, page)
	for _, name := range []string{"PostgreSQL flush", "PostgreSQL key", "MariaDB flush", "MariaDB key", "ClickHouse flush", "ClickHouse key", "PostgreSQL disk", "MariaDB disk", "ClickHouse disk", "ClickHouse row", "server key"} {
		if c[name] <= 0 {
			t.Errorf("docs/scaling.md has no constant %q", name)
		}
	}
	for _, row := range scalingTables(c) {
		if !strings.Contains(page, row) {
			t.Errorf("docs/scaling.md lacks the row\n%s", row)
		}
	}
}
