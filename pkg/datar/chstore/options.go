package chstore

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Options configures the connection to ClickHouse. ParseURL returns them for a connection string.
type Options struct {
	// Hosts are addresses of the HTTP interface, host:port, at least one. A request goes to one of
	// them. If that host does not respond or cannot write, the request goes to the next one.
	Hosts []string
	// TLS uses HTTPS.
	TLS bool
	// User and Password are the credentials. An empty User is ClickHouse's default user.
	User, Password string
	// Database is the database of the tables. It must exist.
	Database string
	// Cluster is the name of a cluster in ClickHouse's configuration. If it is set, tables are
	// created on all of its hosts. Counts are sharded and replicated, and all other tables are
	// replicated to every host.
	Cluster string
	// Logger logs that a privilege is missing without which answers are less certain. Nil means
	// slog.Default().
	Logger *slog.Logger
}

const (
	scheme    = "clickhouse"
	schemeTLS = "clickhouses"

	defaultPort    = "8123"
	defaultPortTLS = "8443"
)

// identifier matches the names that are inserted into statements.
var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// errURL describes a valid connection string. Errors of ParseURL never contain the connection
// string, because it contains a password.
var errURL = errors.New("want clickhouse://user:password@host1:8123,host2:8123/database?cluster=name, or clickhouses:// for TLS; " +
	"user, ports and cluster may be left out")

// ParseURL parses a connection string such as
// clickhouse://user:password@host1:8123,host2:8123/database?cluster=name.
func ParseURL(text string) (Options, error) {
	var o Options
	kind, rest, ok := strings.Cut(text, "://")
	if !ok || kind != scheme && kind != schemeTLS {
		return Options{}, errURL
	}
	o.TLS = kind == schemeTLS
	authority, path, _ := strings.Cut(rest, "/")
	user, hosts := "", authority
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, hosts = authority[:at], authority[at+1:]
	}
	if err := o.setUser(user); err != nil {
		return Options{}, err
	}
	for host := range strings.SplitSeq(hosts, ",") {
		address, err := o.address(strings.TrimSpace(host))
		if err != nil {
			return Options{}, err
		}
		o.Hosts = append(o.Hosts, address)
	}
	database, query, _ := strings.Cut(path, "?")
	o.Database = strings.TrimSuffix(database, "/")
	values, err := url.ParseQuery(query)
	if err != nil {
		return Options{}, fmt.Errorf("the part after the question mark is malformed; %w", errURL)
	}
	for name := range values {
		if name != "cluster" {
			return Options{}, fmt.Errorf("the parameter %q is not known, only cluster is; %w", name, errURL)
		}
	}
	o.Cluster = values.Get("cluster")
	return o, o.validate()
}

func (o *Options) setUser(text string) error {
	name, password, _ := strings.Cut(text, ":")
	var err, errPassword error
	o.User, err = url.PathUnescape(name)
	o.Password, errPassword = url.PathUnescape(password)
	if err != nil || errPassword != nil {
		return fmt.Errorf("user or password has a malformed percent escape; %w", errURL)
	}
	return nil
}

// address adds the default port to a host without a port.
func (o *Options) address(host string) (string, error) {
	name, port, err := net.SplitHostPort(host)
	if err != nil { // the host has no port
		name, port = strings.Trim(host, "[]"), defaultPort
		if o.TLS {
			port = defaultPortTLS
		}
	}
	number, err := strconv.Atoi(port)
	if name == "" || strings.ContainsAny(name, "/@?#% ") || err != nil || number < 1 || number > 65535 {
		return "", fmt.Errorf("the host %q is malformed; %w", host, errURL)
	}
	return net.JoinHostPort(name, port), nil
}

func (o *Options) validate() error {
	switch {
	case len(o.Hosts) == 0:
		return fmt.Errorf("there is no host; %w", errURL)
	case !identifier.MatchString(o.Database):
		return fmt.Errorf("the database is %q, want 1 to 64 letters, digits and underscores, of which the first is no digit; %w", o.Database, errURL)
	case o.Cluster != "" && !identifier.MatchString(o.Cluster):
		return fmt.Errorf("the cluster is %q, want up to 64 letters, digits and underscores, of which the first is no digit; %w", o.Cluster, errURL)
	default:
		return nil
	}
}
