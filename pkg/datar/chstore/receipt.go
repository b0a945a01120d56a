package chstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

// ApplyBatch implements ingest.Store. It stores the batch's number last, so an interrupted batch is
// added again, as the same rows.
func (s *Store) ApplyBatch(ctx context.Context, batch datar.Batch, r ingest.Receipt) (known bool, found *ingest.Receipt, err error) {
	from := source{writerID(batch.Writer), batch.Sequence}
	unlock, err := s.senders.lock(ctx, from.writer)
	if err != nil {
		return false, nil, fmt.Errorf("chstore: %w", err)
	}
	defer unlock()
	if known, err = s.isNoted(ctx, from); err != nil {
		return false, nil, fmt.Errorf("chstore: look for the batch: %w", err)
	}
	if known {
		_, found, err = s.receipt(ctx, r.Key)
		return true, found, err
	}
	if err := s.add(ctx, from, batch); err != nil {
		return false, nil, fmt.Errorf("chstore: add counts: %w", err)
	}
	if r.Answer != "" {
		if err := s.keepReceipt(ctx, r, true); err != nil {
			return false, nil, err
		}
	}
	if err := s.note(ctx, from); err != nil {
		return false, nil, fmt.Errorf("chstore: note the batch: %w", err)
	}
	return false, nil, nil
}

// isNoted reports whether this batch of the writer, or a later one, was applied.
func (s *Store) isNoted(ctx context.Context, from source) (bool, error) {
	rows, err := s.client.integers(ctx, fmt.Sprintf("SELECT toInt64(max(sequence)) FROM datar_batches WHERE writer = toUUID('%s')", from.writer))
	return err == nil && len(rows) == 1 && rows[0][0] >= from.sequence, err
}

func (s *Store) note(ctx context.Context, from source) error {
	return s.client.insert(ctx, "datar_batches", noteColumns, appendNote(nil, from))
}

const noteColumns = "day, writer, sequence"

func appendNote(b []byte, from source) []byte {
	b = appendNumber(append(b, '{'), "day", today())
	return append(from.appendTo(append(b, ',')), "}\n"...)
}

// today returns the day by this server's clock. It only selects partitions, which are dropped much
// later.
func today() int64 { return int64(dayOf(datar.HourOf(time.Now()))) }

// ApplyReceipt implements ingest.Store. It stores which body belongs to a key, reads that back,
// adds the rows, and then stores the response. Key and body identify the rows, so an interrupted
// batch is added again, as the same rows. If two bodies reach two servers with the same key at the
// same time, at most one is counted, because each server finds the other's body.
func (s *Store) ApplyReceipt(ctx context.Context, rows []datar.Row, r ingest.Receipt) (*ingest.Receipt, error) {
	if r.Key == "" {
		if err := s.addRows(ctx, source{writerID("once:" + rand.Text()), 1}, datar.Batch{Rows: rows}); err != nil {
			return nil, fmt.Errorf("chstore: add counts: %w", err)
		}
		return nil, nil
	}
	unlock, err := s.senders.lock(ctx, r.Key)
	if err != nil {
		return nil, fmt.Errorf("chstore: %w", err)
	}
	defer unlock()
	claimed, found, err := s.receipt(ctx, r.Key)
	if found != nil || err != nil {
		return found, err
	}
	if len(claimed) == 0 {
		if err := s.keepReceipt(ctx, r, false); err != nil {
			return nil, err
		}
		if claimed, found, err = s.receipt(ctx, r.Key); found != nil || err != nil {
			return found, err
		}
	}
	for _, digest := range claimed {
		if digest != r.Digest {
			return &ingest.Receipt{Key: r.Key, Digest: digest}, nil
		}
	}
	if err := s.addRows(ctx, source{writerID("receipt:" + keyHash(r.Key) + ":" + r.Digest), 1}, datar.Batch{Rows: rows}); err != nil {
		return nil, fmt.Errorf("chstore: add counts: %w", err)
	}
	return nil, s.keepReceipt(ctx, r, true)
}

// Check implements ingest.Store. The store does not reject rows, so Check only calls Ping.
func (s *Store) Check(ctx context.Context, _ []datar.Row) error { return s.Ping(ctx) }

func keyHash(key string) string {
	hash := sha256.Sum256([]byte(key))
	return hex.EncodeToString(hash[:])
}

// keepReceipt stores the body of a key and, if done, the response.
func (s *Store) keepReceipt(ctx context.Context, r ingest.Receipt, done bool) error {
	if err := s.client.insert(ctx, "datar_receipts", receiptColumns, appendReceipt(nil, keyHash(r.Key), r, done)); err != nil {
		return fmt.Errorf("chstore: keep a receipt: %w", err)
	}
	return nil
}

const receiptColumns = "day, key_hash, digest, done, answer"

func appendReceipt(b []byte, hash string, r ingest.Receipt, done bool) []byte {
	b = appendNumber(append(b, '{'), "day", today())
	b = appendText(append(b, ','), "key_hash", hash)
	b = appendText(append(b, ','), "digest", r.Digest)
	if done {
		b = appendNumber(append(b, ','), "done", 1)
		b = appendText(append(b, ','), "answer", r.Answer)
	} else {
		b = appendNumber(append(b, ','), "done", 0)
		b = appendText(append(b, ','), "answer", "")
	}
	return append(b, "}\n"...)
}

// receipt returns the digests of the bodies that were sent with a key, and the receipt of the
// completed one, if any.
func (s *Store) receipt(ctx context.Context, key string) (digests []string, found *ingest.Receipt, err error) {
	rows, err := s.client.query(ctx, "SELECT digest, toInt64(max(done)), argMax(answer, done) FROM datar_receipts WHERE key_hash = '"+keyHash(key)+"' GROUP BY digest")
	if err != nil {
		return nil, nil, fmt.Errorf("chstore: look for a receipt: %w", err)
	}
	for _, row := range rows {
		digests = append(digests, row[0])
		if row[1] == "1" {
			found = &ingest.Receipt{Key: key, Digest: row[0], Answer: row[2]}
		}
	}
	return digests, found, nil
}

// locks are named locks within this process.
type locks struct {
	mu struct {
		sync.Mutex
		held map[string]*namedLock
	}
}

type namedLock struct {
	free    chan struct{}
	holders int // including waiting goroutines
}

// lock waits for the lock with a name.
func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	if l.mu.held == nil {
		l.mu.held = map[string]*namedLock{}
	}
	n := l.mu.held[name]
	if n == nil {
		n = &namedLock{free: make(chan struct{}, 1)}
		l.mu.held[name] = n
	}
	n.holders++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if n.holders--; n.holders == 0 {
			delete(l.mu.held, name)
		}
	}
	select {
	case n.free <- struct{}{}:
		return func() { <-n.free; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
