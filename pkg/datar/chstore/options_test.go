package chstore_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]chstore.Options{
		"clickhouse://ch/datar":                       {Hosts: []string{"ch:8123"}, Database: "datar"},
		"clickhouses://ch/datar/":                     {Hosts: []string{"ch:8443"}, TLS: true, Database: "datar"},
		"clickhouse://u@10.0.0.1:1,[::1]:2,[::2]/d":   {Hosts: []string{"10.0.0.1:1", "[::1]:2", "[::2]:8123"}, User: "u", Database: "d"},
		"clickhouse://u:p%40s%2Fs:@a:1/d?cluster=c_1": {Hosts: []string{"a:1"}, User: "u", Password: "p@s/s:", Database: "d", Cluster: "c_1"},
		"clickhouse://u:p@x@a:1/d":                    {Hosts: []string{"a:1"}, User: "u", Password: "p@x", Database: "d"},
	} {
		got, err := chstore.ParseURL(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		hosts := slices.Equal(got.Hosts, want.Hosts)
		got.Hosts, want.Hosts = nil, nil
		if !hosts || got.TLS != want.TLS || got.User != want.User || got.Password != want.Password || got.Database != want.Database || got.Cluster != want.Cluster {
			t.Errorf("%s: got %+v, want %+v", text, got, want)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                          "want clickhouse://",
		"http://u:secret@ch/datar":                  "want clickhouse://",
		"clickhouse://u:secret@ch":                  `the database is ""`,
		"clickhouse://u:secret@ch/a-b":              `the database is "a-b"`,
		"clickhouse://u:secret@/datar":              `the host "" is malformed`,
		"clickhouse://u:secret@a,,b/datar":          `the host "" is malformed`,
		"clickhouse://u:secret@a:x/datar":           `the host "a:x" is malformed`,
		"clickhouse://u:secret@a:70000/datar":       `the host "a:70000" is malformed`,
		"clickhouse://u:secret%zz@a/datar":          "malformed percent escape",
		"clickhouse://u:secret@a/datar?clustr=x":    `the parameter "clustr" is not known`,
		"clickhouse://u:secret@a/datar?cluster=x'y": `the cluster is "x'y"`,
		"clickhouse://u:secret@a/datar?cluster=%zz": "malformed",
	} {
		_, err := chstore.ParseURL(text)
		switch {
		case err == nil:
			t.Errorf("%s is accepted", text)
		case !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: got %q, want %q and no password", text, err, want)
		}
	}
}
