package config

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v6"
)

// Values of Log.Format.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// Values of Database.Driver. The last two read flags from a JSON document and imply Eval.OnlyMode.
const (
	DriverSQLite   = "sqlite3"
	DriverPostgres = "postgres"
	DriverMySQL    = "mysql"
	DriverJSONFile = "json_file"
	DriverJSONHTTP = "json_http"
)

// Entries of Recorder.Types.
const (
	RecorderKafka   = "kafka"
	RecorderKinesis = "kinesis"
	RecorderPubSub  = "pubsub"
	RecorderDatar   = "datar"
)

// Values of Recorder.FrameOutputMode.
const (
	FramePayloadString  = "payload_string"
	FramePayloadRawJSON = "payload_raw_json"
)

// Values of Datar.Flags.
const (
	DatarFlagsRecorded = "recorded"
	DatarFlagsAll      = "all"
)

// defaultPort is the default of PORT, which SetListenDefaults needs before anything is loaded.
const defaultPort = "18000"

// Load reads the configuration from environ, usually the result of Environ. A variable that is missing has its default;
// one that is set to nothing is false, 0, an empty text or an empty list. Entries of lists lose the white space around
// them.
//
// The error has one line for each wrong variable, in the order of Variables: name, value, and what is accepted. The
// values of secrets are left out. The addresses among the variables of OpenTelemetry come last.
func Load(environ map[string]string) (*Config, error) {
	l := &loader{
		variables: map[string]Variable{},
		values:    map[string]string{},
		problems:  map[string]string{},
	}
	known := map[string]string{}
	for _, v := range Variables() {
		l.variables[v.Name] = v
		if value, ok := environ[v.Name]; ok {
			known[v.Name] = value
		}
	}

	var c Config
	if err := env.ParseWithFuncs(&c, l.parsers(), env.Options{Environment: known, OnSet: l.onSet}); err != nil {
		return nil, fmt.Errorf("parse environment: %w", err)
	}
	c.normalize()
	c.validate(l)
	c.Telemetry.validate(l, environ)
	if err := errors.Join(l.err(), checkReceivers(environ, c.Telemetry.EvaluationEvents != EventsNone)); err != nil {
		return nil, err
	}
	c.OpenTelemetry = openTelemetryOf(environ)
	c.GoRuntime.Tuned = environ["GOGC"] != "" || environ["GOMEMLIMIT"] != ""
	c.unused = findUnused(environ)
	c.settings = settingsOf(environ)
	return &c, nil
}

// Environ returns the process environment as a map.
func Environ() map[string]string {
	environ := map[string]string{}
	for _, entry := range os.Environ() {
		// Windows keeps current folders in entries such as "=C:=C:\dir"; a variable has a name.
		if name, value, ok := strings.Cut(entry, "="); ok && name != "" {
			environ[name] = value
		}
	}
	return environ
}

// SetListenDefaults puts the default of PORT into the process environment when PORT is unset or empty. The generated
// main reads HOST and PORT itself and would otherwise listen on a random port. Its own default of HOST is the right one.
// Call it before the generated main parses its flags; its flag --port still wins.
func SetListenDefaults() error {
	if os.Getenv("PORT") != "" {
		return nil
	}
	if err := os.Setenv("PORT", defaultPort); err != nil {
		return fmt.Errorf("set the default of PORT: %w", err)
	}
	return nil
}

// SlogLevel is the level to give to a slog handler. Its logger has no levels above error and none below debug, so panic
// and fatal count as error, and trace lies one step (4) under debug.
func (g *Log) SlogLevel() slog.Level {
	switch g.Level {
	case "panic", "fatal", "error":
		return slog.LevelError
	case "warn", "warning":
		return slog.LevelWarn
	case "debug":
		return slog.LevelDebug
	case "trace":
		return slog.LevelDebug - 4
	default:
		return slog.LevelInfo
	}
}

// loader holds what Load knows about each variable while it works, by name.
type loader struct {
	variables map[string]Variable
	values    map[string]string // text, as set or by default
	problems  map[string]string // the first problem, a whole line
	current   string            // the variable whose text is being parsed
}

// onSet learns which variable the next call of a parser is for: errors of the env package do not say.
func (l *loader) onSet(name string, value any, _ bool) {
	if _, ok := l.variables[name]; !ok {
		return // the struct of a concern, which has no variable of its own
	}
	l.current = name
	l.values[name], _ = value.(string)
}

// parsers has one parser for each type of variable but string. They report what is wrong to the loader and go on, so
// that all wrong variables are found. The env package's own parsers stop at 32 bits, too few for one of the defaults.
func (l *loader) parsers() map[reflect.Type]env.ParserFunc {
	return map[reflect.Type]env.ParserFunc{
		reflect.TypeFor[bool](): parser(l, strconv.ParseBool),
		reflect.TypeFor[int]():  parser(l, strconv.Atoi),
		reflect.TypeFor[int8](): parser(l, func(s string) (int8, error) {
			n, err := strconv.ParseInt(s, 10, 8)
			return int8(n), err
		}),
		reflect.TypeFor[uint](): parser(l, func(s string) (uint, error) {
			n, err := strconv.ParseUint(s, 10, strconv.IntSize)
			return uint(n), err
		}),
		reflect.TypeFor[time.Duration](): parser(l, time.ParseDuration),
		reflect.TypeFor[[]string](): parser(l, func(s string) ([]string, error) {
			return splitList(s, l.variables[l.current].keepEmpty), nil
		}),
	}
}

func parser[T any](l *loader, parse func(string) (T, error)) env.ParserFunc {
	return func(text string) (any, error) {
		value, err := parse(text)
		if err != nil {
			l.check(l.current, false)
		}
		return value, nil
	}
}

func splitList(text string, keepEmpty bool) []string {
	var list []string
	for entry := range strings.SplitSeq(text, ",") {
		if entry = strings.TrimSpace(entry); entry != "" || keepEmpty {
			list = append(list, entry)
		}
	}
	return list
}

// check reports the variable as wrong unless ok.
func (l *loader) check(name string, ok bool) {
	if !ok {
		l.refuse(name, "want "+l.variables[name].Accepts)
	}
}

// refuse reports the variable as wrong; only the first report of a variable counts.
func (l *loader) refuse(name, why string) {
	if _, ok := l.problems[name]; ok {
		return
	}
	subject := name
	if !l.variables[name].Secret {
		subject += "=" + quote(l.values[name])
	}
	l.problems[name] = subject + ": " + why
}

// quote keeps a message on one line of reasonable length, whatever the value is.
func quote(value string) string {
	const longest = 100
	if len(value) > longest {
		return strconv.Quote(value[:longest]) + "..."
	}
	return strconv.Quote(value)
}

// err joins the problems in the order of Variables.
func (l *loader) err() error {
	var errs []error
	for _, v := range Variables() {
		if problem, ok := l.problems[v.Name]; ok {
			errs = append(errs, errors.New(problem))
		}
	}
	return errors.Join(errs...)
}

func between[T cmp.Ordered](low, value, high T) bool {
	return low <= value && value <= high
}
