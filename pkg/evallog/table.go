package evallog

// texts are the parts of a key, which may be empty, and the version, or 0.
type texts struct {
	flag, variant, allocation, targeting, errorCode string

	version int64
}

// parts has a bit for each optional string that is present, and above them the outcome and asked.
type parts uint16

const (
	hasVariant parts = 1 << iota
	hasAllocation
	hasTargeting
	hasErrorCode

	outcomeShift = 4
	askedShift   = 8
)

func (p parts) outcome() Outcome {
	return Outcome(p >> outcomeShift & (1<<(askedShift-outcomeShift) - 1))
}
func (p parts) asked() Asked { return Asked(p >> askedShift) }

// bucket counts one key. It has 120 bytes, so that memory is filled without a gap: 273 of them are
// 32,760 bytes, and Go's allocator has the size class 32,768.
type bucket struct {
	texts
	count int64
	// first and last are Unix milliseconds, minimum and maximum, because goroutines arrive out of
	// order.
	first, last int64
	hash        uint32
	// flagKeys is the number of keys with the same flag, in the first bucket of that flag only.
	flagKeys uint16
	parts    parts
}

const bucketsPerChunk = 273

// table stores buckets by key. A map would take more than twice the memory. It requires Engine.mu.
type table struct {
	seed   uint64
	chunks []*[bucketsPerChunk]bucket
	keys   int
	// index and flags are hash tables with linear probing. They have numbers of buckets, from 1, or
	// 0 for a free place. index has all buckets by key, flags has the first bucket of each flag.
	index, flags []uint32
	distinct     int // flags in use
	// messages are the last error messages, by number of the bucket.
	messages map[uint32]string
}

func newTable(seed uint64) *table {
	const smallest = 64
	return &table{seed: seed, index: make([]uint32, smallest), flags: make([]uint32, smallest)}
}

func (t *table) at(number uint32) *bucket {
	return &t.chunks[(number-1)/bucketsPerChunk][(number-1)%bucketsPerChunk]
}

// find returns the number of the key's bucket, or 0.
func (t *table) find(hash uint32, key *texts, p parts) uint32 {
	mask := uint32(len(t.index) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		number := t.index[i]
		if number == 0 {
			return 0
		}
		if b := t.at(number); b.hash == hash && b.parts == p && b.texts == *key {
			return number
		}
	}
}

// insert adds a bucket for a new key.
func (t *table) insert(hash uint32, key *texts, p parts, ms int64) uint32 {
	if t.keys%bucketsPerChunk == 0 {
		t.chunks = append(t.chunks, new([bucketsPerChunk]bucket))
	}
	t.keys++
	number := uint32(t.keys)
	b := t.at(number)
	b.texts, b.parts, b.hash, b.first, b.last = *key, p, hash, ms, ms

	if 4*t.keys > 3*len(t.index) {
		t.index = grown(t.index, func(number uint32) uint32 { return t.at(number).hash })
	}
	place(t.index, hash, number)
	if first := t.firstOf(key.flag); first != 0 {
		t.at(first).flagKeys++
		return number
	}
	b.flagKeys = 1
	t.distinct++
	if 4*t.distinct > 3*len(t.flags) {
		t.flags = grown(t.flags, func(number uint32) uint32 { return t.flagHash(t.at(number).flag) })
	}
	place(t.flags, t.flagHash(key.flag), number)
	return number
}

func (t *table) flagHash(flag string) uint32 { return uint32(hashText(t.seed, flag)) }

// firstOf returns the number of the flag's first bucket, or 0.
func (t *table) firstOf(flag string) uint32 {
	mask := uint32(len(t.flags) - 1)
	for i := t.flagHash(flag) & mask; ; i = (i + 1) & mask {
		if number := t.flags[i]; number == 0 || t.at(number).flag == flag {
			return number
		}
	}
}

// keysOf returns the number of keys of that flag.
func (t *table) keysOf(flag string) int {
	if first := t.firstOf(flag); first != 0 {
		return int(t.at(first).flagKeys)
	}
	return 0
}

// place adds the number to a table that has room for it.
func place(index []uint32, hash, number uint32) {
	mask := uint32(len(index) - 1)
	i := hash & mask
	for index[i] != 0 {
		i = (i + 1) & mask
	}
	index[i] = number
}

// grown returns an index of twice the size with the same numbers.
func grown(index []uint32, hash func(number uint32) uint32) []uint32 {
	larger := make([]uint32, 2*len(index))
	for _, number := range index {
		if number != 0 {
			place(larger, hash(number), number)
		}
	}
	return larger
}

// add counts one evaluation in the bucket.
func (t *table) add(number uint32, ms int64, message string) {
	b := t.at(number)
	b.count++
	if message != "" && (ms >= b.last || t.messages[number] == "") {
		if t.messages == nil {
			t.messages = map[uint32]string{}
		}
		t.messages[number] = message
	}
	b.first, b.last = min(b.first, ms), max(b.last, ms)
}

// maxCount is the maximum number of evaluations of a row, which is the limit of Datar's endpoint.
const maxCount = 10_000_000

// rows returns the contents of the table in the order of the keys' first evaluations.
func (t *table) rows(rows []Row, degraded bool) []Row {
	for number := uint32(1); number <= uint32(t.keys); number++ {
		b := t.at(number)
		row := Row{
			Key: Key{
				Flag:         b.flag,
				Variant:      b.text(hasVariant, b.variant),
				Allocation:   b.text(hasAllocation, b.allocation),
				TargetingKey: b.text(hasTargeting, b.targeting),
				ErrorCode:    b.text(hasErrorCode, b.errorCode),
				Outcome:      b.parts.outcome(),
				Version:      b.version,
				Asked:        b.parts.asked(),
			},
			First:        b.first,
			Last:         b.last,
			ErrorMessage: t.messages[number],
			Degraded:     degraded,
		}
		for left := b.count; left > 0; left -= row.Count {
			row.Count = min(left, maxCount)
			rows = append(rows, row)
		}
	}
	return rows
}

func (b *bucket) text(part parts, text string) Text {
	if b.parts&part == 0 {
		return None()
	}
	return Some(text)
}
