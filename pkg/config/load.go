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

// IsDocument reports whether the flags come from a JSON document instead of a database.
func (d Database) IsDocument() bool { return d.Driver == DriverJSONFile || d.Driver == DriverJSONHTTP }

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

// defaultPort is the default of PORT, which SetListenDefaults needs before the configuration is
// loaded.
const defaultPort = "18000"

// Load reads the configuration from environ, usually the result of Environ. A missing variable has
// its default. An empty one is false, 0, an empty string or an empty list. White space around
// entries of lists is removed.
//
// The error has one line for each invalid variable, in the order of Variables: name, value, and
// what is accepted. It omits the values of secrets. The URLs in variables of OpenTelemetry come
// last.
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
		// Windows stores current folders in entries such as "=C:=C:\dir", which have no name.
		if name, value, ok := strings.Cut(entry, "="); ok && name != "" {
			environ[name] = value
		}
	}
	return environ
}

// SetListenDefaults sets PORT to its default in the process environment if PORT is unset or empty.
// Otherwise the generated main, which reads HOST and PORT itself, would listen on a random port.
// Its own default of HOST is correct. Call it before the generated main parses its flags; its flag
// --port still has priority.
func SetListenDefaults() error {
	if os.Getenv("PORT") != "" {
		return nil
	}
	if err := os.Setenv("PORT", defaultPort); err != nil {
		return fmt.Errorf("set the default of PORT: %w", err)
	}
	return nil
}

// SlogLevel returns the level for a slog handler. slog has no levels above error and none below
// debug, so panic and fatal become error, and trace is one step (4) below debug.
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

// loader has the state of Load for each variable, by name.
type loader struct {
	variables map[string]Variable
	values    map[string]string // text, as set or by default
	problems  map[string]string // the first problem, a whole line
	current   string            // the variable that is being parsed
}

// onSet records the variable of the next parser call, because errors of the env package do not name
// it.
func (l *loader) onSet(name string, value any, _ bool) {
	if _, ok := l.variables[name]; !ok {
		return // the struct of a concern, which has no variable of its own
	}
	l.current = name
	l.values[name], _ = value.(string)
}

// parsers has one parser for each type of variable except string. They report errors to the loader
// and continue, so that all invalid variables are found. The env package's own parsers are limited
// to 32 bits, too few for one of the defaults.
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

// check reports the variable as invalid unless ok.
func (l *loader) check(name string, ok bool) {
	if !ok {
		l.refuse(name, "want "+l.variables[name].Accepts)
	}
}

// refuse reports the variable as invalid. Only the first report of a variable counts.
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

// quote limits a value to one line of reasonable length.
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
