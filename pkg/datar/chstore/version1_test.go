package chstore_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

// copyStatements returns the statements of docs/clickhouse.md that copy tables of version 1 from
// one database to another.
func copyStatements(t *testing.T, from, to string) []string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/clickhouse.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "## Tables of version 1")
	section, _, _ = strings.Cut(section, "\n## ")
	counts := regexp.MustCompile(`(?m)^INSERT INTO new\.datar_counts .*$`).FindString(section)
	meta := regexp.MustCompile("(?s)`(INSERT INTO new\\.datar_meta .*?)`").FindStringSubmatch(section)
	if counts == "" || meta == nil {
		t.Fatal("docs/clickhouse.md lacks the statements for tables of version 1")
	}
	var statements []string
	for _, table := range []string{"datar_counts", "datar_days", "datar_unknown", "datar_servers", "datar_batches", "datar_receipts"} {
		statements = append(statements, strings.ReplaceAll(counts, "datar_counts", table))
	}
	statements = append(statements, meta[1])
	for i := range statements {
		statements[i] = strings.NewReplacer("new.", to+".", "old.", from+".").Replace(statements[i])
	}
	return statements
}

func databaseOf(t *testing.T, address string) string {
	t.Helper()
	return strings.TrimPrefix(parse(t, address).Path, "/")
}

// TestCopyOfVersion1 runs the statements of the docs: the copy returns what the original did, also
// for days that the retention has reduced or purged, and recognizes batches that come again.
func TestCopyOfVersion1(t *testing.T) {
	schema, err := os.ReadFile("testdata/version1.sql")
	if err != nil {
		t.Fatal(err)
	}
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		first := fresh(t)
		if onCluster(t, first) {
			t.Skip("the tables of version 1 in testdata are for a single server")
		}
		original := open(t, first)
		apply(t, original, "w", 1, matched(1, firstHour, 3), matched(2, firstHour+30, 8))
		apply(t, original, "w", 2, matched(1, firstHour+5, 4), matched(1, firstHour+4*24, 100), matched(1, firstHour+4*24+23, 7))
		unknown := datar.Batch{
			Writer: "w", Sequence: 3, Unknown: []datar.UnknownRow{{Asked: "gone", Hour: firstHour + 4*24, Count: 2, First: 1, Last: 2}},
			Server: &datar.ServerRecord{Name: "s", Run: "r", At: (firstHour + 4*24).Time()},
		}
		if err := original.Apply(t.Context(), unknown); err != nil {
			t.Fatal(err)
		}
		sent := []datar.Row{matched(3, firstHour+3*24, 1000)}
		receipt := ingest.Receipt{Key: "k", Digest: "d", Answer: "{}"}
		if _, err := original.ApplyReceipt(t.Context(), sent, receipt); err != nil {
			t.Fatal(err)
		}
		if _, _, err := original.ApplyBatch(t.Context(), datar.Batch{Writer: "sender", Sequence: 5, Rows: sent}, ingest.Receipt{}); err != nil {
			t.Fatal(err)
		}
		original.SetGrace(time.Hour, time.Hour)
		maintain(t, original) // two days are reduced
		original.SetGrace(0, time.Hour)
		if err := original.PurgeDay(t.Context(), int64(firstHour/24)); err != nil {
			t.Fatal(err)
		}
		apply(t, original, "late", 1, matched(1, firstHour+24, 50))

		old := fresh(t)
		for statement := range strings.SplitSeq(string(schema), ";") {
			if strings.TrimSpace(statement) != "" {
				execute(t, old, statement)
			}
		}
		for _, statement := range copyStatements(t, databaseOf(t, first), databaseOf(t, old)) {
			execute(t, old, statement)
		}
		options, err := chstore.ParseURL(old)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := chstore.New(t.Context(), options); err == nil || !strings.Contains(err.Error(), "version 1") {
			t.Fatalf("tables of version 1: %v, want that they are rejected", err)
		}

		address := fresh(t)
		renewed := open(t, address)
		for _, statement := range copyStatements(t, databaseOf(t, old), databaseOf(t, address)) {
			execute(t, address, statement)
		}
		for flag, want := range map[int64]int64{1: 164, 2: 8, 3: 2000} {
			wantTotal(t, original, flag, want)
			wantTotal(t, renewed, flag, want)
		}
		wantSameAnswers(t, renewed, original)
		if from, err := renewed.DetailedFrom(t.Context()); err != nil || from != firstHour+2*24 {
			t.Errorf("details are from hour %d on (%v), want %d", from, err, firstHour+2*24)
		}
		gone, err := renewed.Unknown(t.Context(), datar.UnknownQuery{From: firstHour, To: firstHour + 7*24, Limit: 10})
		if err != nil || len(gone) != 1 || gone[0].Asked != "gone" || gone[0].Count != 2 {
			t.Errorf("unknown flags are %+v, %v", gone, err)
		}
		if servers, err := renewed.Servers(t.Context()); err != nil || len(servers) != 1 || servers[0].Name != "s" {
			t.Errorf("servers are %+v, %v", servers, err)
		}
		if known, _, err := renewed.ApplyBatch(t.Context(), datar.Batch{Writer: "sender", Sequence: 5, Rows: sent}, ingest.Receipt{}); !known || err != nil {
			t.Errorf("a batch that came before: known %t, %v", known, err)
		}
		if found, err := renewed.ApplyReceipt(t.Context(), sent, receipt); err != nil || found == nil || found.Answer != "{}" {
			t.Errorf("a key that came before: %+v, %v", found, err)
		}
		if renewed.Identity() == original.Identity() || renewed.Identity() == "abcdefghijklmnopqrstuvwxyz" {
			t.Error("the copy has the identity of the original")
		}
		maintain(t, renewed)
		wantTotal(t, renewed, 1, 164)
	})
}
