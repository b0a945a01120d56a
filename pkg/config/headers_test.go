package config

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWebhookHeaders(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		text string
		want http.Header // nil: refused
	}{
		{"", http.Header{}},
		{" , ", http.Header{}},
		{"Authorization: Bearer abc", http.Header{"Authorization": {"Bearer abc"}}},
		{"authorization:Bearer abc,X-Team:  flags ", http.Header{"Authorization": {"Bearer abc"}, "X-Team": {"flags"}}},
		{"X-Time: 12:30", http.Header{"X-Time": {"12:30"}}},
		{"Accept: text/html, text/plain;q=0.5, X-A: 1", http.Header{"Accept": {"text/html, text/plain;q=0.5"}, "X-A": {"1"}}},
		{"X-A: 1, X-A: 2,", http.Header{"X-A": {"1", "2"}}},
		{"X-Empty:", http.Header{"X-Empty": {""}}},
		{"X-A: https://example.com/?a=1,2", http.Header{"X-A": {"https://example.com/?a=1,2"}}},
		{"Bearer s3cret", nil},
		{"{\"Authorization\": \"Bearer s3cret\"}", nil},
		{"X A: 1", nil},
		{"X-A: 1\r\nX-B: 2", nil},
		{": 1", nil},
	} {
		c, err := Load(map[string]string{"FLAGR_NOTIFICATION_WEBHOOK_HEADERS": tc.text})
		if (err == nil) != (tc.want != nil) {
			t.Errorf("%q gives %v", tc.text, err)
			continue
		}
		if err != nil {
			if strings.Contains(err.Error(), "s3cret") || !strings.HasPrefix(err.Error(), "FLAGR_NOTIFICATION_WEBHOOK_HEADERS: want ") {
				t.Errorf("%q gives %v", tc.text, err)
			}
			continue
		}
		if diff := cmp.Diff(tc.want, c.Notification.Header()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tc.text, diff)
		}
	}
}
