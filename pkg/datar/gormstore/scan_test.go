package gormstore_test

import (
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
)

func TestIntegersAreScanned(t *testing.T) {
	t.Parallel()
	for _, value := range []any{int64(65_535), "65535", []byte("65535"), float64(65_535)} {
		if got, err := gormstore.ScanVersion(value); got != 65_535 || err != nil {
			t.Errorf("%T %v: got %d, %v", value, value, got, err)
		}
	}
	for _, value := range []any{nil, int64(65_536), int64(-1), "many", "1.5", "9223372036854775808"} {
		if got, err := gormstore.ScanVersion(value); err == nil {
			t.Errorf("%T %v: got %d without an error", value, value, got)
		}
	}
}
