package budget

import (
	"bytes"
	"errors"
	"io"
)

// firstReadBytes is the size of the first buffer of ReadGrowing.
const firstReadBytes = 4 << 10

// ReadGrowing reads like io.ReadAll. The memory grows to four times what has arrived, because Body
// takes four bytes of memory for each that arrives, but not beyond the announced length. All
// buffers together have at most 2.4 times the announced length and 512 bytes. If more than
// announced arrives, the memory doubles.
//
// If grow is not nil, it returns a copy of body with the given capacity, and its error ends
// reading.
func ReadGrowing(r io.Reader, length int, grow func(body []byte, size int) ([]byte, error)) (body []byte, err error) {
	if grow == nil {
		grow = func(body []byte, size int) ([]byte, error) { return append(make([]byte, 0, size), body...), nil }
	}
	for err == nil {
		if len(body) == cap(body) {
			size := max(firstReadBytes, 4*len(body))
			if size >= length {
				size = length
				if len(body) > length {
					size = 2 * len(body)
				}
				size += bytes.MinRead // to find the end
			}
			if body, err = grow(body, size); err != nil {
				return nil, err
			}
		}
		var n int
		n, err = r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return body, err
}
