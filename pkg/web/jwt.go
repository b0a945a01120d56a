package web

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/flagr-datar/flagr-datar/pkg/config"
)

// JWTAuth admits requests with a valid token, and requests for open paths.
type JWTAuth struct {
	options config.JWTAuth
	open    openPaths
	parser  *jwt.Parser
	key     any // []byte for HS256 and HS512, *rsa.PublicKey for RS256
	logger  *slog.Logger
}

// NewJWTAuth checks the key. Entries of the lists of open paths may begin with the web prefix.
func NewJWTAuth(o config.JWTAuth, webPrefix string, logger *slog.Logger) (*JWTAuth, error) {
	j := &JWTAuth{
		options: o,
		open:    newOpenPaths(o.WhitelistPaths, o.ExactWhitelistPaths, webPrefix),
		// The accepted method depends on the key, not on the token. A token with another method, or
		// none, is rejected before its signature is checked.
		parser: jwt.NewParser(jwt.WithValidMethods([]string{o.SigningMethod})),
		logger: logger,
	}
	if j.open.everything() {
		logger.Warn("an entry of FLAGR_JWT_AUTH_WHITELIST_PATHS opens every path: no request needs a token")
	}
	if o.SigningMethod == jwt.SigningMethodRS256.Alg() {
		// Environment files without line breaks have \n instead.
		pem := strings.ReplaceAll(o.Secret, `\n`, "\n")
		key, err := jwt.ParseRSAPublicKeyFromPEM([]byte(pem))
		if err != nil {
			return nil, fmt.Errorf("FLAGR_JWT_AUTH_SECRET: RS256 needs an RSA public key in PEM: %w", err)
		}
		j.key = key
		return j, nil
	}
	if strings.HasPrefix(strings.TrimSpace(o.Secret), "-----BEGIN ") {
		// The public key is not secret, and anyone who has it could sign tokens with it.
		return nil, fmt.Errorf("FLAGR_JWT_AUTH_SECRET: a key in PEM cannot be the shared secret of %s; for a public key set FLAGR_JWT_AUTH_SIGNING_METHOD=RS256",
			o.SigningMethod)
	}
	j.key = []byte(o.Secret)
	return j, nil
}

// Wrap protects next. It must see the same path that next uses for routing.
func (j *JWTAuth) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !j.open.contain(r.URL) {
			if _, err := j.claims(r); err != nil {
				j.refuse(rw, r, err)
				return
			}
		}
		next.ServeHTTP(rw, r)
	})
}

// Check reports whether a request has a valid token or, with open, is for an open path. The
// challenge is the value of WWW-Authenticate in a rejection.
func (j *JWTAuth) Check(r *http.Request, open bool) (challenge string, ok bool) {
	if open && j.open.contain(r.URL) {
		return "", true
	}
	_, err := j.claims(r)
	return challengeFor(err), err == nil
}

// User returns the user who sent the request: the claim of a valid token, or an empty string. It
// verifies the token again, which only requests that change something pay for.
func (j *JWTAuth) User(r *http.Request) string {
	claims, err := j.claims(r)
	if err != nil {
		return ""
	}
	return claimText(claims, j.options.UserClaim)
}

var errNoToken = errors.New("no token")

// lastSecond is beyond every time that a claim can mean, in Unix seconds. Up to it, times do not
// overflow.
const lastSecond = 1 << 53

// claims returns the claims of the request's token. The error is errNoToken if the request has no
// token.
func (j *JWTAuth) claims(r *http.Request) (jwt.MapClaims, error) {
	text := bearer(r)
	if text == "" {
		if cookie, err := r.Cookie(j.options.CookieTokenName); err == nil {
			text = cookie.Value
		}
	}
	if text == "" {
		return nil, errNoToken
	}
	claims := jwt.MapClaims{}
	_, err := j.parser.ParseWithClaims(text, claims, func(t *jwt.Token) (any, error) {
		if _, ok := t.Header["crit"]; ok { // required extensions, which are not supported
			return nil, jwt.ErrTokenUnverifiable
		}
		_, asymmetric := j.key.(*rsa.PublicKey)
		if _, isRSA := t.Method.(*jwt.SigningMethodRSA); isRSA != asymmetric {
			return nil, jwt.ErrTokenUnverifiable
		}
		return j.key, nil
	})
	if err != nil {
		return nil, err
	}
	if at, ok := claims["exp"].(float64); ok && at == 0 { // the library treats it as a token that does not expire
		return nil, jwt.ErrTokenExpired
	}
	if at, ok := claims["nbf"].(float64); ok && at > lastSecond { // the library's time would wrap around to the past
		return nil, jwt.ErrTokenNotValidYet
	}
	return claims, nil
}

// bearer returns the token of the Authorization header, or an empty string if the header has
// another scheme.
func bearer(r *http.Request) string {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// refuse responds to a request without a valid token. The response is always the same. The reason
// is only logged, if the log is on.
func (j *JWTAuth) refuse(rw http.ResponseWriter, r *http.Request, err error) {
	if j.options.Debug {
		j.logger.Info("request refused", "method", r.Method, "path", r.URL.Path, "reason", err)
	}
	status := j.options.NoTokenStatusCode
	if status < http.StatusBadRequest && j.options.NoTokenRedirectURL != "" {
		http.Redirect(rw, r, j.options.NoTokenRedirectURL, status)
		return
	}
	if status == http.StatusUnauthorized {
		rw.Header().Set("WWW-Authenticate", challengeFor(err))
	}
	writeError(rw, status, "a valid token is needed, in the header Authorization as a bearer token or in the cookie "+j.options.CookieTokenName)
}

func challengeFor(err error) string {
	challenge := `Bearer realm="flagr"`
	if err != nil && !errors.Is(err, errNoToken) {
		challenge += `, error="invalid_token"`
	}
	return challenge
}

func claimText(claims jwt.MapClaims, name string) string {
	text, _ := claims[name].(string)
	return text
}
