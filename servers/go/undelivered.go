package ssegateway

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Undelivered is an event that its user was not handed in time.
type Undelivered struct {
	// Entry is the entry's id, for Acknowledge.
	Entry string
	// Channel, ID and Type of the event.
	Channel, ID, Type string
	// Payload as published: usually JSON.
	Payload string
}

// A ReadOption changes how undelivered events are read.
type ReadOption func(*reading)

type reading struct {
	idle  time.Duration
	count int64
}

// Idle sets the time after which an event that another consumer read and did not acknowledge is
// read again. Default: a minute.
func Idle(after time.Duration) ReadOption {
	return func(r *reading) { r.idle = after }
}

// Count sets how many events are read at most. Default: 100.
func Count(most int) ReadOption {
	return func(r *reading) { r.count = int64(most) }
}

// Undelivered reads undelivered events as a consumer of a group: first those that another consumer
// read a minute ago and did not acknowledge, then new ones. It does not wait for events.
// The error is an [*Error].
func (g *Gateway) Undelivered(
	ctx context.Context, group, consumer string, options ...ReadOption,
) (found []Undelivered, err error) {
	how := reading{idle: time.Minute, count: 100}
	for _, option := range options {
		option(&how)
	}
	err = g.retry(ctx, true, func() error {
		messages, err := g.read(ctx, group, consumer, how)
		found = events(messages)
		return err
	})
	return found, err
}

func (g *Gateway) read(
	ctx context.Context, group, consumer string, how reading,
) ([]redis.XMessage, error) {
	rdb, stream := g.options.Redis, g.stream
	err := rdb.XGroupCreateMkStream(ctx, stream, group, "0").Err()
	if err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") {
		return nil, err
	}
	claimed, _, err := rdb.XAutoClaim(ctx, &redis.XAutoClaimArgs{
		Stream: stream, Group: group, Consumer: consumer,
		MinIdle: how.idle, Start: "0-0", Count: how.count,
	}).Result()
	if err != nil || len(claimed) > 0 {
		return claimed, err
	}
	// Block: -1 does not wait.
	read, err := rdb.XReadGroup(ctx, &redis.XReadGroupArgs{
		Streams: []string{stream, ">"}, Group: group, Consumer: consumer,
		Count: how.count, Block: -1,
	}).Result()
	if errors.Is(err, redis.Nil) || err == nil && len(read) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return read[0].Messages, nil
}

// Acknowledge acknowledges undelivered events: no consumer of the group gets them again.
func (g *Gateway) Acknowledge(ctx context.Context, group string, events ...Undelivered) error {
	if len(events) == 0 {
		return nil
	}
	entries := make([]string, len(events))
	for n, event := range events {
		entries[n] = event.Entry
	}
	return g.retry(ctx, true, func() error {
		return g.options.Redis.XAck(ctx, g.stream, group, entries...).Err()
	})
}

func events(messages []redis.XMessage) []Undelivered {
	found := make([]Undelivered, len(messages))
	for n, message := range messages {
		text := func(name string) string {
			value, _ := message.Values[name].(string)
			return value
		}
		found[n] = Undelivered{message.ID, text("channel"), text("id"), text("type"), text("payload")}
	}
	return found
}
