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

// ApplyBatch implements ingest.Store. The batch is noted last, so a batch that was interrupted is added again, as the same rows.
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

// today is the day by this server's clock. It decides about partitions only, which are dropped long after.
func today() int64 { return int64(dayOf(datar.HourOf(time.Now()))) }

// ApplyReceipt implements ingest.Store. It writes down which body a key stands for, reads that back, adds the rows, and then
// keeps the answer. The rows are identified by key and body, so a batch that was interrupted is added again, as the same
// rows. Of two bodies that reach two servers with one key at the same moment at most one is counted, as each server finds
// the other's.
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

// Check implements ingest.Store: the store refuses no rows, so it asks whether ClickHouse answers.
func (s *Store) Check(ctx context.Context, _ []datar.Row) error { return s.Ping(ctx) }

func keyHash(key string) string {
	hash := sha256.Sum256([]byte(key))
	return hex.EncodeToString(hash[:])
}

// keepReceipt writes down the body that a key stands for, and the answer when it is done.
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

// receipt returns the digests of the bodies that came with a key, and the receipt of the one that is done, if there is one.
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

// locks are locks by name, in this process.
type locks struct {
	mu struct {
		sync.Mutex
		held map[string]*namedLock
	}
}

type namedLock struct {
	free    chan struct{}
	holders int // and those who wait
}

// lock waits for the lock of a name.
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
