package app

import (
	"context"
	"log/slog"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/store"
)

// minSecretBytes is the minimum length of an HS256 secret that is as strong as its hash, in bytes
// (RFC 7518, section 3.2).
const minSecretBytes = 32

// logStart logs one line about the started server and its address, and a warning for each setting
// that is likely a mistake.
func (a *App) logStart(c *config.Config, address string) {
	recorders := "off"
	if c.Recorder.Enabled && len(c.Recorder.Types) > 0 {
		recorders = strings.Join(c.Recorder.Types, ",")
	}
	state, journal := a.datarState(c)
	ui := "off"
	if a.pages != nil {
		ui = address + c.Web.Prefix + "/"
	}
	a.logger.Info("server started", "version", Version, "address", address+c.Web.Prefix,
		"database", databaseName(c.Database), "flags", a.cache.Snapshot().Len(),
		"recorders", recorders, "datar", state, "journal", journal, "access_control", a.edge.access.String(), "ui", ui)
	for _, warning := range doubtful(c) {
		a.logger.Warn(warning)
	}
}

// datarState describes Datar and the folder of its journal.
func (a *App) datarState(c *config.Config) (state, journal string) {
	if a.engine == nil {
		return "off", "none"
	}
	journal = "none, counts are in memory until they are stored"
	if stats := a.engine.Stats(); stats.Journal != "" {
		journal = stats.Journal
		if absolute, err := filepath.Abs(journal); err == nil {
			journal = absolute
		}
	}
	if c.Datar.ForwardURL != "" {
		return "on, forwards every " + c.Datar.FlushInterval.String() + " to " + withoutCredentials(c.Datar.ForwardURL), journal
	}
	return "on, stores every " + c.Datar.FlushInterval.String(), journal
}

// databaseName returns the source of the flags without credentials.
func databaseName(d config.Database) string {
	switch d.Driver {
	case config.DriverJSONFile:
		return d.Driver + " " + d.DSN
	case config.DriverJSONHTTP:
		return d.Driver + " " + withoutCredentials(d.DSN)
	default:
		return d.Driver + " " + store.Name(d.Driver, d.DSN)
	}
}

// withoutCredentials keeps scheme, host and path of a URL.
func withoutCredentials(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(an address that is not a URL)"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// doubtful returns settings that are valid, but rarely intended.
func doubtful(c *config.Config) []string {
	var warnings []string
	recorderType := slices.ContainsFunc(c.Settings(), func(s config.Setting) bool { return s.Name == "FLAGR_RECORDER_TYPE" && s.Set })
	switchedOff := slices.ContainsFunc(c.Settings(), func(s config.Setting) bool { return s.Name == "FLAGR_RECORDER_ENABLED" && s.Value != "" && s.Set })
	if recorderType && !c.Recorder.Enabled && !switchedOff {
		warnings = append(warnings, "FLAGR_RECORDER_TYPE has no effect: set FLAGR_RECORDER_ENABLED=true to record evaluations")
	}
	const flags = "/api/v1/flags"
	opens := func(prefix string) bool { return strings.HasPrefix(flags, prefix) }
	if c.BasicAuth.Enabled && !c.JWTAuth.Enabled && slices.ContainsFunc(c.BasicAuth.WhitelistPaths, opens) {
		warnings = append(warnings, "basic authentication leaves "+flags+" open: anyone can change flags; "+
			"set FLAGR_BASIC_AUTH_WHITELIST_PATHS to paths that need no password, such as /api/v1/health,/api/v1/evaluation")
	}
	if c.JWTAuth.Enabled && c.JWTAuth.SigningMethod == "HS256" && len(c.JWTAuth.Secret) < minSecretBytes {
		warnings = append(warnings, "FLAGR_JWT_AUTH_SECRET is shorter than 32 bytes, so tokens of HS256 can be forged by trying secrets; use a longer one")
	}
	return warnings
}

// closeRecorders delivers the remaining records, and logs the result for Datar's counts.
func (a *App) closeRecorders(ctx context.Context) error {
	err := a.recorders.Close(ctx)
	if a.engine == nil {
		return err
	}
	s := a.engine.Stats()
	var dropped int64
	for _, n := range s.Dropped {
		dropped += n
	}
	level, left := slog.LevelInfo, "nothing"
	switch {
	case s.Pending > 0 && s.Journal != "" && !s.InMemory:
		level, left = slog.LevelWarn, "in the journal, for the next start"
	case s.Pending > 0:
		level, left = slog.LevelWarn, "lost with the process"
	}
	a.logger.Log(ctx, level, "Datar stopped", "recorded", s.Recorded, "stored", s.Stored, "pending", s.Pending, "dropped", dropped, "left", left)
	return err
}
