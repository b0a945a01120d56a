package evallog

import "math/bits"

// The constants are random and odd; they only have to differ.
const (
	mixA = 0x9e3779b97f4a7c15
	mixB = 0xc2b2ae3d27d4eb4f
	mixC = 0xd6e8feb86659fd93
	mixD = 0xa0761d6478bd642f
)

// fold mixes two words by the 128 bits of their product, as the hash functions of the wyhash family
// do (Wang Yi, public domain).
func fold(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

// hashText hashes a text. It takes half the time of hash/maphash for the short texts of keys. Both
// factors of each product depend on the seed, which is random and stays in the process.
func hashText(seed uint64, text string) uint64 {
	secret := seed ^ mixA
	seed ^= uint64(len(text)) * mixB
	for len(text) > 16 {
		seed = fold(word8(text)^seed, word8(text[8:])^secret)
		text = text[16:]
	}
	var a, b uint64
	switch n := len(text); {
	case n >= 8:
		a, b = word8(text), word8(text[n-8:])
	case n >= 4:
		a, b = word4(text), word4(text[n-4:])
	case n > 0:
		a = uint64(text[0])<<16 | uint64(text[n/2])<<8 | uint64(text[n-1])
	}
	return fold(a^seed, b^secret)
}

// hashKey hashes a key. The texts are hashed on their own, which the processor does at the same
// time.
func hashKey(seed uint64, key *texts, p parts) uint32 {
	h := fold(hashText(seed, key.flag), hashText(seed^mixB, key.variant)^hashText(seed^mixC, key.allocation))
	if p&(hasTargeting|hasErrorCode) != 0 {
		h = fold(h^mixA, hashText(seed^mixD, key.targeting)^hashText(^seed, key.errorCode))
	}
	return uint32(h>>32) ^ uint32(h) ^ uint32(uint64(p)*mixA>>32) ^ uint32(uint64(key.version)*mixB>>32)
}

func word8(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

func word4(s string) uint64 {
	_ = s[3]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24
}
