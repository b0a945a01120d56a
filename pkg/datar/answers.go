package datar

import "context"

// Refresh stores what the engine has counted, so that queries of its store see it, unless a flush began within the last
// second. It waits for a second at most; if storing takes longer or fails, Stats tells.
func (e *Engine) Refresh(ctx context.Context) { e.refresh(ctx) }

// DetailStore returns the engine's store if it keeps details, else nil.
func (e *Engine) DetailStore() DetailStore { return e.details }
