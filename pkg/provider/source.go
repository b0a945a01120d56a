package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
)

// source is an evalcache.FlagSource: the server, or a file until the server is reached for the
// first time.
type source struct {
	options *Options
	etag    string
	content []byte // newest; nil before the first
	version string
	saved   string // the version in the file
	reached atomic.Int64
}

// lastContact is the time of the last response of the server; zero if there was none.
func (s *source) lastContact() time.Time {
	if ns := s.reached.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// Version implements evalcache.FlagSource.
func (s *source) Version(ctx context.Context) (string, error) {
	content, err := s.fetch(ctx)
	switch {
	case err == nil:
		s.reached.Store(time.Now().UnixNano())
	case s.content == nil && s.options.CacheFile != "":
		saved, fileErr := os.ReadFile(s.options.CacheFile)
		if fileErr != nil {
			return "", errors.Join(err, fmt.Errorf("read cache file: %w", fileErr))
		}
		s.options.Logger.Warn("flags come from the cache file, because the server is unavailable", "file", s.options.CacheFile, "error", err)
		content = saved
	default:
		return "", err
	}
	if content != nil {
		sum := sha256.Sum256(content)
		s.content, s.version = content, hex.EncodeToString(sum[:])
		if err != nil {
			s.saved = s.version
		}
	}
	return s.version, nil
}

// Flags implements evalcache.FlagSource.
func (s *source) Flags(context.Context) ([]entity.Flag, error) {
	flags, _, err := evalcache.ParseDocument(s.content)
	if err != nil {
		s.content, s.etag = nil, ""
		return nil, err
	}
	if s.options.CacheFile != "" && s.saved != s.version {
		if err := save(s.options.CacheFile, s.content); err != nil {
			s.options.Logger.Error("flags were not saved", "error", err)
		} else {
			s.saved = s.version
		}
	}
	s.content = []byte{} // from here on, only whether it is nil matters
	return flags, nil
}

// fetch returns the document, or nil if it is unchanged since the last fetch.
func (s *source) fetch(ctx context.Context) ([]byte, error) {
	request, err := newRequest(ctx, s.options, http.MethodGet, exportPath, nil)
	if err != nil {
		return nil, err
	}
	if s.etag != "" {
		request.Header.Set("If-None-Match", s.etag)
	}
	response, err := s.options.Client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("fetch flags: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // already read
	switch {
	case response.StatusCode == http.StatusNotModified && s.etag != "":
		return nil, nil
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("fetch flags: the server returns %s", response.Status)
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, evalcache.MaxDocumentBytes+1))
	if err != nil {
		return nil, fmt.Errorf("fetch flags: %w", err)
	}
	if len(content) > evalcache.MaxDocumentBytes {
		return nil, fmt.Errorf("fetch flags: the document is longer than %d bytes", evalcache.MaxDocumentBytes)
	}
	s.etag = response.Header.Get("ETag")
	return content, nil
}

func newRequest(ctx context.Context, o *Options, method, path string, body io.Reader) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, o.URL+path, body)
	if err != nil {
		return nil, err
	}
	maps.Copy(request.Header, o.Header)
	return request, nil
}

// save replaces a file atomically, so that no reader sees half of it.
func save(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		if removeErr := os.Remove(file.Name()); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	return err
}
