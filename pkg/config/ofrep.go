package config

import (
	"slices"
	"strings"
	"time"
)

// APIKey is a secret for OFREP.
type APIKey struct {
	Name, Secret string
	// Tags are the tags of the flags that the key can read; empty means all flags.
	Tags []string
}

// Keys returns the entries of APIKeys.
func (o *OFREP) Keys() []APIKey {
	keys, _ := parseAPIKeys(o.APIKeys) // validate has rejected invalid ones
	return keys
}

// parseAPIKeys parses entries such as web=secret@web|checkout. Names and secrets must be unique.
func parseAPIKeys(entries []string) (keys []APIKey, ok bool) {
	for _, entry := range entries {
		name, rest, found := strings.Cut(entry, "=")
		secret, tags, scoped := strings.Cut(rest, "@")
		key := APIKey{Name: strings.TrimSpace(name), Secret: secret}
		if scoped {
			key.Tags = strings.Split(tags, "|")
		}
		isTaken := func(k APIKey) bool { return k.Name == key.Name || k.Secret == key.Secret }
		if !found || key.Name == "" || secret == "" || strings.ContainsAny(name+secret, "=@|") || slices.Contains(key.Tags, "") ||
			slices.ContainsFunc(keys, isTaken) {
			return nil, false
		}
		keys = append(keys, key)
	}
	return keys, true
}

func (o *OFREP) validate(l *loader) {
	_, ok := parseAPIKeys(o.APIKeys)
	l.check("FLAGR_OFREP_API_KEYS", ok)
	l.check("FLAGR_OFREP_EVENTS_URL", o.EventsURL == "" || isHTTPURL(o.EventsURL))
	l.check("FLAGR_OFREP_EVENTS_MAX", o.EventsMax >= 1)
	l.check("FLAGR_OFREP_EVENTS_SPREAD", between(0, o.EventsSpread, time.Minute))
}
