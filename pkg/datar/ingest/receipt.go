package ingest

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// packedFrom is the length from which a response is stored compressed: a thousand results for
	// rows of three bytes each would take a hundred times the size of the request. Shorter
	// responses are compressed if they have other characters than ASCII.
	packedFrom = 1 << 10
	// packedPrefix marks a compressed response. JSON does not begin with it.
	packedPrefix = "gzip:"
	// maxAnswer limits decompression. MaxRows results are shorter.
	maxAnswer = 4 << 20
)

// packed returns a response in the form of a receipt, as a short string. It has only ASCII
// characters, because messages repeat what clients send, and the column of a database may not hold
// all characters.
func packed(answer []byte) string {
	if len(answer) < packedFrom && !slices.ContainsFunc(answer, func(b byte) bool { return b >= utf8.RuneSelf }) {
		return string(answer)
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(answer) // to memory
	_ = w.Close()
	return packedPrefix + base64.StdEncoding.EncodeToString(b.Bytes())
}

// unpacked returns the response of a receipt.
func unpacked(kept string) ([]byte, error) {
	text, ok := strings.CutPrefix(kept, packedPrefix)
	if !ok {
		return []byte(kept), nil
	}
	r, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(text)))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	answer, err := io.ReadAll(io.LimitReader(r, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return answer, nil
}
