package app_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
)

func TestChangesArePostedToTheWebhook(t *testing.T) {
	t.Parallel()
	bodies := make(chan string, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("X-Team") != "flags" {
			t.Errorf("%v, header %v", err, r.Header)
		}
		bodies <- string(body)
	}))
	t.Cleanup(receiver.Close)
	a, _, log := setup(t, map[string]string{
		"FLAGR_NOTIFICATION_WEBHOOK_ENABLED":       "true",
		"FLAGR_NOTIFICATION_WEBHOOK_URL":           receiver.URL,
		"FLAGR_NOTIFICATION_WEBHOOK_HEADERS":       "X-Team: flags",
		"FLAGR_NOTIFICATION_DETAILED_DIFF_ENABLED": "true",
	})
	send := serve(t, a)
	send("POST", "/flags", `{"description":"d","key":"k"}`)
	send("PUT", "/flags/1/enabled", `{"enabled":true}`)
	send("POST", "/flags/1/tags", `{"value":"web"}`)
	testwait.Until(t, "the notifications", func() bool { return len(bodies) == 3 }) // stopping, the server does not wait for long
	stop(t, a)
	close(bodies)

	var got []string
	details := regexp.MustCompile(`,"user":"","timestamp":"[^"]+"(,"pre_value":".*")?,"post_value":".*","diff":".*"`)
	for body := range bodies {
		if !details.MatchString(body) {
			t.Errorf("no details: %s", body)
		}
		if strings.Contains(body, `"component_type":"flag"`) && strings.Contains(body, `"operation":"update"`) &&
			(!strings.Contains(body, `-  \"Enabled\": false`) || !strings.Contains(body, `+  \"Enabled\": true`)) {
			t.Errorf("no difference: %s", body)
		}
		got = append(got, strings.TrimSpace(details.ReplaceAllString(body, "")))
	}
	want := []string{
		`{"operation":"create","flag_id":1,"flag_key":"k","component_type":"flag","component_id":1,"component_key":"k"}`,
		`{"operation":"update","flag_id":1,"flag_key":"k","component_type":"flag","component_id":1,"component_key":"k"}`,
		`{"operation":"create","flag_id":1,"flag_key":"k","component_type":"tag","component_id":1,"component_key":"web"}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("notifications (-want +got):\n%s", diff)
	}
	if strings.Contains(log.String(), "notification") {
		t.Errorf("log is %s", log)
	}
}

func TestALostNotificationIsNoFailureOfTheServer(t *testing.T) {
	t.Parallel()
	nobody := httptest.NewServer(http.NotFoundHandler())
	nobody.Close()
	a, _, log := setup(t, map[string]string{
		"FLAGR_NOTIFICATION_WEBHOOK_ENABLED": "true",
		"FLAGR_NOTIFICATION_WEBHOOK_URL":     nobody.URL,
		"FLAGR_NOTIFICATION_RETRY_BASE":      "1h",
		"FLAGR_NOTIFICATION_RETRY_MAX":       "1h",
	})
	serve(t, a)("POST", "/flags", `{"description":"d","key":"k"}`)
	stop(t, a) // the server has a bound for this
	for _, want := range []string{"notification is dropped", "the last reports were not sent", "1 notifications were not delivered"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	if strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("logged as an error:\n%s", log)
	}
}
