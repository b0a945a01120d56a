package app

import (
	"log/slog"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/kinesis"
)

// The names of recorders in configurations are those of handler.
func TestNamesOfRecorders(t *testing.T) {
	t.Parallel()
	want := []string{config.RecorderDatar, config.RecorderKafka, config.RecorderKinesis, config.RecorderPubSub}
	got := []string{handler.RecorderDatar, handler.RecorderKafka, handler.RecorderKinesis, handler.RecorderPubSub}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-config +handler):\n%s", diff)
	}
}

func TestWhichRecordersAreConstructed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		environ map[string]string
		want    []string // names of recorders, Datar first
		log     []string // parts of it, one a line
	}{
		{name: "kill switch", environ: map[string]string{"FLAGR_RECORDER_ENABLED": "false", "FLAGR_RECORDER_TYPE": "datar,kafka,kinesis,pubsub"}},
		{name: "datar", environ: map[string]string{"FLAGR_RECORDER_TYPE": "datar"}, want: []string{"datar"}},
		{name: "all but kinesis", environ: map[string]string{"FLAGR_RECORDER_TYPE": "kafka,pubsub,datar"}, want: []string{"datar", "kafka", "pubsub"}},
		{name: "kafka alone", environ: map[string]string{"FLAGR_RECORDER_TYPE": "kafka"}, want: []string{"kafka"}},
		{
			name: "datar without a database", environ: map[string]string{"FLAGR_RECORDER_TYPE": "datar", "FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": "flags.json"},
			log: []string{"recorder datar stays off"},
		},
		{
			name: "datar of an edge server", want: []string{"datar"}, environ: map[string]string{
				"FLAGR_RECORDER_TYPE": "datar", "FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": "flags.json",
				"FLAGR_RECORDER_DATAR_FORWARD_URL": "https://flagr.example.com",
			},
		},
		{
			name: "brokers without checked certificates", want: []string{"kafka"}, environ: map[string]string{
				"FLAGR_RECORDER_TYPE": "kafka", "FLAGR_RECORDER_KAFKA_SIMPLE_SSL": "true", "FLAGR_RECORDER_KAFKA_ENCRYPTED": "true",
				"FLAGR_RECORDER_KAFKA_ENCRYPTION_KEY": "k", "FLAGR_RECORDER_FRAME_OUTPUT_MODE": "payload_raw_json",
			},
			log: []string{"an encrypted payload is sent as a string", "certificates of the brokers are not checked"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a, log, err := newFor(t, tc.environ)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, s := range a.recorders.Statuses() {
				names = append(names, s.Name)
			}
			if diff := cmp.Diff(tc.want, names); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if lines := strings.Count(log.String(), "recorder"); lines < len(tc.log) {
				t.Errorf("log is %s", log)
			}
			for _, part := range tc.log {
				if !strings.Contains(log.String(), part) {
					t.Errorf("log lacks %q: %s", part, log)
				}
			}
		})
	}
}

// newFor makes an App on an empty SQLite file, with recorders switched on, and stops it after the
// test.
func newFor(t *testing.T, environ map[string]string) (*App, *strings.Builder, error) {
	t.Helper()
	merged := map[string]string{
		"FLAGR_RECORDER_ENABLED":           "true",
		"FLAGR_RECORDER_KAFKA_BROKERS":     " a:1, :9092,",
		"FLAGR_RECORDER_PUBSUB_PROJECT_ID": "p",
		"FLAGR_RECORDER_DATAR_JOURNAL_DIR": t.TempDir(),
		"FLAGR_DB_DBCONNECTIONSTR":         filepath.Join(t.TempDir(), "flagr.sqlite"),
	}
	maps.Copy(merged, environ)
	c, err := config.Load(merged)
	if err != nil {
		t.Fatal(err)
	}
	log := &strings.Builder{}
	a, err := New(t.Context(), c, Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err == nil {
		t.Cleanup(func() {
			if err := a.Stop(t.Context()); err != nil {
				t.Log(err) // brokers that are not there take no records
			}
		})
	}
	return a, log, err
}

func TestWhatIsWrongWithAStreamStopsTheStart(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", t.TempDir()+"/none")
	for _, tc := range []struct {
		name    string
		environ map[string]string
		want    string
	}{
		{"no certificate", map[string]string{"FLAGR_RECORDER_TYPE": "kafka", "FLAGR_RECORDER_KAFKA_CERTFILE": "/none", "FLAGR_RECORDER_KAFKA_KEYFILE": "/none"}, "recorder kafka: client certificate"},
		{"half a certificate", map[string]string{"FLAGR_RECORDER_TYPE": "pubsub,kafka", "FLAGR_RECORDER_KAFKA_KEYFILE": "/none"}, "recorder kafka: a client certificate needs both"},
		{"no region", map[string]string{"FLAGR_RECORDER_TYPE": "kinesis"}, "recorder kinesis: no AWS region"},
		{"no key file", map[string]string{"FLAGR_RECORDER_TYPE": "pubsub", "FLAGR_RECORDER_PUBSUB_KEYFILE": "/none"}, "recorder pubsub: key file"},
		{"no folder for the journal", map[string]string{"FLAGR_RECORDER_TYPE": "datar", "FLAGR_RECORDER_DATAR_JOURNAL_DIR": "/dev/null/journal"}, "recorder datar: "},
	} {
		if _, _, err := newFor(t, tc.environ); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error is %v", tc.name, err)
		}
	}
}

// config imports no other package, so the limits that it repeats are compared with those of the
// engine and of Kinesis.
func TestLimitsOfTheConfigurationAreThoseOfTheEngine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		variable string
		value    time.Duration
		accepted bool
	}{
		{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL", datar.MinFlushInterval, true},
		{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL", datar.MinFlushInterval - 1, false},
		{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL", datar.MaxFlushInterval, true},
		{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL", datar.MaxFlushInterval + 1, false},
		{"FLAGR_RECORDER_DATAR_RETENTION", datar.MinRetention, true},
		{"FLAGR_RECORDER_DATAR_RETENTION", datar.MinRetention - 1, false},
	} {
		_, err := config.Load(map[string]string{tc.variable: tc.value.String()})
		if (err == nil) != tc.accepted {
			t.Errorf("%s=%s: error is %v", tc.variable, tc.value, err)
		}
	}
	for _, path := range handler.IngestPaths() {
		if _, err := config.Load(map[string]string{"FLAGR_PROMETHEUS_ENABLED": "true", "FLAGR_PROMETHEUS_PATH": path}); strings.HasPrefix(path, "/api/") == (err == nil) {
			t.Errorf("metrics may hide %s: %v", path, err)
		}
	}
	longest := datar.CleanServerName(strings.Repeat("n", 1000))
	for name, accepted := range map[string]bool{longest: true, longest + "n": false} {
		if _, err := config.Load(map[string]string{"FLAGR_RECORDER_DATAR_SERVER_NAME": name}); (err == nil) != accepted {
			t.Errorf("a name of %d bytes: error is %v", len(name), err)
		}
	}
	for variable, most := range map[string]int{
		"FLAGR_RECORDER_KINESIS_BATCH_COUNT": kinesis.MaxRequestRecords, "FLAGR_RECORDER_KINESIS_BATCH_SIZE": kinesis.MaxRequestBytes,
		"FLAGR_RECORDER_KINESIS_AGGREGATE_BATCH_SIZE": kinesis.MaxRecordBytes,
	} {
		for _, more := range []int{0, 1} {
			if _, err := config.Load(map[string]string{variable: strconv.Itoa(most + more)}); (err == nil) != (more == 0) {
				t.Errorf("%s=%d: error is %v", variable, most+more, err)
			}
		}
	}
}
