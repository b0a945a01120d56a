package ofrep_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
)

const french = `{"context":{"country":"FR"}}`

func TestAllFlags(t *testing.T) {
	t.Parallel()
	h := setup(t, "", 0, ofrep.Options{})
	const streams = `,"eventStreams":[{"type":"sse","endpoint":{"requestUri":"/ofrep/v1/events"},"inactivityDelaySec":120}]}`
	all := `{"flags":[` + noKey + `,` + newSearch + `,` + old + `,{"key":"page-size",` + pageSize + `]`
	for query, want := range map[string]string{
		"":                           all + streams,
		"?flagsOnly=true":            all + "}",
		"?flagKeys=old&x=y":          `{"flags":[` + old + `],"eventStreams":[{"type":"sse","endpoint":{"requestUri":"/ofrep/v1/events?flagKeys=old"},"inactivityDelaySec":120}]}`,
		"?flagKeys=3,zzz":            `{"flags":[` + old + `],"eventStreams":[{"type":"sse","endpoint":{"requestUri":"/ofrep/v1/events?flagKeys=3%2Czzz"},"inactivityDelaySec":120}]}`,
		"?flagTags=none":             `{"flags":[],"eventStreams":[{"type":"sse","endpoint":{"requestUri":"/ofrep/v1/events?flagTags=none"},"inactivityDelaySec":120}]}`,
		"?flagTags=web&flagKeys=old": `{"flags":[` + newSearch + `,` + old + `],"eventStreams":[{"type":"sse","endpoint":{"requestUri":"/ofrep/v1/events?flagTags=web&flagKeys=old"},"inactivityDelaySec":120}]}`,
		"?flagTags=web,checkout&flagTagsOperator=ALL&flagsOnly=true": `{"flags":[]}`,
		"?flagTags=web&flagTags=checkout&flagsOnly=true":             `{"flags":[` + noKey + `,` + newSearch + `]}`,
	} {
		rw := call(h, http.MethodPost, flagsPath+query, french)
		if rw.Code != 200 || rw.Body.String() != want {
			t.Errorf("%s: %d %s\nwant %s", query, rw.Code, rw.Body, want)
		}
		checkShape(t, rw.Code, rw.Body.Bytes())
		if rw.Header().Get("Cache-Control") != "private, no-cache" {
			t.Errorf("Cache-Control is %q", rw.Header().Get("Cache-Control"))
		}
	}
	if status, answer := post(h, flagsPath+"?flagTagsOperator=SOME", french); status != 400 || !strings.Contains(answer, "want ANY or ALL") {
		t.Errorf("%d %s", status, answer)
	}
	none := setup(t, `{"Flags":[]}`, 0, ofrep.Options{FlagSetID: "set", Events: ofrep.Events{Disabled: true}})
	if _, answer := post(none, flagsPath, ""); answer != `{"flags":[],"metadata":{"flagSetId":"set"}}` {
		t.Error(answer)
	}
}

func TestAnnouncedStreams(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		options ofrep.Options
		origin  string
		want    string
	}{
		"a prefix":       {ofrep.Options{Prefix: "/flags"}, "", `"endpoint":{"requestUri":"/flags/ofrep/v1/events?flagTags=a+b"}`},
		"the own origin": {ofrep.Options{}, "https://example.com", `"endpoint":{"requestUri":"/ofrep/v1/events?flagTags=a+b","origin":"https://example.com"}`},
		"another origin": {ofrep.Options{}, "https://example.org", `"endpoint":{"requestUri":"/ofrep/v1/events?flagTags=a+b"}`},
		"an address":     {ofrep.Options{Events: ofrep.Events{URL: "https://f.example.org/e?x=1"}}, "", `"url":"https://f.example.org/e?x=1&flagTags=a+b"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := setup(t, "", 0, tc.options)
			rw := call(h, http.MethodPost, flagsPath+"?flagTags=a+b", "", "Origin", tc.origin)
			if !strings.Contains(rw.Body.String(), tc.want) {
				t.Errorf("%s\nwant %s", rw.Body, tc.want)
			}
		})
	}
}

func TestEntityTags(t *testing.T) {
	t.Parallel()
	h := setup(t, "", time.Millisecond, ofrep.Options{})
	ask := func(query, body, tag string) (int, string) {
		rw := call(h, http.MethodPost, flagsPath+query, body, "If-None-Match", tag)
		if rw.Code == http.StatusNotModified && (rw.Body.Len() > 0 || rw.Header().Get("Cache-Control") == "" || rw.Header().Get("Content-Type") != "") {
			t.Errorf("304 with body %q and headers %v", rw.Body, rw.Header())
		}
		return rw.Code, rw.Header().Get("ETag")
	}
	_, tag := ask("", french, "")
	bare := strings.Trim(strings.TrimPrefix(tag, "W/"), `"`)
	answer, input, _ := strings.Cut(bare, ".")
	if len(answer) != 22 || len(input) != 22 || !strings.HasPrefix(tag, `W/"`) {
		t.Fatalf("tag is %s", tag)
	}
	other := strings.Repeat("A", 22)
	for name, tc := range map[string]struct {
		query, body, tag string
		want             int
	}{
		"the tag":                    {"", french, tag, 304},
		"not weak":                   {"", french, `"` + bare + `"`, 304},
		"without quotes":             {"", french, bare, 304},
		"a list":                     {"", french, `"x", W/"y.z" ,` + tag, 304},
		"compressed by a proxy":      {"", french, `"` + bare + `-gzip"`, 304},
		"the same answer":            {"", `{"context":{"country":"FR","x":1}}`, tag, 304},
		"the same input":             {"", french, other + "." + input, 304},
		"an answer of other input":   {"", french, answer + "." + other, 304},
		"anything":                   {"", french, "*", 200},
		"something else":             {"", french, other + "." + other, 200},
		"half of it":                 {"", french, answer, 200},
		"another context":            {"", `{"context":{"country":"DE"}}`, tag, 200},
		"another scope":              {"?flagTags=web", french, tag, 200},
		"without streams":            {"?flagsOnly=true", french, tag, 200},
		"other flags, seen before":   {"?flagConfigEtag=0123456789abcdef", french, tag, 200},
		"an event of a time to come": {"?flagConfigLastModified=99999999999", french, tag, 304},
	} {
		if got, now := ask(tc.query, tc.body, tc.tag); got != tc.want || now == "" {
			t.Errorf("%s: %d with tag %q, want %d", name, got, now, tc.want)
		}
	}

	_, scoped := ask("?flagTags=web", french, "")
	changed := parse(t, strings.Replace(examples, "#1a7f37", "#ffffff", 1))
	h.source.set(changed)
	testwait.Until(t, "the change", func() bool { return h.cache.State().Version == "rev-2" })
	if got, now := ask("?flagTags=web", french, scoped); got != 304 || now == scoped {
		t.Errorf("after a change out of scope: %d %s", got, now)
	}
	withKey := `{"context":{"targetingKey":"user-3"}}`
	_, before := ask("", withKey, "")
	h.source.set(parse(t, strings.Replace(examples, "#1a7f37", "#000000", 1)))
	testwait.Until(t, "the change", func() bool { return h.cache.State().Version == "rev-3" })
	if rw := call(h, http.MethodPost, flagPath+"checkout", withKey); !strings.Contains(rw.Body.String(), "#000000") {
		t.Fatalf("user-3 must get green: %s", rw.Body)
	}
	if got, _ := ask("", withKey, before); got != 200 {
		t.Errorf("another attachment with the same variants: %d", got)
	}
}

// TestInjectedContext has the time as an input, which no tag knows.
func TestInjectedContext(t *testing.T) {
	t.Parallel()
	country := "FR"
	h := setup(t, "", 0, ofrep.Options{Inject: func(context any, _ *http.Request) any {
		m, _ := context.(map[string]any)
		if m == nil {
			m = map[string]any{}
		}
		m["country"] = country
		return m
	}})
	rw := call(h, http.MethodPost, flagsPath, "")
	tag := rw.Header().Get("ETag")
	if again := call(h, http.MethodPost, flagsPath, "", "If-None-Match", tag); again.Code != 304 {
		t.Errorf("same answer: %d", again.Code)
	}
	country = "DE"
	if again := call(h, http.MethodPost, flagsPath, "", "If-None-Match", tag); again.Code != 200 {
		t.Errorf("other answer: %d", again.Code)
	}
	if _, got := post(h, flagPath+"new-search", `{"context":{"country":"FR"}}`); !strings.Contains(got, "DEFAULT") {
		t.Errorf("the client's property counts: %s", got)
	}
}

// TestAnEventOfAnotherServer asks for flags that this server has not seen yet.
func TestAnEventOfAnotherServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := setup(t, "", time.Hour, ofrep.Options{})
		twin := setup(t, "", time.Hour, ofrep.Options{})
		twin.source.set(parse(t, examples))
		twin.cache.Look(t.Context())
		rw := call(twin, http.MethodPost, flagsPath, french)
		newer := revision(twin)
		tag := call(h, http.MethodPost, flagsPath, french).Header().Get("ETag")

		// The source is behind, too: the answer must not be 304.
		looks := h.source.looked()
		var wg sync.WaitGroup
		for range 20 { // who wait together share a look
			wg.Go(func() {
				if got := call(h, http.MethodPost, flagsPath+"?flagConfigEtag="+newer, french, "If-None-Match", tag); got.Code != 200 {
					t.Errorf("%d of a server that is behind", got.Code)
				}
			})
		}
		wg.Wait()
		if n := h.source.looked() - looks; n < 1 || n > 3 {
			t.Errorf("%d looks for 20 requests", n)
		}
		h.source.set(parse(t, examples))
		if got := call(h, http.MethodPost, flagsPath+"?flagConfigEtag="+newer, french, "If-None-Match", rw.Header().Get("ETag")); got.Code != 304 {
			t.Errorf("%d of a server that has looked", got.Code)
		}
		h.source.fail(errors.New("database is away"))
		start := time.Now()
		if got := call(h, http.MethodPost, flagsPath+"?flagConfigEtag=other", french, "If-None-Match", tag); got.Code != 200 {
			t.Errorf("%d without a source", got.Code)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("waited %s", took)
		}
	})
}

// revision is what events of a server name.
func revision(f *fixture) string {
	v := ""
	for line := range strings.SplitSeq(stream(f, time.Millisecond), "\n") {
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			v = id
		}
	}
	return v
}

// TestTenThousandFlags must neither fail nor take as long as a reader notices.
func TestTenThousandFlags(t *testing.T) {
	t.Parallel()
	h := setup(t, manyFlags(10_000), 0, ofrep.Options{})
	status, answer := post(h, flagsPath, `{"context":{"targetingKey":"u"}}`)
	if got := decode[struct{ Flags []struct{ Key string } }](t, answer); status != 200 || len(got.Flags) != 10_000 {
		t.Errorf("%d with %d flags", status, len(got.Flags))
	}
}

// TestManyFlagsTakeTurns checks that the evaluation of many flags, or for many values, waits for a
// turn, and that of one or few flags does not. A client that only closed its side of the connection
// gets no empty 200.
func TestManyFlagsTakeTurns(t *testing.T) {
	t.Parallel()
	turns := budget.NewTurns(1)
	many := setup(t, manyFlags(1000), 0, ofrep.Options{Turns: turns})
	few := setup(t, manyFlags(10), 0, ofrep.Options{Turns: turns})
	if err := turns.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	const small = `{"context":{"targetingKey":"u"}}`
	values := `{"context":{"targetingKey":"u","a":[` + strings.Repeat("1,", 1999) + `1]}}`
	for _, c := range []struct {
		h            http.Handler
		ctx          context.Context
		target, body string
		want         int
	}{
		{many, gone, flagsPath, small, 499}, {many, gone, flagPath + "flag-00001", small, 200}, {few, gone, flagsPath, small, 499},
		{few, t.Context(), flagsPath, small, 200}, {few, gone, flagsPath, values, 499}, {few, gone, flagPath + "flag-00001", values, 499},
	} {
		rw := httptest.NewRecorder()
		c.h.ServeHTTP(rw, httptest.NewRequestWithContext(c.ctx, http.MethodPost, c.target, strings.NewReader(c.body)))
		if rw.Code != c.want || rw.Body.Len() == 0 {
			t.Errorf("%s: %d %s, want %d", c.target, rw.Code, rw.Body, c.want)
		}
	}
	turns.Release()
	if status, _ := post(many, flagsPath, `{"context":{"targetingKey":"u"}}`); status != http.StatusOK {
		t.Errorf("after its turn: %d", status)
	}
	if err := turns.Take(t.Context()); err != nil { // it was returned
		t.Error(err)
	}
}

// manyFlags is a document of flags whose bucket decides.
func manyFlags(n int) string {
	var b strings.Builder
	b.WriteString(`{"Flags":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"Key":"flag-%05d","Enabled":true,"SnapshotID":%d,"Variants":[{"Key":"on","Attachment":{"color":"#1a7f37"}},{"Key":"off"}],
			"Segments":[{"RolloutPercent":100,"Constraints":[{"Property":"country","Operator":"EQ","Value":"\"FR\""}],"Distributions":[{"VariantKey":"on","Percent":100}]},
			{"Rank":1,"RolloutPercent":100,"Distributions":[{"VariantKey":"on","Percent":50},{"VariantKey":"off","Percent":50}]}]}`, i, i+1)
	}
	return b.String() + `]}`
}
