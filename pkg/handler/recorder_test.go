package handler_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
)

func TestRecordersStatusWithoutStreams(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string]map[string]string{
		"kill switch": {"FLAGR_RECORDER_ENABLED": "false", "FLAGR_RECORDER_TYPE": "kafka"},
		"datar alone": {"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := call(t, setup(t, environ), http.MethodGet, "/recorders/status", nil)
			if diff := cmp.Diff(`{"recorders":[]}`+"\n", got.raw); diff != "" || got.status != http.StatusOK {
				t.Errorf("%d (-want +got):\n%s", got.status, diff)
			}
		})
	}
}

func TestABrokerThatIsDownShowsInTheStatusAndDoesNotStopTheServer(t *testing.T) {
	t.Parallel()
	s := setup(t, map[string]string{
		"FLAGR_RECORDER_ENABLED":       "true",
		"FLAGR_RECORDER_TYPE":          "kafka",
		"FLAGR_RECORDER_KAFKA_BROKERS": "127.0.0.1:1",
	})
	status := func() map[string]any {
		recorders := must(t, s, http.MethodGet, "/recorders/status", nil)["recorders"].([]any)
		return recorders[0].(map[string]any)
	}
	testwait.Until(t, "kafka to fail", func() bool { return status()["state"] == "failing" })
	kafka := status()
	for _, member := range []string{"since", "lastErrorAt"} {
		if kafka[member] == nil {
			t.Errorf("kafka has no %s: %v", member, kafka)
		}
		delete(kafka, member)
	}
	want := map[string]any{
		"name": "kafka", "state": "failing", "recorded": 0.0, "delivered": 0.0, "pending": 0.0, "pendingBytes": 0.0, "retried": 0.0, "dropped": map[string]any{},
	}
	if diff := cmp.Diff(want, kafka); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	booleanFlag(t, s, "evaluated", false)
	must(t, s, http.MethodPost, "/evaluation", object{"flagKey": "evaluated", "entityID": "e"})
}
