package browser

import (
	"database/sql"
	"testing"
)

// freeze locks a SQLite file, also for readers, until the returned function is called. The server
// must have been started with frozenSQLite.
func (s *server) freeze(t *testing.T) (thaw func()) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+s.file+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if _, err := db.Exec("ROLLBACK"); err != nil {
			t.Fatal(err)
		}
	}
}

// frozenSQLite are the options of a file that freeze can lock for readers, and whose operations
// fail soon.
const frozenSQLite = "?_pragma=journal_mode(DELETE)&_pragma=busy_timeout(100)"

// startFreezable is start with a database that freeze can lock.
func startFreezable(t *testing.T) *server {
	t.Helper()
	s := &server{file: t.TempDir() + "/flagr.sqlite", by: "ada@example.com", env: []string{"FLAGR_RECORDER_ENABLED=false"}}
	s.database = s.file + frozenSQLite
	s.startOn(t)
	return s
}

// TestADeadDatabaseInTheMiddleOfAnEdit presses buttons while the database does not respond. No
// input may be lost, and saving must work once the database works.
func TestADeadDatabaseInTheMiddleOfAnEdit(t *testing.T) {
	t.Parallel()
	s := startFreezable(t)
	s.abFlag(t)
	s.until(t, "checkout-button")
	p := open(t, s)
	p.visit("/ui/flags/1/targeting")
	p.fill("s.0.rollout", "80")
	p.has("1 change not saved.")
	thaw := s.freeze(t)
	typed := func(when string) {
		t.Helper()
		for name, want := range map[string]string{"s.0.rollout": "80", "description": "Typed while it was dead"} {
			if got := p.value(`document.querySelector("[name='` + name + `']").value`); got != want {
				t.Errorf("%s: %s is %q, want %q", when, name, got, want)
			}
		}
	}
	p.fill("description", "Typed while it was dead")
	p.has("2 changes not saved.") // the form is compared with the flag in memory
	p.press("Review and save")
	p.press("Save new version")
	p.has("The database does not answer, so nothing was saved. Your input is still here")
	typed("after saving")
	p.press("Review and save") // again
	p.press("Save new version")
	p.until("the dialog to be closed", `!document.querySelector("dialog[open]")`)
	p.has("The database does not answer, so nothing was saved.")
	typed("after saving again")
	// Other pages show the flags in memory. This is another tab, because the browser prompts before it leaves the form.
	other := open(t, s)
	other.visit("/ui/flags/1")
	other.has("The database does not answer. This is the flag as of")
	thaw()
	other.press("Try again")
	other.until("the flag as it is", `!document.querySelector(".notice.warn")`)
	p.save()
	d := s.definition(t, 1)
	if segments := d["segments"].([]any); d["description"] != "Typed while it was dead" || segments[0].(object)["rolloutPercent"] != 80.0 {
		t.Errorf("saved %v", d)
	}
}

// TestAServerThatStopsInTheMiddleOfAnEdit is the same with a server that stops and is restarted at
// the same address.
func TestAServerThatStopsInTheMiddleOfAnEdit(t *testing.T) {
	t.Parallel()
	s, p := reviewRollout(t)
	s.stop(t)
	p.press("Save new version")
	p.has("The server does not answer, so it is unknown whether anything was saved. Your input is still here")
	if got := p.value(`document.querySelector("[name='s.0.rollout']").value`); got != "80" {
		t.Errorf("the rollout is %q, want the input", got)
	}
	s.startOn(t) // on the same port
	p.save()
	poll(t, "the saved rollout", func() bool {
		return s.definition(t, 1)["segments"].([]any)[0].(object)["rolloutPercent"] == 80.0
	})
}
