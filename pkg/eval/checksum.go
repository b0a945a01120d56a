package eval

import "hash/crc32"

// crc has the tables of the slicing-by-8 algorithm. Table i has the checksums of a byte that i zero
// bytes follow.
var crc = func() (tables [8]crc32.Table) {
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
	sum = ^sum
	for ; len(s) >= 8; s = s[8:] {
		sum ^= uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
		sum = crc[7][byte(sum)] ^ crc[6][byte(sum>>8)] ^ crc[5][byte(sum>>16)] ^ crc[4][sum>>24] ^
			crc[3][s[4]] ^ crc[2][s[5]] ^ crc[1][s[6]] ^ crc[0][s[7]]
	}
	for i := range len(s) {
		sum = crc[0][byte(sum)^s[i]] ^ sum>>8
	}
	return ^sum
}
