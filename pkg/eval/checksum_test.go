package eval

import (
	"hash/crc32"
	"testing"
)

func TestChecksum(t *testing.T) {
	t.Parallel()
	text := make([]byte, 100)
	for i := range text {
		text[i] = byte(i * 37)
	}
	for start := range 20 {
		for end := start; end <= len(text); end++ {
			want := crc32.ChecksumIEEE(text[:end])
			if got := checksum(crc32.ChecksumIEEE(text[:start]), string(text[start:end])); got != want {
				t.Fatalf("bytes %d to %d: %x, want %x", start, end, got, want)
			}
		}
	}
}

func BenchmarkBucket(b *testing.B) {
	f := &flag{hash: 12345}
	for _, id := range []string{"user-1001", "customer-12345", "0b0b2a3e-5bb5-4ae3-8a1c-5c2f8f0f7b7e"} {
		b.Run(id, func(b *testing.B) {
			for b.Loop() {
				f.bucket(id)
			}
		})
	}
}
