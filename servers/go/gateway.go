// Package ssegateway publishes events to sse-gateway and issues tickets for it.
package ssegateway

import (
	"time"

	"github.com/redis/go-redis/v9"
)

const defaultRetryFor = 3 * time.Second

// Options of a [Gateway].
type Options struct {
	// Redis is a client for publishing: *redis.Client, *redis.ClusterClient, or another one.
	Redis redis.Cmdable
	// Secret is tickets.secret of the gateway, 32 bytes or more.
	Secret []byte
	// Audience is tickets.audience of the gateway. Default: "sse-gateway".
	Audience string
	// Issuer is tickets.issuer of the gateway.
	Issuer string
	// KeyID is the "kid" of the secret, if the gateway has several keys.
	KeyID string
	// MaxTTL is tickets.max_ttl of the gateway. Default: 60 s.
	MaxTTL time.Duration
	// KeyPrefix is redis.key_prefix of the gateway. Default: "sse:".
	KeyPrefix string
	// ChannelPrefix is redis.channel_prefix of the gateway.
	ChannelPrefix string
	// RetryFor is how long temporary errors are retried. Default: 3 s. Negative: never.
	RetryFor time.Duration
}

// Gateway publishes events and issues tickets. It may be used by several goroutines.
type Gateway struct {
	options  Options
	function string
	stream   string
}

// New checks the options. The error is an [*Error].
func New(options Options) (*Gateway, error) {
	if options.Secret != nil && len(options.Secret) < minSecretBytes {
		return nil, invalid("bad-secret", "Secret must have at least %d bytes", minSecretBytes)
	}
	if options.Audience == "" {
		options.Audience = "sse-gateway"
	}
	if options.MaxTTL == 0 {
		options.MaxTTL = defaultMaxTTL
	}
	if options.KeyPrefix == "" {
		options.KeyPrefix = "sse:"
	}
	if options.RetryFor == 0 {
		options.RetryFor = defaultRetryFor
	}
	return &Gateway{
		options:  options,
		function: functionName(options.KeyPrefix),
		stream:   options.KeyPrefix + "undelivered:{" + options.ChannelPrefix + "broadcast}",
	}, nil
}
