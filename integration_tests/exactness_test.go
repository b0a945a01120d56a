package integration_tests

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// load evaluates flags from several clients, in single requests and in batches, and counts what it
// sent.
type load struct {
	clients sync.WaitGroup
	// sent counts evaluations in requests that were started, acknowledged those in complete
	// responses with status 200.
	sent, acknowledged atomic.Int64
	// failed counts responses with another status. It does not count requests without a response.
	failed atomic.Int64
	// pace is the pause of each client after a request.
	pace   time.Duration
	ending atomic.Bool
}

// end stops the clients after their current requests, and waits for them.
func (l *load) end() {
	l.ending.Store(true)
	l.clients.Wait()
}

const (
	loadClients  = 16
	loadEntities = 50 // in a batch
)

// begin starts the clients. Each one continues until it has sent its share of evaluations, a
// request fails, or end is called.
func (l *load) begin(s *server, flags []flagAnswer, share int64) {
	ids := make([]int64, len(flags))
	for i, f := range flags {
		ids[i] = f.ID
	}
	for client := range loadClients {
		var entities []object
		for i := range loadEntities {
			entities = append(entities, object{"entityID": fmt.Sprintf("c%d-%d", client, i)})
		}
		batch := object{"flagIDs": ids, "entities": entities}
		l.clients.Go(func() {
			var sent int64
			evaluate := func(path string, body any, size int64) bool {
				sent += size
				l.sent.Add(size)
				a, err := s.try(http.MethodPost, path, body)
				if err != nil {
					return false
				}
				if a.status != http.StatusOK {
					l.failed.Add(1)
					return false
				}
				l.acknowledged.Add(size)
				if l.pace > 0 {
					<-time.After(l.pace)
				}
				return true
			}
			for sent < share && !l.ending.Load() {
				// A batch, and then single evaluations, until they are a tenth of all.
				size := int64(len(ids) * loadEntities)
				if share-sent >= size && !evaluate("/evaluation/batch", batch, size) {
					return
				}
				for i := range min(size/9, share-sent) {
					single := object{"flagID": ids[int(i)%len(ids)], "entityID": fmt.Sprintf("c%d-%d", client, sent)}
					if !evaluate("/evaluation", single, 1) {
						return
					}
				}
			}
		})
	}
}

const endless = 1 << 60

// splitFlags creates four flags that assign each of two variants to half of the entities.
func splitFlags(t *testing.T, s *server) []flagAnswer {
	t.Helper()
	var flags []flagAnswer
	for i := range 4 {
		f := newFlag(t, s, fmt.Sprint("split-", i))
		off := newVariant(t, s, f, "off")
		send[any](t, s, http.MethodPut, fmt.Sprintf("%s/segments/%d/distributions", f.path(), f.Segments[0].ID),
			object{"distributions": []object{
				{"variantID": f.Variants[0].ID, "variantKey": "on", "percent": 50},
				{"variantID": off, "variantKey": "off", "percent": 50},
			}})
		flags = append(flags, f)
	}
	awaitChanges(t, s)
	return flags
}

// TestCountsAreExact evaluates 200,000 times in each round, with frequent flushes and a concurrent
// reader. -rounds sets the number of rounds.
func TestCountsAreExact(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		heavy.Lock()
		defer heavy.Unlock()
		dsn := db.fresh(t)
		s := start(t, db, dsn, environ{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "50ms"})
		flags := splitFlags(t, s)
		var acknowledged int64
		for round := 1; round <= *rounds; round++ {
			const perRound = 200_000
			var l load
			l.begin(s, flags, perRound/loadClients)
			finished := make(chan struct{})
			go func() {
				l.clients.Wait()
				close(finished)
			}()
			for last, reading := acknowledged, true; reading; {
				select {
				case <-finished:
					reading = false
				default:
					now := get[summary](t, s, "/datar/summary").sum()
					if now < last || now > acknowledged+l.sent.Load() {
						t.Errorf("round %d: a reader saw %d after %d", round, now, last)
					}
					last = now
				}
			}
			if l.acknowledged.Load() != perRound {
				t.Fatalf("round %d: only %d of %d evaluations were acknowledged; %d responses had another status than 200", round,
					l.acknowledged.Load(), perRound, l.failed.Load())
			}
			acknowledged += perRound
			if got := counts(t, s, acknowledged).sum(); got != acknowledged {
				t.Fatalf("round %d: %d evaluations counted, %d acknowledged", round, got, acknowledged)
			}
		}

		s.stop(t, syscall.SIGTERM)
		checkDetails(t, db.open(t, dsn))
		s = s.again(t)
		if got := counts(t, s, acknowledged).sum(); got != acknowledged {
			t.Errorf("after a restart: %d evaluations counted, %d acknowledged", got, acknowledged)
		}
		for _, f := range flags {
			var variants, segments, days int64
			b := get[breakdown](t, s, fmt.Sprintf("/datar/flags/%d/summary", f.ID))
			for _, v := range b.TrafficByVariant {
				variants += v.Count
			}
			for _, v := range b.TrafficBySegment {
				segments += v.Count
			}
			for _, v := range b.TrafficByDay {
				days += v.Count
			}
			if len(b.TrafficByVariant) != 2 || variants != segments || variants != days {
				t.Errorf("breakdown of flag %d sums to %d by variant, %d by segment, %d by day: %+v", f.ID, variants, segments, days, b)
			}
		}
	})
}

// TestManyKeysInOneFlush counts 6,000 combinations of flag and variant before the first flush.
func TestManyKeysInOneFlush(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		const nFlags, nVariants = 60, 100
		s := start(t, db, db.fresh(t), environ{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "1h"})
		flags := wideFlags(t, s, nFlags, nVariants, 1)
		for _, id := range flags {
			send[any](t, s, http.MethodPost, "/evaluation/batch",
				object{"flagIDs": []int64{id}, "entities": oneOfEach(id, nVariants)})
		}
		check := func(s *server) {
			t.Helper()
			got := counts(t, s, nFlags*nVariants)
			if len(got.Flags) != nFlags || got.sum() != nFlags*nVariants {
				t.Errorf("%d flags with %d evaluations, want %d with %d", len(got.Flags), got.sum(), nFlags, nFlags*nVariants)
			}
			for _, id := range flags {
				b := get[breakdown](t, s, fmt.Sprintf("/datar/flags/%d/summary", id))
				if len(b.TrafficByVariant) != nVariants {
					t.Errorf("flag %d has counts of %d variants, want %d", id, len(b.TrafficByVariant), nVariants)
				}
			}
		}
		check(s)
		s.stop(t, syscall.SIGTERM)
		check(s.again(t))
	})
}

// wideFlags creates flags with many variants of equal share, and returns their IDs. Each segment
// except the last is for entities from one country: C0, C1, and so on.
func wideFlags(t *testing.T, s *server, nFlags, nVariants, nSegments int) []int64 {
	t.Helper()
	f := newFlag(t, s, "wide")
	share := []object{{"variantID": f.Variants[0].ID, "variantKey": "on", "percent": 100 / nVariants}}
	for i := range nVariants - 1 {
		key := fmt.Sprint("v", i)
		share = append(share, object{"variantID": newVariant(t, s, f, key), "variantKey": key, "percent": 100 / nVariants})
	}
	var segments []int64
	for i := range nSegments - 1 {
		segments = append(segments, newSegment(t, s, f, fmt.Sprint("C", i), "on", f.Variants[0].ID))
	}
	segments = append(segments, f.Segments[0].ID)
	for _, segment := range segments {
		send[any](t, s, http.MethodPut, fmt.Sprintf("%s/segments/%d/distributions", f.path(), segment), object{"distributions": share})
	}
	send[any](t, s, http.MethodPut, f.path()+"/segments/reorder", object{"segmentIDs": segments})
	flags := []int64{f.ID}
	for i := range nFlags - 1 {
		copied := send[flagAnswer](t, s, http.MethodPost, f.path()+"/duplicate", object{"key": fmt.Sprint("wide-", i)})
		flags = append(flags, copied.ID)
	}
	awaitChanges(t, s)
	return flags
}

// oneOfEach returns n entities that get n different variants of equal share from a flag. The
// mapping from an entity to its variant is part of the contract: entities keep their variants when
// another server is used.
func oneOfEach(flagID int64, n int) []object {
	const buckets = 1000
	found := make([]object, n)
	for i, left := 0, n; left > 0; i++ {
		id := fmt.Sprint("u", i)
		bucket := crc32.ChecksumIEEE(fmt.Append(nil, flagID, id)) % buckets
		if variant := int(bucket) * n / buckets; found[variant] == nil {
			found[variant] = object{"entityID": id}
			left--
		}
	}
	return found
}

// TestStopUnderLoad stops a server while clients evaluate at full speed. After a restart, all
// acknowledged evaluations must be counted.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		signal   os.Signal
		interval string
	}{
		{"SIGTERM", syscall.SIGTERM, "50ms"},
		{"SIGINT", syscall.SIGINT, "50ms"},
		{"SIGTERM with nothing flushed before", syscall.SIGTERM, "1h"},
		{"SIGINT with nothing flushed before", syscall.SIGINT, "1h"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onEachDatabase(t, func(t *testing.T, db database) {
				heavy.Lock()
				defer heavy.Unlock()
				s := start(t, db, db.fresh(t), environ{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": tc.interval})
				var l load
				l.begin(s, splitFlags(t, s), endless)
				poll(t, "some load", func() bool { return l.acknowledged.Load() > 20_000 })
				s.stop(t, tc.signal)
				l.clients.Wait()
				checkLoad(t, s.again(t), &l)
			})
		})
	}
}

// checkLoad compares the counts with what the clients sent.
func checkLoad(t *testing.T, s *server, l *load) {
	t.Helper()
	got := get[summary](t, s, "/datar/summary").sum()
	if acknowledged, sent := l.acknowledged.Load(), l.sent.Load(); got < acknowledged || got > sent {
		t.Errorf("%d evaluations counted, want at least the %d acknowledged and at most the %d sent", got, acknowledged, sent)
	}
	if n := l.failed.Load(); n != 0 {
		t.Errorf("%d responses had another status than 200", n)
	}
	t.Logf("sent %d, acknowledged %d, counted %d", l.sent.Load(), l.acknowledged.Load(), got)
}

// TestStopWithSlowClients stops a server while one client never completes its request, so that the
// server cannot drain, and another client completes its request after the stop has begun.
func TestStopWithSlowClients(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		s := start(t, db, db.fresh(t), environ{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "1h"}, "--graceful-timeout", "2s")
		flags := splitFlags(t, s)
		begin := func() (net.Conn, string) {
			t.Helper()
			c, err := net.Dial("tcp", s.address())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() }) // the server may have closed it
			body := fmt.Sprintf(`{"flagID":%d,"entityID":"slow"}`, flags[0].ID)
			if _, err := fmt.Fprintf(c, "POST /api/v1/evaluation HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"+
				"Content-Length: %d\r\n\r\n%s", s.address(), len(body), body[:10]); err != nil {
				t.Fatal(err)
			}
			return c, body[10:]
		}
		var l load
		begin() // never completed
		slow, rest := begin()
		l.begin(s, flags, endless)
		poll(t, "some load", func() bool { return l.acknowledged.Load() > 1_000 })

		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		l.clients.Wait() // the server accepts no more requests
		l.sent.Add(1)
		if _, err := io.WriteString(slow, rest); err != nil {
			t.Fatal(err)
		}
		if err := slow.SetReadDeadline(time.Now().Add(stopDeadline)); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(slow), nil)
		if err != nil {
			t.Fatalf("a request that began before the stop got no response: %v", err)
		}
		if _, err := io.ReadAll(response.Body); err != nil || response.Body.Close() != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("a request that began before the stop: status %d, %v", response.StatusCode, err)
		}
		l.acknowledged.Add(1)
		if code := s.wait(t); code != 0 {
			t.Errorf("the exit code is %d, want 0; the log:\n%s", code, s.log)
		}
		checkLoad(t, s.again(t), &l)
	})
}

// TestRestart stops and kills a server and starts it again. Flags and counts must be the same.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		end  func(*server, *testing.T)
	}{
		{"stopped", func(s *server, t *testing.T) { s.stop(t, syscall.SIGTERM) }},
		{"killed", (*server).kill},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onEachDatabase(t, func(t *testing.T, db database) {
				s := start(t, db, db.fresh(t), nil)
				j := runMainJob(t, s)
				checkMainJob(t, s, j) // the query stores the counts
				answers := func(s *server) map[string]any {
					all := map[string]any{}
					for _, path := range []string{
						"/flags?preload=true", "/flags/1", "/flags/2", "/flags/1/snapshots", "/flags/snapshots/max_id",
						"/export/eval_cache/json", "/datar/summary", "/datar/flags/1/summary",
					} {
						answer := get[any](t, s, path)
						if counts, ok := answer.(object); ok {
							delete(counts, "complete") // its times advance
						}
						all[path] = answer
					}
					return all
				}
				before := answers(s)
				tc.end(s, t)
				s = s.again(t)
				if diff := cmp.Diff(before, answers(s)); diff != "" {
					t.Errorf("responses differ after the restart (-before +after):\n%s", diff)
				}
				if got := evaluate(t, s, j.flag, "u", object{"country": "FR"}); got.VariantID == 0 {
					t.Errorf("the evaluation has no variant: %+v", got)
				}
			})
		})
	}
}
