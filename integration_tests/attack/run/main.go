// Command run attacks the built server with requests that are meant to exhaust it. For each kind of
// request, it prints the server's peak memory and the latency of honest requests at the same time.
// It fails if memory reaches 400 MB or the server ends. Latency depends on other work on the
// machine, so it counts only with -strict.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/attack"
)

func main() {
	var o attack.Options
	flag.StringVar(&o.Server, "server", "bin/flagr-server", "the binary to attack")
	flag.BoolVar(&o.Quick, "quick", false, "fewer connections and repetitions")
	flag.StringVar(&o.Only, "only", "", "the name of the only case to run")
	flag.DurationVar(&o.CaseTimeout, "case-timeout", 30*time.Second, "ends a case")
	strict := flag.Bool("strict", false, "fail also if p99 of honest requests is above 50 ms")
	honest := flag.Bool("honest", false, "be the honest client: for the command itself")
	flag.Parse()
	var err error
	if *honest {
		err = attack.Honest(os.Stdin, os.Stdout, flag.Arg(0))
	} else {
		err = run(o, *strict)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		os.Exit(1)
	}
}

func run(o attack.Options, strict bool) (err error) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o.Client = []string{self, "-honest"}
	if o.Dir, err = os.MkdirTemp("", "flagr-attack"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()
	results, err := attack.Run(ctx, o)
	errs := []error{err, attack.Print(os.Stdout, results)}
	for _, r := range results {
		errs = append(errs, r.Fault(strict))
		if r.P99 > attack.MaxP99 {
			fmt.Printf("%s: p99 of honest requests is %s, above %s\n", r.Name, r.P99, attack.MaxP99)
		}
	}
	return errors.Join(errs...)
}
