package ofrep_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
)

var bothPaths = []string{flagsPath, flagPath + "checkout"}

func TestByteOrderMark(t *testing.T) {
	t.Parallel()
	f := setup(t, "", time.Hour, ofrep.Options{})
	for _, path := range bothPaths {
		want, wanted := post(f, path, `{"context":{"targetingKey":"a"}}`)
		if got, body := post(f, path, "\xef\xbb\xbf"+`{"context":{"targetingKey":"a"}}`); got != want || body != wanted {
			t.Errorf("%s with a byte order mark: %d %s, without %d %s", path, got, body, want, wanted)
		}
	}
}

// stuck is a body that announces more bytes than arrive. It tells how much memory was allocated
// until the first read.
type stuck struct {
	before, during runtime.MemStats
}

func (s *stuck) Read([]byte) (int, error) {
	runtime.ReadMemStats(&s.during)
	return 0, io.ErrUnexpectedEOF
}

func TestAnnouncedBodyTakesNoMemory(t *testing.T) { //nolint:paralleltest // measures allocations
	f := setup(t, "", time.Hour, ofrep.Options{})
	for _, path := range bothPaths {
		body := &stuck{}
		r := httptest.NewRequest(http.MethodPost, path, body)
		r.ContentLength = 1_000_000
		rw := httptest.NewRecorder()
		runtime.ReadMemStats(&body.before)
		f.ServeHTTP(rw, r)
		if took := body.during.TotalAlloc - body.before.TotalAlloc; rw.Code != http.StatusBadRequest || took > 100_000 {
			t.Errorf("%s: %d, after %d bytes were allocated", path, rw.Code, took)
		}
	}
}

// TestOnlyTheContextIsDecoded sends 200,000 values beside the context, which would each take an
// allocation.
func TestOnlyTheContextIsDecoded(t *testing.T) { //nolint:paralleltest // measures allocations
	body := `{"x":[` + strings.Repeat("{},", 200_000) + `0],"context":{"targetingKey":"a"}}`
	for name, f := range map[string]*fixture{"plain": setup(t, "", time.Hour, ofrep.Options{}), "injecting": setup(t, "", time.Hour, ofrep.Options{Inject: nothing})} {
		for _, path := range bothPaths {
			allocs := testing.AllocsPerRun(1, func() {
				if status, answer := post(f, path, body); status != http.StatusOK {
					t.Errorf("%s: %d %s", path, status, answer)
				}
			})
			if allocs > 1000 {
				t.Errorf("%s, %s: %.0f allocations", name, path, allocs)
			}
		}
	}
}

// TestMemoryOfRequests checks that large bodies and responses take memory, that requests without
// memory are refused, and that each request returns what it took.
func TestMemoryOfRequests(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	large := fmt.Sprintf(`{"Flags":[{"ID":42,"Key":"checkout","Enabled":true,"DataRecordsEnabled":true,"Segments":[{"ID":1,"RolloutPercent":100,"Distributions":[
		{"VariantKey":"on","Percent":100}]}],"Variants":[{"ID":1,"Key":"on","Attachment":{"value":%q}}]}]}`, strings.Repeat("x", 50<<10))
	values := `{"context":{"targetingKey":"a","x":[` + strings.Repeat("{},", 20_000) + `0]}}` // 1 MB of values
	for _, c := range []struct {
		name, document, body string
		bodies, answers      int64 // in use by other requests
		most, status         int
		says                 string
	}{
		{"a body without memory", "", values, size - 10_000, 0, 0, http.StatusServiceUnavailable, budget.ErrExhausted.Error()},
		{"a body with memory", "", values, -4 * size, 0, 0, http.StatusOK, ""},
		{"a small body needs none", "", `{"context":{"targetingKey":"a"}}`, size, size, 0, http.StatusOK, ""},
		{"a response without memory", large, `{"context":{"targetingKey":"a"}}`, 0, size - 10_000, 0, http.StatusServiceUnavailable, budget.ErrExhausted.Error()},
		{"a response with memory", large, `{"context":{"targetingKey":"a"}}`, 0, 0, 0, http.StatusOK, ""},
		{"a response beyond the limit", large, `{"context":{"targetingKey":"a"}}`, 0, 0, 40_000, http.StatusBadRequest, "more than the 40000 allowed (FLAGR_EVAL_ANSWER_BYTES)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bodies, answers := budget.NewMemory(size), budget.NewMemory(size)
			bodies.Release(-c.bodies)
			answers.Release(-c.answers)
			f := setup(t, c.document, time.Hour, ofrep.Options{Bodies: bodies, Answers: answers, AnswerBytes: c.most, Turns: budget.NewTurns(1)})
			for _, path := range bothPaths {
				rw := call(f, http.MethodPost, path, c.body)
				if rw.Code != c.status || !strings.Contains(rw.Body.String(), c.says) || !json.Valid(rw.Body.Bytes()) {
					t.Errorf("%s: %d %.200s", path, rw.Code, rw.Body)
				}
				if busy := c.status == http.StatusServiceUnavailable; (rw.Header().Get("Retry-After") == "1") != busy {
					t.Errorf("%s: %d with Retry-After %q", path, rw.Code, rw.Header().Get("Retry-After"))
				}
			}
			if recorded := f.records.all(); (recorded == "") != (c.status != http.StatusOK) {
				t.Errorf("recorded %q after %d", recorded, c.status)
			}
			if bodies.Take(size-c.bodies) != nil || answers.Take(size-c.answers) != nil {
				t.Error("memory was not returned")
			}
		})
	}
}

// TestSegmentsShareAnAttachment prepares the responses of a flag with 2,000 segments that assign a
// variant of 200 KB. A copy for each segment would take 400 MB.
func TestSegmentsShareAnAttachment(t *testing.T) { //nolint:paralleltest // measures allocations
	for name, attachment := range map[string]string{
		"value":    fmt.Sprintf(`{"value":%q}`, strings.Repeat("x", 200<<10)),
		"metadata": fmt.Sprintf(`{"value":1,"y":%q}`, strings.Repeat("x", 4000)),
	} {
		var segments strings.Builder
		for i := range 2000 {
			fmt.Fprintf(&segments, `%s{"ID":%d,"RolloutPercent":100,"Distributions":[{"VariantKey":"on","Percent":100}]`, ","[:min(i, 1)], i+1)
			fmt.Fprintf(&segments, `,"Constraints":[{"Property":"n","Operator":"EQ","Value":"%d"}]}`, i)
		}
		f := setup(t, `{"Flags":[{"ID":1,"Key":"many","Enabled":true,"Segments":[`+segments.String()+
			`],"Variants":[{"ID":1,"Key":"on","Attachment":`+attachment+`}]}]}`, time.Hour, ofrep.Options{})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		status, body := post(f, flagPath+"many", `{"context":{"targetingKey":"a","n":1999}}`)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; status != http.StatusOK || !strings.Contains(body, `"segmentID":2000`) || took > 8<<20 {
			t.Errorf("%s: %d %.100s, took %d bytes", name, status, body, took)
		}
	}
}

// noCopies is a response that counts the longest part, and what other requests cannot use.
type noCopies struct {
	*httptest.ResponseRecorder
	answers *budget.Memory
	size    int64
	longest int
	held    bool
}

func (n *noCopies) Write(p []byte) (int, error) {
	n.longest = max(n.longest, len(p))
	if n.answers.Take(n.size) != nil {
		n.held = true
	} else {
		n.answers.Release(n.size)
	}
	return n.ResponseRecorder.Write(p)
}

// TestALongValueIsNotCopied checks that a client that reads a value of 1 MB slowly holds neither a
// copy of it nor memory of responses.
func TestALongValueIsNotCopied(t *testing.T) {
	t.Parallel()
	const size = 10 << 20
	text := strings.Repeat("x", 1<<20)
	document := fmt.Sprintf(`{"Flags":[{"ID":42,"Key":"checkout","Enabled":true,"Segments":[{"ID":1,"RolloutPercent":100,"Distributions":[
		{"VariantKey":"on","Percent":100}]}],"Variants":[{"ID":1,"Key":"on","Attachment":{"value":%q}}]}]}`, text)
	answers := budget.NewMemory(size)
	f := setup(t, document, time.Hour, ofrep.Options{Answers: answers})
	rw := &noCopies{ResponseRecorder: httptest.NewRecorder(), answers: answers, size: size}
	f.ServeHTTP(rw, httptest.NewRequestWithContext(t.Context(), http.MethodPost, flagPath+"checkout", strings.NewReader(`{"context":{"targetingKey":"a"}}`)))
	body := rw.Body.Bytes()
	if rw.Code != http.StatusOK || !json.Valid(body) || !strings.Contains(rw.Body.String(), text) || rw.Header().Get("Content-Length") != fmt.Sprint(len(body)) {
		t.Errorf("%d, %d bytes, headers %v", rw.Code, len(body), rw.Header())
	}
	if rw.longest > 64<<10 || rw.held {
		t.Errorf("%d bytes at once, memory is held: %t", rw.longest, rw.held)
	}
}
