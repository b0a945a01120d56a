package gormstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

// ApplyBatch implements ingest.Store.
func (s *Store) ApplyBatch(ctx context.Context, batch datar.Batch, r ingest.Receipt) (known bool, found *ingest.Receipt, err error) {
	err = s.add(ctx, batch.Rows, func(tx *gorm.DB, now time.Time) (bool, error) {
		known, err = s.note(tx, batch.Writer, batch.Sequence, now)
		if known || err != nil {
			return known, err
		}
		if err := s.addBeside(tx, batch); err != nil || r.Answer == "" {
			return false, err
		}
		return false, s.keepReceipt(tx, r, now)
	}, nil)
	if err == nil && known {
		found, err = s.receipt(ctx, r.Key)
	}
	return known, found, err
}

// ApplyReceipt implements ingest.Store.
func (s *Store) ApplyReceipt(ctx context.Context, rows []datar.Row, r ingest.Receipt) (*ingest.Receipt, error) {
	if r.Key == "" {
		return nil, s.add(ctx, rows, nothingKnown, nil)
	}
	if found, err := s.receipt(ctx, r.Key); found != nil || err != nil {
		return found, err
	}
	addErr := s.add(ctx, rows, func(tx *gorm.DB, now time.Time) (bool, error) { return false, s.keepReceipt(tx, r, now) }, nil)
	if addErr == nil {
		return nil, nil
	}
	// The same batch may have arrived twice at the same time. The other request's receipt exists
	// now.
	if found, err := s.receipt(ctx, r.Key); found != nil && err == nil {
		return found, nil
	}
	return nil, addErr
}

func nothingKnown(*gorm.DB, time.Time) (bool, error) { return false, nil }

// errChecked rolls back a transaction that must not change anything.
var errChecked = errors.New("checked")

// Check implements ingest.Store.
func (s *Store) Check(ctx context.Context, rows []datar.Row) error {
	if err := s.add(ctx, rows, nothingKnown, errChecked); !errors.Is(err, errChecked) {
		return err
	}
	return nil
}

func keyHash(key string) string {
	hash := sha256.Sum256([]byte(key))
	return hex.EncodeToString(hash[:])
}

func (s *Store) keepReceipt(tx *gorm.DB, r ingest.Receipt, now time.Time) error {
	if err := tx.Exec(s.sql("INSERT INTO datar_receipts (key_hash, digest, answer, created_at) VALUES (?, ?, ?, ?)"),
		keyHash(r.Key), r.Digest, r.Answer, s.dialect.bindTime(now)).Error; err != nil {
		return fmt.Errorf("keep a receipt: %w", err)
	}
	return nil
}

func (s *Store) receipt(ctx context.Context, key string) (*ingest.Receipt, error) {
	var found []struct{ Digest, Answer string }
	if err := s.db.WithContext(ctx).Raw(s.sql("SELECT digest, answer FROM datar_receipts WHERE key_hash = ?"), keyHash(key)).Scan(&found).Error; err != nil {
		return nil, fmt.Errorf("look for a receipt: %w", err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &ingest.Receipt{Key: key, Digest: found[0].Digest, Answer: found[0].Answer}, nil
}

// forgetReceipts deletes receipts of batches that are too old to be sent again.
func (s *Store) forgetReceipts(ctx context.Context, now time.Time) error {
	db := s.db.WithContext(ctx)
	old := s.dialect.bindTime(now.Add(-ingest.ReceiptLifetime))
	var keys []string
	if err := db.Raw(s.sql("SELECT key_hash FROM datar_receipts WHERE created_at < ? LIMIT ?"), old, rowsPerPurge).Scan(&keys).Error; err != nil {
		return fmt.Errorf("look for old receipts: %w", err)
	}
	if len(keys) == 0 {
		return nil
	}
	if err := db.Exec(s.sql("DELETE FROM datar_receipts WHERE key_hash IN ?"), padded(keys)).Error; err != nil {
		return fmt.Errorf("delete old receipts: %w", err)
	}
	return nil
}
