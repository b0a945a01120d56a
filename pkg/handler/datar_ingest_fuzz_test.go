package handler_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

// Encodings of a body.
const (
	asLines  = 1 << iota // as NDJSON
	asGzip               // compressed
	asNoGzip             // uncompressed, but declared as gzip
)

// FuzzCountsFromElsewhere sends bodies to a whole server with a database. The status must be below
// 500, a repeated request must get the same response, and the reported counts must be in the
// database. NOW in a body is replaced by the time.
func FuzzCountsFromElsewhere(f *testing.F) {
	row := `{"timestamp":NOW,"flag":{"key":"busy"},"variant":{"key":"on"},"first_evaluation":NOW,"last_evaluation":NOW,"evaluation_count":42}`
	whole := `{"context":{"service":"shop"},"flagEvaluations":[` + row + `,` + strings.Replace(row, "busy", "gone", 1) + `]}`
	for _, body := range []string{
		"", "{}", "null", "[]", "0", `"`, whole, whole + whole, whole + "\n",
		`{"flagEvaluations":null}`, `{"flagEvaluations":{}}`, `{"flagEvaluations":[null,[],` + row + `]}`, `{"flagEvaluations":[null,` + row + `]}`,
		`{"flagEvaluations":[` + row + `],"flagEvaluations":[` + row + `,` + row + `]}`, // a duplicate member
		`{"FLAGEVALUATIONS":[` + row + `],"flagEvaluations":[]}`,
		`{"flagEvaluations":[` + strings.Repeat(row+",", ingest.MaxRows) + row + `]}`,
		`{"flagEvaluations":[` + strings.Replace(row, "42", "10000000", 1) + "," + strings.Replace(row, "42", "10000001", 1) + `]}`,
		strings.Replace(whole, "42", "9223372036854775808", 1), strings.Replace(whole, "42", "-1", 1), strings.Replace(whole, "42", "1e400", 1),
		strings.Replace(whole, "42", "4.2e1", 1), strings.Replace(whole, "42", "0.5", 1), strings.Replace(whole, "42", strings.Repeat("9", 5000), 1),
		strings.Replace(whole, `"last_evaluation":NOW`, `"last_evaluation":-9223372036854775808`, 1),
		strings.Replace(whole, `"last_evaluation":NOW`, `"last_evaluation":9223372036854775807`, 1),
		strings.Replace(whole, "busy", `ключ\u0000\ud800`, 1), strings.Replace(whole, "gone", "\xff\xfe\u2028", 1), "\ufeff" + whole,
		strings.Replace(whole, "gone", strings.Repeat("ü", 5000), 1), strings.Replace(whole, `"on"`, `{"key":"on"}`, 1),
		`{"context":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `,"flagEvaluations":[` + row + `]}`,
		strings.Repeat("[", 20000), `{"flagEvaluations":` + strings.Repeat(`[`, 20000),
	} {
		f.Add(body, byte(0))
		f.Add(body, byte(asGzip))
	}
	for cut := 1; cut < len(whole); cut += 7 {
		f.Add(whole[:cut], byte(0))
	}
	for _, lines := range []string{"", "\n\n", row, row + "\n" + row + "\r\n\r\n" + row, row + "\n{", row + row, row + "\nnull\n" + row, "[" + row + "]", whole, "\x1e" + row} {
		f.Add(lines, byte(asLines))
		f.Add(lines, byte(asLines|asGzip))
	}
	f.Add(whole, byte(asNoGzip))
	f.Add("\x1f\x8b\x08", byte(asNoGzip))
	f.Add(zipped(f, whole)[:40], byte(asNoGzip))
	f.Add(zipped(f, whole)+zipped(f, " "), byte(asNoGzip))
	f.Add(zipped(f, whole)+"and more", byte(asNoGzip))

	path := filepath.Join(f.TempDir(), "flagr.sqlite")
	environ := map[string]string{"FLAGR_DB_DBCONNECTIONSTR": path}
	maps.Copy(environ, ingesting)
	s := setup(f, environ)
	booleanFlag(f, s, "busy", true)
	db, err := gorm.Open(sqlite.Open(path), &gorm.Config{})
	if err != nil {
		f.Fatal(err)
	}
	connections, err := db.DB()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = connections.Close() })
	stored := func(t *testing.T) (sum int64) {
		t.Helper()
		if err := db.Raw("SELECT COALESCE(SUM(eval_count), 0) FROM datar_hourly_events").Scan(&sum).Error; err != nil {
			t.Fatal(err)
		}
		return sum
	}

	batches := 0
	f.Fuzz(func(t *testing.T, body string, how byte) {
		body = strings.ReplaceAll(body, "NOW", strconv.FormatInt(time.Now().UnixMilli(), 10))
		batches++
		header := map[string]string{"Idempotency-Key": fmt.Sprint("batch ", batches)}
		if how&asLines != 0 {
			header["Content-Type"] = "application/x-ndjson"
		}
		switch {
		case how&asNoGzip != 0:
			header["Content-Encoding"] = "gzip"
		case how&asGzip != 0:
			header["Content-Encoding"] = "gzip"
			body = zipped(t, body)
		}
		before := stored(t)
		first := post(t, s, ingestPath, body, header)
		after := stored(t)
		again := post(t, s, ingestPath, body, header)
		if first.status >= 500 || first.status < 200 || again.status != first.status {
			t.Fatalf("answers %d and %d: %.500s", first.status, again.status, first.raw)
		}
		var accepted int64
		if result, ok := first.body.(map[string]any); first.status == 200 {
			if !ok || result["duplicate"] != false {
				t.Fatalf("answer %.500s", first.raw)
			}
			accepted = int64(result["acceptedCount"].(float64))
			if repeated, ok := again.body.(map[string]any); !ok || repeated["duplicate"] != true || repeated["acceptedCount"] != result["acceptedCount"] {
				t.Fatalf("a replay is answered %.500s after %.500s", again.raw, first.raw)
			}
		} else if !ok || result["message"] == "" {
			t.Fatalf("%d without a message: %.500s", first.status, first.raw)
		}
		if after-before != accepted {
			t.Fatalf("%d evaluations were stored, and %d accepted: %.500s", after-before, accepted, first.raw)
		}
		if now := stored(t); now != after {
			t.Fatalf("a replay added %d evaluations", now-after)
		}
	})
}
