package ofrep_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
)

const slashed = `{"Flags":[
	{"ID":1,"Key":"a/b","Enabled":true,"Variants":[{"Key":"on"}],"Segments":[{"RolloutPercent":100,"Distributions":[{"VariantKey":"on","Percent":100}]}]},
	{"ID":2,"Key":"size","Enabled":true,"Variants":[{"Key":"s","Attachment":{"value":5}},{"Key":"l","Attachment":{"value":7.5}}],
	 "Segments":[{"RolloutPercent":100,"Constraints":[{"Property":"tier","Operator":"EQ","Value":"\"l\""}],"Distributions":[{"VariantKey":"l","Percent":100}]},
	  {"Rank":1,"RolloutPercent":100,"Distributions":[{"VariantKey":"s","Percent":100}]}]},
	{"ID":3,"Key":"off","Tags":[{"Value":"ofrep:default:no"}],"Enabled":true,"Variants":[{"Key":"no"}]}
]}`

// TestRequestsOfProviders sends what providers send that tests cannot install, as each of them
// does.
func TestRequestsOfProviders(t *testing.T) {
	t.Parallel()
	access := ofrep.Access{Keys: []ofrep.APIKey{{Name: "k", Secret: "s"}}}
	h := setup(t, slashed, 0, ofrep.Options{Access: access})
	type headers []string
	bearer := headers{"Authorization", "Bearer s", "Content-Type", "application/json; charset=utf-8"}
	for name, tc := range map[string]struct {
		path, body string
		headers    headers
		status     int
		want       []string // parts of the answer
	}{
		"Go: does not escape":                  {flagPath + "a/b", `{"context":{"targetingKey":"u"}}`, bearer, 200, []string{`"key":"a/b","value":true`}},
		"Go: a default of the flag":            {flagPath + "off", `{"context":{}}`, bearer, 200, []string{`"value":"no","reason":"DEFAULT"`}},
		".NET: escapes":                        {flagPath + "a%2Fb", `{"context":{"targetingKey":"u"}}`, headers{"Authorization", "Bearer s", "Accept", "application/json"}, 200, []string{`"key":"a/b"`}},
		".NET: no login":                       {flagPath + "a%2Fb", `{"context":{}}`, nil, 401, []string{`"metadata":{}`, `"errorCode":"GENERAL"`}},
		"JavaScript on servers: escapes":       {flagPath + "a%2Fb", `{"context":{"targetingKey":"u","when":"2026-01-02T03:04:05.000Z"}}`, bearer, 200, []string{`"value":true`}},
		"Java: metadata in refusals":           {flagPath + "gone", `{"context":{"targetingKey":"u"}}`, headers{"X-API-Key", "s"}, 404, []string{`"metadata":{}`, `"errorDetails":"flag gone does not exist"`}},
		"Java, Python: 5 is no double":         {flagPath + "size", `{"context":{}}`, bearer, 200, []string{`"value":5.0,`}},
		"Java: the other number":               {flagPath + "size", `{"context":{"tier":"l"}}`, bearer, 200, []string{`"value":7.5,`}},
		"Python: no context":                   {flagPath + "size", `{}`, bearer, 200, []string{`"variant":"s"`}},
		"Kotlin: nothing but flags at the top": {flagsPath + "?flagsOnly=true", `{"context":{"targetingKey":"u"}}`, bearer, 200, []string{`{"flags":[{"key":"a/b"`, `]}`}},
		"JavaScript in browsers: all members":  {flagsPath, `{"context":{"targetingKey":"u"}}`, bearer, 200, []string{`"eventStreams":[{"type":"sse"`, `"inactivityDelaySec":120`}},
	} {
		rw := call(h, http.MethodPost, tc.path, tc.body, tc.headers...)
		answer := rw.Body.String()
		for _, part := range tc.want {
			if !strings.Contains(answer, part) {
				t.Errorf("%s: %d %s, want %s", name, rw.Code, answer, part)
			}
		}
		if rw.Code != tc.status {
			t.Errorf("%s: %d, want %d", name, rw.Code, tc.status)
		}
		if strings.Contains(tc.path, "flagsOnly") && strings.Contains(answer, "eventStreams") {
			t.Errorf("%s: %s", name, answer)
		}
		checkShape(t, rw.Code, rw.Body.Bytes())
	}

	// Kotlin keeps its tag over every change of context.
	first := call(h, http.MethodPost, flagsPath+"?flagsOnly=true", `{"context":{"targetingKey":"u"}}`, bearer...)
	with := append(headers{"If-None-Match", first.Header().Get("ETag")}, bearer...)
	if rw := call(h, http.MethodPost, flagsPath+"?flagsOnly=true", `{"context":{"targetingKey":"u","tier":"l"}}`, with...); rw.Code != 200 {
		t.Errorf("another context: %d", rw.Code)
	}
}
