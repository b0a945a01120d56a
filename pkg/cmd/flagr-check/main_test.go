package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// build returns the path of the command, built as it is released.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flagr-check")
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	command := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func TestTheBuiltCommand(t *testing.T) {
	t.Parallel()
	command := build(t)
	folder := t.TempDir()
	file := func(name, document string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(document), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const (
		good = `{"Flags":[{"Key":"on","Enabled":true,"Segments":[{"RolloutPercent":100,
			"Constraints":[{"Property":"country","Operator":"EQ","Value":"\"FR\""}],
			"Distributions":[{"VariantKey":"v","Percent":100}]}],"Variants":[{"Key":"v"}]}]}`
		warned = `{"Flags":[{"Key":"bare"},{"Key":"half","Segments":[{}],"Variants":[{"Key":"v"}]}]}`
		wrong  = `{"Flags":[{"Segments":[{"RolloutPercent":101,
			"Constraints":[{"Property":"country","Operator":"EQ","Value":"FR"}],
			"Distributions":[{"VariantKey":"w","Percent":99}]}],"Variants":[{"Key":"v"},{"Key":"v"},{}]}]}`
	)
	usageText := func(s string) bool { return strings.HasPrefix(s, "usage: flagr-check [-definition] FILE") }
	for _, tc := range []struct {
		name           string
		args           []string
		stdin          string
		code           int
		stdout, stderr func(string) bool
	}{
		{"valid file", []string{file("good.json", good)}, "", 0, is("valid: 1 flag, 0 warnings\n"), is("")},
		{"valid standard input", []string{"-"}, good, 0, is("valid: 1 flag, 0 warnings\n"), is("")},
		{"no flags at all", []string{"-"}, `{"Flags":[]}`, 0, is("valid: 0 flags, 0 warnings\n"), is("")},
		{"warnings", []string{"-"}, warned, 0, is("warning: flag bare: has no variants\nwarning: flag bare: has no segments\n" +
			"warning: flag half, segment 1: has no distributions, so no entity gets a variant\nvalid: 2 flags, 3 warnings\n"), is("")},
		{"errors", []string{file("wrong.json", wrong)}, "", 1, all(
			"error: flag #1: key is missing\n", "error: flag #1, variant 2: key \"v\"", "error: flag #1, variant 3: key is missing\n",
			"segment 1: rollout percent is 101", "segment 1, constraint 1: ", `no variant with key "w"`, "sum to 99, not 100",
			"\nnot valid: 7 errors, 0 warnings\n"), is("")},
		{"no JSON", []string{"-"}, "flags: []", 1, all("error: flag document cannot be used: invalid character", "\nnot valid: 1 error, 0 warnings\n"), is("")},
		{"empty", []string{"-"}, "", 1, all("error: ", "not valid: 1 error, 0 warnings\n"), is("")},
		{"no document", []string{"-"}, `{"flags":[]}x`, 1, all("error: "), is("")},
		{"no file", []string{filepath.Join(folder, "missing.json")}, "", 1, is(""), all("flagr-check: open ", "missing.json")},
		{"a folder", []string{folder}, "", 1, is(""), all("flagr-check: read ")},
		{"definition", []string{"-definition", "-"}, `{"snapshotID":7,"variants":[{"key":"a"}],"segments":[{"rolloutPercent":50,"distributions":[{"variantKey":"a","percent":100}]}]}`,
			0, is("valid: a definition made from snapshot 7, 0 warnings\n"), is("")},
		{"wrong definition", []string{"-definition", "-"}, `{"snapshotID":7,"variants":[],"segments":[{"rolloutPercent":101,"distributions":[{"variantKey":"a","percent":99}]}]}`, 1, all(
			"segments[0].rolloutPercent: ", `segments[0].distributions[0].variantKey: no variant has the key "a"`, "add up to 99", "\nnot valid: 3 errors\n"), is("")},
		{"definition with a byte order mark", []string{"-definition", "-"}, "\xef\xbb\xbf" + `{"snapshotID":7}`, 0, is("valid: a definition made from snapshot 7, 0 warnings\n"), is("")},
		{"doubtful definition", []string{"-definition", "-"}, `{"snapshotID":7,"segments":[{"constraints":[{"property":"p","operator":"LT","value":"\"b\""}]}]}`, 0, all(
			"warning: segments[0].constraints[0]: operator < does not take a string", "valid: a definition made from snapshot 7, 1 warning\n"), is("")},
		{"definition of no snapshot", []string{"-definition", "-"}, `{"key":"k"}`, 1, all("error: snapshotID is missing", "not valid: 1 error"), is("")},
		{"definition with a misspelled field", []string{"-definition", "-"}, `{"snapshotID":7,"rollout":3}`, 1, all(`unknown field "rollout"`), is("")},
		{"no argument", nil, "", 2, is(""), usageText},
		{"two arguments", []string{"a", "b"}, "", 2, is(""), usageText},
		{"unknown option", []string{"-quiet", "-"}, good, 2, is(""), all("flag provided but not defined: -quiet", "usage: ")},
		{"help", []string{"-h"}, "", 0, is(""), usageText},
		{"a file with an odd name", []string{"--", file("-odd", good)}, "", 0, all("valid: 1 flag"), is("")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			run := exec.CommandContext(t.Context(), command, tc.args...)
			run.Stdin = strings.NewReader(tc.stdin)
			var stdout, stderr bytes.Buffer
			run.Stdout, run.Stderr = &stdout, &stderr
			err := run.Run()
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if code := run.ProcessState.ExitCode(); code != tc.code || !tc.stdout(stdout.String()) || !tc.stderr(stderr.String()) {
				t.Errorf("exit code %d, want %d; output:\n%s\nerrors:\n%s", code, tc.code, &stdout, &stderr)
			}
		})
	}
}

func is(want string) func(string) bool { return func(got string) bool { return cmp.Equal(want, got) } }

func all(parts ...string) func(string) bool {
	return func(got string) bool {
		for _, part := range parts {
			if !strings.Contains(got, part) {
				return false
			}
		}
		return true
	}
}
