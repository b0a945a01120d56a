package evallog_test

import (
	"context"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/evallog"
)

// newEngine returns an engine that ends with the test.
func newEngine(t testing.TB, o evallog.Options) *evallog.Engine {
	t.Helper()
	engine, err := evallog.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close(context.Background()) })
	return engine
}

// on is an evaluation that assigned the variant on.
func on(flag string) evallog.Evaluation {
	return evallog.Evaluation{Key: evallog.Key{
		Flag:         flag,
		Variant:      evallog.Some("on"),
		Allocation:   evallog.Some("10"),
		TargetingKey: evallog.None(),
		ErrorCode:    evallog.None(),
	}}
}
