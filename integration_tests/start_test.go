package integration_tests

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

func TestKillSwitch(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		brokers := strings.Join(newKafka(t).ListenAddrs(), ",")
		for name, env := range map[string]environ{
			"recording off":       {"FLAGR_RECORDER_ENABLED": "false"},
			"recording not named": {"FLAGR_RECORDER_ENABLED": ""},
			"datar not listed":    {"FLAGR_RECORDER_TYPE": "kafka", "FLAGR_RECORDER_KAFKA_BROKERS": brokers},
			"nothing listed":      {"FLAGR_RECORDER_TYPE": ""},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := start(t, db, db.fresh(t), env)
				f := newFlag(t, s, "uncounted")
				awaitChanges(t, s)
				if got := evaluate(t, s, f, "u", nil); got.VariantID != f.Variants[0].ID {
					t.Errorf("the evaluation has variant %d, want %d", got.VariantID, f.Variants[0].ID)
				}
				for _, path := range []string{"/datar/summary", "/datar/flags/1/summary", "/datar/flags/999/summary"} {
					a := s.call(t, http.MethodGet, path, nil)
					var body struct{ Message string }
					decode(t, a.body, &body)
					if a.status != http.StatusServiceUnavailable || !strings.Contains(body.Message, "FLAGR_RECORDER_ENABLED") ||
						!strings.Contains(body.Message, "FLAGR_RECORDER_TYPE") {
						t.Errorf("%s: %s, want 503 with a message that names the settings of Datar", path, a)
					}
				}
			})
		}
	})
}

// TestCountsOutlastTheKillSwitch turns recording off and on between restarts.
func TestCountsOutlastTheKillSwitch(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		dsn := db.fresh(t)
		on := start(t, db, dsn, nil)
		j := runMainJob(t, on)
		checkMainJob(t, on, j)
		on.stop(t, syscall.SIGTERM)

		off := start(t, db, dsn, environ{"FLAGR_RECORDER_ENABLED": "false"})
		evaluate(t, off, j.flag, "u", nil)
		off.stop(t, syscall.SIGINT)

		checkMainJob(t, start(t, db, dsn, nil), j)
	})
}

func TestRecorderTypeIsAForgivingList(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		s := start(t, db, db.fresh(t), environ{"FLAGR_RECORDER_TYPE": " datar , datar,datar ,, "})
		j := runMainJob(t, s)
		checkMainJob(t, s, j) // each evaluation is counted once, although datar is listed several times
	})
}

// TestWrongSettings starts servers with invalid settings. They must exit with code 1 and one log
// line.
func TestWrongSettings(t *testing.T) {
	t.Parallel()
	noDatabase := filepath.Join(t.TempDir(), "letter.txt")
	if err := os.WriteFile(noDatabase, []byte(strings.Repeat("Dear reader, ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		env  environ
		want []string // parts of the line
	}{
		{"unknown recorder", environ{"FLAGR_RECORDER_TYPE": "kafka, datadog"},
			[]string{"FLAGR_RECORDER_TYPE", "datadog", "kafka, kinesis, pubsub, datar"}},
		{"unknown recorder while recording is off", environ{"FLAGR_RECORDER_TYPE": "Datar", "FLAGR_RECORDER_ENABLED": "false"},
			[]string{"FLAGR_RECORDER_TYPE", "Datar", "kafka, kinesis, pubsub, datar"}},
		{"no boolean", environ{"FLAGR_RECORDER_ENABLED": "on"}, []string{"FLAGR_RECORDER_ENABLED", `"on"`, "true or false"}},
		{"flush too often", environ{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "49ms"},
			[]string{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL", "49ms", "50ms", "1h"}},
		{"flush too rarely", environ{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "1h1s"},
			[]string{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL", "1h1s", "50ms", "1h"}},
		{"no unit", environ{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "60"},
			[]string{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL", "60", "50ms", "1h"}},
		{"never refreshed", environ{"FLAGR_EVALCACHE_REFRESHINTERVAL": "0s"}, []string{"FLAGR_EVALCACHE_REFRESHINTERVAL", "0s"}},
		{"unknown driver", environ{"FLAGR_DB_DBDRIVER": "oracle"},
			[]string{"FLAGR_DB_DBDRIVER", "oracle", "sqlite3, postgres, mysql, json_file, json_http"}},
		{"port too high", environ{"PORT": "65536"}, []string{"PORT", "65536", "65535"}},
		{"port is a word", environ{"PORT": "http"}, []string{"PORT", "http", "65535"}},
		{"negative batch", environ{"FLAGR_EVAL_BATCH_SIZE": "-1"}, []string{"FLAGR_EVAL_BATCH_SIZE", "-1"}},
		{"number too large", environ{"FLAGR_EVAL_BATCH_SIZE": "99999999999999999999"},
			[]string{"FLAGR_EVAL_BATCH_SIZE", "99999999999999999999"}},
		{"unknown level", environ{"FLAGR_LOGRUS_LEVEL": "loud"}, []string{"FLAGR_LOGRUS_LEVEL", "loud", "info"}},
		{"tokens without a key", environ{"FLAGR_JWT_AUTH_ENABLED": "true"}, []string{"FLAGR_JWT_AUTH_SECRET"}},
		{"tokens with a key that is none", environ{"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": "s", "FLAGR_JWT_AUTH_SIGNING_METHOD": "RS256"},
			[]string{"FLAGR_JWT_AUTH_SECRET", "PEM"}},
		{"unknown exporter", environ{"OTEL_METRICS_EXPORTER": "carrier pigeon"}, []string{"OTEL_METRICS_EXPORTER"}},
		{"no folder for the database", environ{"FLAGR_DB_DBCONNECTIONSTR": filepath.Join("missing", "flagr.sqlite"),
			"FLAGR_DB_DBCONNECTION_RETRY_ATTEMPTS": "0"}, []string{filepath.Join("missing", "flagr.sqlite")}},
		{"no database", environ{"FLAGR_DB_DBCONNECTIONSTR": noDatabase}, []string{noDatabase, "not a database"}},
		{"no document", environ{"FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": "missing.json",
			"FLAGR_RECORDER_ENABLED": "false"}, []string{"missing.json"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := launch(t, t.TempDir(), quick.with(tc.env))
			if code := p.wait(t); code != 1 {
				t.Errorf("the exit code is %d, want 1", code)
			}
			text := strings.TrimSuffix(p.log.String(), "\n")
			if strings.Contains(text, "\n") {
				t.Errorf("more than one line:\n%s", text)
			}
			for _, want := range tc.want {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in: %s", want, text)
				}
			}
		})
	}
}

// TestTakenPort starts a second server on the port of the first.
func TestTakenPort(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		dsn := db.fresh(t)
		s := start(t, db, dsn, nil)
		port := s.url[strings.LastIndex(s.url, ":")+1 : strings.LastIndex(s.url, "/api")]
		folder := t.TempDir()
		second := launch(t, folder, s.env.with(environ{"PORT": port, "FLAGR_LOGRUS_FORMAT": "json"}))
		if code := second.wait(t); code != 1 {
			t.Errorf("the exit code is %d, want 1", code)
		}
		log := second.log.String()
		if strings.Count(log, "\n") != 1 || !json.Valid([]byte(log)) {
			t.Errorf("want one line of JSON:\n%s", log)
		}
		for _, want := range []string{port, "PORT=", "address already in use"} {
			if !strings.Contains(log, want) {
				t.Errorf("%q is not in the log:\n%s", want, log)
			}
		}
		if files, err := os.ReadDir(folder); err != nil || len(files) > 0 {
			t.Errorf("the failed start left %v, %v", files, err)
		}
		get[any](t, s, "/flags")
	})
}

// TestStartLine checks the line about the start, and the line about the counts at the end.
func TestStartLine(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		dsn := db.fresh(t)
		s := start(t, db, dsn, nil)
		j := runMainJob(t, s)
		checkMainJob(t, s, j)
		s.stop(t, syscall.SIGTERM)
		log := s.log.String()
		line := regexp.MustCompile(`(?m)^.*msg="server started".*$`).FindString(log)
		for _, want := range []string{"version=", "address=" + strings.TrimSuffix(s.url, "/api/v1"), "database=", "flags=0",
			"recorders=datar", `datar="on, stores every`, "journal=" + s.cmd.Dir, "access_control=none", "ui=http://"} {
			if !strings.Contains(line, want) {
				t.Errorf("%q is not in the line about the start:\n%s", want, log)
			}
		}
		if !regexp.MustCompile(`msg="Datar stopped" recorded=(\d+) stored=\d+ pending=0 dropped=0 left=nothing`).MatchString(log) {
			t.Errorf("no line has the stored counts:\n%s", log)
		}
		if again := s.again(t); !regexp.MustCompile(`flags=[1-9]`).MatchString(again.log.String()) {
			t.Errorf("the line about the second start has no number of flags:\n%s", again.log)
		}
	})
}

// TestFirstStepsArePrintedWithTheAddress checks that the printed commands have the address that the
// server listens on.
func TestFirstStepsArePrintedWithTheAddress(t *testing.T) {
	t.Parallel()
	script, err := filepath.Abs(filepath.Join("..", "docs", "first-steps.sh"))
	if err != nil {
		t.Fatal(err)
	}
	s := startIn(t, t.TempDir(), quick, "--first-steps", script)
	log := s.log.String()
	if !strings.Contains(log, "FLAGR_URL=${FLAGR_URL:-"+s.url+"}") || strings.Contains(log, "localhost:18000") {
		t.Errorf("the address %s is not in what was printed:\n%s", s.url, log)
	}
}

// TestCommandLine checks that options that print, and invalid ones, start no server.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	for argument, want := range map[string]struct {
		code int
		text string
	}{
		"--version":    {0, "flagr-server "},
		"-v":           {0, "flagr-server "},
		"version":      {1, `unexpected argument "version"`},
		"--no-such":    {1, "no-such"},
		"--port=word":  {1, "port"},
		"--first-stop": {1, "first-stop"},
	} {
		folder := t.TempDir()
		p := launch(t, folder, quick, argument)
		if code := p.wait(t); code != want.code || !strings.Contains(p.log.String(), want.text) {
			t.Errorf("%s: exit code %d, want %d and %q in:\n%s", argument, code, want.code, want.text, p.log)
		}
		if files, err := os.ReadDir(folder); err != nil || len(files) > 0 {
			t.Errorf("%s left %v, %v", argument, files, err)
		}
	}
}

// TestSignalWhileStarting stops a server that waits for its database.
func TestSignalWhileStarting(t *testing.T) {
	t.Parallel()
	p := launch(t, t.TempDir(), quick.with(environ{"FLAGR_DB_DBDRIVER": "postgres",
		"FLAGR_DB_DBCONNECTIONSTR":             "postgres://ann:pw@127.0.0.1:1/flagr?sslmode=disable",
		"FLAGR_DB_DBCONNECTION_RETRY_ATTEMPTS": "1000", "FLAGR_DB_DBCONNECTION_RETRY_DELAY": "1m"}))
	poll(t, "an attempt that fails", func() bool { return strings.Contains(p.log.String(), "trying again") })
	if log := p.log.String(); !strings.Contains(log, "attempts=1001") || !strings.Contains(log, "delay=1m0s") {
		t.Errorf("the line has no number of attempts and no duration:\n%s", log)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != 1 || !strings.Contains(p.log.String(), "a signal ended the start") {
		t.Errorf("the exit code is %d; the log:\n%s", code, p.log)
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	p := launch(t, t.TempDir(), nil, "--help")
	if code := p.wait(t); code != 0 {
		t.Errorf("the exit code is %d, want 0", code)
	}
	if !strings.Contains(p.log.String(), "--port") {
		t.Errorf("the help does not name --port:\n%s", p.log)
	}
}
