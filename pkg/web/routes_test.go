package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// slowReader is a client that reads nothing until it may.
type slowReader struct {
	http.ResponseWriter
	began sync.Once
	begun func()
	may   <-chan struct{}
}

func (s *slowReader) Write(p []byte) (int, error) {
	s.began.Do(s.begun)
	<-s.may
	return len(p), nil
}

func TestProfilesAtOnce(t *testing.T) {
	t.Parallel()
	h := Pprof()
	request := func() *http.Request {
		return httptest.NewRequestWithContext(t.Context(), http.MethodGet, pprofPath+"/goroutine?debug=1", nil)
	}
	may := make(chan struct{})
	var begun, ended sync.WaitGroup
	for range maxProfiles {
		begun.Add(1)
		ended.Go(func() {
			h.ServeHTTP(&slowReader{ResponseWriter: httptest.NewRecorder(), begun: begun.Done, may: may}, request())
		})
	}
	begun.Wait()
	got := httptest.NewRecorder()
	h.ServeHTTP(got, request())
	if got.Code != http.StatusServiceUnavailable || got.Header().Get("Retry-After") == "" || !strings.Contains(got.Body.String(), "2 profiles") {
		t.Errorf("answer is %d %v %s", got.Code, got.Header(), got.Body)
	}
	close(may)
	ended.Wait()
	got = httptest.NewRecorder()
	h.ServeHTTP(got, request())
	if got.Code != http.StatusOK {
		t.Errorf("answer is %d %s", got.Code, got.Body)
	}
}
