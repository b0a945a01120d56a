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

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// flagHead is the head of every page of a flag.
type flagHead struct {
	ID, SnapshotID         uint
	Key, Description       string
	KeyIsTitle             bool
	Tags                   []string
	Enabled, SwitchChanged bool
	// Editing makes the switch part of the page's form.
	Editing bool
	Tabs    []flagTab
	// Stale reports that the database does not answer, and that the page shows the flag from memory
	// as of Checked.
	Stale   bool
	Checked time.Time
	// Unreadable is that of the flag.
	Unreadable string
}

type flagTab struct {
	Path    string
	Name    template.HTML
	Current bool
}

var tabs = []string{"overview", "targeting", "traffic", "nothing", "try", "history"}

func tabPath(tab string) string {
	if tab == "overview" {
		return ""
	}
	return "/" + tab
}

func (u *UI) head(f *entity.Flag, tab string) flagHead {
	h := flagHead{
		ID: f.ID, SnapshotID: f.SnapshotID, Key: f.Key, KeyIsTitle: true, Description: shown(f.Description), Tags: tagValues(f), Enabled: f.Enabled,
		Unreadable: f.Unreadable,
	}
	if h.Key == "" {
		h.Key = "#" + strconv.FormatUint(uint64(f.ID), 10)
	}
	for _, name := range tabs {
		if name == "history" && u.o.Store == nil {
			continue
		}
		h.Tabs = append(h.Tabs, flagTab{tabPath(name), u.text.say("tab." + name), name == tab})
	}
	return h
}

// flagPage is a page of a flag; data returns the page's data for the head.
func (u *UI) flagPage(r *http.Request, f *entity.Flag, tab string) (*page, flagHead) {
	p := u.page(r, "flags", u.text.plain("flag.title", "key", f.Key, "tab", u.text.plain("tab."+tab)))
	return p, u.head(f, tab)
}

func flagID(r *http.Request) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id < 1 {
		return 0, entity.NotFound("there is no flag %q", r.PathValue("id"))
	}
	return id, nil
}

// flag returns the flag of a page. If the database does not answer, it returns the flag from memory
// and sets stale.
func (u *UI) flag(r *http.Request) (f *entity.Flag, stale bool, err error) {
	id, err := flagID(r)
	if err != nil {
		return nil, false, err
	}
	inMemory := u.o.Snapshots.Snapshot().Flag(id, "")
	if u.o.Store == nil {
		if inMemory == nil {
			return nil, false, entity.NotFound("there is no flag %d", id)
		}
		return inMemory, false, nil
	}
	f, err = u.o.Store.Flag(r.Context(), id)
	if err != nil && !errors.Is(err, entity.ErrNotFound) && !errors.Is(err, budget.ErrExhausted) && inMemory != nil {
		u.o.Logger.Warn("flag is shown from memory", "flag", id, "error", err)
		return inMemory, true, nil
	}
	return f, false, err
}

// saved completes a change: it refreshes the flags in memory, and sets the notice of the next page.
// A script gets no redirect, because it cannot distinguish it from one to a login.
func (u *UI) saved(rw http.ResponseWriter, r *http.Request, notice, arg, location string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 3*time.Second)
	defer cancel()
	u.o.Refresh(ctx)
	u.board.forget()
	u.notify(rw, notice, arg)
	if r.PostForm.Has(scriptField) {
		rw.WriteHeader(http.StatusNoContent)
		return
	}
	seeOther(rw, location)
}

// saveField saves a single field of the flag, if the flag is still the version that the page
// showed.
func (u *UI) saveField(rw http.ResponseWriter, r *http.Request, d entity.Definition, notice string) error {
	id, err := flagID(r)
	if err != nil {
		return err
	}
	snapshot, err := strconv.ParseUint(r.PostForm.Get("snapshot"), 10, 63)
	if err != nil {
		return entity.Invalid("%s", u.text.plain("error.version", "x", r.PostForm.Get("snapshot")))
	}
	d.SnapshotID = uint(snapshot)
	f, err := u.o.Store.ReplaceDefinition(r.Context(), u.o.Actor(r), id, d)
	if _, ok := errors.AsType[*entity.ConflictError](err); ok {
		u.notify(rw, "notice.changed", "")
		seeOther(rw, "../"+strconv.FormatInt(id, 10))
		return nil
	}
	if err != nil {
		return err
	}
	u.saved(rw, r, notice, f.Key, "../../"+backTo(r, fmt.Sprintf("flags/%d", id)))
	return nil
}

// backTo returns the page of the form, below /ui/.
func backTo(r *http.Request, usual string) string {
	back := r.PostForm.Get("back")
	if !isRelative(back) || !strings.HasPrefix(back, "flags/") || strings.Contains(back, "..") {
		return usual
	}
	return back
}

// toggle switches a flag on or off.
func (u *UI) toggle(rw http.ResponseWriter, r *http.Request) error {
	if err := u.readForm(r); err != nil {
		return err
	}
	on := r.PostForm.Get("enabled") == "true"
	return u.saveField(rw, r, entity.Definition{Enabled: &on}, map[bool]string{true: "notice.on", false: "notice.off"}[on])
}

// records turns the data records of a flag on or off.
func (u *UI) records(rw http.ResponseWriter, r *http.Request) error {
	if err := u.readForm(r); err != nil {
		return err
	}
	on := r.PostForm.Get("records") == "true"
	return u.saveField(rw, r, entity.Definition{DataRecordsEnabled: &on}, map[bool]string{true: "notice.records", false: "notice.norecords"}[on])
}
