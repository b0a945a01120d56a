package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
)

// TLS is the encryption of connections. Its files are read for each new connection, so that renewed
// certificates need no restart.
type TLS struct {
	certFile, keyFile, caFile string
	verify                    bool
	last                      atomic.Pointer[tls.Config] // the last contents that were read without an error
}

// NewTLS returns a TLS with PEM files, which must be readable and valid. The certificate and its
// key must both be set or both be empty; "" for the authority means the system's authorities.
// Without verify, any certificate of a broker is accepted.
func NewTLS(certFile, keyFile, caFile string, verify bool) (*TLS, error) {
	if (certFile == "") != (keyFile == "") {
		return nil, errors.New("a client certificate needs both its certificate file and its key file")
	}
	t := &TLS{certFile: certFile, keyFile: keyFile, caFile: caFile, verify: verify}
	c, err := t.read()
	if err != nil {
		return nil, err
	}
	t.last.Store(c)
	return t, nil
}

// current reads the files. If they cannot be read, for example while they are being replaced, it
// returns their previous contents and the error.
func (t *TLS) current() (*tls.Config, error) {
	c, err := t.read()
	if err != nil {
		return t.last.Load(), err
	}
	t.last.Store(c)
	return c, nil
}

func (t *TLS) read() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !t.verify} //nolint:gosec // FLAGR_RECORDER_KAFKA_VERIFYSSL
	if t.certFile != "" {
		certificate, err := tls.LoadX509KeyPair(t.certFile, t.keyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{certificate}
	}
	if t.caFile != "" {
		pem, err := os.ReadFile(t.caFile)
		if err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificate authority: %s has no certificate in PEM", t.caFile)
		}
	}
	return c, nil
}
