package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/config"
)

func TestCleanupsAllRunInReverse(t *testing.T) {
	t.Parallel()
	a := &App{}
	a.draining, a.endDraining = context.WithCancel(t.Context())
	var order []string
	failures := map[string]error{"first": errors.New("one"), "third": errors.New("three")}
	for _, name := range []string{"first", "second", "third"} {
		a.onStop(name, func(context.Context) error {
			order = append(order, name)
			return failures[name]
		})
	}
	err := a.Stop(t.Context())
	if !slices.Equal(order, []string{"third", "second", "first"}) {
		t.Errorf("order is %v", order)
	}
	if want := "stop third: three\nstop first: one"; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}

func TestLoggerFollowsTheConfiguration(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		level, format string
		lines         int
	}{
		{"info", "json", 1},
		{"warning", "json", 0},
		{"trace", "json", 2},
		{"info", "text", 1},
	} {
		t.Run(tc.level+" "+tc.format, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			logger := newLogger(config.Log{Level: tc.level, Format: tc.format}, &out)
			logger.Debug("small")
			logger.Info("large")
			lines := bytes.Count(out.Bytes(), []byte("\n"))
			if lines != tc.lines {
				t.Errorf("%d lines, want %d: %s", lines, tc.lines, &out)
			}
			if isJSON := json.Valid(bytes.TrimSpace(bytes.SplitAfter(out.Bytes(), []byte("\n"))[0])); lines > 0 && isJSON != (tc.format == "json") {
				t.Errorf("JSON is %v: %s", isJSON, &out)
			}
		})
	}
}
