package web

import (
	"net/url"
	"path"
	"slices"
	"strings"
)

// openPaths are the paths that need no login.
//
// A path can be written in many ways, and what follows here does not read all of them alike: the generated router
// cleans the path with its escapes still in it, the pages of the documentation clean the decoded one, and the profiler is
// found by the decoded one as it came.
// A request is open only if it is open in both readings; so a path that some part of the server takes for a closed one
// needs a login, however it is written.
type openPaths struct {
	decoded, escaped pathList
}

// newOpenPaths makes the list out of path prefixes, compared as texts, and whole paths. Each may be written with the
// web prefix in front or without.
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

// contain reports whether the URL's path is open. The web prefix must be gone from it.
func (o *openPaths) contain(u *url.URL) bool {
	if !o.decoded.contains(cleanPath(u.Path)) {
		return false
	}
	escaped := u.EscapedPath()
	return escaped == u.Path || o.escaped.contains(cleanPath(escaped))
}

// everything reports whether one of the entries opens every path.
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

// cleanPath resolves dots and repeated slashes, and leaves the empty path alone.
func cleanPath(p string) string {
	if p == "" {
		return ""
	}
	return path.Clean(p)
}

// cleanEntry is cleanPath for an entry of a list, where a slash at the end has a meaning: only what lies below.
func cleanEntry(entry string) string {
	cleaned := cleanPath(entry)
	if strings.HasSuffix(entry, "/") && cleaned != "/" {
		cleaned += "/"
	}
	return cleaned
}
