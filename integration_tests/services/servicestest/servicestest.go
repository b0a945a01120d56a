// Package servicestest starts servers for a single test.
package servicestest

import (
	"slices"
	"testing"

	"github.com/flagr-datar/flagr-datar/integration_tests/services"
)

// Own starts a server of the kind with a name and stops it at the end of the test.
func Own(t testing.TB, name string) *services.Server {
	t.Helper()
	kinds := services.Kinds()
	of := slices.IndexFunc(kinds, func(k services.Kind) bool { return k.Name == name })
	if of < 0 {
		t.Fatalf("no kind of server is called %q", name)
	}
	own, err := services.Start(t.Context(), kinds[of])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Close(); err != nil {
			t.Error(err)
		}
	})
	return own
}
