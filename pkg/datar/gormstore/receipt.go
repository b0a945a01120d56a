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

const receiptsTable = "datar_receipts"

// receipt is what was answered to a batch that was sent in.
type receipt struct {
	// KeyHash is the SHA-256 of the sender's key, in hex: keys are any text, and columns are not.
	KeyHash   string    `gorm:"column:key_hash;primaryKey;type:char(64)"`
	Digest    string    `gorm:"column:digest;type:varchar(64);not null"`
	Answer    string    `gorm:"column:answer"`
	CreatedAt time.Time `gorm:"column:created_at"`
}

// ApplyBatch implements ingest.Store.
func (s *Store) ApplyBatch(ctx context.Context, batch datar.Batch, r ingest.Receipt) (known bool, found *ingest.Receipt, err error) {
	err = s.add(ctx, batch.Rows, func(tx *gorm.DB, now time.Time) (bool, error) {
		known, err = s.note(tx, batch.Writer, batch.Sequence, now)
		if known || err != nil || r.Answer == "" {
			return known, err
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
	// The same batch may have come twice at once; the other one's receipt is there now.
	if found, err := s.receipt(ctx, r.Key); found != nil && err == nil {
		return found, nil
	}
	return nil, addErr
}

func nothingKnown(*gorm.DB, time.Time) (bool, error) { return false, nil }

// errChecked ends a transaction that is not to change anything.
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
	err := s.prefix.table(tx, receiptsTable).Create(&receipt{KeyHash: keyHash(r.Key), Digest: r.Digest, Answer: r.Answer, CreatedAt: now}).Error
	if err != nil {
		return fmt.Errorf("keep a receipt: %w", err)
	}
	return nil
}

func (s *Store) receipt(ctx context.Context, key string) (*ingest.Receipt, error) {
	var found []receipt
	if err := s.prefix.table(s.db.WithContext(ctx), receiptsTable).Where("key_hash = ?", keyHash(key)).Find(&found).Error; err != nil {
		return nil, fmt.Errorf("look for a receipt: %w", err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &ingest.Receipt{Key: key, Digest: found[0].Digest, Answer: found[0].Answer}, nil
}

// forgetReceipts deletes receipts whose batches cannot come again.
func (s *Store) forgetReceipts(ctx context.Context, now time.Time) error {
	db := s.db.WithContext(ctx)
	var keys []string
	err := s.prefix.table(db, receiptsTable).Where("created_at < ?", now.Add(-ingest.ReceiptLifetime).UTC()).Limit(rowsPerPurge).Pluck("key_hash", &keys).Error
	if err != nil {
		return fmt.Errorf("look for old receipts: %w", err)
	}
	if len(keys) == 0 {
		return nil
	}
	if err := s.prefix.table(db, receiptsTable).Where("key_hash IN ?", keys).Delete(&receipt{}).Error; err != nil {
		return fmt.Errorf("delete old receipts: %w", err)
	}
	return nil
}
