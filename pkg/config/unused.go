package config

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Notice is about a variable that is set but has no effect.
type Notice struct {
	Variable, Explanation string
}

// unavailable is one row of unavailables.
type unavailable struct {
	variable string // a name, or a prefix followed by "*"
	why      string
}

// unavailables lists variables that the server accepts but ignores. The first matching row is used.
// A test compares docs/environment.md with them.
var unavailables = []unavailable{
	{variable: "FLAGR_JWT_AUTH_USER_PROPERTY", why: "no use for it: the name that it gives shows nowhere"},
	{variable: "FLAGR_RECORDER_KINESIS_BACKLOG_COUNT", why: "no use for it: the queue's size is FLAGR_RECORDER_QUEUE_RECORDS"},
	{variable: "FLAGR_RECORDER_KINESIS_AGGREGATE_*", why: "no use for it: each record is sent on its own, which consumers that take aggregated ones take, too"},
	{variable: "FLAGR_STATSD_APM_*", why: useOpenTelemetry},
	{variable: "FLAGR_NEWRELIC_*", why: useOpenTelemetry},
}

const useOpenTelemetry = "no use for it: traces are sent with OpenTelemetry, set OTEL_EXPORTER_OTLP_ENDPOINT"

// Unused returns the variables that are set but have no effect in this version, sorted by name,
// each with the reason. They are variables without a use here, and unknown names that start with
// FLAGR_. A switch that is set to false is omitted, because that is what it gets.
func (c *Config) Unused() []Notice {
	return slices.Clone(c.unused)
}

func findUnavailable(name string) (unavailable, bool) {
	for _, u := range unavailables {
		prefix, isPrefix := strings.CutSuffix(u.variable, "*")
		if name == u.variable || isPrefix && strings.HasPrefix(name, prefix) {
			return u, true
		}
	}
	return unavailable{}, false
}

// serviceLink matches the variables that Kubernetes sets in every container for a service whose
// name starts with flagr: FLAGR_SERVICE_HOST, FLAGR_PORT_18000_TCP_ADDR, FLAGR_DB_PORT.
var serviceLink = regexp.MustCompile(`^FLAGR_(.+_)?(SERVICE_HOST|SERVICE_PORT|PORT)(_|$)`)

// unknownVariable suggests the variable with the closest name, if it is close.
func unknownVariable(name string, known map[string]Variable) string {
	closest, fewest := "", len(name)/5+1 // one or two typos in names of this length
	for _, candidate := range slices.Sorted(maps.Keys(known)) {
		if edits := editDistance(name, candidate); edits < fewest {
			closest, fewest = candidate, edits
		}
	}
	if closest == "" {
		return "unknown variable, docs/environment.md lists all names"
	}
	return "unknown variable, did you mean " + closest + "?"
}

// editDistance is the number of bytes to insert, delete or replace to turn a into b (the
// Levenshtein distance).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

func findUnused(environ map[string]string) []Notice {
	known := map[string]Variable{}
	for _, v := range Variables() {
		known[v.Name] = v
	}
	var notices []Notice
	for name, value := range environ {
		v, ok := known[name]
		if !ok {
			if strings.HasPrefix(name, "FLAGR_") && !serviceLink.MatchString(name) {
				notices = append(notices, Notice{name, unknownVariable(name, known)})
			}
			continue
		}
		if v.Type == "bool" {
			if on, err := strconv.ParseBool(value); err != nil || !on {
				continue
			}
		}
		if u, ok := findUnavailable(name); ok {
			notices = append(notices, Notice{name, u.why})
		}
	}
	slices.SortFunc(notices, func(a, b Notice) int { return cmp.Compare(a.Variable, b.Variable) })
	return notices
}
