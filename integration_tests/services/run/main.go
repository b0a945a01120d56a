// Command run starts the database servers for tests, runs a command with their connection strings
// in its environment, and stops the servers when the command ends:
//
//	go run ./integration_tests/services/run go test ./pkg/store ./integration_tests
//	go run ./integration_tests/services/run bash
//
// ClickHouse is started only if -only names it: clickhouse or chdb.
//
// If the variable of a server is already set, that server is used and none is started.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/services"
)

func main() {
	only := flag.String("only", "", "start only these, separated by commas, such as postgres15,mariadb")
	flag.Usage = func() {
		_, _ = fmt.Fprintln(flag.CommandLine.Output(), "usage: run [-only names] command [argument ...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	code, err := run(*only, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "services:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(only string, command []string) (code int, err error) {
	kinds, err := choose(only)
	if err != nil {
		return 1, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	begin := time.Now()
	servers, err := start(ctx, kinds)
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.Close())
		}
	}()
	if err != nil {
		return 1, err
	}
	environment := os.Environ()
	for _, s := range servers {
		environment = append(environment, s.Kind.Variable+"="+s.DSN)
	}
	if len(servers) > 0 {
		fmt.Fprintf(os.Stderr, "services: %d servers up after %s\n", len(servers), time.Since(begin).Round(time.Millisecond))
	}

	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = environment
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err = cmd.Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(failed.ExitCode(), 1), nil // the command has reported the error
	}
	return 0, err
}

// choose returns the kinds with these names that must be started.
func choose(only string) ([]services.Kind, error) {
	kinds := services.Kinds()
	if only != "" {
		names := strings.Split(only, ",")
		for _, name := range names {
			if !slices.ContainsFunc(kinds, func(k services.Kind) bool { return k.Name == name }) {
				return nil, fmt.Errorf("there is no server named %q", name)
			}
		}
		kinds = slices.DeleteFunc(kinds, func(k services.Kind) bool { return !slices.Contains(names, k.Name) })
	} else {
		kinds = slices.DeleteFunc(kinds, func(k services.Kind) bool { return k.OnRequest })
	}
	return slices.DeleteFunc(kinds, func(k services.Kind) bool { return os.Getenv(k.Variable) != "" }), nil
}

// start starts all servers in parallel. It always returns those that started.
func start(ctx context.Context, kinds []services.Kind) ([]*services.Server, error) {
	var (
		group   sync.WaitGroup
		mu      sync.Mutex
		servers []*services.Server
		errs    []error
	)
	for _, kind := range kinds {
		group.Go(func() {
			s, err := services.Start(ctx, kind)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
				return
			}
			servers = append(servers, s)
		})
	}
	group.Wait()
	return servers, errors.Join(errs...)
}
