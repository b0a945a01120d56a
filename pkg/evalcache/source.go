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

// maxDocumentBytes bounds a document that comes over HTTP. It is far above what thousands of flags take.
const maxDocumentBytes = 256 << 20

// Store is what a source needs of the database. Its errors say what could not be read.
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
	// fetch returns the document, or nil when it is the same as at the last fetch.
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
			err = pathErr.Err // the path is said already
		}
		if content == nil {
			content = []byte{}
		}
		return content, err
	}}
}

// FromHTTP reads the flag document at an address, a URL, which may be up to 256 MiB long. It asks for changes only, if the server
// sends an ETag or a time of last modification. A nil client means one that follows redirects
// within the host only.
func FromHTTP(address string, client *http.Client) FlagSource {
	if client == nil {
		client = &http.Client{CheckRedirect: stayOnHost}
	}
	fetcher := &httpFetcher{url: address, client: client, limit: maxDocumentBytes}
	return &documentSource{name: "flag document", fetch: fetcher.fetch}
}

// stayOnHost refuses redirects to other hosts, and from https to http: flags decide what applications do, and their address
// may hold a token.
func stayOnHost(next *http.Request, before []*http.Request) error {
	first := before[0].URL
	switch {
	case next.URL.Host != first.Host, next.URL.Scheme != first.Scheme:
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
	// etag and modified are those of the last document.
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
	defer func() { _ = response.Body.Close() }() // nothing is left to be lost
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

// withoutURL keeps the password or token that a URL may hold out of the log.
func withoutURL(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
