package eval

import "hash/crc32"

// checksumTables are the tables of the slicing-by-8 algorithm. Table i has the checksums of a byte
// that i zero bytes follow.
var checksumTables = func() (tables [8]crc32.Table) {
	tables[0] = *crc32.IEEETable
	for i := range len(tables) - 1 {
		for b, sum := range tables[i] {
			tables[i+1][b] = tables[0][byte(sum)] ^ sum>>8
		}
	}
	return tables
}()

// checksum continues a CRC-32 of package crc32. Unlike crc32.Update, it does not copy the string to
// the heap, and it processes eight bytes at a time also in strings of fewer than 16.
func checksum(sum uint32, s string) uint32 {
	t := &checksumTables
	sum = ^sum
	for ; len(s) >= 8; s = s[8:] {
		sum ^= uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
		sum = t[7][byte(sum)] ^ t[6][byte(sum>>8)] ^ t[5][byte(sum>>16)] ^ t[4][sum>>24] ^
			t[3][s[4]] ^ t[2][s[5]] ^ t[1][s[6]] ^ t[0][s[7]]
	}
	for i := range len(s) {
		sum = t[0][byte(sum)^s[i]] ^ sum>>8
	}
	return ^sum
}
