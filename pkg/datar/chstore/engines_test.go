package chstore_test

import (
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	// requireServers is an environment variable. If it is 1, a test that needs a missing server
	// fails instead of being skipped.
	requireServers = "FLAGR_TEST_REQUIRE_SERVERS"
	// administration is the timeout for creating or dropping a database.
	administration = 5 * time.Minute
)

// engines are the ClickHouse engines that tests run on.
var engines = []struct {
	name, variable string
	optional       bool // tests may be skipped, whatever FLAGR_TEST_REQUIRE_SERVERS is
}{
	{name: "clickhouse", variable: "FLAGR_TEST_CLICKHOUSE"},
	{name: "chdb", variable: "FLAGR_TEST_CHDB", optional: true},
	{name: "cluster", variable: "FLAGR_TEST_CLICKHOUSE_CLUSTER", optional: true},
}

// onEachEngine runs a test for each ClickHouse engine, in parallel with all others. fresh returns
// the connection string of an empty database, which is removed when the test passed to it ends.
func onEachEngine(t *testing.T, test func(t *testing.T, fresh func(testing.TB) string)) {
	t.Helper()
	t.Parallel()
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) {
			t.Parallel()
			server := os.Getenv(engine.variable)
			switch {
			case server != "":
				test(t, func(t testing.TB) string { return freshDatabase(t, server) })
			case os.Getenv(requireServers) == "1" && !engine.optional:
				t.Fatalf("%s is not set, and %s=1 allows no test to be skipped", engine.variable, requireServers)
			default:
				t.Skipf("set %s to the connection string of a server, or run the tests with: "+
					"go run ./integration_tests/services/run -only %s go test ...", engine.variable, engine.name)
			}
		})
	}
}

// parse parses a connection string. If it contains several hosts, it keeps the first one.
func parse(t testing.TB, server string) *url.URL {
	t.Helper()
	before, after, _ := strings.Cut(server, "@")
	hosts, path, _ := strings.Cut(after, "/")
	host, _, _ := strings.Cut(hosts, ",")
	u, err := url.Parse(before + "@" + host + "/" + path)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// onCluster reports whether a connection string is that of a cluster.
func onCluster(t testing.TB, server string) bool {
	t.Helper()
	return parse(t, server).Query().Get("cluster") != ""
}

func freshDatabase(t testing.TB, server string) string {
	t.Helper()
	u := parse(t, server)
	name, on := "flagr_test_"+strings.ToLower(rand.Text()[:16]), ""
	if cluster := u.Query().Get("cluster"); cluster != "" {
		on = " ON CLUSTER " + cluster
	}
	execute(t, server, "CREATE DATABASE "+name+on)
	t.Cleanup(func() { execute(t, server, "DROP DATABASE "+name+on) })
	u.Path = "/" + name
	return u.String()
}

// execute runs a statement directly, in the database of the connection string, and returns the
// response.
func execute(t testing.TB, server, statement string) string {
	t.Helper()
	u := parse(t, server)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), administration)
	defer cancel()
	parameters := url.Values{"database": {strings.TrimPrefix(u.Path, "/")}}
	if onCluster(t, server) {
		parameters.Set("insert_distributed_sync", "1") // rows are not to arrive during later queries
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+u.Host+"/?"+parameters.Encode(), strings.NewReader(statement))
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true // old versions close connections that are idle for 3 s
	password, _ := u.User.Password()
	request.Header.Set("X-ClickHouse-User", u.User.Username())
	request.Header.Set("X-ClickHouse-Key", password)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }() // it has been read to its end
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("%s: status %d, %v: %s", statement, response.StatusCode, err, text)
	}
	return string(text)
}
