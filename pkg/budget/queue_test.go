package budget_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

// TestScarceMemoryRefusesBodiesUnread checks that a body is not read if little memory is left for a
// second, and that one that is being read may use the rest.
func TestScarceMemoryRefusesBodiesUnread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMemory(80_000)
		take(t, m, 65_000)
		first := budget.NewBody(io.NopCloser(strings.NewReader("abc")), 3, m)
		if n, err := first.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Fatalf("with a fifth of the memory: %d, %v", n, err)
		}
		take(t, m, 14_000)
		source, began := strings.NewReader("abc"), time.Now()
		second := budget.NewBody(io.NopCloser(source), 3, m)
		for range 2 { // the error is permanent
			if _, err := second.Read(make([]byte, 1)); !errors.Is(err, budget.ErrExhausted) || source.Len() != 3 {
				t.Errorf("with little memory: %v, %d bytes are left", err, source.Len())
			}
		}
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("it waited for %s, want a second", waited)
		}
		if _, err := first.Read(make([]byte, 2)); err != nil {
			t.Errorf("a body that is being read: %v", err)
		}
		first.Release()
		second.Release()
		m.Release(79_000)
		take(t, m, 80_000)
	})
}

// TestBodiesGetMemoryInOrder has five bodies wait for parts of 10,000 bytes, which they use. One
// part stays free for bodies that need more than theirs.
func TestBodiesGetMemoryInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMemory(80_000)
		take(t, m, 75_000)
		var began []int
		end := make(chan struct{})
		for i := range 5 {
			go func() {
				body := budget.NewBody(io.NopCloser(bytes.NewReader(make([]byte, 2500))), 2500, m)
				defer body.Release()
				if _, err := body.Read(make([]byte, 2500)); err != nil {
					if i < 4 || !errors.Is(err, budget.ErrExhausted) {
						t.Errorf("body %d: %v", i, err)
					}
					return
				}
				began = append(began, i) // one at a time
				<-end
			}()
			synctest.Wait()
		}
		expect := func(when string, want ...int) {
			t.Helper()
			synctest.Wait()
			if len(began) != len(want) {
				t.Errorf("%s, %v are read, want %v", when, began, want)
			}
			for i, body := range began {
				if body != i {
					t.Errorf("%s, the order is %v", when, began)
				}
			}
		}
		expect("with half a part")
		m.Release(10_000)
		expect("with a part and a half")
		m.Release(5_000)
		expect("with two parts", 0)
		m.Release(10_000)
		expect("with a third part", 0, 1)
		end <- struct{}{} // body 0 returns its part
		expect("after the first body", 0, 1, 2)
		time.Sleep(999 * time.Millisecond)
		m.Release(10_000)
		expect("shortly before the end of the second", 0, 1, 2, 3)
		time.Sleep(time.Millisecond) // the last one is refused
		close(end)
		synctest.Wait()
		m.Release(40_000)
		take(t, m, 80_000)
	})
}

// TestABodyThatWaitedReturnsWhatItDoesNotUse compares what is free before and after its end.
func TestABodyThatWaitedReturnsWhatItDoesNotUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMemory(80_000)
		take(t, m, 80_000)
		text := strings.Repeat("x", 500)
		body := budget.NewBody(io.NopCloser(strings.NewReader(text)), 500, m)
		go func() {
			time.Sleep(time.Millisecond) // the body waits
			m.Release(20_000)
		}()
		if _, err := body.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		take(t, m, 10_000) // it has a part, whatever it has read
		if m.Take(1) == nil {
			t.Error("it has less than a part")
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			t.Fatal(err)
		}
		take(t, m, 10_000-4*500)
		if m.Take(1) == nil {
			t.Error("it has less than it uses")
		}
		body.Release()
		m.Release(78_000)
		take(t, m, 80_000)
	})
}

// TestASmallBodyThatWaitedGetsWhatItUsesAtMost has a body of 100 bytes, which cannot use more than
// 5,200 bytes, whatever it contains.
func TestASmallBodyThatWaitedGetsWhatItUsesAtMost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMemory(80_000)
		take(t, m, 80_000)
		large := budget.NewBody(io.NopCloser(bytes.NewReader(make([]byte, 1000))), 1000, m)
		go func() {
			if _, err := large.Read(make([]byte, 1)); !errors.Is(err, budget.ErrExhausted) {
				t.Errorf("the large body: %v", err)
			}
		}()
		time.Sleep(time.Millisecond)
		small := budget.NewBody(io.NopCloser(strings.NewReader(strings.Repeat(",", 100))), 100, m)
		m.Release(15_200) // enough for the small one, which has to wait for the other
		began := time.Now()
		if _, err := small.Read(make([]byte, 1)); err != nil || time.Since(began) != 999*time.Millisecond {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		take(t, m, 10_000)
		if m.Take(1) == nil {
			t.Error("it has less than it may use")
		}
		if _, err := io.Copy(io.Discard, small); err != nil {
			t.Error(err)
		}
		small.Release()
		large.Release()
		m.Release(74_800)
		take(t, m, 80_000)
	})
}

// TestASlowBodyDoesNotKeepItsPart has a client that sends one byte, and the rest a second later.
func TestASlowBodyDoesNotKeepItsPart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMemory(80_000)
		take(t, m, 80_000)
		client, sent := io.Pipe()
		body := budget.NewBody(client, 1000, m)
		go func() {
			_, _ = sent.Write([]byte("x"))
			time.Sleep(time.Second)
			_, _ = sent.Write(make([]byte, 999))
			_ = sent.Close()
		}()
		read := make(chan error)
		go func() {
			_, err := io.Copy(io.Discard, struct{ io.Reader }{body})
			read <- err
		}()
		synctest.Wait()
		m.Release(20_000)
		synctest.Wait()
		time.Sleep(99 * time.Millisecond)
		take(t, m, 10_000)
		if m.Take(1) == nil {
			t.Error("it has less than a part")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		take(t, m, 10_000-4)
		if m.Take(1) == nil {
			t.Error("it has less than it uses")
		}
		m.Release(4_000)
		if err := <-read; err != nil {
			t.Error(err)
		}
		body.Release()
		m.Release(80_000 - 4 - 4_000)
		take(t, m, 80_000)
	})
}

// TestNoBodyIsForgotten reads bodies in parallel that need ten times the memory together. No body
// waits a second, because each is read in far less. Bodies that begin together while memory is free
// may be refused, but at once: they read again.
func TestNoBodyIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := budget.NewMemory(80_000)
		read := func(length int) {
			for err := budget.ErrExhausted; err != nil; {
				began := time.Now()
				body := budget.NewBody(io.NopCloser(bytes.NewReader(make([]byte, length))), int64(length), m)
				_, err = io.Copy(io.Discard, struct{ io.Reader }{body})
				if waited := time.Since(began); err != nil && waited >= time.Second {
					t.Errorf("after %s: %v", waited, err)
				}
				time.Sleep(rand.N(3 * time.Millisecond))
				body.Release()
			}
		}
		var all sync.WaitGroup
		for range 80 {
			all.Go(func() {
				for range 5 {
					read(500 + rand.IntN(2000))
				}
			})
		}
		all.Wait()
		take(t, m, 80_000)
	})
}

func take(t *testing.T, m *budget.Memory, n int64) {
	t.Helper()
	if err := m.Take(n); err != nil {
		t.Fatalf("take %d bytes: %v", n, err)
	}
}
