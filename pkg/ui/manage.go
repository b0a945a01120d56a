package ui

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// firstSteps is the page of a server without flags.
type firstSteps struct {
	Key, Curl        string
	Title, Lead, See template.HTML
}

func (u *UI) firstSteps(r *http.Request, p *page) *firstSteps {
	key := "checkout-button"
	f := &firstSteps{Key: key, Curl: u.askCurl(r, key), Title: u.text.say("first.title"), Lead: u.text.say("first.lead")}
	if u.o.Store != nil {
		if _, deleted, err := u.o.Store.DeletedFlags(r.Context(), 1, 0); err == nil && deleted > 0 {
			f.Title, f.Lead = u.text.say("first.title.deleted"), u.text.say("first.deleted", "link", p.Root+"deleted")
		}
	}
	f.See = u.text.say("first.see.off")
	if u.o.Statistics != nil {
		f.See = u.text.say("first.see.on", "n", u.recorded())
	}
	return f
}

// askCurl returns the command that evaluates a flag.
func (u *UI) askCurl(r *http.Request, key string) string {
	return fmt.Sprintf("curl -X POST %s%s/api/v1/evaluation \\\n  -H 'Content-Type: application/json' \\\n  -d '{\"flagKey\": \"%s\", \"entityID\": \"a1234\"}'",
		origin(r), strings.TrimSuffix(u.o.Prefix, "/"), key)
}

type newData struct {
	Key, Description string
	Error            string
	Asked            template.HTML
}

func (u *UI) newFlag(rw http.ResponseWriter, r *http.Request) error {
	p := u.page(r, "flags", u.text.plain("new.title"))
	d := &newData{Key: r.URL.Query().Get("key")}
	if d.Key != "" {
		d.Asked = u.askedTimes(r, d.Key)
	}
	p.Data = d
	u.render(rw, r, http.StatusOK, "new.html", p)
	return nil
}

// createFlag creates a flag that is off.
func (u *UI) createFlag(rw http.ResponseWriter, r *http.Request) error {
	if err := u.readForm(r); err != nil {
		return err
	}
	d := newData{Key: strings.TrimSpace(r.PostForm.Get("key")), Description: strings.TrimSpace(r.PostForm.Get("description"))}
	if d.Description == "" {
		d.Description = d.Key
	}
	boolean := r.PostForm.Get("kind") == "boolean"
	fail := func(message string) error {
		p := u.page(r, "flags", u.text.plain("new.title"))
		d.Error = message
		p.Data = &d
		u.render(rw, r, http.StatusBadRequest, "new.html", p)
		return nil
	}
	if d.Description == "" {
		return fail(u.text.plain("new.err.empty"))
	}
	f, err := u.o.Store.CreateFlag(r.Context(), u.o.Actor(r), d.Key, d.Description, boolean)
	if message, ok := u.formError(r.Context(), d.Key, err); ok {
		return fail(message)
	}
	if err != nil {
		return err
	}
	u.saved(rw, r, "notice.created", f.Key, fmt.Sprintf("flags/%d/targeting", f.ID))
	return nil
}

// formError returns the message of an error that the user can correct. The key is the one of the
// form.
func (u *UI) formError(ctx context.Context, key string, err error) (string, bool) {
	switch {
	case errors.Is(err, entity.ErrDuplicateKey):
		return u.taken(ctx, key), true
	case errors.Is(err, entity.ErrInvalid):
		return u.text.problem(err), true
	default:
		return "", false
	}
}

// taken returns the message about a key that another flag has. It names the flag if it is deleted,
// because lists do not show it.
func (u *UI) taken(ctx context.Context, key string) string {
	if id := u.deletedWith(ctx, key); id != 0 {
		return u.text.plain("edit.err.deleted", "id", id)
	}
	return u.text.plain("edit.err.taken")
}

// deletedWith returns the ID of the deleted flag with a key. It is 0 if there is none, and if the
// database does not answer.
func (u *UI) deletedWith(ctx context.Context, key string) uint {
	found, err := u.o.Store.DeletedAmong(ctx, []string{key}, nil)
	if err != nil || len(found) == 0 {
		return 0
	}
	return found[0].ID
}

// keyHint reports whether a key can be used.
type keyHint struct {
	Class       string
	Text, Asked template.HTML
}

// checkKey is called while a user types a key.
func (u *UI) checkKey(rw http.ResponseWriter, r *http.Request) error {
	key := r.URL.Query().Get("key")
	d := keyHint{Class: "good", Text: u.text.say("new.key.free")}
	if err := entity.CheckKey(key); err != nil {
		d = keyHint{Class: "bad", Text: u.text.say("new.key.wrong")}
	} else if f := u.o.Snapshots.Snapshot().Flag(0, key); f != nil && f.Key == key {
		d = keyHint{Class: "bad", Text: u.text.say("edit.err.taken")}
	} else if id := u.deletedWith(r.Context(), key); id != 0 {
		d = keyHint{Class: "bad", Text: u.text.say("edit.err.deleted", "id", id)}
	} else {
		d.Asked = u.askedTimes(r, key)
	}
	p := u.page(r, "flags", u.text.plain("new.title"))
	p.Data = d
	u.render(rw, r, http.StatusOK, "key.html", p)
	return nil
}

// shortcuts lists the keyboard shortcuts.
func (u *UI) shortcuts(rw http.ResponseWriter, r *http.Request) error {
	u.render(rw, r, http.StatusOK, "keys.html", u.page(r, "", u.text.plain("keys.title")))
	return nil
}

type duplicateData struct {
	ID                       uint
	OldKey, Key, Description string
	Error                    string
}

func (u *UI) duplicateForm(rw http.ResponseWriter, r *http.Request) error {
	f, _, err := u.flag(r)
	if err != nil {
		return err
	}
	p := u.page(r, "flags", u.text.plain("duplicate.title", "key", f.Key))
	p.Data = &duplicateData{ID: f.ID, OldKey: f.Key, Description: f.Description}
	u.render(rw, r, http.StatusOK, "duplicate.html", p)
	return nil
}

func (u *UI) duplicate(rw http.ResponseWriter, r *http.Request) error {
	if err := u.readForm(r); err != nil {
		return err
	}
	f, _, err := u.flag(r)
	if err != nil {
		return err
	}
	d := duplicateData{ID: f.ID, OldKey: f.Key, Key: strings.TrimSpace(r.PostForm.Get("key")), Description: strings.TrimSpace(r.PostForm.Get("description"))}
	made, err := u.o.Store.DuplicateFlag(r.Context(), u.o.Actor(r), int64(f.ID), d.Key, d.Description)
	if message, ok := u.formError(r.Context(), d.Key, err); ok {
		d.Error = message
		p := u.page(r, "flags", u.text.plain("duplicate.title", "key", f.Key))
		p.Data = &d
		u.render(rw, r, http.StatusBadRequest, "duplicate.html", p)
		return nil
	}
	if err != nil {
		return err
	}
	u.saved(rw, r, "notice.duplicated", made.Key, fmt.Sprintf("../%d/targeting", made.ID))
	return nil
}

type deleteData struct {
	ID, Snapshot uint
	Title, Text  template.HTML
	Checks       []checkView
	Curl, SQL    string // of the evaluations in the checks
	Instead      template.HTML
	Goes         template.HTML
	Sure         bool
}

type checkView struct {
	Class string
	Word  template.HTML
	Text  template.HTML
}

// deleteForm asks for confirmation before a deletion, and shows the checks.
func (u *UI) deleteForm(rw http.ResponseWriter, r *http.Request) error {
	f, _, err := u.flag(r)
	if err != nil {
		return err
	}
	p := u.page(r, "flags", u.text.plain("delete.title", "key", f.Key))
	d := &deleteData{ID: f.ID, Snapshot: f.SnapshotID, Title: u.text.say("delete.title", "key", code(f.Key)),
		Text: u.text.say("delete.text", "seconds", seconds(u.o.RefreshInterval))}
	d.Goes = u.text.say("delete.goes", "segments", len(f.Segments), "variants", len(f.Variants), "tags", len(f.Tags))
	u.deletionChecks(r, p, f, d)
	p.Data = d
	u.render(rw, r, http.StatusOK, "delete.html", p)
	return nil
}

func (u *UI) deleteFlag(rw http.ResponseWriter, r *http.Request) error {
	f, _, err := u.flag(r)
	if err != nil {
		return err
	}
	if err := u.o.Store.DeleteFlag(r.Context(), u.o.Actor(r), int64(f.ID)); err != nil {
		return err
	}
	u.saved(rw, r, "notice.deleted", f.Key, "../../")
	return nil
}

type deletedData struct {
	Answer     template.HTML
	Curl, SQL  string
	Rows       []deletedRow
	Prev, Next string
}

type deletedRow struct {
	ID               uint
	Key, Description string
	At, Asked        template.HTML
	By               string
}

func (u *UI) deleted(rw http.ResponseWriter, r *http.Request) error {
	n := pageNumber(r)
	flags, all, err := u.o.Store.DeletedFlags(r.Context(), pageSize, (n-1)*pageSize)
	if err != nil {
		return err
	}
	p := u.page(r, "flags", u.text.plain("deleted.title"))
	d := &deletedData{}
	d.Answer = u.text.say("deleted.answer", "n", all)
	d.Prev, d.Next = pageLinks(n, n*pageSize < all)
	asked := u.askedDeleted(r)
	if asked != nil {
		from := hourOf(u.o.Now(), overviewDays)
		d.Curl, d.SQL = u.curl(r, "/datar/unknown?from="+from.Format(time.RFC3339)), u.unknownSQL(from)
	}
	for i := range flags {
		f := &flags[i]
		row := deletedRow{ID: f.ID, Key: f.Key, Description: shown(f.Description), At: p.Time(f.DeletedAt.Time, ""), By: shortName(f.UpdatedBy), Asked: "–"}
		if n := asked[int64(f.ID)]; n > 0 {
			row.Asked = u.text.say("deleted.still", "n", n)
		}
		d.Rows = append(d.Rows, row)
	}
	p.Data = d
	u.render(rw, r, http.StatusOK, "deleted.html", p)
	return nil
}

func pageNumber(r *http.Request) int {
	n, err := strconv.Atoi(r.URL.Query().Get("page"))
	if err != nil || n < 1 || n > 1e6 {
		return 1
	}
	return n
}

func pageLinks(n int, more bool) (prev, next string) {
	if n > 1 {
		prev = "?page=" + strconv.Itoa(n-1)
	}
	if more {
		next = "?page=" + strconv.Itoa(n+1)
	}
	return prev, next
}

type restoreData struct {
	ID   uint
	Key  code
	Text template.HTML
	// Comes lists the parts that are restored, Asked how often applications ask for the flag. Each
	// is empty if unknown.
	Comes, Asked, Was template.HTML
}

// restoreForm asks for confirmation before a deleted flag is restored.
func (u *UI) restoreForm(rw http.ResponseWriter, r *http.Request) error {
	id, err := flagID(r)
	if err != nil {
		return err
	}
	found, err := u.o.Store.DeletedAmong(r.Context(), nil, []int64{id})
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return entity.NotFound("there is no deleted flag %d", id)
	}
	f := &found[0]
	p := u.page(r, "flags", u.text.plain("restore.title", "key", f.Key))
	d := &restoreData{ID: f.ID, Key: code(f.Key), Was: u.wasDeleted(p, f)}
	d.Text = u.text.say(map[bool]string{true: "restore.on", false: "restore.off"}[f.Enabled], "seconds", seconds(u.o.RefreshInterval))
	if rows, err := u.o.Store.Snapshots(r.Context(), id, 1, 0); err == nil && len(rows) == 1 {
		if last := parseSnapshot(&rows[0]); last != nil {
			d.Comes = u.text.say("restore.comes", "segments", len(last.Segments), "variants", len(last.Variants), "tags", len(last.Tags))
		}
	}
	if n := u.askedDeleted(r)[id]; n > 0 {
		d.Asked = u.text.say("restore.asked", "n", n)
	}
	p.Data = d
	u.render(rw, r, http.StatusOK, "restore.html", p)
	return nil
}

// wasDeleted returns when a flag was deleted, and by whom if that is known.
func (u *UI) wasDeleted(p *page, f *entity.Flag) template.HTML {
	at := p.Time(f.DeletedAt.Time, "")
	if f.UpdatedBy == "" {
		return u.text.say("restore.was", "at", at)
	}
	return u.text.say("restore.was.by", "at", at, "by", catalog.Name(shortName(f.UpdatedBy)))
}

func (u *UI) restore(rw http.ResponseWriter, r *http.Request) error {
	id, err := flagID(r)
	if err != nil {
		return err
	}
	f, err := u.o.Store.RestoreFlag(r.Context(), u.o.Actor(r), id)
	if err != nil {
		return err
	}
	u.saved(rw, r, "notice.restored", f.Key, fmt.Sprintf("../flags/%d", id))
	return nil
}
