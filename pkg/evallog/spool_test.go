package evallog_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/evallog"
	"github.com/flagr-datar/flagr-datar/pkg/evallog/evallogtest"
)

// spooled lists the batches in the directory.
func spooled(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "evallog-*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestTheSpoolSurvivesTheProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "new", "spool")
		writer := &evallogtest.Writer{}
		writer.Fail(away)
		options := evallog.Options{
			Writer: writer, SpoolDir: dir, TargetingKeys: evallog.TargetingKeysHashed, Context: evallog.Context{Service: "shop", Version: "1"},
		}
		engine := newEngine(t, options)
		const flushes = 3
		for i := range flushes {
			for j := range 1200 {
				evaluation := of(fmt.Sprint("flag", j), "alice")
				evaluation.ErrorCode, evaluation.ErrorMessage = evallog.Some(""), fmt.Sprint("message ", i)
				engine.Record(evaluation)
			}
			_ = engine.Flush(t.Context())
		}
		engine.Record(on("flag"))
		if err := engine.Close(t.Context()); err == nil {
			t.Error("Close says that all was delivered")
		}
		stats := engine.Stats()
		checkStats(t, stats, flushes*1200+1)
		if stats.Pending != flushes*1200+1 || stats.DroppedTotal() != 0 {
			t.Errorf("%+v", stats)
		}
		first := writer.Attempts()[0]

		later := &evallogtest.Writer{}
		options.Writer, options.Context.Version = later, "2"
		next := newEngine(t, options)
		if stats := next.Stats(); stats.Adopted != flushes*1200+1 || stats.Pending != stats.Adopted {
			t.Errorf("%+v", stats)
		}
		next.Start()
		synctest.Wait()
		if later.Total() != flushes*1200+1 {
			t.Errorf("delivered %d evaluations", later.Total())
		}
		if diff := cmp.Diff(first, later.Delivered()[0], compareTexts); diff != "" {
			t.Errorf("the batch is not what was sent before: %s", diff)
		}
		for i, b := range later.Delivered() {
			if b.Writer != first.Writer || b.Sequence != int64(i+1) {
				t.Errorf("batch %d is %s:%d", i, b.Writer, b.Sequence)
			}
		}
		checkStats(t, next.Stats(), 0)
		if files := spooled(t, dir); len(files) != 0 {
			t.Errorf("left in the spool: %v", files)
		}
		next.Record(on("flag"))
		flush(t, next)
		if b := later.Delivered()[len(later.Delivered())-1]; b.Writer == first.Writer {
			t.Error("a new process writes under the old one's identity")
		}
	})
}

// A process that is killed leaves what failed at least once.
func TestTheSpoolIsWrittenWhenADeliveryFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writer := &evallogtest.Writer{}
	engine := newEngine(t, evallog.Options{Writer: writer, SpoolDir: dir})
	engine.Record(on("flag"))
	flush(t, engine)
	if files := spooled(t, dir); len(files) != 0 {
		t.Errorf("a delivered batch is in the spool: %v", files)
	}
	writer.Fail(away)
	engine.Record(on("flag"))
	_ = engine.Flush(t.Context())
	if files := spooled(t, dir); len(files) != 1 {
		t.Errorf("the spool has %v, want one batch", files)
	}
	writer.Fail(nil)
	flush(t, engine)
	if files := spooled(t, dir); len(files) != 0 {
		t.Errorf("a delivered batch is in the spool: %v", files)
	}
}

func TestTheSpoolIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writer := &evallogtest.Writer{}
	writer.Fail(away)
	engine := newEngine(t, evallog.Options{Writer: writer, SpoolDir: dir})
	for range evallog.MaxPending + 4 {
		engine.Record(on("flag"))
		_ = engine.Flush(t.Context())
	}
	if files := spooled(t, dir); len(files) != evallog.MaxPending {
		t.Errorf("the spool has %d batches, want %d", len(files), evallog.MaxPending)
	}
	checkStats(t, engine.Stats(), evallog.MaxPending+4)
	writer.Fail(nil)
	flush(t, engine)
}

func TestDamagedFilesAreSetAside(t *testing.T) {
	t.Parallel()
	const name = "evallog-3f0e8c1a-7a51-4c39-9f0e-0f4b8f6f2a10-000000000000000000%d.json"
	const row = `{"Key":{"Flag":"f","Variant":"on","Allocation":null,"TargetingKey":null,"ErrorCode":null},"Count":1,"First":1,"Last":1}`
	batch := func(sequence int, rows string) string {
		return fmt.Sprintf(`{"Version":1,"Batches":[{"Writer":"3f0e8c1a-7a51-4c39-9f0e-0f4b8f6f2a10","Sequence":%d,"Rows":[%s]}]}`, sequence, rows)
	}
	contents := []string{
		"", "{", `{"Version":2}`, `{"Version":1,"Batches":[]}`, `{"Version":1,"Batches":[{}]}`,
		batch(5, ""), batch(6, strings.Replace(row, `"Count":1`, `"Count":0`, 1)), batch(7, strings.Replace(row, `"Variant":"on",`, "", 1)),
		batch(8, row),
	}
	dir := t.TempDir()
	for i, content := range contents {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf(name, i)), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range []string{"notes.txt", fmt.Sprintf(name, 9) + ".new"} {
		if err := os.WriteFile(filepath.Join(dir, other), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writer := &evallogtest.Writer{}
	engine := newEngine(t, evallog.Options{Writer: writer, SpoolDir: dir})
	flush(t, engine)
	if writer.Total() != 1 || writer.Delivered()[0].Sequence != 8 {
		t.Errorf("delivered %+v", writer.Delivered())
	}
	damaged, err := filepath.Glob(filepath.Join(dir, "*.damaged"))
	if err != nil || len(damaged) != len(contents)-1 {
		t.Errorf("set aside: %v, %v", damaged, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "notes.txt")); err != nil {
		t.Error(err)
	}
}

func TestTwoEnginesDoNotShareASpool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	options := evallog.Options{Writer: &evallogtest.Writer{}, SpoolDir: dir}
	engine := newEngine(t, options)
	if _, err := evallog.New(options); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want an error that names the directory", err)
	}
	if err := engine.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	newEngine(t, options)
}

func TestASpoolThatCannotBeUsedStopsTheStart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := evallog.New(evallog.Options{Writer: &evallogtest.Writer{}, SpoolDir: file}); err == nil {
		t.Error("a file was taken for a directory")
	}
}

func TestASpoolThatBreaksCostsNoCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "spool")
		writer := &evallogtest.Writer{}
		writer.Fail(away)
		engine := newEngine(t, evallog.Options{Writer: writer, SpoolDir: dir})
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		engine.Record(on("flag"))
		_ = engine.Flush(t.Context())
		writer.Fail(nil)
		time.Sleep(time.Minute)
		if writer.Total() != 1 {
			t.Errorf("delivered %d evaluations", writer.Total())
		}
	})
}
