package integration_tests

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
)

const (
	// Deadlines that suffice on a slow network (installDeadline) and on a slow machine
	// (clientDeadline).
	installDeadline = 5 * time.Minute
	clientDeadline  = 2 * time.Minute
)

// clientOutput is the output of the programs in clients/: what the client returned for each call.
type clientOutput struct {
	Created, Put, Enabled clientFlag
	Evaluated             clientResult
	BatchByID, BatchByKey []clientResult
	Read                  clientFlag
	Found, FoundNot       []clientFlag
	Refused               struct {
		Status  int
		Message string
	}
}

type clientFlag struct {
	ID                          int64
	Key, Description, Notes     string
	Enabled, DataRecordsEnabled bool
	UpdatedAt                   time.Time
	Variants                    []string // keys
	Segments                    []string // descriptions
}

type clientResult struct {
	FlagID                        int64
	FlagKey, VariantKey, EntityID string
	Attachment                    object
	Timestamp                     time.Time
	SegmentLogs                   int // number of entries
}

// TestPublishedClients manages and evaluates flags with the published clients of Flagr.
func TestPublishedClients(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T) *exec.Cmd{"javascript": javascriptClient, "python": pythonClient} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := prepare(t)
			db := databases[0] // the kind of database makes no difference to clients
			s := start(t, db, db.fresh(t), nil)
			begin := time.Now()
			got := runClient(t, s, cmd, name)

			created := clientFlag{ID: got.Created.ID, Key: name, Description: "made by a client"}
			put := clientFlag{
				ID: created.ID, Key: name, Description: "changed by a client", Notes: "naïve ☕", DataRecordsEnabled: true,
			}
			enabled := put
			enabled.Enabled = true
			put.Variants, put.Segments = []string{"blue"}, []string{"the Dutch"}
			read := enabled
			read.Variants, read.Segments = put.Variants, put.Segments
			result := clientResult{FlagID: created.ID, FlagKey: name}
			bert := result
			bert.EntityID = "bert"
			carla := result
			carla.EntityID, carla.VariantKey, carla.Attachment = "carla", "blue", object{"colour": "#00f"}
			anna := carla
			anna.EntityID, anna.SegmentLogs = "anna", 1
			batch := []clientResult{bert, carla}
			want := clientOutput{
				Created: created, Put: put, Enabled: enabled,
				Evaluated: anna, BatchByID: batch, BatchByKey: batch,
				Read: read, Found: []clientFlag{read},
			}
			want.Refused.Status, want.Refused.Message = 404, "unable to find flag 999999 in the database"
			timeless := cmp.Options{
				cmpopts.IgnoreFields(clientFlag{}, "UpdatedAt"), cmpopts.IgnoreFields(clientResult{}, "Timestamp"), cmpopts.EquateEmpty(),
			}
			if diff := cmp.Diff(want, got, timeless); diff != "" {
				t.Errorf("what the client returned (-want +got):\n%s", diff)
			}
			if created.ID < 1 {
				t.Errorf("the flag has id %d", created.ID)
			}
			for what, at := range map[string]time.Time{
				"created": got.Created.UpdatedAt, "read": got.Read.UpdatedAt, "evaluated": got.Evaluated.Timestamp,
			} {
				// Evaluation times are truncated to seconds.
				if at.Before(begin.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
					t.Errorf("%s at %s, which is not within the test", what, at)
				}
			}
			// Evaluations before the flag was enabled are not in the summary.
			if total := counts(t, s, 5).total(created.ID); total != 5 {
				t.Errorf("%d evaluations are counted, want 1 and two batches of 2", total)
			}
		})
	}
}

// runClient runs a program against a server, with the key of its flag, and decodes its output.
func runClient(t *testing.T, s *server, cmd *exec.Cmd, key string) clientOutput {
	t.Helper()
	cmd.Args = append(cmd.Args, s.url, key)
	log := &testlog.Buffer{}
	cmd.Stderr = log
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s\nthe log of the server:\n%s", cmd, err, log, s.log)
	}
	var output clientOutput
	decode(t, stdout, &output)
	return output
}

// javascriptClient installs jsflagr and returns the command that runs the program.
func javascriptClient(t *testing.T) *exec.Cmd {
	t.Helper()
	node, npm := lookUp(t, "node"), lookUp(t, "npm")
	dir := installClient(t, filepath.Join("clients", "javascript", "package.json"), func(dir string) [][]string {
		return [][]string{{npm, "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"}}
	})
	cmd := clientCommand(t, node, filepath.Join("clients", "javascript", "main.js"))
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"))
	return cmd
}

// pythonClient installs flagr and returns the command that runs the program.
func pythonClient(t *testing.T) *exec.Cmd {
	t.Helper()
	python := pythonTools(t, filepath.Join("clients", "python", "requirements.txt"))
	cmd := clientCommand(t, python, filepath.Join("clients", "python", "main.py"))
	cmd.Env = append(os.Environ(), "PYTHONIOENCODING=utf-8")
	return cmd
}

// pythonTools installs the packages of a requirements file and returns the Python interpreter that
// has them.
func pythonTools(t *testing.T, requirements string) string {
	t.Helper()
	python := lookUp(t, "python3")
	inside := filepath.Join("venv", "bin", "python")
	dir := installClient(t, requirements, func(dir string) [][]string {
		return [][]string{
			{python, "-m", "venv", filepath.Join(dir, "venv")},
			{filepath.Join(dir, inside), "-m", "pip", "install", "-q", "-r", filepath.Join(dir, "requirements.txt")},
		}
	})
	return filepath.Join(dir, inside)
}

func clientCommand(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientDeadline)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, name, args...)
}

// lookUp returns the path of a program, or skips the test if it is missing.
func lookUp(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		missing(t, fmt.Sprintf("there is no %s to run the client with: %v", program, err))
	}
	return path
}

// installClient installs the packages of a manifest, once for each content of the manifest, and
// returns the folder. The commands get a folder that contains the manifest.
func installClient(t *testing.T, manifest string, commands func(dir string) [][]string) string {
	t.Helper()
	content, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(testCache(t), "clients")
	name := filepath.Base(filepath.Dir(manifest))
	dir := filepath.Join(base, fmt.Sprintf("%s-%.6x", name, sha256.Sum256(content)))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		t.Fatal(err)
	}
	// Installed in a temporary folder and renamed when complete, because several tests may install
	// at the same time.
	fresh, err := os.MkdirTemp(base, "new-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(fresh) }() // does nothing after the rename
	if err := os.WriteFile(filepath.Join(fresh, filepath.Base(manifest)), content, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), installDeadline)
	defer cancel()
	for _, command := range commands(fresh) {
		if output, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
			missing(t, fmt.Sprintf("%s: %v: it needs a package index\n%s", strings.Join(command, " "), err, output))
		}
	}
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, fs.ErrExist) { // another test may have been faster
		t.Fatal(err)
	}
	return dir
}
