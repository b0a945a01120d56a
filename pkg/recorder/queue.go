package recorder

// queue is a ring of records that grows by doubling. Its owner limits it.
type queue struct {
	ring        []*Record
	first, size int
}

func (q *queue) len() int { return q.size }

func (q *queue) push(r *Record) {
	if q.size == len(q.ring) {
		grown := make([]*Record, max(64, 2*len(q.ring)))
		n := copy(grown, q.ring[q.first:])
		copy(grown[n:], q.ring[:q.first])
		q.ring, q.first = grown, 0
	}
	q.ring[(q.first+q.size)%len(q.ring)] = r
	q.size++
}

// peek and pop require a queue that is not empty.
func (q *queue) peek() *Record { return q.ring[q.first] }

func (q *queue) pop() *Record {
	r := q.ring[q.first]
	q.ring[q.first] = nil
	q.first = (q.first + 1) % len(q.ring)
	q.size--
	return r
}

func (q *queue) clear() { *q = queue{} }
