package chstore_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// TestClusterReplicasDie kills a replica of each shard in turn while an engine flushes, and
// restarts it. All replicas must then return the same, with each evaluation counted once.
func TestClusterReplicasDie(t *testing.T) {
	cluster, control := os.Getenv("FLAGR_TEST_CLICKHOUSE_CLUSTER"), os.Getenv("FLAGR_TEST_CLICKHOUSE_CONTROL")
	if cluster == "" || control == "" {
		t.Skip("FLAGR_TEST_CLICKHOUSE_CLUSTER is not set: make test-clickhouse-cluster runs this test")
	}
	first := parse(t, freshDatabase(t, cluster))
	_, hosts, _ := strings.Cut(cluster, "@")
	hosts, _, _ = strings.Cut(hosts, "/")
	addressOf := func(host string) string {
		return "clickhouse://" + first.User.String() + "@" + host + first.RequestURI()
	}
	s := open(t, addressOf(hosts))
	e, err := datar.New(datar.Options{Store: s, FlushInterval: time.Hour, Server: datar.ServerOptions{Name: "s"}})
	if err != nil {
		t.Fatal(err)
	}
	recorded := int64(0)
	flush := func() {
		t.Helper()
		for i := range int64(20) {
			e.Record(datar.Event{FlagID: i%7 + 1, VariantID: 1, SegmentID: 1, Outcome: datar.Matched, Time: time.Now()})
			recorded++
		}
		deadline := time.Now().Add(2 * time.Minute)
		for e.Flush(t.Context()) != nil { // fails until the cluster notices
			if time.Now().After(deadline) {
				t.Fatal("no flush has succeeded for 2 min")
			}
		}
	}
	command := func(what, server string) {
		t.Helper()
		if output, err := exec.CommandContext(t.Context(), control, what, server).CombinedOutput(); err != nil {
			t.Fatalf("%s server %s: %v: %s", what, server, err, output)
		}
	}
	flush()
	for _, server := range []string{"1", "3"} {
		command("kill", server)
		flush()
		flush()
		wantAll(t, s, recorded)
		command("begin", server)
		flush()
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for host := range strings.SplitSeq(hosts, ",") {
		awaitAll(t, addressOf(host), recorded)
	}
}

// awaitAll waits until a host, which may lag or still be starting, returns the sum.
func awaitAll(t *testing.T, address string, want int64) {
	t.Helper()
	s := open(t, address)
	now := datar.HourOf(time.Now())
	sum := int64(0)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(100 * time.Millisecond) {
		sum = 0
		totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: now - 48, To: now + 2, GroupBy: datar.ByFlag})
		for _, total := range totals {
			sum += total.Count
		}
		if err == nil && sum >= want {
			break
		}
	}
	if sum != want {
		t.Errorf("%s: the sum is %d, want %d", parse(t, address).Host, sum, want)
	}
}
