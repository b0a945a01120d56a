// Package browser tests the pages of the built server in Chromium. It is a separate module, so that
// the server does not depend on the protocol of the browser. It imports no package of the server,
// only helpers of the integration tests.
package browser
