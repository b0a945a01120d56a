package provider

import (
	"strings"
	"sync"
	"time"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/flagr-datar/flagr-datar/pkg/evallog"
)

const (
	// unknownPerHour limits the unknown keys that are counted separately, like the server's limit,
	// so that a program that generates keys uses limited memory.
	unknownPerHour = 1000
	// maxUnknownBytes is how much of an unknown key the server keeps.
	maxUnknownBytes = 63
	// otherUnknown is the key under which the server counts all others.
	otherUnknown = "(other)"
)

// unknownKeys are the unknown keys of the current hour.
type unknownKeys struct {
	mu struct {
		sync.Mutex
		hour int64 // since 1970
		keys map[string]struct{}
	}
}

// counted returns what is counted for an evaluation of an unknown key, which is nothing for an
// empty key.
func (u *unknownKeys) counted(flag string, now time.Time) evallog.Key {
	if flag == "" {
		return evallog.Key{}
	}
	if len(flag) > maxUnknownBytes {
		flag = strings.Clone(strings.ToValidUTF8(flag[:maxUnknownBytes], ""))
	}
	return evallog.Key{
		Flag: u.within(flag, now.Unix()/int64(time.Hour/time.Second)), Variant: evallog.None(), Allocation: evallog.None(), TargetingKey: evallog.None(),
		ErrorCode: evallog.Some(string(openfeature.FlagNotFoundCode)),
	}
}

// within returns the key, or otherUnknown if there are too many in this hour.
func (u *unknownKeys) within(flag string, hour int64) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.mu.hour != hour || u.mu.keys == nil {
		u.mu.hour, u.mu.keys = hour, map[string]struct{}{}
	}
	if _, ok := u.mu.keys[flag]; ok {
		return flag
	}
	if len(u.mu.keys) >= unknownPerHour {
		return otherUnknown
	}
	u.mu.keys[flag] = struct{}{}
	return flag
}
