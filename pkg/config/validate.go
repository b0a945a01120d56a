package config

import (
	"cmp"
	"math"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// apiRoots are the paths that contain the whole API. Users of Flagr may have their metrics next to
// them, such as at /api/v1/metrics.
var apiRoots = []string{
	"/api/v1/datar", "/api/v1/docs", "/api/v1/evaluation", "/api/v1/export", "/api/v1/exposures", "/api/v1/flags", "/api/v1/health",
	"/api/v1/ready", "/api/v1/recorders", "/api/v1/tags", "/api/v2/flagevaluation", "/api/v2/flagevaluations", "/ofrep", "/swagger.json",
}

var (
	kafkaVersion = regexp.MustCompile(`^\d+\.\d+\.\d+(\.\d+)?$`)
	// Brokers always reject requests with other names.
	kafkaTopic    = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)
	kinesisStream = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,128}$`)
	pubSubTopic   = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9._~+%-]{2,254}$`)
)

// normalize converts values with several spellings to one form.
func (c *Config) normalize() {
	c.Log.Level = strings.ToLower(c.Log.Level)
	c.Log.Format = strings.ToLower(c.Log.Format)
	if c.Database.IsDocument() {
		c.Eval.OnlyMode = true
	}
	var types []string
	for _, t := range c.Recorder.Types {
		if !slices.Contains(types, t) {
			types = append(types, t)
		}
	}
	c.Recorder.Types = types
}

// validate reports every invalid value to l. Values are also checked while their feature is off, so
// that turning it on does not fail. Only a missing value that a feature requires, such as an empty
// string, is checked while the feature is on.
func (c *Config) validate(l *loader) {
	c.Server.validate(l)
	c.Log.validate(l)
	c.Web.validate(l)
	c.JWTAuth.validate(l)
	c.BasicAuth.validate(l)
	c.Database.validate(l)
	c.Eval.validate(l)
	c.EvalCache.validate(l)
	c.Exposure.validate(l)
	c.Recorder.validate(l)
	c.Datar.validate(l)
	c.Kafka.validate(l, c.Recorder.builds(RecorderKafka))
	c.Kinesis.validate(l, c.Recorder.builds(RecorderKinesis))
	c.PubSub.validate(l, c.Recorder.builds(RecorderPubSub))
	c.Notification.validate(l)
	c.OFREP.validate(l)
	c.Prometheus.validate(l, &c.Web)
	c.Statsd.validate(l)
	c.Sentry.validate(l)
}

func (s *Server) validate(l *loader) {
	l.check("PORT", between(0, s.Port, 65535))
}

func (g *Log) validate(l *loader) {
	switch g.Level {
	case "panic", "fatal", "error", "warn", "warning", "info", "debug", "trace":
	default:
		l.check("FLAGR_LOGRUS_LEVEL", false)
	}
	l.check("FLAGR_LOGRUS_FORMAT", g.Format == FormatText || g.Format == FormatJSON)
	l.check("FLAGR_RATELIMITER_PERFLAG_PERSECOND_CONSOLE_LOGGING", g.EvaluationsPerSecond >= 0)
}

func (w *Web) validate(l *loader) {
	l.check("FLAGR_WEB_PREFIX", w.Prefix == "" || strings.HasPrefix(w.Prefix, "/"))
}

func (j *JWTAuth) validate(l *loader) {
	l.check("FLAGR_JWT_AUTH_SECRET", j.Secret != "" || !j.Enabled)
	l.check("FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE", between(300, j.NoTokenStatusCode, 499))
	switch j.SigningMethod {
	case "HS256", "HS512", "RS256":
	default:
		l.check("FLAGR_JWT_AUTH_SIGNING_METHOD", false)
	}
}

func (b *BasicAuth) validate(l *loader) {
	l.check("FLAGR_BASIC_AUTH_USERNAME", b.Username != "" || !b.Enabled)
	l.check("FLAGR_BASIC_AUTH_PASSWORD", b.Password != "" || !b.Enabled)
}

func (d *Database) validate(l *loader) {
	switch d.Driver {
	case DriverSQLite, DriverMySQL, DriverJSONFile:
		// SQLite would use an empty name for a temporary database that is deleted with the process.
		l.check("FLAGR_DB_DBCONNECTIONSTR", strings.TrimSpace(d.DSN) != "")
	case DriverPostgres:
		// An empty connection string is valid: PGHOST and related variables are then used.
	case DriverJSONHTTP:
		l.check("FLAGR_DB_DBCONNECTIONSTR", isHTTPURL(d.DSN))
	default:
		l.check("FLAGR_DB_DBDRIVER", false)
	}
	l.check("FLAGR_DB_DBCONNECTION_RETRY_DELAY", d.RetryDelay >= 0)
}

func (e *Eval) validate(l *loader) {
	l.check("FLAGR_EVAL_BATCH_SIZE", e.BatchSize >= 0)
	l.check("FLAGR_EVAL_ANSWER_BYTES", e.AnswerBytes >= 1<<20)
	l.check("FLAGR_EVAL_GET_MAX_URL_BYTES", e.GetMaxURLBytes >= 0)
}

func (e *EvalCache) validate(l *loader) {
	l.check("FLAGR_EVALCACHE_REFRESHTIMEOUT", e.RefreshTimeout > 0)
	l.check("FLAGR_EVALCACHE_REFRESHINTERVAL", e.RefreshInterval > 0)
}

func (e *Exposure) validate(l *loader) {
	l.check("FLAGR_EXPOSURE_BATCH_SIZE", e.BatchSize >= 0)
}

// builds reports whether the recorder of this type is selected and recording is on.
func (r *Recorder) builds(recorder string) bool {
	return r.Enabled && slices.Contains(r.Types, recorder)
}

func (r *Recorder) validate(l *loader) {
	for _, t := range r.Types {
		switch t {
		case RecorderKafka, RecorderKinesis, RecorderPubSub, RecorderDatar:
		default:
			l.check("FLAGR_RECORDER_TYPE", false)
		}
	}
	l.check("FLAGR_RECORDER_FRAME_OUTPUT_MODE",
		r.FrameOutputMode == FramePayloadString || r.FrameOutputMode == FramePayloadRawJSON)
	l.check("FLAGR_RECORDER_QUEUE_RECORDS", r.QueueRecords >= 1)
	l.check("FLAGR_RECORDER_QUEUE_BYTES", r.QueueBytes >= 1)
}

var serverName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,63}$`)

// ServerName is the name of this server in the statistics of all servers: the configured one, or
// the name of the host. It is empty if neither is known.
func (d *Datar) ServerName() string { return cmp.Or(d.ServerNameSetting, d.HostName) }

// isClickHouseURL reports whether a string begins like the connection string of a ClickHouse
// server. Its parts are checked when it is opened.
func isClickHouseURL(text string) bool {
	scheme, rest, ok := strings.Cut(text, "://")
	return ok && rest != "" && (scheme == "clickhouse" || scheme == "clickhouses")
}

func (d *Datar) validate(l *loader) {
	l.check("FLAGR_RECORDER_DATAR_FLUSH_INTERVAL", between(50*time.Millisecond, d.FlushInterval, time.Hour))
	l.check("FLAGR_RECORDER_DATAR_SERVER_NAME", d.ServerNameSetting == "" || serverName.MatchString(d.ServerNameSetting))
	l.check("FLAGR_RECORDER_DATAR_FLAGS", d.Flags == DatarFlagsRecorded || d.Flags == DatarFlagsAll)
	l.check("FLAGR_RECORDER_DATAR_STORE", d.Store == "" || isClickHouseURL(d.Store) && d.ForwardURL == "")
	l.check("FLAGR_RECORDER_DATAR_FORWARD_URL", d.ForwardURL == "" || isHTTPURL(d.ForwardURL))
	_, ok := parseHeaders(d.ForwardHeaders)
	l.check("FLAGR_RECORDER_DATAR_FORWARD_HEADERS", ok)
	l.check("FLAGR_RECORDER_DATAR_RETENTION", d.Retention == 0 || d.Retention >= 48*time.Hour && d.ForwardURL == "")
}

func (k *Kafka) validate(l *loader, on bool) {
	l.check("FLAGR_RECORDER_KAFKA_VERSION", kafkaVersion.MatchString(k.Version))
	l.check("FLAGR_RECORDER_KAFKA_BROKERS", len(splitList(k.Brokers, false)) > 0 || !on)
	l.check("FLAGR_RECORDER_KAFKA_COMPRESSION_CODEC", between(0, k.CompressionCodec, 4))
	l.check("FLAGR_RECORDER_KAFKA_TOPIC", k.Topic == "" && !on ||
		kafkaTopic.MatchString(k.Topic) && k.Topic != "." && k.Topic != "..")
	switch k.SASLMechanism {
	case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
	default:
		l.check("FLAGR_RECORDER_KAFKA_SASL_MECHANISM", k.SASLMechanism == "" && k.SASLUsername == "")
	}
	l.check("FLAGR_RECORDER_KAFKA_PARTITIONER", k.Partitioner == "fnv1a" || k.Partitioner == "murmur2" || k.Partitioner == "")
	l.check("FLAGR_RECORDER_KAFKA_RETRYMAX", k.RetryMax >= 0)
	l.check("FLAGR_RECORDER_KAFKA_MAXOPENREQUESTS", k.MaxOpenRequests >= 1)
	l.check("FLAGR_RECORDER_KAFKA_REQUIRED_ACKS", between(-1, k.RequiredAcks, 1))
	l.check("FLAGR_RECORDER_KAFKA_IDEMPOTENT", !k.Idempotent || k.RequiredAcks == -1 || !on)
	l.check("FLAGR_RECORDER_KAFKA_FLUSHFREQUENCY", k.FlushFrequency >= 0)
	l.check("FLAGR_RECORDER_KAFKA_ENCRYPTION_KEY", k.EncryptionKey != "" || !k.Encrypted || !on)
}

func (k *Kinesis) validate(l *loader, on bool) {
	const maxRequestBytes, maxAggregateBytes = 5 << 20, 1 << 20
	l.check("FLAGR_RECORDER_KINESIS_STREAM_NAME", k.StreamName == "" && !on || kinesisStream.MatchString(k.StreamName))
	l.check("FLAGR_RECORDER_KINESIS_BACKLOG_COUNT", k.BacklogCount >= 0)
	l.check("FLAGR_RECORDER_KINESIS_MAX_CONNECTIONS", between(0, k.MaxConnections, 256))
	l.check("FLAGR_RECORDER_KINESIS_FLUSH_INTERVAL", k.FlushInterval >= 0)
	l.check("FLAGR_RECORDER_KINESIS_BATCH_COUNT", between(0, k.BatchCount, 500))
	l.check("FLAGR_RECORDER_KINESIS_BATCH_SIZE", between(0, k.BatchSize, maxRequestBytes))
	l.check("FLAGR_RECORDER_KINESIS_AGGREGATE_BATCH_COUNT", between(0, int64(k.AggregateBatchCount), math.MaxUint32))
	l.check("FLAGR_RECORDER_KINESIS_AGGREGATE_BATCH_SIZE", between(0, k.AggregateBatchSize, maxAggregateBytes))
}

func (p *PubSub) validate(l *loader, on bool) {
	l.check("FLAGR_RECORDER_PUBSUB_PROJECT_ID", p.ProjectID != "" || !on)
	l.check("FLAGR_RECORDER_PUBSUB_TOPIC_NAME", p.TopicName == "" && !on ||
		pubSubTopic.MatchString(p.TopicName) && !strings.HasPrefix(p.TopicName, "goog"))
	l.check("FLAGR_RECORDER_PUBSUB_VERBOSE_CANCEL_TIMEOUT", p.VerboseCancelTimeout >= 0)
}

func (n *Notification) validate(l *loader) {
	l.check("FLAGR_NOTIFICATION_TIMEOUT", n.Timeout > 0)
	l.check("FLAGR_NOTIFICATION_MAX_RETRIES", n.MaxRetries >= 0)
	l.check("FLAGR_NOTIFICATION_RETRY_BASE", n.RetryBase >= 0)
	l.check("FLAGR_NOTIFICATION_RETRY_MAX", n.RetryMax >= 0)
	l.check("FLAGR_NOTIFICATION_WEBHOOK_URL", isHTTPURL(n.WebhookURL) || !n.WebhookEnabled)
	_, ok := parseHeaders(n.WebhookHeaders)
	l.check("FLAGR_NOTIFICATION_WEBHOOK_HEADERS", ok)
}

func (p *Prometheus) validate(l *loader, w *Web) {
	l.check("FLAGR_PROMETHEUS_PATH", strings.HasPrefix(p.Path, "/") || p.Path == "" && !p.Enabled)
	if p.Enabled && hidesAPI(p.Path, w.Prefix) {
		l.refuse("FLAGR_PROMETHEUS_PATH", "the API uses this path, want another one, such as /metrics")
	}
}

// hidesAPI reports whether the path would hide a part of the API or the profiler.
func hidesAPI(metrics, prefix string) bool {
	metrics = path.Clean(metrics)
	for _, root := range apiRoots {
		root = path.Join("/", prefix, root)
		if metrics == root || strings.HasPrefix(metrics, root+"/") {
			return true
		}
	}
	return metrics == "/debug/pprof" || strings.HasPrefix(metrics, "/debug/pprof/")
}

func (s *Statsd) validate(l *loader) {
	l.check("FLAGR_STATSD_PORT", isPort(s.Port) || s.Port == "" && !s.Enabled)
	l.check("FLAGR_STATSD_APM_PORT", isPort(s.APMPort) || s.APMPort == "" && !s.APMEnabled)
}

func (s *Sentry) validate(l *loader) {
	// An empty one may be replaced by Sentry's own variable SENTRY_DSN.
	l.check("FLAGR_SENTRY_DSN", s.DSN == "" || isHTTPURL(s.DSN) || !s.Enabled)
}

func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

func isHTTPURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != ""
}
