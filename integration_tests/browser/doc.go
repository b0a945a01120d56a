// Package browser tests the pages of the built server in a real Chromium. It is a module of its own, so that the server's
// module does not need the browser's protocol, and imports nothing of the server.
package browser
