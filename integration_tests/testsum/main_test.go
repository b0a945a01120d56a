package main

import (
	"bytes"
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
	if want := (counts{Passed: 1, Failed: 2, Skipped: 1}); r.counts != want {
		t.Errorf("counted %v, want %v", r.counts, want)
	}
	want := "loud\npanic: oh\nFAIL a\t1.5s\t3 tests\nb.go:1: broken\nFAIL b\t0.0s\t0 tests\n"
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
	if code, err := run(nil, file, &out); code != 0 || err != nil {
		t.Fatal(code, err)
	}
	if want := "11 passed, 22 failed, 33 skipped\n"; out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
}

func TestOtherCommandsAreRefused(t *testing.T) {
	t.Parallel()
	if code, err := run([]string{"go", "vet"}, "", &bytes.Buffer{}); code != 2 || err == nil {
		t.Errorf("code %d, error %v", code, err)
	}
}
