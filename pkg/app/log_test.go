package app

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/config"
)

func TestValuesOfLogLinesAreCut(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", config.FormatJSON} {
		var out bytes.Buffer
		long := strings.Repeat("ü", 50_000)
		newLogger(config.Log{Level: "info", Format: format}, &out).Info(long, "path", long, "error", errors.New(long))
		line := out.String()
		if len(line) > maxLogValue+2*maxLogText+500 || strings.Count(line, "...(100000 bytes)") != 3 {
			t.Errorf("%s: %d bytes, %.200s", format, len(line), line)
		}
		out.Reset()
		newLogger(config.Log{Level: "info", Format: format}, &out).Error("panic", "stack", long)
		if !strings.Contains(out.String(), long) {
			t.Errorf("%s: the stack is cut", format)
		}
	}
}
