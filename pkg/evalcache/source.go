package evalcache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// MaxDocumentBytes limits a document over HTTP. It is far above the size of thousands of flags.
const MaxDocumentBytes = 256 << 20

// Store is the part of the database that a source uses. Its errors describe what could not be read.
type Store interface {
	FlagsVersion(ctx context.Context) (string, error)
	EvalFlags(ctx context.Context) ([]entity.Flag, error)
	ChangedFlags(ctx context.Context, known []*entity.Flag) (changed []entity.Flag, gone []uint, err error)
}

// FromStore reads the flags of a database.
func FromStore(s Store) FlagSource { return storeSource{s} }

type storeSource struct{ store Store }

func (s storeSource) Version(ctx context.Context) (string, error) {
	return s.store.FlagsVersion(ctx)
}

func (s storeSource) Flags(ctx context.Context) ([]entity.Flag, error) {
	return s.store.EvalFlags(ctx)
}

func (s storeSource) changes(ctx context.Context, known []*entity.Flag) (changed []entity.Flag, gone []uint, err error) {
	return s.store.ChangedFlags(ctx, known)
}

// documentSource reads flags from a document. Its version is a hash of the content.
type documentSource struct {
	name string
	// fetch returns the document, or nil if it is unchanged since the last fetch.
	fetch func(context.Context) ([]byte, error)

	content  []byte // of the version
	version  string
	findings []Finding
}

func (s *documentSource) Version(ctx context.Context) (string, error) {
	content, err := s.fetch(ctx)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", s.name, err)
	}
	if content != nil {
		sum := sha256.Sum256(content)
		s.content, s.version = content, hex.EncodeToString(sum[:])
	}
	return s.version, nil
}

func (s *documentSource) Flags(ctx context.Context) ([]entity.Flag, error) {
	if s.content == nil {
		if _, err := s.Version(ctx); err != nil {
			return nil, err
		}
	}
	flags, findings, err := ParseDocument(s.content)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.name, err)
	}
	s.findings = findings
	return flags, nil
}

func (s *documentSource) warnings() []Finding { return s.findings }

// FromFile reads the flag document at path.
func FromFile(path string) FlagSource {
	return &documentSource{name: path, fetch: func(context.Context) ([]byte, error) {
		content, err := os.ReadFile(path)
		if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) {
			err = pathErr.Err // the path is already in the error
		}
		if content == nil {
			content = []byte{}
		}
		return content, err
	}}
}

// FromHTTP reads the flag document at a URL, up to 256 MiB. If the server sends an ETag or a time
// of last modification, it downloads the document only after a change. A nil client means a client
// that follows redirects within the host only.
func FromHTTP(address string, client *http.Client) FlagSource {
	if client == nil {
		client = &http.Client{CheckRedirect: stayOnHost}
	}
	fetcher := &httpFetcher{url: address, client: client, limit: MaxDocumentBytes}
	return &documentSource{name: "flag document", fetch: fetcher.fetch}
}

// stayOnHost rejects redirects to other hosts, and from https to http, because flags control
// applications, and the URL may contain a token.
func stayOnHost(next *http.Request, before []*http.Request) error {
	first := before[0].URL
	switch {
	case next.URL.Host != first.Host, next.URL.Scheme != first.Scheme && next.URL.Scheme != "https":
		return fmt.Errorf("%s redirects to %s://%s: only redirects within the host are followed", first.Host, next.URL.Scheme, next.URL.Host)
	case len(before) >= 5:
		return errors.New("too many redirects")
	}
	return nil
}

type httpFetcher struct {
	url    string
	client *http.Client
	limit  int64
	// etag and modified are from the last document.
	etag, modified string
}

func (f *httpFetcher) fetch(ctx context.Context) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
	if err != nil {
		return nil, withoutURL(err)
	}
	request.Header.Set("Accept", "application/json")
	if f.etag != "" {
		request.Header.Set("If-None-Match", f.etag)
	}
	if f.modified != "" {
		request.Header.Set("If-Modified-Since", f.modified)
	}
	response, err := f.client.Do(request)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer func() { _ = response.Body.Close() }() // the body is already read
	conditional := f.etag != "" || f.modified != ""
	switch {
	case response.StatusCode == http.StatusNotModified && conditional:
		return nil, nil
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answers %s", request.URL.Host, response.Status)
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, f.limit+1))
	if err != nil {
		return nil, fmt.Errorf("the answer of %s: %w", request.URL.Host, err)
	}
	if int64(len(content)) > f.limit {
		return nil, fmt.Errorf("the document of %s is longer than %d bytes", request.URL.Host, f.limit)
	}
	f.etag, f.modified = response.Header.Get("ETag"), response.Header.Get("Last-Modified")
	return content, nil
}

// withoutURL removes the URL from the error, because it may contain a password or a token.
func withoutURL(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
