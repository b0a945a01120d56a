package config

import (
	"log/slog"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func load(t *testing.T, environ map[string]string) *Config {
	t.Helper()
	c, err := Load(environ)
	if err != nil {
		t.Fatalf("Load(%v): %v", environ, err)
	}
	return c
}

func TestLoadDefaults(t *testing.T) {
	t.Parallel()
	c := load(t, nil)
	if diff := cmp.Diff(Server{Host: "localhost", Port: 18000}, c.Server); diff != "" {
		t.Errorf("Server (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Database{
		Driver: DriverSQLite, DSN: "flagr.sqlite", LogQueries: true, RetryAttempts: 9, RetryDelay: 100 * time.Millisecond,
	}, c.Database); diff != "" {
		t.Errorf("Database (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"", "/"}, c.JWTAuth.ExactWhitelistPaths); diff != "" {
		t.Errorf("JWTAuth.ExactWhitelistPaths (-want +got):\n%s", diff)
	}
	if got := c.Kinesis.AggregateBatchCount; got != math.MaxUint32 {
		t.Errorf("Kinesis.AggregateBatchCount = %d, want %d", got, uint32(math.MaxUint32))
	}
	if diff := cmp.Diff([]string{RecorderKafka}, c.Recorder.Types); diff != "" {
		t.Errorf("Recorder.Types (-want +got):\n%s", diff)
	}
	if got := c.Unused(); len(got) != 0 {
		t.Errorf("Unused() = %v, want none when nothing is set", got)
	}
}

func TestLoadAccepts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		environ map[string]string
		got     func(*Config) any
		want    any
	}{
		"a random port": {
			map[string]string{"PORT": "0"},
			func(c *Config) any { return c.Server.Port }, 0,
		},
		"an empty host for all addresses": {
			map[string]string{"HOST": ""},
			func(c *Config) any { return c.Server.Host }, "",
		},
		"a level in capitals": {
			map[string]string{"FLAGR_LOGRUS_LEVEL": "WARNING"},
			func(c *Config) any { return c.Log.Level }, "warning",
		},
		"a switch as a digit": {
			map[string]string{"FLAGR_RECORDER_ENABLED": "1"},
			func(c *Config) any { return c.Recorder.Enabled }, true,
		},
		"a switch set to nothing is off": {
			map[string]string{"FLAGR_EVAL_DEBUG_ENABLED": ""},
			func(c *Config) any { return c.Eval.DebugEnabled }, false,
		},
		"a list set to nothing": {
			map[string]string{"FLAGR_CORS_ALLOWED_HEADERS": ""},
			func(c *Config) any { return c.CORS.AllowedHeaders }, []string(nil),
		},
		"spaces and a trailing comma in a list": {
			map[string]string{"FLAGR_CORS_ALLOWED_ORIGINS": " https://a.example , https://b.example,"},
			func(c *Config) any { return c.CORS.AllowedOrigins }, []string{"https://a.example", "https://b.example"},
		},
		"no empty prefix, which would open every path": {
			map[string]string{"FLAGR_JWT_AUTH_WHITELIST_PATHS": "/static,, "},
			func(c *Config) any { return c.JWTAuth.WhitelistPaths }, []string{"/static"},
		},
		"the empty path among exact ones": {
			map[string]string{"FLAGR_BASIC_AUTH_EXACT_WHITELIST_PATHS": ", /"},
			func(c *Config) any { return c.BasicAuth.ExactWhitelistPaths }, []string{"", "/"},
		},
		"recorders with spaces, repetitions and empty entries": {
			map[string]string{"FLAGR_RECORDER_TYPE": " datar ,kafka,, datar,kinesis,pubsub,"},
			func(c *Config) any { return c.Recorder.Types },
			[]string{RecorderDatar, RecorderKafka, RecorderKinesis, RecorderPubSub},
		},
		"no recorder at all": {
			map[string]string{"FLAGR_RECORDER_TYPE": ","},
			func(c *Config) any { return c.Recorder.Types }, []string(nil),
		},
		"the shortest flush interval": {
			map[string]string{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "50ms"},
			func(c *Config) any { return c.Datar.FlushInterval }, 50 * time.Millisecond,
		},
		"the longest flush interval": {
			map[string]string{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "60m"},
			func(c *Config) any { return c.Datar.FlushInterval }, time.Hour,
		},
		"a JSON file means evaluation only": {
			map[string]string{"FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": "/flags.json"},
			func(c *Config) any { return c.Eval.OnlyMode }, true,
		},
		"a JSON URL means evaluation only": {
			map[string]string{"FLAGR_DB_DBDRIVER": "json_http", "FLAGR_DB_DBCONNECTIONSTR": "https://u:p@h/flags.json"},
			func(c *Config) any { return c.Eval.OnlyMode }, true,
		},
		"PostgreSQL by its own variables": {
			map[string]string{"FLAGR_DB_DBDRIVER": "postgres", "FLAGR_DB_DBCONNECTIONSTR": ""},
			func(c *Config) any { return c.Database.DSN }, "",
		},
		"a preflight answer that is not kept": {
			map[string]string{"FLAGR_CORS_MAX_AGE": "-1"},
			func(c *Config) any { return c.CORS.MaxAge }, -1,
		},
		"Kafka acknowledged by all": {
			map[string]string{"FLAGR_RECORDER_KAFKA_REQUIRED_ACKS": "-1"},
			func(c *Config) any { return c.Kafka.RequiredAcks }, -1,
		},
		"an empty port of a receiver that is off": {
			map[string]string{"FLAGR_STATSD_PORT": ""},
			func(c *Config) any { return c.Statsd.Port }, "",
		},
		"metrics beside the API": {
			map[string]string{"FLAGR_PROMETHEUS_ENABLED": "true", "FLAGR_PROMETHEUS_PATH": "/api/v1/metrics"},
			func(c *Config) any { return c.Prometheus.Path }, "/api/v1/metrics",
		},
		"metrics where the API is not, because of its prefix": {
			map[string]string{"FLAGR_PROMETHEUS_ENABLED": "true", "FLAGR_WEB_PREFIX": "/shop", "FLAGR_PROMETHEUS_PATH": "/api/v1/flags"},
			func(c *Config) any { return c.Prometheus.Path }, "/api/v1/flags",
		},
		"no webhook while it is off": {
			map[string]string{"FLAGR_NOTIFICATION_WEBHOOK_URL": "to be done"},
			func(c *Config) any { return c.Notification.WebhookURL }, "to be done",
		},
		"authentication that is off": {
			map[string]string{"FLAGR_JWT_AUTH_ENABLED": "false", "FLAGR_BASIC_AUTH_ENABLED": "0"},
			func(c *Config) any { return c.JWTAuth.Enabled || c.BasicAuth.Enabled }, false,
		},
		"a nameless entry": {
			map[string]string{"": "x"},
			func(c *Config) any { return c.Server.Port }, 18000,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := load(t, tc.environ)
			if diff := cmp.Diff(tc.want, tc.got(c)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		environ map[string]string
		want    string
	}{
		"a port that is no number":      {map[string]string{"PORT": "http"}, `PORT="http": want a port from 1 to 65535, or 0 for a free one`},
		"a port too high":               {map[string]string{"PORT": "65536"}, `PORT="65536": want a port from 1 to 65535, or 0 for a free one`},
		"a negative port":               {map[string]string{"PORT": "-1"}, `PORT="-1": want a port from 1 to 65535, or 0 for a free one`},
		"a number beyond 64 bits":       {map[string]string{"PORT": "99999999999999999999"}, `PORT="99999999999999999999": want a port from 1 to 65535, or 0 for a free one`},
		"a line break stays one line":   {map[string]string{"PORT": "1\n2"}, `PORT="1\n2": want a port from 1 to 65535, or 0 for a free one`},
		"an unknown level":              {map[string]string{"FLAGR_LOGRUS_LEVEL": "loud"}, `FLAGR_LOGRUS_LEVEL="loud": want one of panic, fatal, error, warn, warning, info, debug, trace`},
		"an empty level":                {map[string]string{"FLAGR_LOGRUS_LEVEL": ""}, `FLAGR_LOGRUS_LEVEL="": want one of panic, fatal, error, warn, warning, info, debug, trace`},
		"an unknown log format":         {map[string]string{"FLAGR_LOGRUS_FORMAT": "xml"}, `FLAGR_LOGRUS_FORMAT="xml": want text or json`},
		"a negative log rate":           {map[string]string{"FLAGR_RATELIMITER_PERFLAG_PERSECOND_CONSOLE_LOGGING": "-1"}, `FLAGR_RATELIMITER_PERFLAG_PERSECOND_CONSOLE_LOGGING="-1": want a whole number, 0 or more`},
		"a switch that is no boolean":   {map[string]string{"FLAGR_RECORDER_ENABLED": "yes"}, `FLAGR_RECORDER_ENABLED="yes": want true or false`},
		"a prefix without slash":        {map[string]string{"FLAGR_WEB_PREFIX": "flags"}, `FLAGR_WEB_PREFIX="flags": want a path that starts with /, such as /flags, or nothing`},
		"an age that is no number":      {map[string]string{"FLAGR_CORS_MAX_AGE": "10m"}, `FLAGR_CORS_MAX_AGE="10m": want a whole number`},
		"a status that is no refusal":   {map[string]string{"FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE": "200"}, `FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE="200": want an HTTP status from 300 to 499, such as 307 or 401`},
		"an unsigned token":             {map[string]string{"FLAGR_JWT_AUTH_SIGNING_METHOD": "none"}, `FLAGR_JWT_AUTH_SIGNING_METHOD="none": want HS256, HS512 or RS256`},
		"an unknown driver":             {map[string]string{"FLAGR_DB_DBDRIVER": "oracle"}, `FLAGR_DB_DBDRIVER="oracle": want one of sqlite3, postgres, mysql, json_file, json_http`},
		"no database file":              {map[string]string{"FLAGR_DB_DBCONNECTIONSTR": " "}, `FLAGR_DB_DBCONNECTIONSTR: want what FLAGR_DB_DBDRIVER connects to: a file for sqlite3 and json_file, a connection string for mysql and postgres, an http or https URL for json_http`},
		"a negative attempt":            {map[string]string{"FLAGR_DB_DBCONNECTION_RETRY_ATTEMPTS": "-1"}, `FLAGR_DB_DBCONNECTION_RETRY_ATTEMPTS="-1": want a whole number, 0 or more`},
		"a negative delay":              {map[string]string{"FLAGR_DB_DBCONNECTION_RETRY_DELAY": "-1s"}, `FLAGR_DB_DBCONNECTION_RETRY_DELAY="-1s": want a duration, 0s or more, such as 100ms`},
		"a negative batch":              {map[string]string{"FLAGR_EVAL_BATCH_SIZE": "-1"}, `FLAGR_EVAL_BATCH_SIZE="-1": want a whole number, 0 or more`},
		"a negative URL":                {map[string]string{"FLAGR_EVAL_GET_MAX_URL_BYTES": "-1"}, `FLAGR_EVAL_GET_MAX_URL_BYTES="-1": want a number of bytes, 0 or more`},
		"no refresh timeout":            {map[string]string{"FLAGR_EVALCACHE_REFRESHTIMEOUT": "0s"}, `FLAGR_EVALCACHE_REFRESHTIMEOUT="0s": want a duration longer than 0s, such as 59s`},
		"an interval without unit":      {map[string]string{"FLAGR_EVALCACHE_REFRESHINTERVAL": "3"}, `FLAGR_EVALCACHE_REFRESHINTERVAL="3": want a duration longer than 0s, such as 3s`},
		"an empty interval":             {map[string]string{"FLAGR_EVALCACHE_REFRESHINTERVAL": ""}, `FLAGR_EVALCACHE_REFRESHINTERVAL="": want a duration longer than 0s, such as 3s`},
		"a negative exposure batch":     {map[string]string{"FLAGR_EXPOSURE_BATCH_SIZE": "-1"}, `FLAGR_EXPOSURE_BATCH_SIZE="-1": want a whole number, 0 or more`},
		"an unknown recorder":           {map[string]string{"FLAGR_RECORDER_TYPE": "datar, kafak"}, `FLAGR_RECORDER_TYPE="datar, kafak": want a comma-separated list of kafka, kinesis, pubsub, datar`},
		"a recorder in capitals":        {map[string]string{"FLAGR_RECORDER_TYPE": "Datar"}, `FLAGR_RECORDER_TYPE="Datar": want a comma-separated list of kafka, kinesis, pubsub, datar`},
		"an unknown frame":              {map[string]string{"FLAGR_RECORDER_FRAME_OUTPUT_MODE": "raw"}, `FLAGR_RECORDER_FRAME_OUTPUT_MODE="raw": want payload_string or payload_raw_json`},
		"a flush interval too short":    {map[string]string{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "10ms"}, `FLAGR_RECORDER_DATAR_FLUSH_INTERVAL="10ms": want a duration from 50ms to 1h, such as 60s`},
		"a flush interval too long":     {map[string]string{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "1h1ns"}, `FLAGR_RECORDER_DATAR_FLUSH_INTERVAL="1h1ns": want a duration from 50ms to 1h, such as 60s`},
		"a Kafka version":               {map[string]string{"FLAGR_RECORDER_KAFKA_VERSION": "v3"}, `FLAGR_RECORDER_KAFKA_VERSION="v3": want a Kafka version, such as 0.8.2.0 or 3.6.0`},
		"an unknown codec":              {map[string]string{"FLAGR_RECORDER_KAFKA_COMPRESSION_CODEC": "5"}, `FLAGR_RECORDER_KAFKA_COMPRESSION_CODEC="5": want 0 (none), 1 (gzip), 2 (snappy), 3 (lz4) or 4 (zstd)`},
		"a codec beyond 8 bits":         {map[string]string{"FLAGR_RECORDER_KAFKA_COMPRESSION_CODEC": "257"}, `FLAGR_RECORDER_KAFKA_COMPRESSION_CODEC="257": want 0 (none), 1 (gzip), 2 (snappy), 3 (lz4) or 4 (zstd)`},
		"too many acknowledgements":     {map[string]string{"FLAGR_RECORDER_KAFKA_REQUIRED_ACKS": "2"}, `FLAGR_RECORDER_KAFKA_REQUIRED_ACKS="2": want -1 (all replicas), 0 (none) or 1 (the leader)`},
		"negative Kafka retries":        {map[string]string{"FLAGR_RECORDER_KAFKA_RETRYMAX": "-1"}, `FLAGR_RECORDER_KAFKA_RETRYMAX="-1": want a whole number, 0 or more`},
		"no open requests":              {map[string]string{"FLAGR_RECORDER_KAFKA_MAXOPENREQUESTS": "0"}, `FLAGR_RECORDER_KAFKA_MAXOPENREQUESTS="0": want a whole number, 1 or more`},
		"a negative Kafka flush":        {map[string]string{"FLAGR_RECORDER_KAFKA_FLUSHFREQUENCY": "-1ms"}, `FLAGR_RECORDER_KAFKA_FLUSHFREQUENCY="-1ms": want a duration, 0s or more, such as 500ms`},
		"a store that is no ClickHouse": {map[string]string{"FLAGR_RECORDER_DATAR_STORE": "postgres://u:secret@h/d"}, `FLAGR_RECORDER_DATAR_STORE: want a clickhouse:// or clickhouses:// URL; not with FLAGR_RECORDER_DATAR_FORWARD_URL`},
		"a store where counts are forwarded": {
			map[string]string{"FLAGR_RECORDER_DATAR_STORE": "clickhouse://h/d", "FLAGR_RECORDER_DATAR_FORWARD_URL": "http://central"},
			`FLAGR_RECORDER_DATAR_STORE: want a clickhouse:// or clickhouses:// URL; not with FLAGR_RECORDER_DATAR_FORWARD_URL`,
		},
		"a retention where counts are forwarded": {
			map[string]string{"FLAGR_RECORDER_DATAR_RETENTION": "48h", "FLAGR_RECORDER_DATAR_FORWARD_URL": "http://central"},
			`FLAGR_RECORDER_DATAR_RETENTION="48h": want 0 to keep everything, or a duration from 48h, such as 2160h; 0 with FLAGR_RECORDER_DATAR_FORWARD_URL`,
		},
		"idempotent with one ack":       {map[string]string{"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_KAFKA_IDEMPOTENT": "true"}, `FLAGR_RECORDER_KAFKA_IDEMPOTENT="true": want true or false; true needs FLAGR_RECORDER_KAFKA_REQUIRED_ACKS -1`},
		"an unknown SASL mechanism":     {map[string]string{"FLAGR_RECORDER_KAFKA_SASL_MECHANISM": "GSSAPI"}, `FLAGR_RECORDER_KAFKA_SASL_MECHANISM="GSSAPI": want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512`},
		"an unknown partitioner":        {map[string]string{"FLAGR_RECORDER_KAFKA_PARTITIONER": "crc32"}, `FLAGR_RECORDER_KAFKA_PARTITIONER="crc32": want fnv1a or murmur2`},
		"a queue for no records":        {map[string]string{"FLAGR_RECORDER_QUEUE_RECORDS": "0"}, `FLAGR_RECORDER_QUEUE_RECORDS="0": want a whole number, 1 or more`},
		"a queue of no bytes":           {map[string]string{"FLAGR_RECORDER_QUEUE_BYTES": "-1"}, `FLAGR_RECORDER_QUEUE_BYTES="-1": want a number of bytes, 1 or more`},
		"Kafka without brokers":         {map[string]string{"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_KAFKA_BROKERS": " ,"}, `FLAGR_RECORDER_KAFKA_BROKERS=" ,": want a comma-separated list of host:port; needed while the kafka recorder is on`},
		"encryption without a key":      {map[string]string{"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_KAFKA_ENCRYPTED": "true"}, `FLAGR_RECORDER_KAFKA_ENCRYPTION_KEY: want a key of up to 32 bytes; needed while the kafka recorder is on and FLAGR_RECORDER_KAFKA_ENCRYPTED is true`},
		"negative Kinesis backlog":      {map[string]string{"FLAGR_RECORDER_KINESIS_BACKLOG_COUNT": "-1"}, `FLAGR_RECORDER_KINESIS_BACKLOG_COUNT="-1": want a whole number, 0 or more`},
		"too many connections":          {map[string]string{"FLAGR_RECORDER_KINESIS_MAX_CONNECTIONS": "257"}, `FLAGR_RECORDER_KINESIS_MAX_CONNECTIONS="257": want a whole number from 0 to 256`},
		"a negative Kinesis interval":   {map[string]string{"FLAGR_RECORDER_KINESIS_FLUSH_INTERVAL": "-5s"}, `FLAGR_RECORDER_KINESIS_FLUSH_INTERVAL="-5s": want a duration, 0s or more, such as 5s`},
		"too many records":              {map[string]string{"FLAGR_RECORDER_KINESIS_BATCH_COUNT": "501"}, `FLAGR_RECORDER_KINESIS_BATCH_COUNT="501": want a whole number from 0 to 500`},
		"too many bytes":                {map[string]string{"FLAGR_RECORDER_KINESIS_BATCH_SIZE": "5242881"}, `FLAGR_RECORDER_KINESIS_BATCH_SIZE="5242881": want a number of bytes from 0 to 5242880`},
		"too many aggregated":           {map[string]string{"FLAGR_RECORDER_KINESIS_AGGREGATE_BATCH_COUNT": "4294967296"}, `FLAGR_RECORDER_KINESIS_AGGREGATE_BATCH_COUNT="4294967296": want a whole number from 0 to 4294967295`},
		"too many aggregated bytes":     {map[string]string{"FLAGR_RECORDER_KINESIS_AGGREGATE_BATCH_SIZE": "1048577"}, `FLAGR_RECORDER_KINESIS_AGGREGATE_BATCH_SIZE="1048577": want a number of bytes from 0 to 1048576`},
		"a topic Kafka has no room for": {map[string]string{"FLAGR_RECORDER_KAFKA_TOPIC": strings.Repeat("t", 250)}, `FLAGR_RECORDER_KAFKA_TOPIC="` + strings.Repeat("t", 100) + `"...: want 1 to 249 of a-z A-Z 0-9 . _ -, and not . or ..; needed while the kafka recorder is on`},
		"Kafka's topic is a folder":     {map[string]string{"FLAGR_RECORDER_KAFKA_TOPIC": ".."}, `FLAGR_RECORDER_KAFKA_TOPIC="..": want 1 to 249 of a-z A-Z 0-9 . _ -, and not . or ..; needed while the kafka recorder is on`},
		"a stream with a space":         {map[string]string{"FLAGR_RECORDER_KINESIS_STREAM_NAME": "my stream"}, `FLAGR_RECORDER_KINESIS_STREAM_NAME="my stream": want 1 to 128 of a-z A-Z 0-9 . _ -; needed while the kinesis recorder is on`},
		"Pub/Sub's topic with a path":   {map[string]string{"FLAGR_RECORDER_PUBSUB_TOPIC_NAME": "projects/p/topics/t"}, `FLAGR_RECORDER_PUBSUB_TOPIC_NAME="projects/p/topics/t": want the name without its project: a letter, then 2 to 254 of a-z A-Z 0-9 . _ ~ + % -, and no goog at its beginning; needed while the pubsub recorder is on`},
		"Pub/Sub's topic is Google's":   {map[string]string{"FLAGR_RECORDER_PUBSUB_TOPIC_NAME": "google"}, `FLAGR_RECORDER_PUBSUB_TOPIC_NAME="google": want the name without its project: a letter, then 2 to 254 of a-z A-Z 0-9 . _ ~ + % -, and no goog at its beginning; needed while the pubsub recorder is on`},
		"Kinesis without a stream":      {map[string]string{"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "kinesis", "FLAGR_RECORDER_KINESIS_STREAM_NAME": ""}, `FLAGR_RECORDER_KINESIS_STREAM_NAME="": want 1 to 128 of a-z A-Z 0-9 . _ -; needed while the kinesis recorder is on`},
		"Pub/Sub without a project":     {map[string]string{"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "pubsub"}, `FLAGR_RECORDER_PUBSUB_PROJECT_ID="": want a project; needed while the pubsub recorder is on`},
		"a negative Pub/Sub timeout":    {map[string]string{"FLAGR_RECORDER_PUBSUB_VERBOSE_CANCEL_TIMEOUT": "-5s"}, `FLAGR_RECORDER_PUBSUB_VERBOSE_CANCEL_TIMEOUT="-5s": want a duration, 0s or more, such as 5s`},
		"no notification timeout":       {map[string]string{"FLAGR_NOTIFICATION_TIMEOUT": "0"}, `FLAGR_NOTIFICATION_TIMEOUT="0": want a duration longer than 0s, such as 10s`},
		"negative retries":              {map[string]string{"FLAGR_NOTIFICATION_MAX_RETRIES": "-1"}, `FLAGR_NOTIFICATION_MAX_RETRIES="-1": want a whole number, 0 or more`},
		"a negative first pause":        {map[string]string{"FLAGR_NOTIFICATION_RETRY_BASE": "-1s"}, `FLAGR_NOTIFICATION_RETRY_BASE="-1s": want a duration, 0s or more, such as 1s`},
		"a negative longest pause":      {map[string]string{"FLAGR_NOTIFICATION_RETRY_MAX": "-1s"}, `FLAGR_NOTIFICATION_RETRY_MAX="-1s": want a duration, 0s or more, such as 10s`},
		"a webhook without address":     {map[string]string{"FLAGR_NOTIFICATION_WEBHOOK_ENABLED": "true"}, `FLAGR_NOTIFICATION_WEBHOOK_URL: want an http or https URL; needed while FLAGR_NOTIFICATION_WEBHOOK_ENABLED is true`},
		"a metrics path without slash":  {map[string]string{"FLAGR_PROMETHEUS_PATH": "metrics"}, `FLAGR_PROMETHEUS_PATH="metrics": want a path that starts with /, such as /metrics`},
		"metrics in front of the API":   {map[string]string{"FLAGR_PROMETHEUS_ENABLED": "true", "FLAGR_PROMETHEUS_PATH": "/api/v1/flags"}, `FLAGR_PROMETHEUS_PATH="/api/v1/flags": the API uses this path, want another one, such as /metrics`},
		"metrics in front of health":    {map[string]string{"FLAGR_PROMETHEUS_ENABLED": "true", "FLAGR_WEB_PREFIX": "/shop/", "FLAGR_PROMETHEUS_PATH": "/shop/api/v1/health"}, `FLAGR_PROMETHEUS_PATH="/shop/api/v1/health": the API uses this path, want another one, such as /metrics`},
		"no metrics path":               {map[string]string{"FLAGR_PROMETHEUS_ENABLED": "true", "FLAGR_PROMETHEUS_PATH": ""}, `FLAGR_PROMETHEUS_PATH="": want a path that starts with /, such as /metrics`},
		"a statsd port":                 {map[string]string{"FLAGR_STATSD_PORT": "0"}, `FLAGR_STATSD_PORT="0": want a port from 1 to 65535`},
		"no statsd port":                {map[string]string{"FLAGR_STATSD_ENABLED": "true", "FLAGR_STATSD_PORT": ""}, `FLAGR_STATSD_PORT="": want a port from 1 to 65535`},
		"an APM port":                   {map[string]string{"FLAGR_STATSD_APM_PORT": "65536"}, `FLAGR_STATSD_APM_PORT="65536": want a port from 1 to 65535`},
		"a Sentry address":              {map[string]string{"FLAGR_SENTRY_ENABLED": "true", "FLAGR_SENTRY_DSN": "key"}, `FLAGR_SENTRY_DSN: want an http or https URL`},

		"authentication without its secrets": {
			map[string]string{"FLAGR_JWT_AUTH_ENABLED": "on", "FLAGR_BASIC_AUTH_ENABLED": "true"},
			`FLAGR_JWT_AUTH_ENABLED="on": want true or false` + "\n" +
				`FLAGR_BASIC_AUTH_USERNAME="": want a user name; needed while FLAGR_BASIC_AUTH_ENABLED is true` + "\n" +
				`FLAGR_BASIC_AUTH_PASSWORD: want a password; needed while FLAGR_BASIC_AUTH_ENABLED is true`,
		},
		"JWT without a secret": {
			map[string]string{"FLAGR_JWT_AUTH_ENABLED": "true"},
			`FLAGR_JWT_AUTH_SECRET: want the shared key, or for RS256 the public key in PEM; needed while FLAGR_JWT_AUTH_ENABLED is true`,
		},
		"a secret is never shown": {
			map[string]string{"FLAGR_DB_DBDRIVER": "json_http", "FLAGR_DB_DBCONNECTIONSTR": "ftp://me:s3cret@example.com/flags.json"},
			`FLAGR_DB_DBCONNECTIONSTR: want what FLAGR_DB_DBDRIVER connects to: a file for sqlite3 and json_file, a connection string for mysql and postgres, an http or https URL for json_http`,
		},
		"a very long value is cut": {
			map[string]string{"PORT": strings.Repeat("9", 5000)},
			`PORT="` + strings.Repeat("9", 100) + `"...: want a port from 1 to 65535, or 0 for a free one`,
		},
		"several wrong values, in the order of the reference": {
			map[string]string{"FLAGR_NOTIFICATION_TIMEOUT": "soon", "FLAGR_LOGRUS_LEVEL": "loud", "PORT": "x"},
			`PORT="x": want a port from 1 to 65535, or 0 for a free one` + "\n" +
				`FLAGR_LOGRUS_LEVEL="loud": want one of panic, fatal, error, warn, warning, info, debug, trace` + "\n" +
				`FLAGR_NOTIFICATION_TIMEOUT="soon": want a duration longer than 0s, such as 10s`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := Load(tc.environ)
			if err == nil {
				t.Fatalf("Load(%v) accepts it", tc.environ)
			}
			if c != nil {
				t.Error("a Config comes with the error")
			}
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Every variable with a type other than text refuses text that is not of its type, and names
// itself.
func TestLoadRefusesEveryWrongType(t *testing.T) {
	t.Parallel()
	for _, v := range Variables() {
		if v.Type == "string" || v.Type == "[]string" {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(map[string]string{v.Name: "wrong"})
			if want := v.Name + `="wrong": want ` + v.Accepts; err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func TestUnused(t *testing.T) {
	t.Parallel()
	const otel = "no use for it: traces are sent with OpenTelemetry, set OTEL_EXPORTER_OTLP_ENDPOINT"
	for name, tc := range map[string]struct {
		environ map[string]string
		want    []Notice
	}{
		"used variables": {
			map[string]string{"PORT": "80", "FLAGR_RECORDER_TYPE": "datar", "FLAGR_EVAL_BATCH_SIZE": "5", "HOME": "/root"},
			nil,
		},
		"switches that are off": {
			map[string]string{"FLAGR_JWT_AUTH_ENABLED": "false", "FLAGR_UI_ENABLED": "0", "FLAGR_CORS_ENABLED": ""},
			nil,
		},
		"what will never be used": {
			map[string]string{"FLAGR_STATSD_APM_ENABLED": "1", "FLAGR_NEWRELIC_NAME": ""},
			[]Notice{
				{"FLAGR_NEWRELIC_NAME", otel},
				{"FLAGR_STATSD_APM_ENABLED", otel},
			},
		},
		"a misspelt variable": {
			map[string]string{"FLAGR_RECORDER_DATAR_FLUSHINTERVAL": "1s"},
			[]Notice{{"FLAGR_RECORDER_DATAR_FLUSHINTERVAL", "unknown variable, did you mean FLAGR_RECORDER_DATAR_FLUSH_INTERVAL?"}},
		},
		"links to Kubernetes services": {
			map[string]string{
				"FLAGR_SERVICE_HOST": "10.0.0.1", "FLAGR_SERVICE_PORT": "80", "FLAGR_SERVICE_PORT_HTTP": "80",
				"FLAGR_PORT": "tcp://10.0.0.1:80", "FLAGR_PORT_80_TCP_ADDR": "10.0.0.1", "FLAGR_DB_PORT_5432_TCP": "x",
			},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, load(t, tc.environ).Unused()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSlogLevel(t *testing.T) {
	t.Parallel()
	for level, want := range map[string]slog.Level{
		"panic": slog.LevelError, "fatal": slog.LevelError, "error": slog.LevelError, "warn": slog.LevelWarn,
		"warning": slog.LevelWarn, "info": slog.LevelInfo, "Debug": slog.LevelDebug, "trace": slog.LevelDebug - 4,
	} {
		c := load(t, map[string]string{"FLAGR_LOGRUS_LEVEL": level})
		if got := c.Log.SlogLevel(); got != want {
			t.Errorf("SlogLevel of %q = %v, want %v", level, got, want)
		}
	}
}

// These two tests change the process environment and so cannot run in parallel.

func TestSetListenDefaults(t *testing.T) {
	for name, tc := range map[string]struct{ set, want string }{
		"unset":  {"unset", "18000"},
		"empty":  {"", "18000"},
		"chosen": {"0", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PORT", tc.set) // restores it afterward
			if tc.set == "unset" {
				if err := os.Unsetenv("PORT"); err != nil {
					t.Fatal(err)
				}
			}
			if err := SetListenDefaults(); err != nil {
				t.Fatal(err)
			}
			if got := Environ()["PORT"]; got != tc.want {
				t.Errorf("PORT = %q, want %q", got, tc.want)
			}
		})
	}
	if got := strconv.Itoa(load(t, nil).Server.Port); got != defaultPort {
		t.Errorf("the default of PORT is %s, and SetListenDefaults sets %s", got, defaultPort)
	}
}

func TestEnviron(t *testing.T) {
	t.Setenv("FLAGR_DB_DBCONNECTIONSTR", "a=b=c")
	if got := Environ()["FLAGR_DB_DBCONNECTIONSTR"]; got != "a=b=c" {
		t.Errorf("got %q", got)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("PORT", "-1", "FLAGR_RECORDER_TYPE", "datar,\n")
	f.Add("FLAGR_JWT_AUTH_ENABLED", "true", "FLAGR_JWT_AUTH_SECRET", "")
	f.Add("FLAGR_DB_DBDRIVER", "json_http", "FLAGR_DB_DBCONNECTIONSTR", "http://\x00")
	known := map[string]bool{}
	for _, v := range Variables() {
		known[v.Name] = true
	}
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		c, err := Load(map[string]string{name1: value1, name2: value2})
		if err == nil {
			if c.Datar.FlushInterval < 50*time.Millisecond || c.Server.Port < 0 || c.JWTAuth.Enabled {
				t.Errorf("accepted: %+v", c)
			}
			return
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			name, _, _ := strings.Cut(line, ":")
			name, _, _ = strings.Cut(name, "=")
			if !known[name] {
				t.Errorf("a line that names no variable: %q", line)
			}
		}
	})
}

// TestMetricsCanHideNoOperation compares apiRoots with the API's description.
func TestMetricsCanHideNoOperation(t *testing.T) {
	t.Parallel()
	description, err := os.ReadFile("../../swagger.yaml")
	if err != nil {
		t.Fatal(err)
	}
	paths := regexp.MustCompile(`(?m)^  (/[^:]+):$`).FindAllSubmatch(description, -1)
	if len(paths) < 20 {
		t.Fatalf("found %d paths only", len(paths))
	}
	for _, match := range paths {
		if !hidesAPI("/api/v1"+string(match[1]), "") {
			t.Errorf("metrics at %s would hide an operation", match[1])
		}
	}
}
