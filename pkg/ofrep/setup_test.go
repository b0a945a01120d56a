package ofrep_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
)

// source is a source of flags that a test changes.
type source struct {
	mu    sync.Mutex
	flags []entity.Flag
	rev   int
	looks int
	err   error
}

func (s *source) set(flags []entity.Flag) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flags, s.rev = flags, s.rev+1
}

func (s *source) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *source) looked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.looks
}

// Version implements evalcache.FlagSource.
func (s *source) Version(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	return fmt.Sprint("rev-", s.rev), s.err
}

// Flags implements evalcache.FlagSource.
func (s *source) Flags(context.Context) ([]entity.Flag, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]entity.Flag{}, s.flags...), s.err
}

// records keeps what was recorded.
type records struct {
	mu   sync.Mutex
	keys []string
}

// AsyncRecord implements eval.Recorder.
func (r *records) AsyncRecord(result *eval.Result) {
	if !result.Recorded() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = append(r.keys, result.FlagKey+"="+result.VariantKey)
}

func (r *records) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.keys, " ")
}

// fixture is a handler with its flags.
type fixture struct {
	*ofrep.Handler
	source  *source
	cache   *evalcache.Cache
	records *records
}

// setup serves a document, or the flags of the contract's examples if there is none.
func setup(t testing.TB, document string, refresh time.Duration, o ofrep.Options) *fixture {
	t.Helper()
	f := &fixture{source: &source{}, records: &records{}}
	f.source.set(parse(t, document))
	f.cache = evalcache.New(f.source, evalcache.Options{RefreshInterval: refresh, Logger: slog.New(slog.DiscardHandler)})
	if err := f.cache.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.Eval = eval.NewService(f.cache, f.records, eval.Options{})
	o.States = f.cache
	f.Handler = ofrep.New(o)
	f.Start()
	t.Cleanup(func() {
		f.Stop()
		_ = f.cache.Stop(context.Background())
	})
	return f
}

func parse(t testing.TB, document string) []entity.Flag {
	t.Helper()
	if document == "" {
		document = examples
	}
	flags, _, err := evalcache.ParseDocument([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	return flags
}

// examples are the flags that the contract describes, and some for what it does not show.
const examples = `{"Flags":[
	{"ID":42,"Key":"checkout","Enabled":true,"DataRecordsEnabled":true,"SnapshotID":117,"Tags":[{"Value":"checkout"}],
	 "Segments":[{"ID":23,"RolloutPercent":100,"Distributions":[{"VariantKey":"green","Percent":50},{"VariantKey":"blue","Percent":50}]}],
	 "Variants":[{"ID":61,"Key":"green","Attachment":{"color":"#1a7f37"}},{"ID":62,"Key":"blue"}]},
	{"ID":7,"Key":"new-search","Enabled":true,"SnapshotID":98,"Tags":[{"Value":"web"}],
	 "Segments":[{"ID":9,"RolloutPercent":100,"Constraints":[{"Property":"country","Operator":"EQ","Value":"\"FR\""}],
	  "Distributions":[{"VariantKey":"on","Percent":100}]}],
	 "Variants":[{"ID":12,"Key":"on"}]},
	{"ID":3,"Key":"old","SnapshotID":12,"Segments":[{"ID":1,"RolloutPercent":100,"Distributions":[{"VariantKey":"x","Percent":100}]}],
	 "Variants":[{"ID":1,"Key":"x"}]},
	{"ID":8,"Key":"page-size","Enabled":true,"DataRecordsEnabled":true,"SnapshotID":101,
	 "Segments":[{"ID":11,"RolloutPercent":100,"Distributions":[{"VariantKey":"small","Percent":100}]}],
	 "Variants":[{"ID":15,"Key":"small","Attachment":{"value":10,"unit":"rows"}},{"ID":16,"Key":"large","Attachment":{"value":12.5}}]}
]}`

// call asks a handler. Headers are given as name and value in turn.
func call(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, reader)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	rw := httptest.NewRecorder()
	h.ServeHTTP(rw, r)
	return rw
}

const (
	flagsPath = "/ofrep/v1/evaluate/flags"
	flagPath  = flagsPath + "/"
)

// post evaluates and returns status and body.
func post(h http.Handler, target, body string, headers ...string) (int, string) {
	rw := call(h, http.MethodPost, target, body, headers...)
	return rw.Code, rw.Body.String()
}

// decode reads JSON into a value, numbers as their text.
func decode[T any](t testing.TB, text string) T {
	t.Helper()
	var value T
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return value
}
