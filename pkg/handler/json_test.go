package handler

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

// TestLargeBodiesTakeTurns checks that large bodies are decoded in turn, after they have been read.
func TestLargeBodiesTakeTurns(t *testing.T) {
	t.Parallel()
	large := `{"text":"` + strings.Repeat("x", budget.LargeBytes) + `"}`
	synctest.Test(t, func(t *testing.T) {
		turns := budget.NewTurns(1)
		consumer := jsonConsumer(turns)
		decode := func(r io.Reader, into any) (result <-chan error) {
			done := make(chan error, 1)
			go func() { done <- consumer.Consume(r, into) }()
			synctest.Wait()
			return done
		}
		arriving, sent := io.Pipe()
		slow := decode(arriving, new(any))
		if err := turns.Take(t.Context()); err != nil { // so a body that is being read takes no turn
			t.Fatal(err)
		}
		if got := decode(strings.NewReader(`{"text":"x"}`), new(any)); len(got) != 1 || <-got != nil {
			t.Error("a small body waits")
		}
		many := decode(strings.NewReader(`{"flagEvaluations":[`+strings.Repeat("{},", 999)+`{}]}`), new(models.DatarEvaluations))
		if len(many) != 0 {
			t.Error("a small body with many rows of counts does not wait")
		}
		values := decode(strings.NewReader(`{"entityContext":{"a":[`+strings.Repeat("1,", 1999)+`1]}}`), new(models.EvalContext))
		if len(values) != 0 {
			t.Error("a small body with many values does not wait")
		}
		if _, err := io.WriteString(sent, large); err != nil {
			t.Fatal(err)
		}
		_ = sent.Close()
		if synctest.Wait(); len(slow) != 0 {
			t.Error("a large body does not wait")
		}
		turns.Release()
		if err := errors.Join(<-slow, <-many, <-values); err != nil {
			t.Error(err)
		}
	})
}

func TestABodyThatBreaksOffIsItsError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, body := range map[string]string{"nothing": "", "some": `{"a":`, "large": `{"a":"` + strings.Repeat("x", budget.LargeBytes)} {
		var into map[string]any
		err := jsonConsumer(nil).Consume(io.MultiReader(strings.NewReader(body), iotest.ErrReader(broken)), &into)
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
