package web

import (
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/flagr-datar/flagr-datar/pkg/config"
)

// maxActorBytes limits what a request can store in createdBy and updatedBy. An email address has at
// most 254 bytes.
const maxActorBytes = 254

// Actor returns a function that returns the user who sent a request, for createdBy and updatedBy.
// The first of these that is turned on is used: the token of access control (nil: off), the header,
// the cookie. The header and the cookie are not verified; a proxy in front of the server must set
// them.
func Actor(access *JWTAuth, header config.HeaderAuth, cookie config.CookieAuth) func(*http.Request) string {
	switch {
	case access != nil:
		return func(r *http.Request) string { return actorName(access.User(r)) }
	case header.Enabled:
		return func(r *http.Request) string { return actorName(r.Header.Get(header.UserField)) }
	case cookie.Enabled:
		parser := jwt.NewParser()
		return func(r *http.Request) string {
			c, err := r.Cookie(cookie.UserField)
			if err != nil {
				return ""
			}
			if cookie.UserFieldJWTClaim == "" {
				return actorName(c.Value)
			}
			claims := jwt.MapClaims{}
			if _, _, err := parser.ParseUnverified(c.Value, claims); err != nil {
				return ""
			}
			return actorName(claimText(claims, cookie.UserFieldJWTClaim))
		}
	default:
		return func(*http.Request) string { return "" }
	}
}

// actorName makes a name valid for any database and any page: valid UTF-8, without unprintable
// characters, at most maxActorBytes long.
func actorName(name string) string {
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, name))
	if len(name) <= maxActorBytes {
		return name
	}
	cut := maxActorBytes
	for !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut]
}
