package config

import (
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Header are the headers of WebhookHeaders.
func (n *Notification) Header() http.Header {
	header, _ := parseHeaders(n.WebhookHeaders) // validate has rejected invalid ones
	return header
}

// ForwardHeader are the headers of ForwardHeaders.
func (d Datar) ForwardHeader() http.Header {
	header, _ := parseHeaders(d.ForwardHeaders) // validate has rejected invalid ones
	return header
}

// parseHeaders parses `Name: value, Name: value`. A comma without a following name and colon is
// part of the value, as in `Accept: text/html, text/plain`. A repeated name has all of its values.
func parseHeaders(text string) (header http.Header, ok bool) {
	header = http.Header{}
	var name string // of the last header
	for part := range strings.SplitSeq(text, ",") {
		before, value, found := strings.Cut(part, ":")
		if before = strings.TrimSpace(before); found && httpguts.ValidHeaderFieldName(before) {
			name = http.CanonicalHeaderKey(before)
			header[name] = append(header[name], strings.TrimSpace(value))
			continue
		}
		if strings.TrimSpace(part) == "" {
			continue
		}
		if name == "" {
			return nil, false
		}
		last := &header[name][len(header[name])-1]
		*last += "," + strings.TrimRight(part, " \t\r\n")
	}
	for _, values := range header {
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return nil, false
			}
		}
	}
	return header, true
}
