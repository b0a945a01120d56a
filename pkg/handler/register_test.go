package handler_test

import (
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/handler"
)

// TestAllOperationsAreRegistered checks that Register sets the handler of each operation. The
// generated API responds with 501 to an operation without one.
func TestAllOperationsAreRegistered(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	fields := reflect.ValueOf(api).Elem()
	var handlers []int
	for i := range fields.NumField() {
		if field := fields.Type().Field(i); field.Type.Kind() == reflect.Interface && strings.HasSuffix(field.Name, "Handler") {
			handlers = append(handlers, i)
			fields.Field(i).SetZero()
		}
	}
	if len(handlers) < 40 {
		t.Fatalf("found %d operations only", len(handlers))
	}
	handler.New(handler.Options{Logger: slog.New(slog.DiscardHandler)}).Register(api)
	for _, i := range handlers {
		if fields.Field(i).IsNil() {
			t.Errorf("%s is not set", fields.Type().Field(i).Name)
		}
	}
}
