package handler

import (
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// headerPrefix is the prefix of properties that come from headers.
const headerPrefix = "@http_"

// InjectedContext configures what the server adds to the context of an evaluation. The zero value
// adds the time.
type InjectedContext struct {
	// Headers are names of request headers. HeaderPrefixes are prefixes of such names, of which the
	// rest has no underscore. Both ignore case. Host is one of the headers.
	Headers, HeaderPrefixes []string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// properties returns what a request adds: the time and, unless r is nil, the headers.
func (c *InjectedContext) properties(r *http.Request) map[string]any {
	now := time.Now
	if c.Now != nil {
		now = c.Now
	}
	t := now().UTC()
	number := func(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }
	added := map[string]any{
		"@ts":         number(t.Unix()),
		"@ts_hour":    number(int64(t.Hour())),
		"@ts_weekday": number(int64(t.Weekday())),
		"@ts_month":   number(int64(t.Month())),
	}
	if r == nil {
		return added
	}
	for name, values := range r.Header {
		if c.wants(name) {
			added[headerProperty(name)] = strings.Join(values, ", ")
		}
	}
	if r.Host != "" && c.wants("Host") { // net/http removes it from the headers
		added[headerProperty("Host")] = r.Host
	}
	return added
}

// Inject returns context with the properties of the request. It may change context, which must not
// be used elsewhere.
func (c *InjectedContext) Inject(context any, r *http.Request) any {
	return inject(context, c.properties(r))
}

func (c *InjectedContext) wants(header string) bool {
	for _, name := range c.Headers {
		if strings.EqualFold(name, header) {
			return true
		}
	}
	for _, prefix := range c.HeaderPrefixes {
		if len(prefix) <= len(header) && strings.EqualFold(prefix, header[:len(prefix)]) &&
			!strings.Contains(header[len(prefix):], "_") { // X-Geo_City would have the property of X-Geo-City, which a proxy sets
			return true
		}
	}
	return false
}

func headerProperty(header string) string {
	return headerPrefix + strings.ReplaceAll(strings.ToLower(header), "-", "_")
}

// inject adds properties to the context of an evaluation. They replace properties of the same names
// that the client sent. It removes header properties that the client sent, because constraints on
// them rely on what a proxy sets. A context that is neither null nor an object is unchanged:
// constraints cannot match it.
func inject(context any, added map[string]any) any {
	own, ok := context.(map[string]any)
	switch {
	case len(added) == 0 || context != nil && !ok:
		return context
	case own == nil:
		own = make(map[string]any, len(added))
	}
	maps.DeleteFunc(own, func(name string, _ any) bool { return strings.HasPrefix(name, headerPrefix) })
	maps.Copy(own, added)
	return own
}
