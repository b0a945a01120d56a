package ingest

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
)

const (
	// packedFrom is the length from which an answer is kept compressed: a thousand verdicts on rows of three bytes each
	// would take a hundred times what was sent.
	packedFrom = 1 << 10
	// packedPrefix marks a compressed answer. JSON does not begin like this.
	packedPrefix = "gzip:"
	// maxAnswer bounds what is decompressed. MaxRows verdicts are shorter.
	maxAnswer = 4 << 20
)

// packed returns an answer as it is kept in a receipt: as text, and short.
func packed(answer []byte) string {
	if len(answer) < packedFrom {
		return string(answer)
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(answer) // to memory
	_ = w.Close()
	return packedPrefix + base64.StdEncoding.EncodeToString(b.Bytes())
}

// unpacked is the answer of a receipt.
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
