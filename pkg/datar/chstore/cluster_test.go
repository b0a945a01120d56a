package chstore_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
)

// ownDatabase is an empty database of a cluster whose servers a test kills and restarts. Tests that
// use it do not run in parallel with others.
type ownDatabase struct {
	hosts   []string // servers 1 to 4: two replicas of the first shard, and two of the second
	address string   // of the first server
	control string   // a command that kills and restarts servers
}

func newOwnDatabase(t *testing.T) *ownDatabase {
	t.Helper()
	cluster, control := os.Getenv("FLAGR_TEST_CLICKHOUSE_CLUSTER"), os.Getenv("FLAGR_TEST_CLICKHOUSE_CONTROL")
	if cluster == "" || control == "" {
		t.Skip("FLAGR_TEST_CLICKHOUSE_CLUSTER is not set: make test-clickhouse-cluster runs this test")
	}
	options, err := chstore.ParseURL(cluster)
	if err != nil {
		t.Fatal(err)
	}
	return &ownDatabase{hosts: options.Hosts, address: freshDatabase(t, cluster), control: control}
}

// addressOf returns the connection string for some hosts, separated by commas.
func (o *ownDatabase) addressOf(t *testing.T, hosts ...string) string {
	t.Helper()
	first := parse(t, o.address)
	return "clickhouse://" + first.User.String() + "@" + strings.Join(hosts, ",") + first.RequestURI()
}

// command kills or begins a server, 1 to 4, or zookeeper.
func (o *ownDatabase) command(t *testing.T, what, server string) {
	t.Helper()
	if output, err := exec.CommandContext(t.Context(), o.control, what, server).CombinedOutput(); err != nil {
		t.Fatalf("%s server %s: %v: %s", what, server, err, output)
	}
}

// recordAndFlush records evaluations, flushes until that succeeds, and returns their number.
func recordAndFlush(t *testing.T, e *datar.Engine) (recorded int64) {
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
	return recorded
}

// TestClusterReplicasDie kills a replica of each shard in turn while an engine flushes, and
// restarts it. All replicas must then return the same, with each evaluation counted once.
func TestClusterReplicasDie(t *testing.T) {
	own := newOwnDatabase(t)
	s := open(t, own.addressOf(t, own.hosts...))
	e, err := datar.New(datar.Options{Store: s, FlushInterval: time.Hour, Server: datar.ServerOptions{Name: "s"}})
	if err != nil {
		t.Fatal(err)
	}
	recorded := recordAndFlush(t, e)
	for _, server := range []string{"1", "3"} {
		own.command(t, "kill", server)
		recorded += recordAndFlush(t, e)
		recorded += recordAndFlush(t, e)
		wantAll(t, s, recorded)
		own.command(t, "begin", server)
		recorded += recordAndFlush(t, e)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, host := range own.hosts {
		awaitAll(t, open(t, own.addressOf(t, host)), recorded)
	}
}

// TestClusterWithoutZooKeeper kills ZooKeeper, without which all tables are read-only, and restarts
// it. Meanwhile, flushes fail, counts are kept, and queries return what was stored.
func TestClusterWithoutZooKeeper(t *testing.T) {
	own := newOwnDatabase(t)
	s := open(t, own.addressOf(t, own.hosts...))
	e, err := datar.New(datar.Options{Store: s, FlushInterval: time.Hour, Server: datar.ServerOptions{Name: "s"}})
	if err != nil {
		t.Fatal(err)
	}
	stored := recordAndFlush(t, e)
	own.command(t, "kill", "zookeeper")
	e.Record(datar.Event{FlagID: 1, Outcome: datar.NoMatch, Time: time.Now()})
	if e.Flush(t.Context()) == nil {
		t.Error("a flush succeeded without ZooKeeper")
	}
	wantAll(t, s, stored)
	own.command(t, "begin", "zookeeper")
	stored += 1 + recordAndFlush(t, e)
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, host := range own.hosts {
		awaitAll(t, open(t, own.addressOf(t, host)), stored)
	}
}

// TestClusterReplicaLags stops the replication of counts to one replica of each shard. While their
// shards have other replicas, queries read these. Otherwise, responses say up to when they are
// complete.
func TestClusterReplicaLags(t *testing.T) {
	own := newOwnDatabase(t)
	writer, err := datar.New(datar.Options{
		Store: open(t, own.addressOf(t, own.hosts[0])), FlushInterval: time.Second, Server: datar.ServerOptions{Name: "writer"},
	})
	if err != nil {
		t.Fatal(err)
	}
	lagging := open(t, own.addressOf(t, own.hosts[1]))
	reader, err := datar.New(datar.Options{Store: lagging, FlushInterval: time.Second, Server: datar.ServerOptions{Name: "reader"}})
	if err != nil {
		t.Fatal(err)
	}
	upTo := func() time.Time {
		t.Helper()
		complete, err := reader.Completeness(t.Context(), time.Now().Add(-time.Hour), time.Now())
		if err != nil {
			t.Logf("completeness: %v", err)
			return time.Time{}
		}
		return complete.UpTo
	}
	first := recordAndFlush(t, writer)
	awaitAll(t, lagging, first)
	for _, host := range []int{1, 3} {
		execute(t, own.addressOf(t, own.hosts[host]), "SYSTEM STOP FETCHES datar_counts_local")
	}
	stopped := time.Now().Truncate(time.Millisecond) // the precision of records
	all := first + recordAndFlush(t, writer)
	awaitAll(t, lagging, all) // from the other replica, when the delay is ten seconds
	await(t, "the other replica to be complete", func() bool { return !upTo().Before(stopped) })

	own.command(t, "kill", "1")
	own.command(t, "kill", "3")
	awaitAll(t, lagging, first)
	// The delay is cached for two seconds.
	await(t, "the response to be incomplete", func() bool { return upTo().Before(stopped) })
	for range 10 {
		if got := upTo(); !got.Before(stopped) {
			t.Errorf("complete up to %v, and counts after %v are missing", got, stopped)
		}
	}
	wantAll(t, lagging, first)

	own.command(t, "begin", "1")
	own.command(t, "begin", "3")
	for _, host := range []int{1, 3} {
		execute(t, own.addressOf(t, own.hosts[host]), "SYSTEM START FETCHES datar_counts_local")
	}
	awaitAll(t, lagging, all)
	caughtUp := time.Now().Truncate(time.Millisecond)
	all += recordAndFlush(t, writer)
	awaitAll(t, lagging, all)
	await(t, "the response to be complete", func() bool { return !upTo().Before(caughtUp) })
	for _, e := range []*datar.Engine{writer, reader} {
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !done(); <-time.After(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// awaitAll waits until a host, which may lag or still be starting, returns the sum.
func awaitAll(t *testing.T, s *chstore.Store, want int64) {
	t.Helper()
	await(t, "the sum", func() bool {
		now := datar.HourOf(time.Now())
		sum := int64(0)
		totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: now - 48, To: now + 2, GroupBy: datar.ByFlag})
		for _, total := range totals {
			sum += total.Count
		}
		return err == nil && sum == want
	})
}
