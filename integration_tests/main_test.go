// Package integration_tests tests the built server from outside: over HTTP, with real processes,
// signals and files. It imports nothing of the server.
package integration_tests

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Options. TestMain sets serverBinary before the tests run. They do not change later.
var (
	serverBinary = flag.String("server", "", "path of the flagr-server to test; built from this checkout if empty")
	rounds       = flag.Int("rounds", 1, "how many rounds of the tests that counts are exact and that little memory is enough")
	fleet        = flag.Duration("fleet", 20*time.Second, "how long four servers share 500 keys at full speed")
)

// heavy is held by tests that keep both cores of a small machine busy, so that only one of them
// runs at a time.
var heavy sync.Mutex

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if *serverBinary == "" {
		dir, err := os.MkdirTemp("", "flagr-server")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		*serverBinary = filepath.Join(dir, "flagr-server")
		build := exec.Command("go", "build", "-trimpath", "-o", *serverBinary, "../swagger_gen/cmd/flagr-server")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the server: %v\n%s", err, output)
			return 1
		}
	}
	absolute, err := filepath.Abs(*serverBinary)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	*serverBinary = absolute
	return m.Run()
}
