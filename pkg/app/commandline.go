package app

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/jessevdk/go-flags"
)

// CommandLine has the command-line options that the generated server does not have.
type CommandLine struct {
	Version    bool   `long:"version" short:"v" description:"print the version and exit"`
	FirstSteps string `long:"first-steps" value-name:"FILE" description:"once the server listens, print this file, with its address in place of http://localhost:18000"`
	MoveCounts bool   `long:"move-counts" description:"copy Datar's counts from the database of the flags to the store that FLAGR_RECORDER_DATAR_STORE names, compare them, and exit"`

	// address is the HTTP address to listen on, as host:port.
	address string
}

// ErrPrinted ends the process with exit code 0, after --help or --version printed its text.
var ErrPrinted = errors.New("the command line only printed a text")

// Parse parses the arguments into the options and, to check them, into server, a generated server
// that is not used afterward. The texts of --help and --version are written to out, and the error
// is then ErrPrinted. Positional arguments are an error.
func (l *CommandLine) Parse(server any, arguments []string, out io.Writer) error {
	parser := flags.NewNamedParser("flagr-server", flags.HelpFlag|flags.PassDoubleDash)
	if _, err := parser.AddGroup("Options of the listeners", "", server); err != nil {
		return fmt.Errorf("options of the listeners: %w", err)
	}
	if _, err := parser.AddGroup("Further options", "", l); err != nil {
		return fmt.Errorf("further options: %w", err)
	}
	describeOptions(parser)
	rest, err := parser.ParseArgs(arguments)
	var cause *flags.Error
	switch {
	case errors.As(err, &cause) && cause.Type == flags.ErrHelp:
		return printed(out, cause.Message)
	case l.Version:
		return printed(out, versionText())
	case err != nil:
		return fmt.Errorf("command line: %s; flagr-server --help lists the options", lowerFirst(err.Error()))
	case len(rest) > 0:
		return fmt.Errorf("command line: unexpected argument %q; want options only, which flagr-server --help lists", rest[0])
	}
	host, _ := parser.FindOptionByLongName("host").Value().(string)
	port, _ := parser.FindOptionByLongName("port").Value().(int)
	l.address = net.JoinHostPort(host, strconv.Itoa(port))
	return nil
}

// describeOptions corrects the generated server's descriptions of its options.
func describeOptions(parser *flags.Parser) {
	parser.LongDescription = "Feature flags, A/B tests and dynamic configuration over HTTP, with exact statistics of every evaluation. " +
		"The options say where the server listens. Everything else is set with environment variables, which docs/environment.md lists."
	for name, description := range map[string]string{
		"scheme": "what to listen for: http, https or unix; may be repeated (default: http)",
		"host":   "the address to listen on",
		"port":   "the port to listen on; 0 takes a free one",
	} {
		parser.FindOptionByLongName(name).Description = description
	}
	parser.FindOptionByLongName("port").DefaultMask = "18000"
}

func printed(out io.Writer, text string) error {
	if _, err := fmt.Fprintln(out, strings.TrimSuffix(text, "\n")); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return ErrPrinted
}

func lowerFirst(text string) string { return strings.ToLower(text[:1]) + text[1:] }
