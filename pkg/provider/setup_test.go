package provider_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/flagr-datar/flagr-datar/integration_tests/golden"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
	"github.com/flagr-datar/flagr-datar/pkg/provider"
)

// server answers what the provider asks: the export, OFREP, and counts.
type server struct {
	*httptest.Server
	cache *evalcache.Cache
	ofrep *ofrep.Handler

	mu       sync.Mutex
	document []byte
	away     bool
	counted  map[string]int64 // by flag, variant, segment
	outcomes map[string]int64 // by flag, outcome, segment, version, asked
	seen     map[string]bool  // idempotency keys
	exports  map[int]int      // by status
}

// Version implements evalcache.FlagSource.
func (s *server) Version(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := sha256.Sum256(s.document)
	return hex.EncodeToString(sum[:]), nil
}

// Flags implements evalcache.FlagSource.
func (s *server) Flags(context.Context) ([]entity.Flag, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	flags, _, err := evalcache.ParseDocument(s.document)
	return flags, err
}

func newServer(t testing.TB, document string) *server {
	t.Helper()
	s, err := serve(t.Context(), document)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// exampleServer is one for an example, which has no test to fail.
func exampleServer() *server {
	s, err := serve(context.Background(), simple)
	if err != nil {
		panic(err)
	}
	return s
}

// Close stops everything.
func (s *server) Close() {
	s.ofrep.Stop()
	s.Server.Close()
	_ = s.cache.Stop(context.Background())
}

func serve(ctx context.Context, document string) (*server, error) {
	s := &server{document: []byte(document), counted: map[string]int64{}, outcomes: map[string]int64{}, seen: map[string]bool{}, exports: map[int]int{}}
	s.cache = evalcache.New(s, evalcache.Options{RefreshInterval: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err := s.cache.Start(ctx); err != nil {
		return nil, err
	}
	s.ofrep = ofrep.New(ofrep.Options{Eval: eval.NewService(s.cache, nil, eval.Options{}), States: s.cache, Events: ofrep.Events{Spread: -1}})
	s.ofrep.Start()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/export/eval_cache/json", s.export)
	mux.HandleFunc("POST /api/v1/datar/evaluations", s.count)
	s.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		away := s.away
		s.mu.Unlock()
		switch {
		case away:
			rw.WriteHeader(http.StatusServiceUnavailable)
		case len(r.URL.Path) > 7 && r.URL.Path[:7] == ofrep.Root:
			s.ofrep.ServeHTTP(rw, r)
		default:
			mux.ServeHTTP(rw, r)
		}
	}))
	return s, nil
}

func (s *server) set(document string, away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.document, s.away = []byte(document), away
}

func (s *server) export(rw http.ResponseWriter, r *http.Request) {
	state := s.cache.State()
	tag := `W/"` + state.Version + `"`
	status := http.StatusOK
	if r.Header.Get("If-None-Match") == tag {
		status = http.StatusNotModified
	}
	s.mu.Lock()
	s.exports[status]++
	s.mu.Unlock()
	rw.Header().Set("ETag", tag)
	rw.WriteHeader(status)
	if status == http.StatusOK {
		_ = json.NewEncoder(rw).Encode(map[string]any{"Flags": state.Snapshot.Flags()})
	}
}

func (s *server) count(rw http.ResponseWriter, r *http.Request) {
	rows := decodeEnvelope(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if key := r.Header.Get("Idempotency-Key"); !s.seen[key] {
		s.seen[key] = true
		for _, row := range rows {
			s.counted[row.Flag.Key+"="+row.Variant.Key+"@"+row.Allocation.Key] += row.EvaluationCount
			s.outcomes[fmt.Sprint(row.Flag.Key, " ", cmp.Or(row.Outcome, row.Error.Message), " @", row.Allocation.Key, " v", row.Version, " ", row.Asked)] += row.EvaluationCount
		}
	}
	rw.WriteHeader(http.StatusOK)
}

func (s *server) counts() (all map[string]int64, sum int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all = map[string]int64{}
	for key, n := range s.counted {
		all[key] = n
		sum += n
	}
	return all, sum
}

// start makes a provider and starts it as the SDK does.
func start(t testing.TB, o provider.Options) *provider.Provider {
	t.Helper()
	p, err := provider.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Shutdown)
	if err := p.InitWithContext(t.Context(), openfeature.EvaluationContext{}); err != nil {
		t.Fatal(err)
	}
	return p
}

func goldenDocument(t testing.TB) string {
	t.Helper()
	document, err := os.ReadFile(golden.Path("flags.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(document)
}

const simple = `{"Flags":[
	{"ID":1,"Key":"on","Enabled":true,"DataRecordsEnabled":true,"SnapshotID":5,"Variants":[{"ID":1,"Key":"on"},{"ID":2,"Key":"off"}],
	 "Segments":[{"ID":3,"RolloutPercent":100,"Distributions":[{"VariantKey":"on","Percent":100}]}]},
	{"ID":2,"Key":"size","Enabled":true,"DataRecordsEnabled":true,"SnapshotID":6,"Variants":[{"ID":4,"Key":"small","Attachment":{"value":10}}],
	 "Segments":[{"ID":4,"RolloutPercent":100,"Distributions":[{"VariantKey":"small","Percent":100}]}]},
	{"ID":3,"Key":"color","Enabled":true,"SnapshotID":7,"Variants":[{"ID":5,"Key":"green","Attachment":{"rgb":[26,127,55],"name":"g"}},{"ID":6,"Key":"blue"}],
	 "Segments":[{"ID":5,"RolloutPercent":100,"Constraints":[{"Property":"when","Operator":"EQ","Value":"\"2026-01-02T03:04:05Z\""}],"Distributions":[{"VariantKey":"green","Percent":100}]},
	  {"ID":6,"Rank":1,"RolloutPercent":100,"Distributions":[{"VariantKey":"green","Percent":50},{"VariantKey":"blue","Percent":50}]}]},
	{"ID":4,"Key":"nobody","Enabled":true,"DataRecordsEnabled":true,"SnapshotID":8,"Variants":[{"ID":7,"Key":"x"}],"Segments":[{"ID":7,"RolloutPercent":0,"Distributions":[{"VariantKey":"x","Percent":100}]}]},
	{"ID":5,"Key":"disabled","DataRecordsEnabled":true,"SnapshotID":9,"Variants":[{"ID":8,"Key":"x"}]},
	{"ID":6,"Key":"a/b","Enabled":true,"SnapshotID":10,"Tags":[{"Value":"ofrep:float"}],"Variants":[{"ID":9,"Key":"2"},{"ID":10,"Key":"many"}],
	 "Segments":[{"ID":8,"RolloutPercent":100,"Constraints":[{"Property":"x","Operator":"EQ","Value":"1"}],"Distributions":[{"VariantKey":"many","Percent":100}]},
	 {"ID":9,"Rank":1,"RolloutPercent":100,"Distributions":[{"VariantKey":"2","Percent":100}]}]}
]}`
