package eval_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// evaluated returns the result of a request.
func evaluated(t testing.TB, s *eval.Service, request eval.Request) *eval.Result {
	t.Helper()
	result, err := s.Evaluate(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// taggedFlags are n flags with a tag and an attachment.
func taggedFlags(n uint) []entity.Flag {
	flags := make([]entity.Flag, n)
	for i := range flags {
		flags[i] = newFlag(uint(i+1), newSegment(uint(i+1), 0, 100, onlyControl))
		flags[i].Tags = []entity.Tag{{Value: "web"}}
	}
	return flags
}

// answer writes the answer to a batch as the API does. It returns the longest that was held in
// memory, too.
func answer(t *testing.T, service *eval.Service, batch eval.BatchRequest) (body []byte, held int, err error) {
	t.Helper()
	var sent bytes.Buffer
	encoder := eval.NewBatchEncoder(nil, writerFunc(func(p []byte) {
		held = max(held, cap(p))
		sent.Write(p)
	}))
	err = service.EvaluateEach(t.Context(), batch, encoder.Add)
	rest := encoder.Finish()
	held = max(held, cap(rest))
	sent.Write(rest)
	return sent.Bytes(), held, err
}

type writerFunc func([]byte)

func (w writerFunc) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

func TestAnswersOfBatchesAreBoundedBeforeTheyAreMade(t *testing.T) {
	t.Parallel()
	flags := taggedFlags(50)
	unknown := make([]string, 200)
	for i := range unknown {
		unknown[i] = fmt.Sprintf("unknown-%d", i)
	}
	text := strings.Repeat("x", 10_000)
	people := make([]eval.Entity, 20)
	for i := range people {
		people[i] = eval.Entity{EntityID: fmt.Sprint("person-", i), EntityContext: map[string]any{"a": []any{json.Number("1"), true, nil}, "b": text[:500]}}
	}
	for name, batch := range map[string]eval.BatchRequest{
		"one long context, many unknown flags": {Entities: []eval.Entity{{EntityContext: map[string]any{"a": text}}}, FlagKeys: unknown},
		"a context that is read already":       {Entities: []eval.Entity{{EntityContext: &eval.Object{JSON: `{"a":"` + text + `"}`}}}, FlagKeys: unknown},
		"many entities, flags by tag":          {Entities: people, FlagTags: []string{"web"}},
		"many tags that are echoed":            {Entities: people, FlagTags: append([]string{"web"}, unknown...)},
		"a long id":                            {Entities: []eval.Entity{{EntityID: text, EntityType: text}}, FlagTags: []string{"web"}},
		"long keys":                            {Entities: people, FlagKeys: []string{text, text + "y"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := setupWith(t, eval.Options{}, flags...).Service
			body, held, err := answer(t, service, batch)
			if err != nil || !json.Valid(body) {
				t.Fatalf("error %v, or no JSON", err)
			}
			if held > eval.MaxBatchBuffer {
				t.Errorf("%d bytes of %d were held, want at most %d", held, len(body), eval.MaxBatchBuffer)
			}
			enough := setupWith(t, eval.Options{AnswerBytes: len(body) * 3 / 2}, flags...).Service
			if _, _, err := answer(t, enough, batch); err != nil {
				t.Errorf("an answer of %d bytes is refused where %d are allowed: %v", len(body), len(body)*3/2, err)
			}
			little := setupWith(t, eval.Options{AnswerBytes: len(body) - 1}, flags...).Service
			err = little.EvaluateEach(t.Context(), batch, func(*eval.Result) { t.Error("something was evaluated") })
			if !errors.Is(err, entity.ErrInvalid) || !strings.Contains(err.Error(), "FLAGR_EVAL_ANSWER_BYTES") {
				t.Errorf("where the answer is a byte too long: %v, want ErrInvalid that names the variable", err)
			}
		})
	}
}

// TestLogsAreBounded checks that debug logs shorten long constraints and reasons, and that their
// memory is known, and reserved for a batch, before an evaluation.
func TestLogsAreBounded(t *testing.T) {
	t.Parallel()
	text := func(length int) string { return `"` + strings.Repeat("<", length) + `"` }
	property := func(length int) string { return "{" + strings.Repeat("y", length) + "}" } // the reason repeats it
	for name, value := range map[string]string{
		"short": text(10), "as long as possible": text(900), "long": text(1_000_000),
		"a property as long as possible": property(900), "a long property": property(1_000_000),
	} {
		var segments []entity.Segment
		for i := range uint(30) {
			segments = append(segments, newSegment(i+1, i, 100, onlyControl, entity.Constraint{Property: "x", Operator: "EQ", Value: value}))
		}
		segments = append(segments, newSegment(31, 31, 100, onlyControl))
		service := setupWith(t, eval.Options{DebugEnabled: true}, newFlag(1, segments...)).Service
		request := eval.Request{FlagID: 1, EntityID: "a", EntityContext: map[string]any{"x": "y"}}
		if got := service.LogBytes(request); got != 0 {
			t.Errorf("%s: %d bytes without logs", name, got)
		}
		request.EnableDebug = true
		result := evaluated(t, service, request)
		used := len(result.AppendJSON(nil))
		for _, log := range result.SegmentLogs {
			used += len(log.Message)
		}
		estimated := service.LogBytes(request)
		if len(result.SegmentLogs) != 31 || used > estimated || used > 31*5000 {
			t.Errorf("%s: %d logs of %d bytes, estimated as %d", name, len(result.SegmentLogs), used, estimated)
		}
		errLittle := errors.New("too little")
		err := service.EvaluateEach(t.Context(), eval.BatchRequest{
			FlagIDs: []int64{1}, Entities: make([]eval.Entity, 1), EnableDebug: true,
			Reserve: func(bytes int) error {
				if bytes < 2*estimated { // of the response, and of the result that makes it longer
					t.Errorf("%s: a batch reserves %d bytes", name, bytes)
				}
				return errLittle
			},
		}, func(*eval.Result) { t.Error("something was evaluated") })
		if !errors.Is(err, errLittle) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLongAttachmentsAreSentInParts evaluates a flag with an attachment of 2 MB, which no response
// copies as a whole.
func TestLongAttachmentsAreSentInParts(t *testing.T) {
	t.Parallel()
	flags := taggedFlags(2)
	for i := range flags {
		for j := range flags[i].Variants {
			flags[i].Variants[j].Attachment = entity.Attachment(`{"a":"` + strings.Repeat("x", 2<<20) + `"}`)
		}
	}
	service := setupWith(t, eval.Options{}, flags...).Service
	body, held, err := answer(t, service, eval.BatchRequest{Entities: make([]eval.Entity, 3), FlagTags: []string{"web"}})
	var batch struct {
		EvaluationResults []struct {
			VariantKey        string
			VariantAttachment map[string]string
		}
	}
	if err != nil || json.Unmarshal(body, &batch) != nil || len(batch.EvaluationResults) != 6 {
		t.Fatalf("error %v, or not the JSON of six results", err)
	}
	for i, r := range batch.EvaluationResults {
		if r.VariantKey == "" || len(r.VariantAttachment["a"]) != 2<<20 {
			t.Errorf("result %d: variant %q with %d bytes", i, r.VariantKey, len(r.VariantAttachment["a"]))
		}
	}
	if held > 2*eval.MaxBatchBuffer {
		t.Errorf("%d bytes of %d were held", held, len(body))
	}
	result := evaluated(t, service, eval.Request{FlagID: 1, EntityID: "e"})
	var encoder eval.Encoder
	start, end := encoder.Split(nil, result)
	parts, longest := start, 0
	err = eval.WriteParts(writerFunc(func(p []byte) {
		parts = append(parts, p...)
		longest = max(longest, len(p))
	}), end)
	if want := result.AppendJSON(nil); err != nil || !bytes.Equal(parts, want) || len(start) > 1000 || longest > 64<<10 {
		t.Errorf("error %v, %d bytes instead of %d, of which %d at the start, %d at once", err, len(parts), len(want), len(start), longest)
	}
	if start, end := encoder.Split(nil, evaluated(t, service, eval.Request{FlagID: 9})); end != "" || !json.Valid(start) {
		t.Errorf("a short result is split: %s, %d bytes", start, len(end))
	}
}

// TestRepeatedTagsCountOnce measures what the process allocates, so it does not run beside others.
func TestRepeatedTagsCountOnce(t *testing.T) {
	service := setupWith(t, eval.Options{}, taggedFlags(500)...).Service
	tags := make([]string, 200_000)
	for i := range tags {
		tags[i] = "web"
	}
	for _, operator := range []string{eval.TagsAny, eval.TagsAll} {
		batch := eval.BatchRequest{Entities: make([]eval.Entity, 1), FlagTags: tags, FlagTagsOperator: operator}
		// With each of the tags its 500 flags would be looked up again: 800 MB, which no limit on
		// answers sees.
		allocated := testing.Benchmark(func(b *testing.B) {
			for range b.N {
				if err := service.EvaluateEach(b.Context(), batch, func(*eval.Result) {}); !errors.Is(err, entity.ErrInvalid) {
					b.Fatal(err) // each of 500 results would repeat the tags
				}
			}
		}).AllocedBytesPerOp()
		if allocated > 1<<20 {
			t.Errorf("%s: %d bytes, want at most 1 MiB", operator, allocated)
		}
	}
}
