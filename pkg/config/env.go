// Package config turns environment variables into a validated Config. Names, types and defaults are
// those of Flagr, so that a deployment keeps its environment when it changes servers.
//
// Three tags describe a field in addition to env and envDefault. accepts describes the accepted
// values, in the words of error messages and docs/environment.md. secret excludes the value from
// every message. empty:"keep" allows a list to have empty entries.
package config

import "time"

// Config is the whole configuration, one struct per concern. It holds passwords and keys: do not
// log it.
type Config struct {
	Server          Server
	Log             Log
	Web             Web
	CORS            CORS
	JWTAuth         JWTAuth
	BasicAuth       BasicAuth
	HeaderAuth      HeaderAuth
	CookieAuth      CookieAuth
	Database        Database
	Eval            Eval
	EvalCache       EvalCache
	InjectedContext InjectedContext
	Exposure        Exposure
	Recorder        Recorder
	Datar           Datar
	Kafka           Kafka
	Kinesis         Kinesis
	PubSub          PubSub
	Notification    Notification
	OFREP           OFREP
	Prometheus      Prometheus
	Statsd          Statsd
	Sentry          Sentry
	NewRelic        NewRelic
	Telemetry       Telemetry
	// OpenTelemetry has no variables of its own.
	OpenTelemetry OpenTelemetry
	// GoRuntime has no variables of its own.
	GoRuntime GoRuntime

	unused   []Notice
	settings []Setting
}

// Server is the address of the server. The generated main reads the same two variables, and its
// flags --host and
// --port override them; see SetListenDefaults.
type Server struct {
	// Host is the address to listen on; empty means all addresses.
	Host string `env:"HOST" envDefault:"localhost"`
	// Port is 1 to 65535, or 0 for one that the operating system picks.
	Port int `env:"PORT" envDefault:"18000" accepts:"a port from 1 to 65535, or 0 for a free one"`
}

// Log configures the server's log.
type Log struct {
	// Level is the lowest level that is logged, in lower case; SlogLevel converts it.
	Level string `env:"FLAGR_LOGRUS_LEVEL" envDefault:"info" accepts:"one of panic, fatal, error, warn, warning, info, debug, trace"`
	// Format is FormatText or FormatJSON.
	Format string `env:"FLAGR_LOGRUS_FORMAT" envDefault:"text" accepts:"text or json"`
	// Requests turns the access log on.
	Requests bool `env:"FLAGR_MIDDLEWARE_VERBOSE_LOGGER_ENABLED" envDefault:"true"`
	// RequestsExcludeURLs are the URL paths that the access log omits.
	RequestsExcludeURLs []string `env:"FLAGR_MIDDLEWARE_VERBOSE_LOGGER_EXCLUDE_URLS"`
	// Evaluations turns the log of evaluation results on.
	Evaluations bool `env:"FLAGR_EVAL_LOGGING_ENABLED" envDefault:"true"`
	// EvaluationsPerSecond is the most evaluation results logged per flag and second, 0 or more.
	EvaluationsPerSecond int `env:"FLAGR_RATELIMITER_PERFLAG_PERSECOND_CONSOLE_LOGGING" envDefault:"100" accepts:"a whole number, 0 or more"`
}

// Web configures what applies to every HTTP request.
type Web struct {
	// Prefix is put in front of every path; empty or starting with a slash.
	Prefix string `env:"FLAGR_WEB_PREFIX" accepts:"a path that starts with /, such as /flags, or nothing"`
	// GzipEnabled compresses responses for clients that ask for it.
	GzipEnabled bool `env:"FLAGR_MIDDLEWARE_GZIP_ENABLED" envDefault:"true"`
	// PprofEnabled serves the Go profiler under /debug/pprof.
	PprofEnabled bool `env:"FLAGR_PPROF_ENABLED" envDefault:"true"`
	// UIEnabled serves the pages below /ui/.
	UIEnabled bool `env:"FLAGR_UI_ENABLED" envDefault:"true"`
	// UIEntityTypes are the only entity types to choose from in the pages; empty means any.
	UIEntityTypes []string `env:"FLAGR_UI_POSSIBLE_ENTITY_TYPES"`
}

// CORS configures which web pages of other origins may call the API.
type CORS struct {
	// Enabled turns the CORS headers on.
	Enabled bool `env:"FLAGR_CORS_ENABLED" envDefault:"true"`
	// AllowCredentials lets browsers send cookies and authorization headers.
	AllowCredentials bool `env:"FLAGR_CORS_ALLOW_CREDENTIALS" envDefault:"true"`
	// AllowedHeaders are the request headers that a page may set.
	AllowedHeaders []string `env:"FLAGR_CORS_ALLOWED_HEADERS" envDefault:"Origin,Accept,Content-Type,X-Requested-With,Authorization,Time_Zone,Idempotency-Key,traceparent"`
	// AllowedMethods are the HTTP methods that a page may use.
	AllowedMethods []string `env:"FLAGR_CORS_ALLOWED_METHODS" envDefault:"GET,POST,PUT,DELETE,PATCH"`
	// AllowedOrigins are the origins that may call; "*" means all.
	AllowedOrigins []string `env:"FLAGR_CORS_ALLOWED_ORIGINS" envDefault:"*"`
	// ExposedHeaders are the response headers that a page may read.
	ExposedHeaders []string `env:"FLAGR_CORS_EXPOSED_HEADERS" envDefault:"WWW-Authenticate"`
	// MaxAge is how many seconds a browser may cache a preflight response; negative forbids
	// caching, 0 sends no header.
	MaxAge int `env:"FLAGR_CORS_MAX_AGE" envDefault:"600"`
}

// JWTAuth is access control by JSON web tokens.
type JWTAuth struct {
	// Enabled requires a valid token on every path outside the two lists below.
	Enabled bool `env:"FLAGR_JWT_AUTH_ENABLED" envDefault:"false"`
	// Debug logs why a token was rejected.
	Debug bool `env:"FLAGR_JWT_AUTH_DEBUG" envDefault:"false"`
	// WhitelistPaths are path prefixes open to everybody. It never has an empty entry, which would
	// open every path.
	WhitelistPaths []string `env:"FLAGR_JWT_AUTH_WHITELIST_PATHS" envDefault:"/api/v1/health,/api/v1/evaluation,/api/v1/exposures,/static"`
	// ExactWhitelistPaths are whole paths open to everybody; an empty entry is the empty path.
	ExactWhitelistPaths []string `env:"FLAGR_JWT_AUTH_EXACT_WHITELIST_PATHS" envDefault:",/" empty:"keep"`
	// CookieTokenName is the cookie with the token.
	CookieTokenName string `env:"FLAGR_JWT_AUTH_COOKIE_TOKEN_NAME" envDefault:"access_token"`
	// Secret is the shared key of HS256 and HS512, or the public key of RS256 in PEM. Never empty
	// while Enabled.
	Secret string `env:"FLAGR_JWT_AUTH_SECRET" secret:"true" accepts:"the shared key, or for RS256 the public key in PEM; needed while FLAGR_JWT_AUTH_ENABLED is true"`
	// NoTokenStatusCode is the status for requests without a token: 307 redirects to
	// NoTokenRedirectURL.
	NoTokenStatusCode int `env:"FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE" envDefault:"307" accepts:"an HTTP status from 300 to 499, such as 307 or 401"`
	// NoTokenRedirectURL is the target of NoTokenStatusCode 307.
	NoTokenRedirectURL string `env:"FLAGR_JWT_AUTH_NO_TOKEN_REDIRECT_URL"`
	// UserProperty is the name under which a request carries its token's user.
	UserProperty string `env:"FLAGR_JWT_AUTH_USER_PROPERTY" envDefault:"flagr_user"`
	// UserClaim is the claim that names the user in createdBy and updatedBy.
	UserClaim string `env:"FLAGR_JWT_AUTH_USER_CLAIM" envDefault:"sub"`
	// SigningMethod is HS256, HS512 or RS256.
	SigningMethod string `env:"FLAGR_JWT_AUTH_SIGNING_METHOD" envDefault:"HS256" accepts:"HS256, HS512 or RS256"`
}

// BasicAuth is access control by one user name and password.
type BasicAuth struct {
	// Enabled requires name and password on every path outside the two lists below.
	Enabled bool `env:"FLAGR_BASIC_AUTH_ENABLED" envDefault:"false"`
	// Username is the only accepted name. Never empty while Enabled.
	Username string `env:"FLAGR_BASIC_AUTH_USERNAME" accepts:"a user name; needed while FLAGR_BASIC_AUTH_ENABLED is true"`
	// Password is the password of Username. Never empty while Enabled.
	Password string `env:"FLAGR_BASIC_AUTH_PASSWORD" secret:"true" accepts:"a password; needed while FLAGR_BASIC_AUTH_ENABLED is true"`
	// WhitelistPaths are path prefixes open to everybody. It never has an empty entry, which would
	// open every path.
	WhitelistPaths []string `env:"FLAGR_BASIC_AUTH_WHITELIST_PATHS" envDefault:"/api/v1/health,/api/v1/flags,/api/v1/evaluation,/api/v1/exposures"`
	// ExactWhitelistPaths are whole paths open to everybody; an empty entry is the empty path.
	ExactWhitelistPaths []string `env:"FLAGR_BASIC_AUTH_EXACT_WHITELIST_PATHS" empty:"keep"`
}

// HeaderAuth takes the author of a change from a request header that a proxy in front of the server
// sets.
type HeaderAuth struct {
	// Enabled turns it on.
	Enabled bool `env:"FLAGR_HEADER_AUTH_ENABLED" envDefault:"false"`
	// UserField is the header's name.
	UserField string `env:"FLAGR_HEADER_AUTH_USER_FIELD" envDefault:"X-Email"`
}

// CookieAuth takes the author of a change from a claim of a token in a cookie, which a proxy in
// front of the server verifies.
type CookieAuth struct {
	// Enabled turns it on.
	Enabled bool `env:"FLAGR_COOKIE_AUTH_ENABLED" envDefault:"false"`
	// UserField is the cookie's name.
	UserField string `env:"FLAGR_COOKIE_AUTH_USER_FIELD" envDefault:"CF_Authorization"`
	// UserFieldJWTClaim is the claim that names the user.
	UserFieldJWTClaim string `env:"FLAGR_COOKIE_AUTH_USER_FIELD_JWT_CLAIM" envDefault:"email"`
}

// Database is the source of the flags.
type Database struct {
	// Driver is one of the Driver constants.
	Driver string `env:"FLAGR_DB_DBDRIVER" envDefault:"sqlite3" accepts:"one of sqlite3, postgres, mysql, json_file, json_http"`
	// DSN is the connection string of a database, or the path or URL of a JSON document. It may
	// contain a password.
	DSN string `env:"FLAGR_DB_DBCONNECTIONSTR" envDefault:"flagr.sqlite" secret:"true" accepts:"what FLAGR_DB_DBDRIVER connects to: a file for sqlite3 and json_file, a connection string for mysql and postgres, an http or https URL for json_http"`
	// LogQueries writes every SQL statement, without its parameters, to the log at level debug.
	LogQueries bool `env:"FLAGR_DB_DBCONNECTION_DEBUG" envDefault:"true"`
	// RetryAttempts is the number of retries of a failed first connection.
	RetryAttempts uint `env:"FLAGR_DB_DBCONNECTION_RETRY_ATTEMPTS" envDefault:"9" accepts:"a whole number, 0 or more"`
	// RetryDelay is the delay before each retry, 0 or more.
	RetryDelay time.Duration `env:"FLAGR_DB_DBCONNECTION_RETRY_DELAY" envDefault:"100ms" accepts:"a duration, 0s or more, such as 100ms"`
}

// Eval limits evaluations.
type Eval struct {
	// DebugEnabled lets a request ask for the log of its segments.
	DebugEnabled bool `env:"FLAGR_EVAL_DEBUG_ENABLED" envDefault:"true"`
	// OnlyMode serves only evaluation, health and the evaluation cache's export. Load also sets it
	// for the drivers json_file and json_http, which are read-only.
	OnlyMode bool `env:"FLAGR_EVAL_ONLY_MODE" envDefault:"false"`
	// BatchSize is the most evaluations of one batch request; 0 means that of eval.Options.
	BatchSize int `env:"FLAGR_EVAL_BATCH_SIZE" envDefault:"0" accepts:"a whole number, 0 or more"`
	// AnswerBytes is the largest answer to a batch in bytes, 1 MiB or more.
	AnswerBytes int `env:"FLAGR_EVAL_ANSWER_BYTES" envDefault:"67108864" accepts:"a number of bytes, 1048576 or more"`
	// GetMaxURLBytes is the longest raw query of a GET evaluation in bytes; 0 means no limit.
	GetMaxURLBytes int `env:"FLAGR_EVAL_GET_MAX_URL_BYTES" envDefault:"8192" accepts:"a number of bytes, 0 or more"`
}

// EvalCache configures how the flags in memory follow their source.
type EvalCache struct {
	// RefreshTimeout limits one reload, more than 0.
	RefreshTimeout time.Duration `env:"FLAGR_EVALCACHE_REFRESHTIMEOUT" envDefault:"59s" accepts:"a duration longer than 0s, such as 59s"`
	// RefreshInterval is the delay between two checks for changes, more than 0.
	RefreshInterval time.Duration `env:"FLAGR_EVALCACHE_REFRESHINTERVAL" envDefault:"3s" accepts:"a duration longer than 0s, such as 3s"`
}

// InjectedContext configures what the server adds to the context of an evaluation.
type InjectedContext struct {
	// Enabled adds the time and the headers below.
	Enabled bool `env:"FLAGR_INJECTED_CONTEXT_ENABLED" envDefault:"false"`
	// HTTPHeaders are the request headers to add.
	HTTPHeaders []string `env:"FLAGR_INJECTED_CONTEXT_HTTP_HEADERS"`
	// HTTPHeaderPrefixes add every request header whose name starts with one of them.
	HTTPHeaderPrefixes []string `env:"FLAGR_INJECTED_CONTEXT_HTTP_HEADER_PREFIXES"`
}

// Exposure configures reports of variants that clients showed.
type Exposure struct {
	// BatchSize is the most rows of one request; 0 means no limit.
	BatchSize int `env:"FLAGR_EXPOSURE_BATCH_SIZE" envDefault:"100" accepts:"a whole number, 0 or more"`
}

// Recorder configures the recorders of evaluations.
type Recorder struct {
	// Enabled turns recording on. If it is false, no recorder is constructed.
	Enabled bool `env:"FLAGR_RECORDER_ENABLED" envDefault:"false"`
	// Types are the recorders to construct, each one of the Recorder constants, without repetition.
	Types []string `env:"FLAGR_RECORDER_TYPE" envDefault:"kafka" accepts:"a comma-separated list of kafka, kinesis, pubsub, datar"`
	// FrameOutputMode is FramePayloadString or FramePayloadRawJSON.
	FrameOutputMode string `env:"FLAGR_RECORDER_FRAME_OUTPUT_MODE" envDefault:"payload_string" accepts:"payload_string or payload_raw_json"`
	// QueueRecords and QueueBytes limit what each streaming recorder keeps in memory until it is
	// delivered, 1 or more.
	QueueRecords int `env:"FLAGR_RECORDER_QUEUE_RECORDS" envDefault:"100000" accepts:"a whole number, 1 or more"`
	QueueBytes   int `env:"FLAGR_RECORDER_QUEUE_BYTES" envDefault:"67108864" accepts:"a number of bytes, 1 or more"`
}

// Datar is the recorder that counts evaluations in the server's own database, or in ClickHouse.
type Datar struct {
	// FlushInterval is the time between two writes of the counts, 50 ms to 1 h.
	FlushInterval time.Duration `env:"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL" envDefault:"60s" accepts:"a duration from 50ms to 1h, such as 60s"`
	// JournalDir is the folder of the journals, JournalOff for none. Empty: the working directory,
	// if it can be written.
	JournalDir string `env:"FLAGR_RECORDER_DATAR_JOURNAL_DIR" accepts:"a folder that can be written, or off"`
	// Store is the URL of the store of the counts; empty means the database of the flags. It has a
	// password.
	Store string `env:"FLAGR_RECORDER_DATAR_STORE" secret:"true" accepts:"a clickhouse:// or clickhouses:// URL; not with FLAGR_RECORDER_DATAR_FORWARD_URL"`
	// ForwardURL is the central server that receives the counts instead of a database; empty for
	// none.
	ForwardURL string `env:"FLAGR_RECORDER_DATAR_FORWARD_URL" secret:"true" accepts:"an http or https URL"`
	// ForwardHeaders are headers to send along, often with a token; ForwardHeader has them one by
	// one.
	ForwardHeaders string `env:"FLAGR_RECORDER_DATAR_FORWARD_HEADERS" secret:"true" accepts:"headers such as Authorization: Bearer abc, X-Team: flags"`
	// IngestEnabled accepts counts that were aggregated elsewhere.
	IngestEnabled bool `env:"FLAGR_RECORDER_DATAR_INGEST_ENABLED" envDefault:"false"`
	// Flags says which flags Datar counts: DatarFlagsRecorded or DatarFlagsAll.
	Flags string `env:"FLAGR_RECORDER_DATAR_FLAGS" envDefault:"recorded" accepts:"recorded (the flags whose dataRecordsEnabled is on) or all"`
	// ServerNameSetting identifies this server among the servers of a database, and stays the same
	// after a restart; use ServerName.
	ServerNameSetting string `env:"FLAGR_RECORDER_DATAR_SERVER_NAME" accepts:"a name of up to 63 ASCII letters, digits, dots, underscores and hyphens"`
	// HostName is the name of the machine or container, the default of the server's name.
	HostName string `env:"HOSTNAME"`
	// TailEnabled serves individual evaluations as they happen.
	TailEnabled bool `env:"FLAGR_RECORDER_DATAR_TAIL_ENABLED" envDefault:"false"`
	// Retention is how long hours are kept in detail; 0 means forever.
	Retention time.Duration `env:"FLAGR_RECORDER_DATAR_RETENTION" envDefault:"0s" accepts:"0 to keep everything, or a duration from 48h, such as 2160h; 0 with FLAGR_RECORDER_DATAR_FORWARD_URL"`
}

// JournalOff is the value of Datar.JournalDir that switches journals off.
const JournalOff = "off"

// Kafka is the recorder that writes to a Kafka topic.
type Kafka struct {
	// Version is the newest protocol version to speak; the default sets no limit.
	Version string `env:"FLAGR_RECORDER_KAFKA_VERSION" envDefault:"0.8.2.0" accepts:"a Kafka version, such as 0.8.2.0 or 3.6.0"`
	// Brokers is a comma-separated list of host:port.
	Brokers string `env:"FLAGR_RECORDER_KAFKA_BROKERS" envDefault:":9092" accepts:"a comma-separated list of host:port; needed while the kafka recorder is on"`
	// CompressionCodec is 0 none, 1 gzip, 2 snappy, 3 lz4 or 4 zstd.
	CompressionCodec int8 `env:"FLAGR_RECORDER_KAFKA_COMPRESSION_CODEC" envDefault:"0" accepts:"0 (none), 1 (gzip), 2 (snappy), 3 (lz4) or 4 (zstd)"`
	// CertFile is the client's certificate, a PEM file.
	CertFile string `env:"FLAGR_RECORDER_KAFKA_CERTFILE"`
	// KeyFile is the client's private key, a PEM file.
	KeyFile string `env:"FLAGR_RECORDER_KAFKA_KEYFILE"`
	// CAFile is the authority that signed the brokers' certificates, a PEM file.
	CAFile string `env:"FLAGR_RECORDER_KAFKA_CAFILE"`
	// VerifySSL checks the brokers' certificates.
	VerifySSL bool `env:"FLAGR_RECORDER_KAFKA_VERIFYSSL" envDefault:"false"`
	// SimpleSSL uses TLS without a client certificate.
	SimpleSSL bool `env:"FLAGR_RECORDER_KAFKA_SIMPLE_SSL" envDefault:"false"`
	// SASLUsername is the user name at the brokers; empty means no SASL.
	SASLUsername string `env:"FLAGR_RECORDER_KAFKA_SASL_USERNAME"`
	// SASLPassword is the password of SASLUsername.
	SASLPassword string `env:"FLAGR_RECORDER_KAFKA_SASL_PASSWORD" secret:"true"`
	// SASLMechanism is the authentication mechanism of SASLUsername.
	SASLMechanism string `env:"FLAGR_RECORDER_KAFKA_SASL_MECHANISM" envDefault:"PLAIN" accepts:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"`
	// Verbose logs what the client does.
	Verbose bool `env:"FLAGR_RECORDER_KAFKA_VERBOSE" envDefault:"true"`
	// Topic is the topic to write to.
	Topic string `env:"FLAGR_RECORDER_KAFKA_TOPIC" envDefault:"flagr-records" accepts:"1 to 249 of a-z A-Z 0-9 . _ -, and not . or ..; needed while the kafka recorder is on"`
	// PartitionKeyEnabled uses the entity id as the partition key.
	PartitionKeyEnabled bool `env:"FLAGR_RECORDER_KAFKA_PARTITION_KEY_ENABLED" envDefault:"true"`
	// Partitioner is how the key selects the partition: fnv1a as in Flagr, or murmur2 as in Kafka's
	// own clients.
	Partitioner string `env:"FLAGR_RECORDER_KAFKA_PARTITIONER" envDefault:"fnv1a" accepts:"fnv1a or murmur2"`
	// RetryMax is the maximum number of retries of a message, 0 or more.
	RetryMax int `env:"FLAGR_RECORDER_KAFKA_RETRYMAX" envDefault:"5" accepts:"a whole number, 0 or more"`
	// MaxOpenRequests is the maximum number of requests in flight on one connection, 1 or more.
	MaxOpenRequests int `env:"FLAGR_RECORDER_KAFKA_MAXOPENREQUESTS" envDefault:"5" accepts:"a whole number, 1 or more"`
	// RequiredAcks is which replicas must confirm a message: 0 none, 1 the leader, -1 all in sync.
	RequiredAcks int `env:"FLAGR_RECORDER_KAFKA_REQUIRED_ACKS" envDefault:"1" accepts:"-1 (all replicas), 0 (none) or 1 (the leader)"`
	// Idempotent lets the brokers drop messages that arrive twice. It needs RequiredAcks -1.
	Idempotent bool `env:"FLAGR_RECORDER_KAFKA_IDEMPOTENT" envDefault:"false" accepts:"true or false; true needs FLAGR_RECORDER_KAFKA_REQUIRED_ACKS -1"`
	// FlushFrequency is the time to collect messages before they are sent, 0 or more.
	FlushFrequency time.Duration `env:"FLAGR_RECORDER_KAFKA_FLUSHFREQUENCY" envDefault:"500ms" accepts:"a duration, 0s or more, such as 500ms"`
	// Encrypted encrypts payloads with EncryptionKey.
	Encrypted bool `env:"FLAGR_RECORDER_KAFKA_ENCRYPTED" envDefault:"false"`
	// EncryptionKey is the key of 32 bytes; a shorter one is padded with zero bytes.
	EncryptionKey string `env:"FLAGR_RECORDER_KAFKA_ENCRYPTION_KEY" secret:"true" accepts:"a key of up to 32 bytes; needed while the kafka recorder is on and FLAGR_RECORDER_KAFKA_ENCRYPTED is true"`
}

// Kinesis is the recorder that writes to an Amazon Kinesis stream.
type Kinesis struct {
	// StreamName is the stream to write to.
	StreamName string `env:"FLAGR_RECORDER_KINESIS_STREAM_NAME" envDefault:"flagr-records" accepts:"1 to 128 of a-z A-Z 0-9 . _ -; needed while the kinesis recorder is on"`
	// BacklogCount has no effect.
	BacklogCount int `env:"FLAGR_RECORDER_KINESIS_BACKLOG_COUNT" envDefault:"500" accepts:"a whole number, 0 or more"`
	// MaxConnections is the maximum number of concurrent requests.
	MaxConnections int `env:"FLAGR_RECORDER_KINESIS_MAX_CONNECTIONS" envDefault:"24" accepts:"a whole number from 0 to 256"`
	// FlushInterval is the time to collect records before they are sent.
	FlushInterval time.Duration `env:"FLAGR_RECORDER_KINESIS_FLUSH_INTERVAL" envDefault:"5s" accepts:"a duration, 0s or more, such as 5s"`
	// BatchCount is the maximum number of records of one request; the service accepts 500.
	BatchCount int `env:"FLAGR_RECORDER_KINESIS_BATCH_COUNT" envDefault:"500" accepts:"a whole number from 0 to 500"`
	// BatchSize is the maximum number of bytes of one request; the service accepts 5 MiB.
	BatchSize int `env:"FLAGR_RECORDER_KINESIS_BATCH_SIZE" envDefault:"0" accepts:"a number of bytes from 0 to 5242880"`
	// AggregateBatchCount has no effect: records are not aggregated.
	AggregateBatchCount int `env:"FLAGR_RECORDER_KINESIS_AGGREGATE_BATCH_COUNT" envDefault:"4294967295" accepts:"a whole number from 0 to 4294967295"`
	// AggregateBatchSize has no effect: records are not aggregated.
	AggregateBatchSize int `env:"FLAGR_RECORDER_KINESIS_AGGREGATE_BATCH_SIZE" envDefault:"51200" accepts:"a number of bytes from 0 to 1048576"`
	// Verbose logs what the client does.
	Verbose bool `env:"FLAGR_RECORDER_KINESIS_VERBOSE" envDefault:"false"`
}

// PubSub is the recorder that writes to a Google Cloud Pub/Sub topic.
type PubSub struct {
	// ProjectID is the project of the topic.
	ProjectID string `env:"FLAGR_RECORDER_PUBSUB_PROJECT_ID" accepts:"a project; needed while the pubsub recorder is on"`
	// TopicName is the topic to write to.
	TopicName string `env:"FLAGR_RECORDER_PUBSUB_TOPIC_NAME" envDefault:"flagr-records" accepts:"the name without its project: a letter, then 2 to 254 of a-z A-Z 0-9 . _ ~ + % -, and no goog at its beginning; needed while the pubsub recorder is on"`
	// KeyFile is a service account's key file; empty means the default credentials of the
	// environment.
	KeyFile string `env:"FLAGR_RECORDER_PUBSUB_KEYFILE"`
	// Verbose waits for each message's result and logs it.
	Verbose bool `env:"FLAGR_RECORDER_PUBSUB_VERBOSE" envDefault:"false"`
	// VerboseCancelTimeout is how long Verbose waits, 0 or more.
	VerboseCancelTimeout time.Duration `env:"FLAGR_RECORDER_PUBSUB_VERBOSE_CANCEL_TIMEOUT" envDefault:"5s" accepts:"a duration, 0s or more, such as 5s"`
}

// Notification configures notifications about committed changes of flags.
type Notification struct {
	// DetailedDiffEnabled adds the state before and after, and their difference.
	DetailedDiffEnabled bool `env:"FLAGR_NOTIFICATION_DETAILED_DIFF_ENABLED" envDefault:"false"`
	// Timeout limits one request, more than 0.
	Timeout time.Duration `env:"FLAGR_NOTIFICATION_TIMEOUT" envDefault:"10s" accepts:"a duration longer than 0s, such as 10s"`
	// MaxRetries is the maximum number of retries, 0 or more.
	MaxRetries int `env:"FLAGR_NOTIFICATION_MAX_RETRIES" envDefault:"3" accepts:"a whole number, 0 or more"`
	// RetryBase is the delay before the first retry, 0 or more; it doubles for each further retry.
	RetryBase time.Duration `env:"FLAGR_NOTIFICATION_RETRY_BASE" envDefault:"1s" accepts:"a duration, 0s or more, such as 1s"`
	// RetryMax is the maximum delay, 0 or more.
	RetryMax time.Duration `env:"FLAGR_NOTIFICATION_RETRY_MAX" envDefault:"10s" accepts:"a duration, 0s or more, such as 10s"`
	// WebhookEnabled posts each change to WebhookURL.
	WebhookEnabled bool `env:"FLAGR_NOTIFICATION_WEBHOOK_ENABLED" envDefault:"false"`
	// WebhookURL is an http or https URL while WebhookEnabled. Many services put a token into it.
	WebhookURL string `env:"FLAGR_NOTIFICATION_WEBHOOK_URL" secret:"true" accepts:"an http or https URL; needed while FLAGR_NOTIFICATION_WEBHOOK_ENABLED is true"`
	// WebhookHeaders are headers to send, often with a token; Header parses them.
	WebhookHeaders string `env:"FLAGR_NOTIFICATION_WEBHOOK_HEADERS" secret:"true" accepts:"headers such as Authorization: Bearer abc, X-Team: flags"`
}

// OFREP is the OpenFeature Remote Evaluation Protocol.
type OFREP struct {
	// Enabled serves it.
	Enabled bool `env:"FLAGR_OFREP_ENABLED" envDefault:"true"`
	// APIKeys are secrets for its paths; Keys parses them.
	APIKeys []string `env:"FLAGR_OFREP_API_KEYS" secret:"true" accepts:"entries such as web=secret or web=secret@tag, further tags behind a vertical bar; no comma, =, @ or bar in names and secrets"`
	// BulkRecord records the evaluations of requests for all flags.
	BulkRecord bool `env:"FLAGR_OFREP_BULK_RECORD" envDefault:"false"`
	// EventsEnabled serves and announces event streams.
	EventsEnabled bool `env:"FLAGR_OFREP_EVENTS_ENABLED" envDefault:"true"`
	// EventsURL is the public URL of the stream; empty means the server's own path.
	EventsURL string `env:"FLAGR_OFREP_EVENTS_URL" accepts:"an http or https URL, or nothing"`
	// EventsMax is the maximum number of open streams, 1 or more.
	EventsMax int `env:"FLAGR_OFREP_EVENTS_MAX" envDefault:"1000" accepts:"a whole number, 1 or more"`
	// EventsSpread is the time over which an event is sent, 0 to 1 minute.
	EventsSpread time.Duration `env:"FLAGR_OFREP_EVENTS_SPREAD" envDefault:"2s" accepts:"a duration from 0s to 1m, such as 2s"`
	// FlagSetID names this set of flags in metadata and telemetry.
	FlagSetID string `env:"FLAGR_FLAG_SET_ID"`
}

// GoRuntime has the operator's settings of the Go runtime.
type GoRuntime struct {
	// Tuned is true if GOGC or GOMEMLIMIT is set to any value.
	Tuned bool
}

// Telemetry configures what is exported about individual evaluations.
type Telemetry struct {
	// EvaluationEvents is EventsNone, EventsSampled or EventsAll.
	EvaluationEvents string `env:"FLAGR_OTEL_EVALUATION_EVENTS" envDefault:"none" accepts:"none, sampled or all; other than none needs a receiver, such as in OTEL_EXPORTER_OTLP_ENDPOINT"`
	// EventsPerSecond is the maximum number of events per flag and second with EventsAll; 0 means
	// no limit.
	EventsPerSecond int `env:"FLAGR_OTEL_EVALUATION_EVENTS_PER_SECOND" envDefault:"10" accepts:"a whole number, 0 or more"`
	// ContextID is ContextIDNone, ContextIDHashed or ContextIDClear.
	ContextID string `env:"FLAGR_OTEL_CONTEXT_ID" envDefault:"none" accepts:"none, hashed or clear"`
}

// Prometheus is the endpoint for metrics.
type Prometheus struct {
	// Enabled serves the metrics.
	Enabled bool `env:"FLAGR_PROMETHEUS_ENABLED" envDefault:"false"`
	// Path is the path of the metrics; it starts with a slash while Enabled.
	Path string `env:"FLAGR_PROMETHEUS_PATH" envDefault:"/metrics" accepts:"a path that starts with /, such as /metrics"`
	// IncludeLatencyHistogram adds a histogram of request times.
	IncludeLatencyHistogram bool `env:"FLAGR_PROMETHEUS_INCLUDE_LATENCY_HISTOGRAM" envDefault:"false"`
}

// Statsd configures the metrics sent to StatsD.
type Statsd struct {
	// Enabled sends metrics.
	Enabled bool `env:"FLAGR_STATSD_ENABLED" envDefault:"false"`
	// Host is the receiver's address.
	Host string `env:"FLAGR_STATSD_HOST" envDefault:"127.0.0.1"`
	// Port is the receiver's port, 1 to 65535 while Enabled.
	Port string `env:"FLAGR_STATSD_PORT" envDefault:"8125" accepts:"a port from 1 to 65535"`
	// Prefix is the prefix of every metric's name.
	Prefix string `env:"FLAGR_STATSD_PREFIX" envDefault:"flagr."`
	// APMEnabled sends traces to a Datadog agent.
	APMEnabled bool `env:"FLAGR_STATSD_APM_ENABLED" envDefault:"false"`
	// APMPort is the agent's port, 1 to 65535 while APMEnabled.
	APMPort string `env:"FLAGR_STATSD_APM_PORT" envDefault:"8126" accepts:"a port from 1 to 65535"`
	// APMServiceName is the name in the traces.
	APMServiceName string `env:"FLAGR_STATSD_APM_SERVICE_NAME" envDefault:"flagr"`
}

// Sentry configures reports of crashes and errors.
type Sentry struct {
	// Enabled sends them.
	Enabled bool `env:"FLAGR_SENTRY_ENABLED" envDefault:"false"`
	// DSN is the project's URL with its key; empty, or an http or https URL while Enabled.
	DSN string `env:"FLAGR_SENTRY_DSN" secret:"true" accepts:"an http or https URL"`
	// Environment is the name of the deployment in the reports.
	Environment string `env:"FLAGR_SENTRY_ENVIRONMENT"`
}

// NewRelic has the variables of an agent that this server does not have.
type NewRelic struct {
	// Enabled requests the agent.
	Enabled bool `env:"FLAGR_NEWRELIC_ENABLED" envDefault:"false"`
	// DistributedTracingEnabled requests traces across services.
	DistributedTracingEnabled bool `env:"FLAGR_NEWRELIC_DISTRIBUTED_TRACING_ENABLED" envDefault:"false"`
	// Name is the application's name.
	Name string `env:"FLAGR_NEWRELIC_NAME" envDefault:"flagr"`
	// Key is the license key.
	Key string `env:"FLAGR_NEWRELIC_KEY" secret:"true"`
}
