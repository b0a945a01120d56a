package handler

import (
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/kafka"
)

// KafkaOptions configures the kafka recorder.
type KafkaOptions struct {
	// Producer configures the client. NewKafkaRecorder sets Sealed, Health and Logger.
	Producer kafka.Options
	// CertFile, KeyFile and CAFile are paths of PEM files. TLS is used if one of them is set, or
	// with UseTLS.
	CertFile, KeyFile, CAFile string
	UseTLS, VerifyTLS         bool
	// EncryptionKey encrypts payloads. Nil sends them unencrypted.
	EncryptionKey *[recorder.KeySize]byte
	// Linger is how long records are collected before they are sent.
	Linger time.Duration
	Queue  QueueOptions
}

// NewKafkaRecorder returns a recorder that writes to a Kafka topic. It does not connect before
// Start, so an error is always about the options.
func NewKafkaRecorder(o KafkaOptions) (*StreamRecorder, error) {
	logger := o.Queue.Logger.With("recorder", RecorderKafka)
	producer := o.Producer
	if o.UseTLS || o.CertFile != "" || o.KeyFile != "" || o.CAFile != "" {
		var err error
		if producer.TLS, err = kafka.NewTLS(o.CertFile, o.KeyFile, o.CAFile, o.VerifyTLS); err != nil {
			return nil, err
		}
		if !o.VerifyTLS {
			logger.Warn("certificates of the brokers are not checked: set FLAGR_RECORDER_KAFKA_VERIFYSSL=true")
		}
	}
	producer.Sealed, producer.Health, producer.Logger = o.EncryptionKey != nil, recorder.NewHealth(logger), logger
	transport, err := kafka.New(producer)
	if err != nil {
		return nil, err
	}
	stream := newStreamRecorder(o.Queue, recorder.Options{
		Name:         RecorderKafka,
		Transport:    transport,
		Health:       producer.Health,
		BatchRecords: kafka.BatchRecords,
		BatchBytes:   kafka.BatchBytes,
		Linger:       o.Linger,
		Logger:       logger,
	})
	stream.encryptionKey = o.EncryptionKey
	return stream, nil
}
