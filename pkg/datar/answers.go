package datar

import "context"

// Refresh stores the counts of the engine, so that queries of its store include them, unless a
// flush began within the last second. It waits for at most a second; if storing takes longer or
// fails, Stats shows it.
func (e *Engine) Refresh(ctx context.Context) { e.refresh(ctx) }
