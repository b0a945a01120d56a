package attack

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	_ "github.com/glebarez/go-sqlite" // the driver "sqlite"
)

// attackCase is one kind of request that is meant to exhaust the server. Its error is about the
// setup, or about a fault other than memory and latency.
type attackCase struct {
	name string
	run  func(ctx context.Context, t *target) error
}

func cases() []attackCase {
	return []attackCase{
		{"baseline", baseline},
		{"long context, unknown flags", longContext},
		{"repeated flag tags", repeatedTags},
		{"100,000 tags in a query", tagsInQuery},
		{"announced bodies", announcedBodies},
		{"announced bodies, other paths", announcedElsewhere},
		{"large patterns, API", patternsByAPI},
		{"large patterns, SQL", patternsBySQL},
		{"slow pattern", slowPattern},
		{"patterns that ignore case", foldedPatterns},
		{"texts of 15 KB, many segments", mediumTexts},
		{"nested attachment", nestedAttachment},
		{"evaluation log", evaluationLog},
		{"hanging webhook", hangingWebhook},
		{"history of large states", largeHistory},
		{"slow readers of exports", slowReaders},
		{"refused counts", refusedCounts},
		{"slow counts", slowCounts},
		{"huge headers", hugeHeaders},
		{"many short headers", shortHeaders},
		{"large tries", largeTries},
		{"OFREP, large bodies", largeContexts},
		{"slow readers of batches", slowBatches},
		{"many segments", manySegments},
		{"long lists, many segments", longLists},
		{"large attachment, slow readers", largeAttachment},
		{"large attachment, many values, gzip", manyValues},
		{"debug logs of long constraints", debugLogs},
		{"attachments of numbers", numbers},
		{"long texts, pages and CSV", longTexts},
		{"nested lists, details of changes", nestedDetails},
		{"lists of 1,500 flags", reads("/flags", "Accept-Encoding", "identity")},
		{"lists of 1,500 flags, gzip", reads("/flags")},
		{"exports of 1,500 flags", reads("/export/eval_cache/json", "Accept-Encoding", "identity")},
		{"exports, clients leave", leftExports},
		{"states of 1,500 flags", reads("/datar/states", "Accept-Encoding", "identity")},
		{"states of 1,500 flags, gzip", reads("/datar/states")},
		{"tries, many segments", manyTries},
	}
}

// n returns all, or few for a quick run.
func (t *target) n(all, few int) int {
	if t.options.Quick {
		return few
	}
	return all
}

// atOnce calls f with 0 to n-1, in that many workers, until ctx ends.
func atOnce(ctx context.Context, n, workers int, f func(i int)) {
	calls(ctx, workers, func(i int) bool { return i < n }, f)
}

// flood is atOnce, and goes on with n and more until the case has lasted so long that its
// percentiles mean something.
func (t *target) flood(ctx context.Context, n, workers int, f func(i int)) {
	calls(ctx, workers, func(i int) bool { return i < n || time.Since(t.began) < t.atLeast() }, f)
}

// calls calls f with 0, 1 and so on, in that many workers, as long as more returns true, until ctx
// ends.
func calls(ctx context.Context, workers int, more func(i int) bool, f func(i int)) {
	next := make(chan int)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := 0; ctx.Err() == nil && more(i); i++ {
		next <- i
	}
	close(next)
	group.Wait()
}

// atLeast returns how long a case lasts at least. The honest client then sends some 300 requests.
func (t *target) atLeast() time.Duration { return time.Duration(t.n(3000, 500)) * time.Millisecond }

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// baseline runs the honest client alone.
func baseline(ctx context.Context, t *target) error {
	pause(ctx, t.atLeast())
	return nil
}

// longContext requests 1,000 unknown flags with one context of 0.6 MB, which each result would
// repeat.
func longContext(ctx context.Context, t *target) error {
	var body strings.Builder
	fmt.Fprintf(&body, `{"entities":[{"entityID":"1","entityContext":{"a":%q}}],"flagKeys":[`, strings.Repeat("x", 600_000))
	for i := range 1000 {
		fmt.Fprintf(&body, `%s"unknown-%d"`, comma(i), i)
	}
	body.WriteString("]}")
	t.flood(ctx, t.n(40, 8), 8, func(int) {
		t.attack(ctx, http.MethodPost, "/evaluation/batch", []byte(body.String()))
	})
	return nil
}

// repeatedTags sends one tag 200,000 times.
func repeatedTags(ctx context.Context, t *target) error {
	tags := strings.Repeat(`"t",`, 200_000)
	body := `{"entities":[{"entityID":"1"}],"flagTags":[` + tags + `"t"]}`
	t.flood(ctx, t.n(40, 8), 8, func(int) {
		t.attack(ctx, http.MethodPost, "/evaluation/batch", []byte(body))
	})
	return nil
}

// tagsInQuery sends 100,000 different tags to all endpoints that accept tags in a query.
func tagsInQuery(ctx context.Context, t *target) error {
	var tags strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&tags, "%st%d", comma(i), i)
	}
	paths := []string{"/flags?tags=", "/export/eval_cache/json?tags=", "/export/eval_cache/json?keys=", "/evaluation/batch?entityId=1&flagTag="}
	t.flood(ctx, t.n(40, 8), 8, func(i int) {
		t.attack(ctx, http.MethodGet, paths[i%len(paths)]+tags.String(), nil)
	})
	return nil
}

// announcedBodies opens many clients that announce 1 MB and send one byte.
func announcedBodies(ctx context.Context, t *target) error {
	return t.connections(ctx, t.n(3000, 300), func(i int, c net.Conn) error {
		path := []string{"/evaluation", "/evaluation/batch"}[i%2]
		_, err := fmt.Fprintf(c, "POST /api/v1%s HTTP/1.1\r\nHost: flagr\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{", path)
		return err
	}, nil)
}

// announcedElsewhere does the same with 10 KB, for requests that are not plain evaluations.
func announcedElsewhere(ctx context.Context, t *target) error {
	return t.connections(ctx, t.n(3000, 300), func(i int, c net.Conn) error {
		path := []string{"/api/v1/flags", "/api/v1/datar/evaluations", "/ofrep/v1/evaluate/flags", "/ui/flags"}[i%4]
		_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: flagr\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n\r\n{", path)
		return err
	}, nil)
}

// classes returns a pattern of about 21 KB that would compile to more than 100 MB.
func classes() string { return strings.Repeat(`\pL`, 7000) }

// patternsByAPI creates 30 constraints with such patterns.
func patternsByAPI(ctx context.Context, t *target) error {
	constraints, err := t.createSegment(ctx, "patterns-api")
	if err != nil {
		return err
	}
	body := constraintBody(classes())
	atOnce(ctx, t.n(30, 10), 4, func(int) { t.attack(ctx, http.MethodPost, constraints, body) })
	pause(ctx, time.Second) // so that the flags are reloaded during the case
	return nil
}

// patternsBySQL writes such patterns into the database and restarts the server.
func patternsBySQL(ctx context.Context, t *target) error {
	constraints, err := t.createSegment(ctx, "patterns-sql")
	if err != nil {
		return err
	}
	for range t.n(30, 10) {
		if t.attack(ctx, http.MethodPost, constraints, constraintBody("abc")) != http.StatusOK {
			return errors.New("a plain pattern was not accepted")
		}
	}
	if err := t.exec(ctx, "UPDATE constraints SET value = ? WHERE value = ?", `"`+classes()+`"`, `"abc"`); err != nil {
		return err
	}
	if err := t.restart(ctx); err != nil {
		return err
	}
	t.attack(ctx, http.MethodPost, "/evaluation", []byte(`{"flagKey":"patterns-sql","entityID":"1","entityContext":{"x":"abc"}}`))
	return t.exec(ctx, "UPDATE constraints SET value = ? WHERE value = ?", `"abc"`, `"`+classes()+`"`)
}

// slowPattern matches 8 KB of text against a pattern of about 1.8 KB, and against one that is only
// just accepted.
func slowPattern(ctx context.Context, t *target) error {
	constraints, err := t.createSegment(ctx, "slow-pattern")
	if err != nil {
		return err
	}
	for _, repeat := range []int{200, 60, 10} {
		t.attack(ctx, http.MethodPost, constraints, constraintBody(strings.Repeat("(a?){100}", repeat)+"b"))
	}
	if constraints, err = t.createSegment(ctx, "slow-pattern-0"); err != nil {
		return err
	}
	t.attack(ctx, http.MethodPost, constraints, constraintBody("(a?){100}b"))
	pause(ctx, time.Second) // until the flags are reloaded
	text := strings.Repeat("a", 8<<10)
	t.flood(ctx, t.n(40, 8), t.clients(), func(i int) {
		key := []string{"slow-pattern", "slow-pattern-0"}[i%2]
		if i%4 == 3 {
			t.attackOFREP(ctx, "/"+key, fmt.Sprintf(`{"context":{"targetingKey":"1","x":%q}}`, text))
			return
		}
		t.attack(ctx, http.MethodPost, "/evaluation", fmt.Appendf(nil, `{"flagKey":%q,"entityID":"1","entityContext":{"x":%q}}`, key, text))
	})
	return nil
}

// foldedPatterns saves constraints whose patterns take long to parse, and evaluates 3,300
// constraints with such patterns from contexts.
func foldedPatterns(ctx context.Context, t *target) error {
	constraints, err := t.createSegment(ctx, "folded-patterns")
	if err != nil {
		return err
	}
	if _, err := t.createLong(ctx, "patterns-of-contexts", func(int) (operator, value string) { return "EREG", "{q}" }); err != nil {
		return err
	}
	large := constraintBody(`(?i)[` + strings.Repeat(`b-\x{1e942}`, 300) + `]`)
	patterns := []string{`(?i)` + strings.Repeat(`\\pL`, 9), `(?i)[b-\\x{1e942}]`, `(?i)` + strings.Repeat(`\\W`, 500), strings.Repeat("a", 999) + "("}
	t.flood(ctx, t.n(40, 8), t.clients(), func(i int) {
		switch pattern := patterns[i/4%len(patterns)]; i % 4 {
		case 0:
			t.attack(ctx, http.MethodPost, constraints, large)
		case 1:
			t.attackOFREP(ctx, "/patterns-of-contexts", `{"context":{"targetingKey":"1","x":"y","q":"`+pattern+`"}}`)
		default:
			t.attack(ctx, http.MethodPost, "/evaluation", fmt.Appendf(nil, `{"flagKey":"patterns-of-contexts","entityID":"1","enableDebug":%t,"entityContext":{"x":"y","q":"%s"}}`, i%4 == 2, pattern))
		}
	})
	return nil
}

// mediumTexts has 3,300 constraints for a text that is too short for a turn of its own.
func mediumTexts(ctx context.Context, t *target) error {
	wanted := `"` + strings.Repeat("a", 1000) + `b"`
	if _, err := t.createLong(ctx, "medium-texts", func(int) (operator, value string) { return "CONTAINS", wanted }); err != nil {
		return err
	}
	text := strings.Repeat("a", 15<<10)
	t.flood(ctx, t.n(40, 8), t.clients(), func(i int) {
		if i%2 == 0 {
			t.attackOFREP(ctx, "/medium-texts", fmt.Sprintf(`{"context":{"targetingKey":"1","x":%q}}`, text))
			return
		}
		t.attack(ctx, http.MethodPost, "/evaluation", fmt.Appendf(nil, `{"flagKey":"medium-texts","entityID":"1","entityContext":{"x":%q}}`, text))
	})
	return nil
}

// nestedAttachment nests JSON 9,998 levels deep, by the API and by SQL, and reads it back.
func nestedAttachment(ctx context.Context, t *target) error {
	nested := strings.Repeat(`{"a":`, 9_998) + "1" + strings.Repeat("}", 9_998)
	f, err := t.createFlag(ctx, "nested")
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/flags/%d", f.ID)
	if status := t.attack(ctx, http.MethodPost, path+"/variants", []byte(`{"key":"deep","attachment":`+nested+`}`)); status != http.StatusBadRequest {
		return fmt.Errorf("an attachment nested 9,998 deep is answered %d, want 400", status)
	}
	if err := t.exec(ctx, "UPDATE variants SET attachment = ? WHERE flag_id = ?", nested, f.ID); err != nil {
		return err
	}
	if _, err := t.call(ctx, http.MethodPut, path, map[string]any{"description": "changed"}); err != nil {
		return err
	}
	pause(ctx, time.Second) // until the flag is reloaded
	for _, read := range []string{path, path + "/snapshots", "/export/eval_cache/json"} {
		if status := t.attack(ctx, http.MethodGet, read, nil); status != http.StatusOK {
			return fmt.Errorf("GET %s with a nested attachment is answered %d, want 200", read, status)
		}
	}
	return nil
}

// evaluationLog sends one batch whose evaluations would write 180 MB of log.
func evaluationLog(ctx context.Context, t *target) error {
	var body strings.Builder
	body.WriteString(`{"entities":[`)
	for i := range 15_000 {
		fmt.Fprintf(&body, `%s{"entityID":"%d-%s"}`, comma(i), i, strings.Repeat("x", 800))
	}
	fmt.Fprintf(&body, `],"flagKeys":[%q]}`, t.honestFlag.Key)
	before := t.size(logName)
	t.attack(ctx, http.MethodPost, "/evaluation/batch", []byte(body.String()))
	grown := t.size(logName) - before
	t.note = fmt.Sprintf("%.1f MB sent, log grew by %.1f MB", megabytes(int64(body.Len())), megabytes(grown))
	if grown > 20<<20 {
		return fmt.Errorf("the log grew by %.1f MB, want at most 20 MB", megabytes(grown))
	}
	return nil
}

// hangingWebhook changes a flag with an attachment of 1 MB repeatedly. The receiver never responds.
func hangingWebhook(ctx context.Context, t *target) error {
	f, err := t.createFlag(ctx, "webhook")
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/flags/%d", f.ID)
	body := fmt.Appendf(nil, `{"key":"large","attachment":{"a":%q}}`, strings.Repeat("x", t.n(1_000_000, 300_000)))
	t.attack(ctx, http.MethodPost, path+"/variants", body)
	t.flood(ctx, t.n(100, 20), 2, func(i int) {
		t.attack(ctx, http.MethodPut, path, fmt.Appendf(nil, `{"description":"change %d"}`, i))
	})
	return nil
}

// largeHistory writes a history of 100 states of 1 MB each by SQL, and reads it.
func largeHistory(ctx context.Context, t *target) error {
	f, err := t.createFlag(ctx, "history")
	if err != nil {
		return err
	}
	state := fmt.Sprintf(`{"ID":%d,"Key":"history","Notes":%q}`, f.ID, strings.Repeat("x", 1_000_000))
	for range t.n(100, 40) {
		if err := t.exec(ctx, "INSERT INTO flag_snapshots (created_at, updated_at, flag_id, flag) VALUES (datetime('now'), datetime('now'), ?, ?)",
			f.ID, state); err != nil {
			return err
		}
	}
	t.flood(ctx, t.n(8, 4), 4, func(int) {
		t.attack(ctx, http.MethodGet, fmt.Sprintf("/flags/%d/snapshots", f.ID), nil)
	})
	return nil
}

// slowReaders opens 15 clients that read an export slowly.
func slowReaders(ctx context.Context, t *target) error {
	return t.connections(ctx, 15, func(_ int, c net.Conn) error {
		_, err := io.WriteString(c, "GET /api/v1/export/sqlite HTTP/1.1\r\nHost: flagr\r\nAccept: */*\r\n\r\n")
		return err
	}, func(c net.Conn) {
		part := make([]byte, 4<<10)
		status, err := c.Read(part)
		if err != nil || status < 12 {
			return
		}
		t.statuses.add(string(part[9:12]))
		for err == nil && ctx.Err() == nil {
			pause(ctx, 100*time.Millisecond)
			_, err = c.Read(part)
		}
	})
}

// refusedCounts sends batches whose rows are all rejected. Each batch has its own key, for which a
// receipt is kept.
func refusedCounts(ctx context.Context, t *target) error {
	var body strings.Builder
	body.WriteString(`{"flagEvaluations":[`)
	for i := range 1000 {
		body.WriteString(comma(i) + "{}")
	}
	body.WriteString("]}")
	before := t.size(databaseName) + t.size(databaseName+"-wal")
	n := t.n(1000, 100)
	t.flood(ctx, n, 4, func(i int) {
		t.attack(ctx, http.MethodPost, "/datar/evaluations", []byte(body.String()), "Idempotency-Key", fmt.Sprintf("refused-%d", i))
	})
	t.note = fmt.Sprintf("%.1f MB sent, database grew by %.1f MB", megabytes(int64(n*body.Len())),
		megabytes(t.size(databaseName)+t.size(databaseName+"-wal")-before))
	return nil
}

// slowCounts opens clients that announce 1 MB of counts, send 64 KB of it, and then one byte at a
// time.
func slowCounts(ctx context.Context, t *target) error {
	part := []byte(`{"flagEvaluations":[` + strings.Repeat("{},", 21_000))
	return t.connections(ctx, t.n(1000, 100), func(_ int, c net.Conn) error {
		_, err := fmt.Fprintf(c, "POST /api/v1/datar/evaluations HTTP/1.1\r\nHost: flagr\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n%s", part)
		return err
	}, nil)
}

// hugeHeaders opens clients that send 1,000,000 bytes of headers without an end.
func hugeHeaders(ctx context.Context, t *target) error {
	line := "X-Header: " + strings.Repeat("x", 990) + "\r\n"
	return t.connections(ctx, t.n(800, 400), func(_ int, c net.Conn) error {
		if _, err := io.WriteString(c, "GET /api/v1/health HTTP/1.1\r\nHost: flagr\r\n"); err != nil {
			return err
		}
		for range 1000 {
			if _, err := io.WriteString(c, line); err != nil {
				return err
			}
		}
		return nil
	}, nil)
}

// shortHeaders opens clients that send 120 KB of short lines without an end.
func shortHeaders(ctx context.Context, t *target) error {
	lines := strings.Repeat("1:\r\n", 30_000)
	return t.connections(ctx, t.n(1500, 300), func(_ int, c net.Conn) error {
		_, _ = io.WriteString(c, "GET /api/v1/health HTTP/1.1\r\nHost: flagr\r\n"+lines) // fails if the server closes the connection
		return nil
	}, nil)
}

// largeTries tries drafts of many segments for 1,000 entities. One body is within the limit of the
// response, and the other would have a response of 216 MB. It also requests forecasts of such
// drafts.
func largeTries(ctx context.Context, t *target) error {
	f, err := t.createFlag(ctx, "tries")
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/flags/%d/try", f.ID)
	if status := t.attack(ctx, http.MethodPost, path, tryBody(1000, 4000)); status != http.StatusBadRequest {
		return fmt.Errorf("a try with a response of 216 MB is answered %d, want 400", status)
	}
	within := tryBody(1000, t.n(300, 50))
	draft := []byte(`{"draft":` + draftOf(9000) + `}`)
	t.flood(ctx, t.n(24, 6), 6, func(i int) {
		if i%3 == 2 {
			t.attack(ctx, http.MethodPost, fmt.Sprintf("/datar/flags/%d/forecast", f.ID), draft)
			return
		}
		t.attack(ctx, http.MethodPost, path, within)
	})
	return nil
}

// largeContexts sends bodies of 1 MB with 340,000 values to OFREP.
func largeContexts(ctx context.Context, t *target) error {
	values := `["x"` + strings.Repeat(",{}", 340_000) + `]`
	bodies := []string{`{"context":{"targetingKey":"1","x":` + values + `}}`, `{"x":` + values + `,"context":{"targetingKey":"1"}}`}
	t.flood(ctx, t.n(100, 20), 50, func(i int) {
		t.attackOFREP(ctx, []string{"", "/" + t.honestFlag.Key}[i%2], bodies[i/2%2])
	})
	return nil
}

// slowBatches opens clients that send batches of 9 KB, whose responses have 1 MB, and do not read
// them.
func slowBatches(ctx context.Context, t *target) error {
	body := fmt.Sprintf(`{"flagKeys":[%q],"entities":[{}%s]}`, t.honestFlag.Key, strings.Repeat(",{}", 3000))
	return t.connections(ctx, t.n(1000, 100), func(_ int, c net.Conn) error {
		_, err := fmt.Fprintf(c, "POST /api/v1/evaluation/batch HTTP/1.1\r\nHost: flagr\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return err
	}, nil)
}

// manySegments saves flags with 4,000 segments that assign a variant with an attachment of 300 KB,
// and with many tags, and evaluates them.
func manySegments(ctx context.Context, t *target) error {
	var tags, segments strings.Builder
	for i := range 480 {
		fmt.Fprintf(&tags, `%s"%063d"`, comma(i), i)
	}
	for i := range 4000 {
		fmt.Fprintf(&segments, `%s{"description":"s","rolloutPercent":100,"distributions":[{"variantKey":"on","percent":100}]}`, comma(i))
	}
	for i := range t.n(8, 2) {
		key := fmt.Sprintf("many-segments-%d", i)
		f, err := t.createFlag(ctx, key)
		if err != nil {
			return err
		}
		if err := t.define(ctx, f, fmt.Sprintf(`"tags":[%s],"variants":[{"key":"on","attachment":{"value":%q}}],"segments":[%s]`,
			tags.String(), strings.Repeat("x", 300_000), segments.String())); err != nil {
			return err
		}
		t.attackOFREP(ctx, "/"+key, `{"context":{"targetingKey":"1"}}`)
	}
	return nil
}

// longLists evaluates a flag whose segments all look into one property, for contexts in which it is
// a long list.
func longLists(ctx context.Context, t *target) error {
	if _, err := t.createLong(ctx, "long-lists", lookingForTexts); err != nil {
		return err
	}
	lists := []string{"[" + strings.Repeat("1,", 30_000) + "1]", "[" + strings.Repeat(`"x",`, 15_000) + `"x"]`, `"` + strings.Repeat(`\"`, 30_000) + `"`}
	t.flood(ctx, t.n(200, 20), 8, func(i int) {
		list := lists[i%len(lists)]
		if i%2 == 0 {
			t.attackOFREP(ctx, "/long-lists", `{"context":{"targetingKey":"1","x":`+list+`}}`)
			return
		}
		t.attack(ctx, http.MethodPost, "/evaluation", []byte(`{"flagKey":"long-lists","entityID":"1","entityContext":{"x":`+list+`}}`))
	})
	return nil
}

// largeAttachment opens clients that read slowly all that contains an attachment of 8 MB.
func largeAttachment(ctx context.Context, t *target) error {
	f, err := t.createFlag(ctx, "attachment")
	if err != nil {
		return err
	}
	read, err := t.call(ctx, http.MethodGet, fmt.Sprintf("/flags/%d", f.ID), nil)
	if err != nil {
		return err
	}
	variants, _ := read["variants"].([]any)
	if len(variants) == 0 {
		return errors.New("the flag has no variants")
	}
	first, _ := variants[0].(map[string]any)
	variant := fmt.Sprintf("/flags/%d/variants/%v", f.ID, first["id"])
	if status := t.attack(ctx, http.MethodPut, variant, fmt.Appendf(nil, `{"key":"on","attachment":{"value":%q}}`, strings.Repeat("x", 8_000_000))); status != http.StatusOK {
		return fmt.Errorf("an attachment of 8 MB is answered %d, want 200", status)
	}
	pause(ctx, time.Second) // until the flag is reloaded
	flag := fmt.Sprintf("/api/v1/flags/%d", f.ID)
	page := fmt.Sprintf("/ui/flags/%d", f.ID)
	requests := [][2]string{
		{"POST /api/v1/evaluation", `{"flagKey":"attachment","entityID":"1"}`},
		{"POST /api/v1/evaluation/batch", `{"flagKeys":["attachment"],"entities":[{"entityID":"1"},{"entityID":"2"}]}`},
		{"GET /api/v1/evaluation?json=%7B%22flagKey%22:%22attachment%22%7D", ""},
		{"POST /ofrep/v1/evaluate/flags/attachment", `{"context":{"targetingKey":"1"}}`},
		{"POST /ofrep/v1/evaluate/flags", `{"context":{"targetingKey":"1"}}`},
		{"POST " + flag + "/try", `{"entities":[{"entityID":"1"}]}`},
		{"GET " + flag, ""}, {"GET " + flag + "/variants", ""}, {"GET " + flag + "/snapshots", ""}, {"GET /api/v1/flags?preload=true", ""},
		{"GET " + page, ""}, {"GET " + page + "/targeting", ""}, {"GET " + page + "/history", ""},
	}
	err = t.connections(ctx, t.n(300, 60), func(i int, c net.Conn) error {
		r := requests[i%len(requests)]
		_, err := fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: flagr\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", r[0], len(r[1]), r[1])
		return err
	}, nil)
	_, smaller := t.call(ctx, http.MethodPut, variant, map[string]any{"key": "on", "attachment": map[string]any{}})
	return errors.Join(err, smaller)
}

// unread opens clients that send these requests, each a request line and a body, and read nothing.
// Little of a response fits into the kernel's buffers.
func (t *target) unread(ctx context.Context, clients int, header string, requests ...[2]string) error {
	return t.connections(ctx, clients, func(i int, c net.Conn) error {
		if tcp, ok := c.(*net.TCPConn); ok {
			if err := tcp.SetReadBuffer(4 << 10); err != nil {
				return err
			}
		}
		r := requests[i%len(requests)]
		_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: flagr\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", r[0], header, len(r[1]), r[1])
		return err
	}, nil)
}

// manyValues opens clients that send contexts of 2,000 values in 16 KB, accept gzip, and do not
// read the attachment that they get, which hardly compresses.
func manyValues(ctx context.Context, t *target) error {
	random := make([]byte, 1_500_000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random) // never fails
	f, err := t.createFlag(ctx, "many-values")
	if err != nil {
		return err
	}
	const segments = `"segments":[{"rolloutPercent":100,"distributions":[{"variantKey":"on","percent":100}]}]`
	if err := t.define(ctx, f, `"variants":[{"key":"on","attachment":{"value":"`+base64.StdEncoding.EncodeToString(random)+`"}}],`+segments); err != nil {
		return err
	}
	var values strings.Builder
	for i := 0; values.Len() < 16_200; i++ {
		fmt.Fprintf(&values, `,"%x":1`, i)
	}
	single := func(id string) [2]string {
		return [2]string{"/api/v1/evaluation", `{"flagKey":"many-values","entityID":"` + id + `","entityContext":{"zz":1` + values.String() + `}}`}
	}
	return t.unread(ctx, t.n(2000, 200), "Accept-Encoding: gzip\r\n", single("1"), single(`\u0031`), // the second one takes the generated code
		[2]string{"/api/v1/evaluation/batch", `{"flagKeys":["many-values"],"entities":[{"entityID":"1"}]}`},
		[2]string{"/ofrep/v1/evaluate/flags/" + t.honestFlag.Key, `{"context":{"targetingKey":"1"` + values.String() + `}}`})
}

// debugLogs opens clients that request the debug logs of constraints of 2 MB, or of 3,300 segments,
// and do not read them.
func debugLogs(ctx context.Context, t *target) error {
	long, err := t.createFlag(ctx, "debug-long")
	if err != nil {
		return err
	}
	var segments strings.Builder
	for i := range 7 {
		fmt.Fprintf(&segments, `%s{"rolloutPercent":50,"constraints":[{"property":"x","operator":"EQ","value":"\"%s\""}]}`, comma(i), strings.Repeat("<", 2_000_000))
	}
	if err := t.define(ctx, long, `"variants":[{"key":"on"}],"segments":[`+segments.String()+"]"); err != nil {
		return err
	}
	if _, err := t.createLong(ctx, "debug-many", lookingForTexts); err != nil {
		return err
	}
	const entity = `"entityID":"1","entityContext":{"x":"y"}`
	var requests [][2]string
	for _, key := range []string{"debug-long", "debug-many"} {
		requests = append(requests,
			[2]string{"/api/v1/evaluation", fmt.Sprintf(`{"flagKey":%q,"enableDebug":true,%s}`, key, entity)},
			[2]string{"/api/v1/evaluation/batch", fmt.Sprintf(`{"flagKeys":[%q],"enableDebug":true,"entities":[{%s}]}`, key, entity)})
	}
	return errors.Join(t.unread(ctx, t.n(1000, 100), "", requests...), t.define(ctx, long, `"variants":[{"key":"on"}],"segments":[]`))
}

// numbers saves flags with attachments of 900,000 numbers, restarts the server on them, and changes
// and reads them.
func numbers(ctx context.Context, t *target) error {
	variants := make([]string, t.n(10, 3))
	for i := range variants {
		f, err := t.createFlag(ctx, fmt.Sprintf("numbers-%d", i))
		if err != nil {
			return err
		}
		v, err := t.call(ctx, http.MethodPost, fmt.Sprintf("/flags/%d/variants", f.ID), map[string]any{"key": "numbers"})
		if err != nil {
			return err
		}
		variants[i] = fmt.Sprintf("/flags/%d/variants/%v", f.ID, v["id"])
		body := fmt.Appendf(nil, `{"key":"numbers","attachment":{"a":[%s%d]}}`, strings.Repeat("1,", 900_000), i)
		if status := t.attack(ctx, http.MethodPut, variants[i], body); status != http.StatusOK {
			return fmt.Errorf("an attachment of numbers is answered %d, want 200", status)
		}
	}
	if err := t.restart(ctx); err != nil {
		return err
	}
	t.flood(ctx, 4*len(variants), 4, func(i int) {
		flag, _, _ := strings.Cut(variants[i%len(variants)], "/variants")
		if i%2 == 0 {
			t.attack(ctx, http.MethodPut, flag+"/enabled", fmt.Appendf(nil, `{"enabled":%t}`, i%4 == 0))
			return
		}
		t.attack(ctx, http.MethodGet, flag, nil)
	})
	var errs []error
	for _, variant := range variants { // the next case has the same database
		_, err := t.call(ctx, http.MethodPut, variant, map[string]any{"key": "numbers", "attachment": map[string]any{}})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// longTexts saves a flag with texts that are many times as long on pages and in CSVs, which it
// requests, and sends forms with such texts.
func longTexts(ctx context.Context, t *target) error {
	f, err := t.createFlag(ctx, "long-texts")
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/flags/%d", f.ID)
	definition, err := t.call(ctx, http.MethodGet, path+"/definition", nil)
	if err != nil {
		return err
	}
	quotes, columns := strings.Repeat(`"`, 300_000), strings.Repeat("a|", 5000)
	segment := map[string]any{"description": quotes, "rolloutPercent": 50, "distributions": []any{map[string]any{"variantKey": "on", "percent": 100}},
		"constraints": []any{map[string]any{"property": "x", "operator": "NEQ", "value": `"` + strings.Repeat("<", 300_000) + `"`}}}
	if _, err := t.call(ctx, http.MethodPut, path+"/definition", map[string]any{
		"snapshotID": definition["snapshotID"], "description": strings.Repeat("B", 300_000), "segments": []any{segment, segment},
		"notes": columns + "\n" + strings.ReplaceAll(columns, "a", "-") + strings.Repeat("\na", 950),
	}); err != nil {
		return err
	}
	pause(ctx, time.Second) // until the flag is reloaded
	t.attack(ctx, http.MethodPost, "/evaluation/batch", []byte(`{"flagKeys":["long-texts"],"entities":[{"entityContext":{"x":"y"}}`+strings.Repeat(`,{"entityContext":{"x":"y"}}`, 500)+`]}`))
	pause(ctx, 2*time.Second) // until it is counted
	from := time.Now().Add(-80 * 24 * time.Hour).UTC().Format(time.RFC3339)
	page := fmt.Sprintf("http://%s/ui/flags/%d", t.address, f.ID)
	requests := []string{
		page, page + "/targeting", page + "/traffic?by=segment&days=30", page + "/nothing", page + "/history", "http://" + t.address + "/ui/?q=" + strings.Repeat("a,", 20_000),
		t.api + fmt.Sprintf("/datar%s/series?by=segment&bucket=hour&format=csv&from=%s", path, from), t.api + "/datar/states?format=csv",
	}
	form := []byte("whole=1&do=review&key=k&v.0.key=" + strings.Repeat(`"`, 7_000_000))
	t.flood(ctx, t.n(80, 20), 2, func(i int) {
		if i%10 < len(requests) {
			t.attackURL(ctx, http.MethodGet, requests[i%10], nil)
			return
		}
		t.attackURL(ctx, http.MethodPost, page+"/targeting", form, "Content-Type", "application/x-www-form-urlencoded")
	})
	return nil
}

// nestedDetails changes an attachment of nested lists, whose indents are 100 times as long as they
// are. Details of changes are sent to the webhook.
func nestedDetails(ctx context.Context, t *target) error {
	f, err := t.createFlag(ctx, "nested-lists")
	if err != nil {
		return err
	}
	variants := fmt.Sprintf("/flags/%d/variants", f.ID)
	for i := range 2 {
		numbers := strings.Repeat(fmt.Sprintf("%d,", i), 600_000)
		t.attack(ctx, http.MethodPost, variants, fmt.Appendf(nil, `{"key":"nested-%d","attachment":{"a":%s%s1%s}}`, i, strings.Repeat("[", 90), numbers, strings.Repeat("]", 90)))
	}
	pause(ctx, 2*time.Second) // until the notifications are made
	t.attackURL(ctx, http.MethodGet, fmt.Sprintf("http://%s/ui/flags/%d", t.address, f.ID), nil)
	return nil
}

// clients is the number of clients of a flood of requests that read.
func (t *target) clients() int { return t.n(50, 10) }

// reads returns a case in which clients get a path of the API, which reads 1,500 flags.
func reads(path string, header ...string) func(ctx context.Context, t *target) error {
	return func(ctx context.Context, t *target) error {
		if err := t.multiply(ctx); err != nil {
			return err
		}
		t.flood(ctx, t.clients(), t.clients(), func(int) { t.attack(ctx, http.MethodGet, path, nil, header...) })
		return nil
	}
}

// leftExports requests exports of 1,500 flags, each on a connection of its own, and resets it after
// a millisecond.
func leftExports(ctx context.Context, t *target) error {
	if err := t.multiply(ctx); err != nil {
		return err
	}
	t.flood(ctx, t.clients(), t.clients(), func(int) {
		c := t.dial(ctx, func(c net.Conn) error {
			_, err := io.WriteString(c, "GET /api/v1/export/eval_cache/json HTTP/1.1\r\nHost: flagr\r\nAccept-Encoding: gzip\r\n\r\n")
			return err
		})
		if tcp, ok := c.(*net.TCPConn); ok {
			pause(ctx, time.Millisecond)
			_ = errors.Join(tcp.SetLinger(0), tcp.Close()) // a connection that is not reset would keep its port for a minute
		}
	})
	return nil
}

// manyTries tries a flag of many segments for one entity.
func manyTries(ctx context.Context, t *target) error {
	f, err := t.createLong(ctx, "long-tries", lookingForTexts)
	if err != nil {
		return err
	}
	t.flood(ctx, t.clients(), t.clients(), func(int) {
		t.attack(ctx, http.MethodPost, fmt.Sprintf("/flags/%d/try", f.ID), []byte(`{"entities":[{"entityID":"1"}]}`), "Accept-Encoding", "identity")
	})
	return nil
}

// multiply creates 1,500 flags of 3 variants and 3 segments with a constraint each by SQL, unless
// they exist. It deletes the flags of other cases, which are much larger.
func (t *target) multiply(ctx context.Context) error {
	flags := t.n(1500, 150)
	for _, part := range []struct {
		perFlag            int
		table, names, rows string
	}{
		{1, "flags", "key, description, enabled, snapshot_id, notes, data_records_enabled, entity_type", "'copy-' || i, 'one of many flags', TRUE, 1, '', TRUE, ''"},
		{3, "variants", "flag_id, key, attachment", `1000000 + i / 3, 'variant-' || (i % 3), '{"color":"#1f6feb","size":' || (i % 3) || '}'`},
		{3, "segments", "flag_id, description, rank, rollout_percent", "1000000 + i / 3, 'one of three segments', i % 3, 100"},
		{3, "constraints", "segment_id, property, operator, value", `1000000 + i, 'x', 'EQ', '"v' || (i % 3) || '"'`},
		{9, "distributions", "segment_id, variant_id, variant_key, percent, bitmap", "1000000 + i / 3, 1000000 + i / 9 * 3 + i % 3, 'variant-' || (i % 3), 33 + (i % 3 = 0), ''"},
	} {
		if err := t.exec(ctx, "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) INSERT OR IGNORE INTO "+part.table+
			" (id, created_at, updated_at, "+part.names+") SELECT 1000000 + i, datetime('now'), datetime('now'), "+part.rows+" FROM n", flags*part.perFlag); err != nil {
			return err
		}
	}
	if err := t.exec(ctx, "UPDATE flags SET deleted_at = updated_at WHERE id < 1000000 AND key <> ?", t.honestFlag.Key); err != nil {
		return err
	}
	// The server compares its flags with those of the database after a change.
	if _, err := t.call(ctx, http.MethodPut, fmt.Sprintf("/flags/%d", t.honestFlag.ID), map[string]any{"description": "changed"}); err != nil {
		return err
	}
	return t.awaitEvaluation(ctx, fmt.Sprintf("copy-%d", flags-1))
}

// tryBody returns a body for a try.
func tryBody(entities, segments int) []byte {
	var body strings.Builder
	body.WriteString(`{"entities":[`)
	for i := range entities {
		fmt.Fprintf(&body, `%s{"entityID":"a%d","entityContext":{"x":2}}`, comma(i), i)
	}
	fmt.Fprintf(&body, `],"draft":%s}`, draftOf(segments))
	return []byte(body.String())
}

// draftOf returns a draft of segments with one constraint each for up to 5,000 segments, and
// without constraints for more.
func draftOf(segments int) string {
	constraints := ""
	if segments <= 5000 { // a definition has at most 10,000 parts
		constraints = `,"constraints":[{"property":"x","operator":"EQ","value":"1"}]`
	}
	var draft strings.Builder
	draft.WriteString(`{"segments":[`)
	for i := range segments {
		fmt.Fprintf(&draft, `%s{"rolloutPercent":50%s}`, comma(i), constraints)
	}
	draft.WriteString("]}")
	return draft.String()
}

// connections opens n connections at once, sends on each, and holds them all for a while before it
// closes them. If hold is not nil, it runs for each connection during that time. A connection that
// fails counts as rejected.
func (t *target) connections(ctx context.Context, n int, send func(i int, c net.Conn) error, hold func(c net.Conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var open []net.Conn
	atOnce(ctx, n, 50, func(i int) {
		c := t.dial(ctx, func(c net.Conn) error { return send(i, c) })
		if c == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		open = append(open, c)
	})
	var group sync.WaitGroup
	if hold != nil {
		for _, c := range open {
			group.Go(func() { hold(c) })
		}
	}
	pause(ctx, time.Duration(t.n(4000, 1000))*time.Millisecond)
	var errs []error
	for _, c := range open {
		errs = append(errs, c.Close())
	}
	group.Wait()
	return errors.Join(errs...)
}

// dial opens a connection and sends on it. It returns nil if there is no connection.
func (t *target) dial(ctx context.Context, send func(c net.Conn) error) net.Conn {
	const wait = 10 * time.Second
	c, err := (&net.Dialer{Timeout: wait}).DialContext(ctx, "tcp", t.address)
	if err != nil {
		t.statuses.add("refused")
		return nil
	}
	if err = errors.Join(c.SetDeadline(time.Now().Add(wait)), send(c)); err != nil {
		t.statuses.add("refused")
	} else {
		t.statuses.add("held")
	}
	return c
}

// lookingForTexts returns the operator and the value of a constraint of createLong.
func lookingForTexts(i int) (operator, value string) {
	return []string{"EQ", "CONTAINS"}[i%2], fmt.Sprintf(`"v%d"`, i)
}

// createLong creates a flag of 3,300 segments that all look into the property x, for what
// constraint returns.
func (t *target) createLong(ctx context.Context, key string, constraint func(i int) (operator, value string)) (flag, error) {
	var segments strings.Builder
	for i := range 3300 {
		operator, value := constraint(i)
		fmt.Fprintf(&segments, `%s{"description":"s","rolloutPercent":50,"constraints":[{"property":"x","operator":%q,"value":%q}],"distributions":[{"variantKey":"on","percent":100}]}`,
			comma(i), operator, value)
	}
	f, err := t.createFlag(ctx, key)
	if err != nil {
		return f, err
	}
	return f, t.define(ctx, f, `"variants":[{"key":"on"}],"segments":[`+segments.String()+"]")
}

// define saves a definition with these members, and enables the flag.
func (t *target) define(ctx context.Context, f flag, members string) error {
	path := fmt.Sprintf("/flags/%d/definition", f.ID)
	definition, err := t.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if status := t.attack(ctx, http.MethodPut, path, fmt.Appendf(nil, `{"snapshotID":%v,"enabled":true,%s}`, definition["snapshotID"], members)); status != http.StatusOK {
		return fmt.Errorf("the definition of %s is answered %d, want 200", f.Key, status)
	}
	pause(ctx, 500*time.Millisecond) // until the flag is reloaded
	return nil
}

// createSegment creates a flag with an additional segment and returns the path of its constraints.
func (t *target) createSegment(ctx context.Context, key string) (string, error) {
	f, err := t.createFlag(ctx, key)
	if err != nil {
		return "", err
	}
	path := fmt.Sprintf("/flags/%d/segments", f.ID)
	created, err := t.call(ctx, http.MethodPost, path, map[string]any{"description": "attacked", "rolloutPercent": 100})
	if err != nil {
		return "", err
	}
	path = fmt.Sprintf("%s/%v", path, created["id"])
	_, err = t.call(ctx, http.MethodPut, fmt.Sprintf("/flags/%d/segments/reorder", f.ID), map[string]any{"segmentIDs": []any{created["id"]}})
	return path + "/constraints", err
}

// constraintBody returns the body for a constraint that matches the property x against the pattern.
func constraintBody(pattern string) []byte {
	return fmt.Appendf(nil, `{"property":"x","operator":"EREG","value":"\"%s\""}`, strings.ReplaceAll(pattern, `\`, `\\`))
}

// exec changes the server's database directly.
func (t *target) exec(ctx context.Context, statement string, arguments ...any) (err error) {
	db, err := sql.Open("sqlite", filepath.Join(t.options.Dir, databaseName)+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(ctx, statement, arguments...)
	return err
}

func comma(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}

func megabytes(n int64) float64 { return float64(n) / 1e6 }
