package web

import (
	"net/url"
	"path"
	"slices"
	"strings"
)

// openPaths are the paths that need no login.
//
// A path has several spellings, and the handlers behind this check do not decode all of them alike.
// The generated router cleans the path with its escapes, the documentation pages clean the decoded
// path, and the profiler uses the decoded path unchanged. So a request is open only if it is open
// in both readings. A path that some handler treats as a closed one needs a login, however it is
// written.
type openPaths struct {
	decoded, escaped pathList
}

// newOpenPaths builds the list from path prefixes, which are compared as strings, and exact paths.
// Each may begin with the web prefix or not.
func newOpenPaths(prefixes, exact []string, webPrefix string) openPaths {
	var o openPaths
	add := func(entries []string, decoded, escaped *[]string) {
		for _, entry := range entries {
			readings := []string{entry}
			if rest, ok := strings.CutPrefix(entry, webPrefix); ok && webPrefix != "" && strings.HasPrefix(rest, "/") {
				readings = append(readings, rest)
			}
			for _, reading := range readings {
				reading = cleanEntry(reading)
				*decoded = append(*decoded, reading)
				*escaped = append(*escaped, (&url.URL{Path: reading}).EscapedPath())
			}
		}
	}
	add(prefixes, &o.decoded.prefixes, &o.escaped.prefixes)
	add(exact, &o.decoded.exact, &o.escaped.exact)
	return o
}

// contain reports whether the URL's path is open. The web prefix must already be removed.
func (o *openPaths) contain(u *url.URL) bool {
	if !o.decoded.contains(cleanPath(u.Path)) {
		return false
	}
	escaped := u.EscapedPath()
	return escaped == u.Path || o.escaped.contains(cleanPath(escaped))
}

// everything reports whether an entry opens every path.
func (o *openPaths) everything() bool { return slices.Contains(o.decoded.prefixes, "/") }

type pathList struct{ prefixes, exact []string }

func (l *pathList) contains(cleaned string) bool {
	for _, prefix := range l.prefixes {
		if strings.HasPrefix(cleaned, prefix) {
			return true
		}
	}
	return slices.Contains(l.exact, cleaned)
}

// cleanPath resolves dots and repeated slashes, but keeps the empty path.
func cleanPath(p string) string {
	if p == "" {
		return ""
	}
	return path.Clean(p)
}

// cleanEntry is cleanPath for an entry of a list. It keeps a trailing slash, which means that only
// paths below are open.
func cleanEntry(entry string) string {
	cleaned := cleanPath(entry)
	if strings.HasSuffix(entry, "/") && cleaned != "/" {
		cleaned += "/"
	}
	return cleaned
}
