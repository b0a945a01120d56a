// Flagr-check checks whether a server accepts a JSON document of flags, or the definition of a
// flag. It is meant for the pipeline that checks a document before it is published.
//
// The exit code is 0 if a server accepts the document, perhaps with warnings. It is 1 if a server
// rejects the document, or if it is unreadable. It is 2 for a wrong command line. Messages about
// the document go to standard output, one per line.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
)

const (
	exitValid   = 0
	exitInvalid = 1
	exitUsage   = 2
)

const usage = `usage: flagr-check [-definition] FILE
       flagr-check [-definition] -

Checks a JSON flag document, of a file or of standard input, as a server with FLAGR_DB_DBDRIVER=json_file or json_http
would read it. With -definition it checks the body of PUT /api/v1/flags/{flagID}/definition, but for what depends on the
flag: its ids, and whether another flag has the key.

exit code 0: valid, perhaps with warnings; 1: not valid, or not to be read; 2: wrong usage
`

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("flagr-check", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { say(stderr, usage) }
	definition := flags.Bool("definition", false, "")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitValid
	case err != nil:
		return exitUsage
	case flags.NArg() != 1:
		flags.Usage()
		return exitUsage
	}
	document, err := read(flags.Arg(0), stdin)
	if err != nil {
		say(stderr, "flagr-check: %v\n", err)
		return exitInvalid
	}
	if *definition {
		return checkDefinition(document, stdout)
	}
	return check(document, stdout)
}

func read(name string, stdin io.Reader) ([]byte, error) {
	if name == "-" {
		document, err := io.ReadAll(stdin)
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return document, nil
	}
	return os.ReadFile(name)
}

// check reports on a document and returns the exit code.
func check(document []byte, out io.Writer) int {
	flags, findings, err := evalcache.ParseDocument(document)
	counts := map[evalcache.Severity]int{}
	for _, finding := range findings {
		counts[finding.Severity]++
		say(out, "%s: %s\n", finding.Severity, finding)
	}
	if err != nil {
		if counts[evalcache.SeverityError] == 0 { // not even a document
			counts[evalcache.SeverityError]++
			say(out, "%s: %v\n", evalcache.SeverityError, err)
		}
		say(out, "not valid: %s, %s\n", counted(counts[evalcache.SeverityError], "error"), counted(counts[evalcache.SeverityWarning], "warning"))
		return exitInvalid
	}
	say(out, "valid: %s, %s\n", counted(len(flags), "flag"), counted(counts[evalcache.SeverityWarning], "warning"))
	return exitValid
}

// checkDefinition reports on the body of a request that saves a definition, and returns the exit
// code.
func checkDefinition(body []byte, out io.Writer) int {
	d, err := parseDefinition(body)
	if err != nil {
		say(out, "%s: %v\nnot valid: 1 error\n", evalcache.SeverityError, err)
		return exitInvalid
	}
	problems := d.Problems()
	for _, p := range problems {
		say(out, "%s: %s\n", evalcache.SeverityError, p)
	}
	if len(problems) > 0 {
		say(out, "not valid: %s\n", counted(len(problems), "error"))
		return exitInvalid
	}
	warnings := eval.DefinitionWarnings(&d, math.MaxInt)
	for _, warning := range warnings {
		say(out, "%s: %s\n", evalcache.SeverityWarning, warning)
	}
	say(out, "valid: a definition made from snapshot %d, %s\n", d.SnapshotID, counted(len(warnings), "warning"))
	return exitValid
}

func parseDefinition(body []byte) (d entity.Definition, err error) {
	var required struct {
		SnapshotID *uint `json:"snapshotID"`
	}
	body = bytes.TrimPrefix(body, []byte(entity.ByteOrderMark))
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		return d, fmt.Errorf("definition cannot be read: %w", err)
	}
	if decoder.More() {
		return d, errors.New("definition cannot be read: something follows it")
	}
	if err := json.Unmarshal(body, &required); err != nil || required.SnapshotID == nil {
		return d, errors.New("snapshotID is missing: want the id of the snapshot that the definition was made from")
	}
	return d, nil
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// say writes a message. It ignores errors, because there is nowhere left to report them.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
