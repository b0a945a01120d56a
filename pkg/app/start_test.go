package app

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/config"
)

// listeners has the options of the generated server that the command line is about.
type listeners struct {
	Scheme []string `long:"scheme"`
	Host   string   `long:"host" default:"localhost"`
	Port   int      `long:"port"`
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		arguments []string
		out, err  string // parts of them
		address   string
	}{
		{nil, "", "", "localhost:0"},
		{[]string{"--host", "::1", "--port=18001"}, "", "", "[::1]:18001"},
		{[]string{"--version"}, "flagr-server " + Version, ErrPrinted.Error(), ""},
		{[]string{"-v"}, "flagr-server " + Version, ErrPrinted.Error(), ""},
		{[]string{"--help"}, "0 takes a free one (default: 18000)", ErrPrinted.Error(), ""},
		{[]string{"version"}, "", `unexpected argument "version"`, ""},
		{[]string{"--", "-v"}, "", `unexpected argument "-v"`, ""},
		{[]string{"--prot=1"}, "", "unknown flag `prot'", ""},
	} {
		t.Run(strings.Join(tc.arguments, " "), func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			var line CommandLine
			err := line.Parse(&listeners{}, tc.arguments, &out)
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error is %v, want %q", err, tc.err)
			}
			text := strings.Join(strings.Fields(out.String()), " ")
			if !strings.Contains(text, tc.out) || (tc.out == "") != (text == "") {
				t.Errorf("output is %q, want %q", text, tc.out)
			}
			if line.address != tc.address {
				t.Errorf("address is %q, want %q", line.address, tc.address)
			}
		})
	}
}

func TestFailureToPrintIsNotSuccess(t *testing.T) {
	t.Parallel()
	if err := (&CommandLine{}).Parse(&listeners{}, []string{"-v"}, brokenWriter{}); err == nil || errors.Is(err, ErrPrinted) {
		t.Errorf("error is %v", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestFilesStateTheVersion(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ file, pattern string }{
		{"CHANGELOG.md", `(?m)^## \[?(\d+\.\d+\.\d+)`},
		{"swagger.yaml", `(?m)^  version: (\S+)$`},
		{"README.md", `(?m)^Version (\d+\.\d+\.\d+)`},
		{"docs/deploy/kubernetes.yaml", `image: ghcr\.io/flagr-datar/flagr-datar:(\S+)`},
	} {
		t.Run(tc.file, func(t *testing.T) {
			t.Parallel()
			content, err := os.ReadFile(filepath.Join("..", "..", tc.file))
			if err != nil {
				t.Fatal(err)
			}
			stated := regexp.MustCompile(tc.pattern).FindSubmatch(content)
			if stated == nil || string(stated[1]) != Version {
				t.Errorf("%s states version %q; want %s, as Version in pkg/app", tc.file, stated, Version)
			}
		})
	}
}

func TestFatalErrorsAreLinesOfTheLog(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		text string
		want []string
	}{
		{"listen tcp 127.0.0.1:80: bind: permission denied\n", []string{"level=ERROR", "cannot listen on port 80 of ", "PORT=", "permission denied"}},
		{"cannot parse CA certificate\n", []string{"level=ERROR", `msg="cannot parse CA certificate"`}},
	} {
		var out bytes.Buffer
		log := &fatalLog{logger: slog.New(slog.NewTextHandler(&out, nil)), address: "localhost:80"}
		if _, err := log.Write([]byte(tc.text)); err != nil {
			t.Fatal(err)
		}
		if strings.Count(out.String(), "\n") != 1 {
			t.Errorf("want one line: %s", &out)
		}
		for _, want := range tc.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is not in %s", want, &out)
			}
		}
	}
}

func TestNamesOfDatabasesHaveNoCredentials(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]config.Database{
		"sqlite3 flags.sqlite":                     {Driver: "sqlite3", DSN: "flags.sqlite?_pragma=cache_size(1)"},
		"postgres db:5432/flagr":                   {Driver: "postgres", DSN: "postgres://ann:s3cret@db:5432/flagr?sslmode=disable"},
		"mysql db:3306/flagr":                      {Driver: "mysql", DSN: "ann:s3cret@tcp(db:3306)/flagr"},
		"json_http https://host/flags.json":        {Driver: "json_http", DSN: "https://ann:s3cret@host/flags.json?token=s3cret"},
		"json_file /etc/flagr/flags.json":          {Driver: "json_file", DSN: "/etc/flagr/flags.json"},
		"json_http (an address that is not a URL)": {Driver: "json_http", DSN: "http://s3cret host:\x00"},
	} {
		if got := databaseName(d); got != want {
			t.Errorf("name is %q, want %q", got, want)
		}
	}
}

func TestDoubtfulSettings(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		environ map[string]string
		want    string // in the only warning; empty for none
	}{
		{"nothing set", nil, ""},
		{"recorder without the switch", map[string]string{"FLAGR_RECORDER_TYPE": "datar"}, "FLAGR_RECORDER_ENABLED=true"},
		{"recorder switched off", map[string]string{"FLAGR_RECORDER_TYPE": "datar", "FLAGR_RECORDER_ENABLED": "false"}, ""},
		{"password", map[string]string{"FLAGR_BASIC_AUTH_ENABLED": "true", "FLAGR_BASIC_AUTH_USERNAME": "u", "FLAGR_BASIC_AUTH_PASSWORD": "p"}, "leaves /api/v1/flags open"},
		{"password for flags", map[string]string{"FLAGR_BASIC_AUTH_ENABLED": "true", "FLAGR_BASIC_AUTH_USERNAME": "u", "FLAGR_BASIC_AUTH_PASSWORD": "p",
			"FLAGR_BASIC_AUTH_WHITELIST_PATHS": "/api/v1/health,/api/v1/evaluation"}, ""},
		{"short secret", map[string]string{"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": strings.Repeat("x", 31)}, "FLAGR_JWT_AUTH_SECRET"},
		{"long secret", map[string]string{"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": strings.Repeat("x", 32)}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, err := config.Load(tc.environ)
			if err != nil {
				t.Fatal(err)
			}
			got := doubtful(c)
			if tc.want == "" && len(got) > 0 || tc.want != "" && (len(got) != 1 || !strings.Contains(got[0], tc.want)) {
				t.Errorf("warnings are %q, want %q", got, tc.want)
			}
		})
	}
}
