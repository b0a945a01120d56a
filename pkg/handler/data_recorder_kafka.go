package handler

import (
	"cmp"
	"crypto/tls"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/kafka"
)

// NewKafkaRecorder makes a recorder that writes to a Kafka topic. It connects to nobody before Start.
func NewKafkaRecorder(o RecorderOptions, framing *recorder.Framing) (*StreamRecorder, error) {
	c := &o.Kafka
	logger := o.Logger.With("recorder", config.RecorderKafka)
	tlsConfig, err := kafkaTLS(c)
	if err != nil {
		return nil, err
	}
	if tlsConfig != nil && tlsConfig.InsecureSkipVerify {
		logger.Warn("certificates of the brokers are not checked: set FLAGR_RECORDER_KAFKA_VERIFYSSL=true")
	}
	if c.Encrypted && framing.RawJSON {
		logger.Warn("an encrypted payload is sent as a text, whatever FLAGR_RECORDER_FRAME_OUTPUT_MODE says")
	}
	health := recorder.NewHealth(logger)
	transport, err := kafka.New(kafka.Options{
		Brokers:         splitBrokers(c.Brokers),
		Topic:           c.Topic,
		Version:         c.Version,
		Compression:     c.CompressionCodec,
		RequiredAcks:    c.RequiredAcks,
		Idempotent:      c.Idempotent,
		RetryMax:        c.RetryMax,
		MaxOpenRequests: c.MaxOpenRequests,
		TLS:             tlsConfig,
		SASLUsername:    c.SASLUsername,
		SASLPassword:    c.SASLPassword,
		SASLMechanism:   c.SASLMechanism,
		KeyEnabled:      c.PartitionKeyEnabled,
		Partitioner:     c.Partitioner,
		Sealed:          c.Encrypted,
		Verbose:         c.Verbose,
		Health:          health,
		Logger:          logger,
	})
	if err != nil {
		return nil, err
	}
	sink := recorder.NewSink(recorder.Options{
		Name:         config.RecorderKafka,
		Transport:    transport,
		Health:       health,
		MaxRecords:   o.QueueRecords,
		MaxBytes:     o.QueueBytes,
		BatchRecords: kafka.BatchRecords,
		BatchBytes:   kafka.BatchBytes,
		Linger:       c.FlushFrequency,
		Logger:       logger,
	})
	return &StreamRecorder{sink: sink, framing: framing}, nil
}

// kafkaTLS is nil if nothing asks for TLS.
func kafkaTLS(c *config.Kafka) (*tls.Config, error) {
	if !c.SimpleSSL && cmp.Or(c.CertFile, c.KeyFile, c.CAFile) == "" {
		return nil, nil
	}
	return kafka.NewTLS(c.CertFile, c.KeyFile, c.CAFile, c.VerifySSL)
}

func splitBrokers(list string) []string {
	var brokers []string
	for b := range strings.SplitSeq(list, ",") {
		if b = strings.TrimSpace(b); b != "" {
			brokers = append(brokers, b)
		}
	}
	return brokers
}
