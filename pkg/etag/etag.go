// Package etag reads the entity tags that clients send back.
package etag

import (
	"iter"
	"strings"
)

// Bare returns the text between the quotes of an entity tag, without the prefix of weak tags, and
// without the suffix that proxies append when they compress. Two tags with the same result match in
// the weak comparison of RFC 9110.
func Bare(tag string) string {
	tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
	return strings.TrimSuffix(strings.Trim(tag, `"`), "-gzip")
}

// List returns the bare tags of the values of an If-None-Match header, which is a list.
func List(values []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, value := range values {
			for tag := range strings.SplitSeq(value, ",") {
				if !yield(Bare(tag)) {
					return
				}
			}
		}
	}
}
