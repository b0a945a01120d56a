package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// TestEverythingAtOnceToOneFlag makes all kinds of changes to one flag from several writers at
// once. The only errors are about parts that another writer has changed first, and the flag is
// consistent at the end.
func TestEverythingAtOnceToOneFlag(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		const writers, changes = 8, 40
		dsn := shared(kind, kind.Fresh(t))
		stores := []*Store{open(t, kind, dsn), open(t, kind, dsn)} // two servers
		s := stores[0]
		beside := kind.Open(t, dsn)
		deadlocks := kind.Deadlocks(t, beside)
		must[*entity.Flag](t)(s.CreateFlag(t.Context(), "", NewFlag{Description: "d", Key: "contended", Template: TemplateBoolean}))
		var group sync.WaitGroup
		for writer := range writers {
			group.Go(func() {
				random := rand.New(rand.NewPCG(uint64(writer), 7))
				for i := range changes {
					err := changeAnything(t.Context(), stores[writer%len(stores)], random, fmt.Sprintf("w%d-%d", writer, i))
					if err != nil && !errors.Is(err, entity.ErrInvalid) && !errors.Is(err, entity.ErrNotFound) {
						t.Errorf("writer %d, change %d: %v", writer, i, err)
					}
				}
			})
		}
		group.Wait()
		if n := kind.Deadlocks(t, beside) - deadlocks; n != 0 {
			t.Errorf("%d deadlocks", n)
		}
		if _, err := s.RestoreFlag(t.Context(), "", 1); err != nil {
			t.Fatal(err)
		}
		checkFlag(t, s, 1)
	})
}

// changeAnything makes one random change to the current state of flag 1.
func changeAnything(ctx context.Context, s *Store, random *rand.Rand, name string) error {
	flag, err := s.Flag(ctx, 1)
	if errors.Is(err, entity.ErrNotFound) {
		_, err := s.RestoreFlag(ctx, name, 1)
		return err
	}
	if err != nil {
		return err
	}
	variant, segment := int64(1), int64(1)
	if n := len(flag.Variants); n > 0 {
		variant = int64(flag.Variants[random.IntN(n)].ID)
	}
	ids := []int64{}
	for _, one := range flag.Segments {
		ids = append(ids, int64(one.ID))
	}
	if len(ids) > 0 {
		segment = ids[random.IntN(len(ids))]
	}
	random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	switch random.IntN(14) {
	case 0:
		_, err = s.CreateVariant(ctx, name, 1, name, entity.Attachment(`{"by":"`+name+`"}`))
	case 1:
		_, err = s.UpdateVariant(ctx, name, 1, variant, name, "")
	case 2:
		err = s.DeleteVariant(ctx, name, 1, variant)
	case 3, 4:
		_, err = s.CreateSegment(ctx, name, 1, name, uint(random.IntN(101)))
	case 5:
		_, err = s.UpdateSegment(ctx, name, 1, segment, name, uint(random.IntN(101)))
	case 6:
		err = s.DeleteSegment(ctx, name, 1, segment)
	case 7:
		err = s.ReorderSegments(ctx, name, 1, ids)
	case 8, 9:
		var shares []entity.Distribution
		for i, v := range flag.Variants {
			share := entity.Distribution{VariantID: v.ID, VariantKey: v.Key}
			if i == 0 {
				share.Percent = 100
			}
			shares = append(shares, share)
		}
		_, err = s.ReplaceDistributions(ctx, name, 1, segment, shares)
	case 10:
		_, err = s.CreateConstraint(ctx, name, 1, segment, entity.Constraint{Property: "p", Operator: "EQ", Value: "1"})
	case 11:
		_, err = s.UpdateFlag(ctx, name, 1, FlagPatch{Key: &name, EntityType: &name})
	case 12:
		_, err = s.CreateTag(ctx, name, 1, fmt.Sprint("t", random.IntN(5)))
	default:
		err = s.DeleteFlag(ctx, name, 1)
	}
	return err
}

// checkFlag checks invariants of a flag, and that its newest snapshot equals the flag.
func checkFlag(t *testing.T, s *Store, id int64) {
	t.Helper()
	flag := must[*entity.Flag](t)(s.Flag(t.Context(), id))
	keys := map[uint]string{}
	for _, v := range flag.Variants {
		keys[v.ID] = v.Key
	}
	for _, segment := range flag.Segments {
		sum := uint(0)
		for _, d := range segment.Distributions {
			sum += d.Percent
			if key, ok := keys[d.VariantID]; !ok || key != d.VariantKey {
				t.Errorf("segment %d gives %d percent to variant %d %q, the flag has %v", segment.ID, d.Percent, d.VariantID, d.VariantKey, keys)
			}
		}
		if len(segment.Distributions) > 0 && sum != 100 {
			t.Errorf("segment %d gives away %d percent", segment.ID, sum)
		}
	}
	newest := must[[]entity.FlagSnapshot](t)(s.Snapshots(t.Context(), id, SnapshotQuery{Limit: new(int64(1))}))[0]
	if newest.ID != flag.SnapshotID || newest.UpdatedBy != flag.UpdatedBy {
		t.Errorf("the flag names snapshot %d of %q, the newest is %d of %q", flag.SnapshotID, flag.UpdatedBy, newest.ID, newest.UpdatedBy)
	}
}

// TestTextsThatAreTooLong stores long texts. MariaDB and MySQL store 65,535 bytes of a text and
// must return a clear error for more. Other databases accept it.
func TestTextsThatAreTooLong(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := fixture(t, kind)
		ctx := t.Context()
		long, half := strings.Repeat("x", 1<<16), strings.Repeat("y", 30_000)
		for _, c := range []struct {
			call func() error
			want string
		}{
			{func() error { _, err := s.UpdateFlag(ctx, "", 1, FlagPatch{Notes: &long}); return err }, "notes is too long for this database"},
			{func() error { _, err := s.CreateFlag(ctx, "", NewFlag{Description: long}); return err }, "description is too long for this database"},
			{func() error {
				_, err := s.CreateVariant(ctx, "", 1, "v", entity.Attachment(`{"a":"`+long+`"}`))
				return err
			}, "attachment is too long for this database"},
			{func() error {
				_, err := s.UpdateConstraint(ctx, "", 1, 1, 1, entity.Constraint{Property: "p", Operator: "EQ", Value: `"` + long + `"`})
				return err
			}, "value is too long for this database"},
			{func() error { // each text fits, but not all of them together
				_, notes := s.UpdateFlag(ctx, "", 2, FlagPatch{Notes: &half})
				_, description := s.UpdateFlag(ctx, "", 2, FlagPatch{Description: &half})
				_, segment := s.CreateSegment(ctx, "", 2, half, 1)
				return errors.Join(notes, description, segment)
			}, "the flag with all its segments, constraints and variants is too large for this database to keep a snapshot of it"},
		} {
			before := dump(t, s.db)
			err := c.call()
			if kind.Driver != "mysql" {
				ok(t, err)
				continue
			}
			if !errors.Is(err, entity.ErrInvalid) || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if !strings.HasPrefix(c.want, "the flag") { // some of its steps succeed
				same(t, before, dump(t, s.db))
			}
		}
		checkFlag(t, s, 2)
	})
}

// TestWrongPassword checks that Open does not retry after a wrong password, and that the password
// is not shown.
func TestWrongPassword(t *testing.T) {
	testdb.OnEachServer(t, func(t *testing.T, kind testdb.Kind) {
		const wrong = "hunter2-wrong"
		dsn := regexp.MustCompile(`:[^:@/]*@`).ReplaceAllString(kind.Fresh(t), ":"+wrong+"@")
		var log bytes.Buffer
		_, err := Open(t.Context(), Options{
			Driver: kind.Driver, DSN: dsn, RetryAttempts: 2, RetryDelay: time.Millisecond, LogQueries: true,
			Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		if err == nil {
			t.Fatal("any password will do")
		}
		if tries := strings.Count(log.String(), "trying again"); tries != 0 {
			t.Errorf("a server that refuses was asked again %d times:\n%s", tries, log.String())
		}
		if all := log.String() + fmt.Sprintf("%v %+v %#v", err, err, err.Error()); strings.Contains(all, wrong) {
			t.Errorf("the password shows:\n%s", all)
		}
		if !strings.Contains(err.Error(), "flagr") {
			t.Errorf("the error does not say whose password it is: %v", err)
		}
	})
}

// TestServerThatComesUpLate checks that Open connects to a server that starts while it retries.
func TestServerThatComesUpLate(t *testing.T) {
	testdb.OnEachServer(t, func(t *testing.T, kind testdb.Kind) {
		dsn, address, server := elsewhere(t, kind, kind.Fresh(t))
		attempts := make(chan string, 1000)
		opened := make(chan error, 1)
		go func() {
			s, err := Open(t.Context(), Options{
				Driver: kind.Driver, DSN: dsn, RetryAttempts: uint(cap(attempts)), RetryDelay: 10 * time.Millisecond,
				Logger: slog.New(slog.NewTextHandler(lines(attempts), nil)),
			})
			if err == nil {
				_, err = s.CreateFlag(t.Context(), "", NewFlag{Description: "d"})
				err = errors.Join(err, s.Close())
			}
			opened <- err
		}()
		select {
		case err := <-opened:
			t.Fatalf("there is no server, and Open ended with %v", err)
		case line := <-attempts:
			if !strings.Contains(line, "trying again") {
				t.Errorf("logged of the wait: %s", line)
			}
		}
		forward(t, address, server)
		if err := <-opened; err != nil {
			t.Error(err)
		}
	})
}

// lines is a writer that sends each write to a channel.
type lines chan<- string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// elsewhere replaces the address in a connection string by a free one, and also returns the
// server's address.
func elsewhere(t *testing.T, kind testdb.Kind, dsn string) (changed, address, server string) {
	t.Helper()
	listener := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	address = listener.Addr().String()
	ok(t, listener.Close())
	if kind.Driver == "mysql" {
		config := must[*mysql.Config](t)(mysql.ParseDSN(dsn))
		server, config.Addr = config.Addr, address
		return config.FormatDSN(), address, server
	}
	u := must[*url.URL](t)(url.Parse(dsn))
	server, u.Host = u.Host, address
	return u.String(), address, server
}

// forward forwards connections until the test ends.
func forward(t *testing.T, from, to string) {
	t.Helper()
	listener := must[net.Listener](t)(net.Listen("tcp", from))
	t.Cleanup(func() { ok(t, listener.Close()) })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				defer func() { _ = client.Close() }()
				server, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer func() { _ = server.Close() }()
				go func() { _, _ = io.Copy(server, client); _ = server.(*net.TCPConn).CloseWrite() }()
				_, _ = io.Copy(client, server)
			}()
		}
	}()
}
