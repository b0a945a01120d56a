package web

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLinesAreWrittenTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		lines := NewLineBuffer(&out)
		write := func(s string) {
			if n, err := lines.Write([]byte(s)); n != len(s) || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		}
		expect := func(want string) {
			t.Helper()
			synctest.Wait()
			lines.mu.Lock()
			defer lines.mu.Unlock()
			if got := out.String(); got != want {
				t.Errorf("%d bytes are written, want %d", len(got), len(want))
			}
		}
		write("a\n")
		write("b\n")
		expect("")
		time.Sleep(lineDelay)
		expect("a\nb\n")
		write("c\n")
		expect("a\nb\n")
		time.Sleep(lineDelay)
		expect("a\nb\nc\n")

		out.Reset()
		long := strings.Repeat("x", lineBytes-1) + "\n"
		write(long) // does not wait
		expect(long)
		write("d\n")
		if err := lines.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		expect(long + "d\n")
	})
}
