package handler

import (
	"encoding/json"
	"maps"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestInjectedProperties(t *testing.T) {
	t.Parallel()
	// A Sunday in UTC, and a Monday in the clock's time zone.
	now := time.Date(2026, 3, 2, 1, 30, 0, 0, time.FixedZone("", 3*3600))
	clock := map[string]any{
		"@ts": json.Number("1772404200"), "@ts_hour": json.Number("22"), "@ts_weekday": json.Number("0"), "@ts_month": json.Number("3"),
	}
	r := httptest.NewRequestWithContext(t.Context(), "POST", "http://flags.example.com/", nil)
	r.Header.Set("X-Country", "FR")
	r.Header.Set("X-Geo-City", "Nice")
	r.Header.Set("X-Geo_City", "sent by the client to be @http_x_geo_city")
	r.Header.Set("Q_id", "7")
	r.Header.Add("Accept-Language", "fr")
	r.Header.Add("Accept-Language", "en")
	r.Header.Set("Authorization", "Bearer abc")
	for _, tc := range []struct {
		name              string
		headers, prefixes []string
		want              map[string]any
	}{
		{"the time alone", nil, nil, nil},
		{"headers in any case", []string{"x-country", "ACCEPT-LANGUAGE"}, nil, map[string]any{"@http_x_country": "FR", "@http_accept_language": "fr, en"}},
		{"a prefix in any case", nil, []string{"x-G"}, map[string]any{"@http_x_geo_city": "Nice"}},
		{"underscores by name, and in the prefix", []string{"Q_Id"}, []string{"Q_"}, map[string]any{"@http_q_id": "7"}},
		{"the host by name", []string{"host"}, nil, map[string]any{"@http_host": "flags.example.com"}},
		{"the host by prefix", nil, []string{"ho"}, map[string]any{"@http_host": "flags.example.com"}},
		{"both, and one that is not there", []string{"X-Country", "X-Missing"}, []string{"X-"}, map[string]any{"@http_x_country": "FR", "@http_x_geo_city": "Nice"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := &InjectedContext{Headers: tc.headers, HeaderPrefixes: tc.prefixes, Now: func() time.Time { return now }}
			want := maps.Clone(clock) // the time is always added
			maps.Copy(want, tc.want)
			if diff := cmp.Diff(want, c.properties(r)); diff != "" {
				t.Errorf("properties (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(clock, c.properties(nil)); diff != "" {
				t.Errorf("properties without a request (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInjectionOverwritesAndKeepsWhatIsNoObject(t *testing.T) {
	t.Parallel()
	added := map[string]any{"@ts": 1}
	for _, tc := range []struct {
		name          string
		context, want any
	}{
		{"none", nil, map[string]any{"@ts": 1}},
		{"null as an object", map[string]any(nil), map[string]any{"@ts": 1}},
		{"an object", map[string]any{"@ts": 0, "a": true}, map[string]any{"@ts": 1, "a": true}},
		{"names of headers", map[string]any{"@http_x_country": "FR", "http_x": 1}, map[string]any{"@ts": 1, "http_x": 1}},
		{"a text", "text", "text"},
		{"a list", []any{1}, []any{1}},
	} {
		if diff := cmp.Diff(tc.want, inject(tc.context, added)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}
