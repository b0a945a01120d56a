package budget_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

// exactly is the length of a body whose values are counted.
const exactly = budget.MaxValues + 1

func read(memory *budget.Memory, text string) (*budget.Body, error) {
	body := budget.NewBody(io.NopCloser(strings.NewReader(text)), exactly, memory)
	got, err := io.ReadAll(body)
	if err == nil && string(got) != text {
		err = errors.New("the body was changed")
	}
	return body, err
}

func TestBodyTakesMemoryForBytesAndValues(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text string
		cost int64
	}{
		"a string":          {`"` + strings.Repeat("a,:[{", 200) + `"`, 4 * 1002},
		"escaped quotes":    {`"\"[[[[\\"`, 4 * 10},
		"values":            {`{"a":1,"b":[2,3]}`, 4*17 + 6*48},
		"values and a text": {`["[",""]`, 4*8 + 2*48},
		"nothing":           {``, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			memory := budget.NewMemory(test.cost)
			body, err := read(memory, test.text)
			if err != nil {
				t.Fatalf("with just enough memory: %v", err)
			}
			if err := memory.Take(1); !errors.Is(err, budget.ErrExhausted) {
				t.Errorf("memory is left: Take(1) = %v", err)
			}
			body.Release()
			body.Release() // does nothing
			if err := memory.Take(test.cost); err != nil {
				t.Errorf("not all memory came back: %v", err)
			}
			if err := memory.Take(1); err == nil {
				t.Error("more memory came back than was taken")
			}
		})
	}
}

func TestBodyStopsWithoutMemory(t *testing.T) {
	t.Parallel()
	memory := budget.NewMemory(4 << 20)
	body, err := read(memory, strings.Repeat(" ", 2<<20))
	if !errors.Is(err, budget.ErrExhausted) {
		t.Fatalf("got %v, want ErrExhausted", err)
	}
	if _, err := body.Read(make([]byte, 1)); !errors.Is(err, budget.ErrExhausted) {
		t.Errorf("a later Read returns %v, want ErrExhausted again", err)
	}
	body.Release()
	if err := memory.Take(4 << 20); err != nil {
		t.Errorf("not all memory came back: %v", err)
	}
}

func TestBodyRefusesTooManyValues(t *testing.T) {
	t.Parallel()
	memory := budget.NewMemory(1 << 30)
	if _, err := read(memory, "["+strings.Repeat("0,", budget.MaxValues-1)+"0]"); err != nil {
		t.Errorf("%d values: %v", budget.MaxValues, err)
	}
	if _, err := read(memory, "["+strings.Repeat("0,", budget.MaxValues)+"0]"); !errors.Is(err, budget.ErrTooManyValues) {
		t.Errorf("%d values: %v, want ErrTooManyValues", budget.MaxValues+1, err)
	}
}

func TestAShareIsTakenAndGivenBack(t *testing.T) {
	t.Parallel()
	memory := budget.NewMemory(100)
	if err := budget.AtLeast(t.Context(), 1000); err != nil {
		t.Errorf("work in the background: %v", err)
	}
	first, releaseFirst := memory.Share(t.Context())
	second, releaseSecond := memory.Share(t.Context())
	for _, step := range []struct {
		name string
		ctx  context.Context
		n    int64
		want error
	}{
		{"the first request", first, 60, nil},
		{"less than it has", first, 50, nil},
		{"the second request, too much", second, 50, budget.ErrExhausted},
		{"the second request", second, 40, nil},
		{"the first request, more", first, 61, budget.ErrExhausted},
	} {
		if err := budget.AtLeast(step.ctx, step.n); !errors.Is(err, step.want) {
			t.Errorf("%s: %v, want %v", step.name, err, step.want)
		}
	}
	releaseSecond()
	releaseSecond() // does nothing
	if err := budget.AtLeast(first, 1000); err != nil {
		t.Errorf("a request that is alone and needs more than all: %v", err)
	}
	releaseFirst()
	if err := memory.Take(100); err != nil {
		t.Errorf("not all memory came back: %v", err)
	}
	if err := memory.Take(1); err == nil {
		t.Error("more memory came back than was taken")
	}
}

// TestWhatIsKeptAddsUp has a request that keeps some memory while it uses more, one part after the
// other.
func TestWhatIsKeptAddsUp(t *testing.T) {
	t.Parallel()
	memory := budget.NewMemory(100)
	if err := budget.Add(t.Context(), 1000); err != nil {
		t.Errorf("work in the background: %v", err)
	}
	ctx, release := memory.Share(t.Context())
	for _, step := range []struct {
		name string
		do   func(context.Context, int64) error
		n    int64
		left int64
	}{
		{"a part", budget.AtLeast, 20, 80},
		{"what is kept", budget.Add, 30, 50},
		{"a smaller part", budget.AtLeast, 10, 50},
		{"a larger part", budget.AtLeast, 25, 45},
		{"more that is kept", budget.Add, 10, 35},
		{"less that is kept", budget.Add, -15, 50},
		{"more than all", budget.Add, 1000, 0},
		{"and back", budget.Add, -1000, 50},
	} {
		if err := step.do(ctx, step.n); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		if err := memory.Take(step.left); err != nil {
			t.Errorf("%s: %d bytes are not left", step.name, step.left)
		} else if memory.Take(1) == nil {
			t.Errorf("%s: more than %d bytes are left", step.name, step.left)
			memory.Release(1)
		}
		memory.Release(step.left)
	}
	if err := memory.Take(50); err != nil {
		t.Fatal(err)
	}
	if err := budget.Add(ctx, 1); !errors.Is(err, budget.ErrExhausted) {
		t.Errorf("while others use the memory: %v", err)
	}
	memory.Release(50)
	release()
	if err := memory.Take(100); err != nil {
		t.Errorf("not all memory came back: %v", err)
	}
}

// costOf is the cost of a text, computed byte by byte.
func costOf(text string) int64 {
	values, inString, escaped := 0, false, false
	for _, c := range []byte(text) {
		switch {
		case escaped:
			escaped = false
		case c == '"':
			inString = !inString
		case inString:
			escaped = c == '\\'
		case strings.IndexByte(",:[{", c) >= 0:
			values++
		}
	}
	return int64(4*len(text) + 48*values)
}

// TestCostsOfPartsAreThoseOfTheWhole reads random texts in parts of all lengths.
func TestCostsOfPartsAreThoseOfTheWhole(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		text := make([]byte, random.IntN(40))
		for i := range text {
			text[i] = `"\\,:[{]}a1`[random.IntN(11)]
		}
		const limit = 1 << 20
		memory := budget.NewMemory(limit)
		body := budget.NewBody(io.NopCloser(bytes.NewReader(text)), exactly, memory)
		for part := make([]byte, 1+random.IntN(5)); ; {
			if _, err := body.Read(part); err != nil {
				break
			}
		}
		want := costOf(string(text))
		if err := memory.Take(limit - want); err != nil {
			t.Fatalf("%q costs more than %d", text, want)
		}
		if err := memory.Take(1); err == nil {
			t.Fatalf("%q costs less than %d", text, want)
		}
	}
}

// A short body takes memory for all that could be values.
func TestValuesOfShortBodiesAreEstimated(t *testing.T) {
	t.Parallel()
	const text = `{"a,b":["\"[{:",1]}`
	for length, want := range map[int64]int64{budget.MaxValues: 4*19 + 8*48, budget.MaxValues + 1: costOf(text)} {
		memory := budget.NewMemory(want)
		body := budget.NewBody(io.NopCloser(strings.NewReader(text)), length, memory)
		if got, err := io.ReadAll(body); err != nil || string(got) != text {
			t.Errorf("length %d: %q, %v", length, got, err)
		}
		if err := memory.Take(1); err == nil {
			t.Errorf("length %d: it costs less than %d", length, want)
		}
		body.Release()
		if err := memory.Take(want); err != nil {
			t.Errorf("length %d: not all memory came back", length)
		}
	}
}

func BenchmarkBody(b *testing.B) {
	memory := budget.NewMemory(1 << 30)
	for name, text := range map[string]string{
		"long strings": `{"flagKeys":["` + strings.Repeat("x", 600_000) + `"]}`,
		"many values":  `{"flagEvaluations":[` + strings.Repeat(`{"count":1},`, 50_000) + `{}]}`,
	} {
		for how, length := range map[string]int64{"counted": exactly, "estimated": int64(len(text))} {
			b.Run(name+"/"+how, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					body := budget.NewBody(io.NopCloser(strings.NewReader(text)), length, memory)
					if _, err := io.Copy(io.Discard, struct{ io.Reader }{body}); err != nil {
						b.Fatal(err)
					}
					body.Release()
				}
			})
		}
	}
}

func TestWeight(t *testing.T) {
	t.Parallel()
	text, values := "x", "1,"
	for name, c := range map[string]struct {
		body     string
		min, max int
	}{
		"short":                  {strings.Repeat(values, 1<<10), 2 << 10, 2 << 10},
		"text":                   {strings.Repeat(text, budget.LargeBytes), budget.LargeBytes, budget.LargeBytes},
		"many values":            {strings.Repeat(values, 2<<10), budget.LargeBytes + 1, 200 << 10},
		"large, whatever it has": {strings.Repeat(values, budget.LargeBytes), 2 * budget.LargeBytes, 2 * budget.LargeBytes},
	} {
		if got := budget.Weight(c.body); got < c.min || got > c.max {
			t.Errorf("%s: %d, want %d to %d", name, got, c.min, c.max)
		}
	}
}
