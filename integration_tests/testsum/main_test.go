package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const events = `{"Action":"start","Package":"a"}
{"Action":"output","Package":"a","Test":"TestOne","Output":"quiet\n"}
{"Action":"pass","Package":"a","Test":"TestOne","Elapsed":0.1}
{"Action":"output","Package":"a","Test":"TestTwo","Output":"loud\n"}
{"Action":"fail","Package":"a","Test":"TestTwo","Elapsed":0.1}
{"Action":"skip","Package":"a","Test":"TestThree","Elapsed":0}
{"Action":"output","Package":"a","Test":"TestFour","Output":"panic: oh\n"}
{"Action":"fail","Package":"a","Elapsed":1.5}
{"Action":"build-output","ImportPath":"b","Output":"b.go:1: broken\n"}
{"Action":"fail","Package":"b","Elapsed":0}
`

func TestFailuresAreShownAndAllIsCounted(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := newReport(&out)
	if err := r.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	if want := (counts{Passed: 1, Failed: 2, Skipped: 1}); r.sum() != want {
		t.Errorf("counted %v, want %v", r.sum(), want)
	}
	want := "loud\npanic: oh\nFAIL a\t1.5s\t3 tests\nb.go:1: broken\nFAIL b\t0.0s\t0 tests\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
}

func TestLongPackagesListTheirSlowestTests(t *testing.T) {
	t.Parallel()
	var in strings.Builder
	for i := range slowest + 1 {
		fmt.Fprintf(&in, `{"Action":"pass","Package":"long","Test":"Test%[1]d","Elapsed":%[1]d.5}`+"\n", i)
		fmt.Fprintf(&in, `{"Action":"pass","Package":"short","Test":"Test%[1]d","Elapsed":%[1]d.5}`+"\n", i)
	}
	in.WriteString(`{"Action":"pass","Package":"long","Test":"Test1/part","Elapsed":99}
{"Action":"pass","Package":"long","Elapsed":60}
{"Action":"pass","Package":"short","Elapsed":59}
`)
	var out bytes.Buffer
	if err := newReport(&out).read(strings.NewReader(in.String())); err != nil {
		t.Fatal(err)
	}
	want := "ok   long\t60.0s\t10 tests\n     slowest: Test8 8.5s, Test7 7.5s, Test6 6.5s, Test5 5.5s, Test4 4.5s, Test3 3.5s, Test2 2.5s, Test1 1.5s\n" +
		"ok   short\t59.0s\t9 tests\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
}

func TestTotalAddsUp(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "counts")
	for _, c := range []counts{{1, 2, 3}, {10, 20, 30}} {
		if err := c.appendTo(file); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if code, err := run(nil, file, 0, &out); code != 0 || err != nil {
		t.Fatal(code, err)
	}
	if want := "11 passed, 22 failed, 33 skipped\n"; out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
}

func TestOtherCommandsAreRefused(t *testing.T) {
	t.Parallel()
	if code, err := run([]string{"go", "vet"}, "", 0, &bytes.Buffer{}); code != 2 || err == nil {
		t.Errorf("code %d, error %v", code, err)
	}
}

// Tests of a separate module. The first test writes a file, and fails if the file does not exist
// yet.
const flaky = `package flaky

import (
	"os"
	"testing"
)

func TestFlaky(t *testing.T) {
	t.Run("good", func(*testing.T) {})
	t.Run("bad", func(t *testing.T) {
		if _, err := os.Stat("mark"); err != nil {
			_ = os.WriteFile("mark", nil, 0o600)
			t.Error("too early")
		}
	})
}

func TestGood(*testing.T) {}
`

func TestFailedTestsRunOnceMore(t *testing.T) {
	t.Parallel()
	const always = "func TestAlways(t *testing.T) { t.Error(1) }"
	for name, test := range map[string]struct {
		more  string
		rerun int
		code  int
		want  string
	}{
		"passes then":   {"", 1, 0, "flaky TestFlaky failed at first, and passed when it ran again\n4 passed, 0 failed, 0 skipped\n"},
		"not asked for": {"", 0, 1, "2 passed, 2 failed, 0 skipped\n"},
		"too many":      {always, 1, 1, "2 passed, 3 failed, 0 skipped\n"},
		"fails again":   {always, 2, 1, "flaky TestFlaky failed at first, and passed when it ran again\n4 passed, 1 failed, 0 skipped\n"},
		// The tests after the panic did not run, so a rerun of failed tests is not enough.
		"panics": {"func TestPanic(*testing.T) { panic(1) }\nfunc TestLater(*testing.T) {}", 9, 1, "2 passed, 3 failed, 0 skipped\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for file, text := range map[string]string{"go.mod": "module flaky\n\ngo 1.25\n", "flaky_test.go": flaky + test.more} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var out bytes.Buffer
			code, err := run([]string{"go", "test", "-C", dir, "-count=1", "-run", ".", "."}, "", test.rerun, &out)
			if err != nil || code != test.code || !strings.HasSuffix(out.String(), test.want) {
				t.Errorf("code %d, error %v, want %d and %q:\n%s", code, err, test.code, test.want, &out)
			}
		})
	}
}
