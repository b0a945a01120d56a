package web_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

func TestTokensThatAskForMoreThanTheLibraryChecks(t *testing.T) {
	t.Parallel()
	const secret = "a shared secret of enough bytes.."
	auth, err := web.NewJWTAuth(config.JWTAuth{Enabled: true, Secret: secret, SigningMethod: "HS256", NoTokenStatusCode: http.StatusUnauthorized}, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h := auth.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for name, test := range map[string]struct {
		claims jwt.MapClaims
		crit   any
		want   int
	}{
		"no expiry":            {jwt.MapClaims{"sub": "a"}, nil, http.StatusOK},
		"valid for an hour":    {jwt.MapClaims{"exp": time.Now().Add(time.Hour).Unix()}, nil, http.StatusOK},
		"expired in 1970":      {jwt.MapClaims{"exp": 0}, nil, http.StatusUnauthorized},
		"the same, as a float": {jwt.MapClaims{"exp": 0.0}, nil, http.StatusUnauthorized},
		"not before 1970":      {jwt.MapClaims{"nbf": 0}, nil, http.StatusOK},
		"not before tomorrow":  {jwt.MapClaims{"nbf": time.Now().Add(24 * time.Hour).Unix()}, nil, http.StatusUnauthorized},
		"not before 2^63":      {jwt.MapClaims{"nbf": uint64(1 << 63)}, nil, http.StatusUnauthorized},     // the seconds overflow
		"not before 2^63 - 1k": {jwt.MapClaims{"nbf": int64(1<<63 - 1024)}, nil, http.StatusUnauthorized}, // the time overflows
		"not before 1e308":     {jwt.MapClaims{"nbf": 1e308}, nil, http.StatusUnauthorized},
		"an unknown extension": {jwt.MapClaims{"sub": "a"}, []string{"b64"}, http.StatusUnauthorized},
		"no extensions":        {jwt.MapClaims{"sub": "a"}, []string{}, http.StatusUnauthorized}, // the specification forbids an empty list
	} {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, test.claims)
		if test.crit != nil {
			token.Header["crit"] = test.crit
		}
		signed, err := token.SignedString([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/flags", nil)
		r.Header.Set("Authorization", "Bearer "+signed)
		rw := httptest.NewRecorder()
		h.ServeHTTP(rw, r)
		if rw.Code != test.want {
			t.Errorf("%s: %d, want %d", name, rw.Code, test.want)
		}
	}
}
