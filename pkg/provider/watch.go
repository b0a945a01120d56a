package provider

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

const (
	// reconnectDelay is the delay before a stream that ended is reopened; refusedDelay is the delay
	// after a rejection.
	reconnectDelay = 5 * time.Second
	refusedDelay   = time.Minute
	// streamSilence is the maximum time without data on a stream. The server writes every 25 s.
	streamSilence = 90 * time.Second
	// maxEventBytes limits a line of a stream.
	maxEventBytes = 64 << 10
)

// emit sends an event to the SDK, unless the SDK does not read.
func (p *Provider) emit(kind openfeature.EventType, message string, changed []string) {
	event := openfeature.Event{
		ProviderName: serviceName, EventType: kind,
		ProviderEventDetails: openfeature.ProviderEventDetails{Message: message, FlagChanges: changed},
	}
	select {
	case p.events <- event:
	default:
		p.options.Logger.Warn("a provider event was dropped", "event", string(kind))
	}
}

// watch notifies the SDK of changes and of server outages, until the provider is shut down.
func (p *Provider) watch(started bool) {
	if !started && !p.startLater() {
		return
	}
	ticker := time.NewTicker(p.options.PollInterval)
	defer ticker.Stop()
	state, stale := p.cache.State(), false
	for {
		if now := p.isStale(); now != stale {
			stale = now
			if stale {
				p.emit(openfeature.ProviderStale, "the server is away; flags are those of before", nil)
			} else {
				p.emit(openfeature.ProviderReady, "the server is back", nil)
			}
		}
		select {
		case <-p.running.Done():
			return
		case <-state.Replaced:
			next := p.cache.State()
			if changed := changedKeys(state.Snapshot, next.Snapshot); len(changed) > 0 {
				p.emit(openfeature.ProviderConfigChange, "flags have changed", changed)
			}
			state = next
		case <-ticker.C:
		}
	}
}

// startLater retries until the cache has flags. It returns false if the provider is shut down
// first.
func (p *Provider) startLater() bool {
	for p.pause(p.options.PollInterval) {
		ctx, cancel := context.WithTimeout(p.running, p.options.Timeout)
		err := p.cache.Start(ctx)
		cancel()
		if err == nil {
			p.emit(openfeature.ProviderReady, "flags were loaded", nil)
			return true
		}
	}
	return false
}

// isStale reports whether the server has been unavailable for several polls, or was never reached.
func (p *Provider) isStale() bool {
	last := p.source.lastContact()
	return last.IsZero() || time.Since(last) > stalePolls*p.options.PollInterval
}

// pause waits for about d. It returns false if the provider is shut down.
func (p *Provider) pause(d time.Duration) bool {
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-p.running.Done():
		return false
	case <-timer.C:
		return true
	}
}

// changedKeys returns the keys of new, removed and changed flags.
func changedKeys(before, after *eval.Snapshot) []string {
	old := map[string]*entity.Flag{}
	for _, f := range before.Flags() {
		old[f.Key] = f
	}
	var changed []string
	for _, f := range after.Flags() {
		was := old[f.Key]
		delete(old, f.Key)
		if was == nil || was.SnapshotID != f.SnapshotID || f.SnapshotID == 0 {
			changed = append(changed, f.Key)
		}
	}
	for key := range old {
		changed = append(changed, key)
	}
	slices.Sort(changed)
	return changed
}

// follow checks the server whenever its event stream reports a change.
func (p *Provider) follow() {
	last := ""
	delay := time.Millisecond
	for p.pause(delay) {
		refused, err := p.readStream(&last)
		delay = reconnectDelay
		if refused {
			delay = refusedDelay
		}
		p.options.Logger.Debug("event stream ended", "error", err)
	}
}

// readStream reads one stream to its end. last is the ID of the newest event.
func (p *Provider) readStream(last *string) (refused bool, err error) {
	ctx, cancel := context.WithCancel(p.running)
	defer cancel()
	silence := time.AfterFunc(streamSilence, cancel)
	defer silence.Stop()
	request, err := newRequest(ctx, &p.options, http.MethodGet, eventsPath, nil)
	if err != nil {
		return true, err
	}
	if *last != "" {
		request.Header.Set("Last-Event-ID", *last)
	}
	client := *p.options.Client
	client.Timeout = 0 // a stream has no timeout
	response, err := client.Do(request)
	if err != nil {
		return false, err
	}
	defer func() { _ = response.Body.Close() }() // ends with ctx
	if response.StatusCode != http.StatusOK {
		return true, fmt.Errorf("the server returns %s", response.Status)
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxEventBytes)
	for lines.Scan() {
		silence.Reset(streamSilence)
		line := lines.Text()
		if id, ok := strings.CutPrefix(line, "id:"); ok {
			*last = strings.TrimSpace(id)
		}
		if strings.HasPrefix(line, "data:") {
			p.cache.Look(ctx)
		}
	}
	return false, lines.Err()
}
