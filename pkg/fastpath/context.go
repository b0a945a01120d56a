package fastpath

import "github.com/flagr-datar/flagr-datar/pkg/eval"

// ContextReader reads bodies with an evaluation context, as OpenFeature's providers send them. The
// zero value is ready to use, by one goroutine. Its results are valid until the next call of Read
// or Forget.
type ContextReader struct{ decoder decoder }

// Read reads `{"context": {...}}`, and skips other members. It returns false for anything that is
// not plain, valid or not. The object refers to the text, which must not change.
func (c *ContextReader) Read(text string) (context *eval.Object, ok bool) {
	d := &c.decoder
	d.begin(text)
	var seen names
	var value any
	ok = d.object(func(name string) bool {
		if name == "context" {
			return seen.first(0) && d.context(&value)
		}
		_, canonical, ok := d.value(1)
		return canonical && ok
	})
	if !ok || !d.end() {
		return nil, false
	}
	context, ok = value.(*eval.Object)
	return context, ok
}

// Forget drops all references to the text, and keeps some memory for the next one.
func (c *ContextReader) Forget() { c.decoder.forget(maxPooledParts) }
