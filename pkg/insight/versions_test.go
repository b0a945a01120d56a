package insight_test

import (
	"testing"
	"time"
)

func TestVersionsAliveInAWindow(t *testing.T) {
	t.Parallel()
	// Because of clock skew, snapshot 12 has the time of 11, and 14 has a time before that of 13.
	timeline := heads(t, []int64{10, 11, 12, 13, 14}, "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z", "2026-01-01T11:00:00Z", "2026-01-01T12:00:00Z", "2026-01-01T11:59:59Z")
	for name, test := range map[string]struct {
		from, to string
		want     []int64
	}{
		"before all":             {"2026-01-01T08:00:00Z", "2026-01-01T10:00:00Z", nil},
		"the first one":          {"2026-01-01T08:00:00Z", "2026-01-01T10:00:01Z", []int64{10}},
		"replaced at the start":  {"2026-01-01T11:00:00Z", "2026-01-01T11:30:00Z", []int64{12}},
		"the newest lives on":    {"2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z", []int64{14}},
		"all that lived at all":  {"2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z", []int64{10, 12, 14}},
		"at the end, not inside": {"2026-01-01T11:30:00Z", "2026-01-01T12:00:00Z", []int64{12}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []int64
			for _, v := range timeline.Alive(at(t, test.from), at(t, test.to)) {
				got = append(got, v.SnapshotID)
			}
			if len(got) != len(test.want) {
				t.Fatalf("got %v, want %v", got, test.want)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("got %v, want %v", got, test.want)
				}
			}
		})
	}
}

func TestVersionsAreResolved(t *testing.T) {
	t.Parallel()
	// 65,636 and 100 have the same number modulo 65,536.
	timeline := heads(t, []int64{100, 200, 65_636}, "2026-01-01T10:00:00Z", "2026-01-05T00:00:00Z", "2026-03-01T00:00:30Z")
	if !timeline.Ambiguous() || heads(t, []int64{1, 2}, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z").Ambiguous() {
		t.Error("which timelines are ambiguous is wrong")
	}
	for name, test := range map[string]struct {
		version uint16
		last    string
		want    int
	}{
		"while it lived":                 {100, "2026-01-01T11:00:00Z", 0},
		"by an old server, weeks later":  {100, "2026-02-01T11:00:00Z", 0},
		"the number is used again":       {100, "2026-03-01T01:00:00Z", 2},
		"by a clock that is 30 s behind": {100, "2026-03-01T00:00:00Z", 2},
		"more than a minute before":      {100, "2026-02-28T23:59:00Z", 0},
		"before the flag was there":      {100, "2026-01-01T09:58:00Z", -1},
		"a number of another flag":       {101, "2026-03-01T01:00:00Z", -1},
		"not known":                      {0, "2026-03-01T01:00:00Z", -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := timeline.Resolve(test.version, at(t, test.last)); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

func TestDeadlineOfAVersion(t *testing.T) {
	t.Parallel()
	timeline := heads(t, []int64{1, 2}, "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z")
	if d, ok := timeline[0].Deadline(3 * time.Second); !ok || !d.Equal(at(t, "2026-01-01T11:01:03Z")) {
		t.Errorf("got %s, %t", d, ok)
	}
	if _, ok := timeline[1].Deadline(0); ok {
		t.Error("the newest version has a deadline")
	}
	if timeline.At(at(t, "2026-01-01T10:59:59Z")) != 0 || timeline.At(at(t, "2026-01-01T11:00:00Z")) != 1 || timeline.At(at(t, "2026-01-01T09:00:00Z")) != -1 {
		t.Error("the newest version at a time is wrong")
	}
}
