package handler

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/nacl/secretbox"

	"github.com/flagr-datar/flagr-datar/integration_tests/golden"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// TestFramesOfRecordedAnswers compares frames with those that follow from Flagr 1.2.3's responses
// to 3,000 requests. The frames themselves were not recorded. But a frame is the response as
// encoding/json writes it, with its members in the order of their names. The recorded responses
// leave out only what is the same in all of them, or was sent.
func TestFramesOfRecordedAnswers(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile(golden.Path("flags.json"))
	if err != nil {
		t.Fatal(err)
	}
	flags, _, err := evalcache.ParseDocument(document)
	if err != nil {
		t.Fatal(err)
	}
	snapshot := eval.Compile(flags)
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	requests, answers := golden.Lines[json.RawMessage](t, "requests.jsonl"), golden.Lines[json.RawMessage](t, "expected.jsonl")
	key := recorder.NewKey("a key")
	compared := 0
	for i := range requests {
		request, answer := exactly(t, requests[i]), exactly(t, answers[i])
		asked := eval.Request{EntityContext: request["entityContext"]}
		asked.FlagKey, _ = request["flagKey"].(string)
		asked.EntityID, _ = request["entityID"].(string)
		asked.EntityType, _ = request["entityType"].(string)
		if id, ok := request["flagID"].(json.Number); ok {
			if asked.FlagID, err = id.Int64(); err != nil {
				t.Fatal(err)
			}
		}
		result := snapshot.Evaluate(asked, at, false)
		if result.Reason < eval.NoMatch { // without a flag, or for a disabled flag or one without segments, nothing is sent
			continue
		}
		compared++
		payload := marshal(t, recordedPayload(request, answer, at))

		type text struct {
			Payload   string `json:"payload"`
			Encrypted bool   `json:"encrypted"`
		}
		type raw struct {
			Payload json.RawMessage `json:"payload"`
		}
		for mode, tc := range map[string]struct {
			framing recorder.Framing
			want    any
		}{
			"payload_string":   {recorder.Framing{}, text{Payload: string(payload)}},
			"payload_raw_json": {recorder.Framing{RawJSON: true}, raw{payload}},
		} {
			got, err := newRecord(result, &tc.framing).Frame()
			if diff := cmp.Diff(string(marshal(t, tc.want)), string(got)); diff != "" || err != nil {
				t.Fatalf("request %d, %s: %v (-want +got):\n%s", i+1, mode, err, diff)
			}
		}
		var sealed text
		frame, err := newRecord(result, &recorder.Framing{Sealed: true, Key: key}).SealedFrame()
		if err != nil || json.Unmarshal(frame, &sealed) != nil || !sealed.Encrypted {
			t.Fatalf("request %d: %s, %v", i+1, frame, err)
		}
		box, err := base64.StdEncoding.DecodeString(sealed.Payload)
		if err != nil || len(box) < 24 {
			t.Fatalf("request %d: %s, %v", i+1, frame, err)
		}
		opened, ok := secretbox.Open(nil, box[24:], (*[24]byte)(box), &key)
		if !ok || !bytes.Equal(opened, payload) {
			t.Fatalf("request %d: opened %v: %s", i+1, ok, opened)
		}
	}
	if compared < 2000 {
		t.Errorf("%d frames were compared", compared)
	}
}

// recordedPayload adds the members that a recorded response leaves out.
func recordedPayload(request, answer map[string]any, at time.Time) map[string]any {
	context := map[string]any{}
	for name, value := range request {
		if value != "" && value != false {
			context[name] = value
		}
	}
	payload := map[string]any{
		"evalDebugLog": map[string]any{"segmentDebugLogs": nil},
		"recordSource": "evaluation",
		"timestamp":    at.Format(time.RFC3339),
	}
	for name, value := range answer {
		if name == "entityType" { // it comes from the context in the response, because the flag may set it
			if value != "" {
				context[name] = value
			}
			continue
		}
		payload[name] = value
	}
	payload["evalContext"] = context
	return payload
}

// exactly decodes a JSON object and keeps all digits of its numbers.
func exactly(t *testing.T, text []byte) (object map[string]any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&object); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return object
}

func marshal(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
