package browser

import (
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"fmt"
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
	// Other pages show the flags in memory. This is another tab, because the browser prompts before
	// it leaves the form.
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

// TestALoginThatExpiresInTheMiddleOfAnEdit saves a form without a valid token, which the server
// rejects with a status or redirects to a login. No input may be lost, and saving must work after
// the user has signed in again.
func TestALoginThatExpiresInTheMiddleOfAnEdit(t *testing.T) {
	t.Parallel()
	const secret = "a secret of the tests that is long enough"
	token := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"ada"}`))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(token))
	token += "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	for _, refusal := range [][]string{
		{"FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE=401"},
		{"FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE=307", "FLAGR_JWT_AUTH_NO_TOKEN_REDIRECT_URL=/api/v1/health"},
	} {
		s := start(t, append(refusal, "FLAGR_JWT_AUTH_ENABLED=true", "FLAGR_JWT_AUTH_SIGNING_METHOD=HS256", "FLAGR_JWT_AUTH_SECRET="+secret, "FLAGR_JWT_AUTH_WHITELIST_PATHS=/api/v1,/static")...)
		s.abFlag(t)
		p := open(t, s)
		p.visit("/") // open to all
		signIn := fmt.Sprintf(`document.cookie = "access_token=%s; path=/", 1`, token)
		p.value(signIn)
		p.visit("/ui/flags/1/targeting")
		p.fill("s.0.rollout", "80")
		p.has("1 change not saved.")
		p.press("Review and save")
		p.has("Save 1 change as a new version?")
		p.value(`document.cookie = "access_token=; path=/; max-age=0", 1`)
		p.press("Save new version")
		p.has("A login or a proxy answered instead of this server, so it is unknown whether anything was saved. Your input is still here")
		if got := p.value(`document.querySelector("[name='s.0.rollout']").value`); got != "80" {
			t.Errorf("%s: the rollout is %q, want the input", refusal, got)
		}
		p.value(signIn)
		p.save()
		if segments := s.definition(t, 1)["segments"].([]any); segments[0].(object)["rolloutPercent"] != 80.0 {
			t.Errorf("%s: saved %v", refusal, segments)
		}
	}
}

// TestFormsAreSentOnce clicks a button twice, and leaves a form with changes and comes back to it:
// the form is as saved, in all of its fields.
func TestFormsAreSentOnce(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/new")
	p.fill("description", "Created once")
	if got := p.value(`(() => {
		const prevented = [];
		window.addEventListener("submit", (event) => prevented.push(event.defaultPrevented));
		for (let i = 0; i < 2; i++) document.querySelector("button[value=boolean]").click();
		return prevented.join();
	})()`); got != "false,true" {
		t.Errorf("of two clicks, these did not send the form: %s", got)
	}
	p.has("It is off until you switch it on.")
	if n := p.sent("POST"); n != 1 {
		t.Errorf("%d requests", n)
	}
	p.visit("/ui/flags/1/targeting")
	p.fill("s.0.rollout", "80")
	p.fill("v.0.attachment", "{}")
	p.has("2 changes not saved.")
	p.visit("/ui/keys")
	p.value(`history.back(), 1`)
	p.until("the form as saved", `location.pathname.endsWith("/targeting") && document.querySelector("[data-savebar]").hidden
		&& document.querySelector("[name='s.0.rollout']").value === "50" && document.querySelector("[name='v.0.attachment']").value.includes("color")`)
}
