package provider

import (
	"strings"
	"sync"
	"time"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/flagr-datar/flagr-datar/pkg/evallog"
)

const (
	// unknownPerHour bounds the keys without a flag that are counted by themselves, as the server does, so that a program that
	// makes up keys has the memory of that many.
	unknownPerHour = 1000
	// maxUnknownBytes is how much of such a key the server keeps.
	maxUnknownBytes = 63
	// otherUnknown is what the server counts the others under.
	otherUnknown = "(other)"
)

// unknownKeys are the keys without a flag that were asked for within an hour.
type unknownKeys struct {
	mu struct {
		sync.Mutex
		hour int64 // since 1970
		keys map[string]struct{}
	}
}

// counted is what is counted of an evaluation of a key without a flag: nothing of an empty one.
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

// within is the key, or otherUnknown if there are too many in this hour.
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
