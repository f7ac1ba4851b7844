package ssegateway

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand"
	"strconv"
	"time"
	"unicode/utf8"
)

const (
	firstPause = 50 * time.Millisecond
	maxPause   = 500 * time.Millisecond
)

// Raw is a payload that is published as it is, for example JSON that you have as a text.
type Raw string

type event struct {
	args   []any
	tags   []any
	hasKey bool
}

// Option is an option of an event.
type Option func(*event)

func with(args ...any) Option {
	return func(e *event) { e.args = append(e.args, args...) }
}

// Key is the idempotency key: a second event with it is dropped, and has the id of the first one.
func Key(key string) Option {
	return func(e *event) {
		with("KEY", key)(e)
		e.hasKey = true
	}
}

// Retry is the event's "retry:".
func Retry(delay time.Duration) Option {
	return with("RETRY", strconv.FormatInt(delay.Milliseconds(), 10))
}

// Keep keeps the event as the channel's current value for a key.
func Keep(key string) Option { return with("KEEP", key) }

// Forget publishes the event, and removes the value that was kept for a key.
func Forget(key string) Option { return with("FORGET", key) }

// Ephemeral delivers the event live only: it is not stored and has no id.
func Ephemeral() Option { return with("EPHEMERAL") }

// Unseen reports the event as undelivered if the user does not get it within this time.
func Unseen(within time.Duration) Option {
	return with("UNSEEN", strconv.FormatInt(within.Milliseconds(), 10)+"ms")
}

// TraceParent is the publisher's trace (W3C trace context); an empty text is no trace.
func TraceParent(traceparent string) Option {
	if traceparent == "" {
		return func(*event) {}
	}
	return with("TRACE", traceparent)
}

// Tag is a label for the filters of tickets.
func Tag(name, value string) Option {
	return func(e *event) { e.tags = append(e.tags, name+"="+value) }
}

// Publish publishes an event on "user:<id>:events" or "broadcast:<topic>".
//
// The payload is anything that encoding/json can marshal, or [Raw]. Publish returns the event's id,
// which is empty for an ephemeral event. The error is an [*Error].
func (g *Gateway) Publish(
	ctx context.Context, channel, eventType string, payload any, options ...Option,
) (string, error) {
	key, err := channelKey(channel, g.options.ChannelPrefix)
	if err != nil {
		return "", err
	}
	text, err := serialize(payload)
	if err != nil {
		return "", err
	}
	e := event{args: []any{eventType, text}}
	for _, option := range options {
		option(&e)
	}
	if len(e.tags) > 0 {
		e.args = append(append(e.args, "TAGS"), e.tags...)
	}
	id := ""
	err = g.retry(ctx, e.hasKey, func() (err error) {
		id, err = g.options.Redis.FCall(ctx, g.function, []string{key}, e.args...).Text()
		return err
	})
	return id, err
}

// PublishToUser publishes an event for all streams of a user.
func (g *Gateway) PublishToUser(
	ctx context.Context, user, eventType string, payload any, options ...Option,
) (string, error) {
	if err := checkUser(user); err != nil {
		return "", err
	}
	return g.Publish(ctx, "user:"+user+":events", eventType, payload, options...)
}

// PublishToBroadcast publishes an event for all streams whose ticket has the topic.
func (g *Gateway) PublishToBroadcast(
	ctx context.Context, topic, eventType string, payload any, options ...Option,
) (string, error) {
	return g.Publish(ctx, "broadcast:"+topic, eventType, payload, options...)
}

// retry repeats a call after errors that end by themselves. isRepeatable: also after those that
// leave it unknown whether the call was executed.
func (g *Gateway) retry(ctx context.Context, isRepeatable bool, call func() error) error {
	if g.options.Redis == nil {
		return invalid("no-redis", "the option Redis is missing")
	}
	end := time.Now().Add(g.options.RetryFor)
	for delay := firstPause; ; delay = min(2*delay, maxPause) {
		err := call()
		if err == nil {
			return nil
		}
		failure := fromRedis(err, isRepeatable)
		// Clients that failed together must not retry together.
		pause := delay/2 + time.Duration(rand.Int63n(int64(delay/2)))
		if !failure.Retriable || time.Now().Add(pause).After(end) {
			return failure
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return failure
		}
	}
}

func min(a, b time.Duration) time.Duration {
	if a < b {
		return a
	}
	return b
}

func serialize(payload any) (string, error) {
	if raw, is := payload.(Raw); is {
		return string(raw), nil
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(payload); err != nil {
		return "", &Error{"bad-payload", "the payload is not JSON: " + err.Error(), false, err}
	}
	encoded := bytes.TrimSuffix(text.Bytes(), []byte("\n"))
	if !utf8.Valid(encoded) {
		return "", invalid("bad-payload", "the payload is not UTF-8")
	}
	return string(encoded), nil
}
