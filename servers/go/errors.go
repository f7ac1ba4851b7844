package ssegateway

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Error says why a ticket was not issued or an event was not published.
type Error struct {
	// Code is a short name of the problem that does not change, for example "too-large".
	Code string
	// Message names the problem and the fix.
	Message string
	// Retriable is true if the same call may succeed later, and cannot publish the event twice.
	Retriable bool
	// Err is the error of the Redis client, or nil.
	Err error
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

func (e *Error) Unwrap() error { return e.Err }

func invalid(code, format string, values ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, values...)}
}

// ErrorCode returns the code of an [*Error], or "".
func ErrorCode(err error) string {
	var known *Error
	if errors.As(err, &known) {
		return known.Code
	}
	return ""
}

// These codes of the gateway's function end by themselves. Nothing was published.
var temporaryCodes = map[string]bool{"not-adopted": true, "too-often": true}

var (
	rejected = regexp.MustCompile(`(?s)^SSE ([a-z0-9-]+): (.*)$`)
	// These errors of Redis end by themselves. The command was not executed.
	temporary = regexp.MustCompile(
		"^(MOVED|ASK|TRYAGAIN|CLUSTERDOWN|LOADING|MASTERDOWN|NOREPLICAS|READONLY|BUSY) ")
)

// fromRedis is the error of a command that failed. isRepeatable: it may be sent again although it
// is unknown whether it was executed.
func fromRedis(err error, isRepeatable bool) *Error {
	text := err.Error()
	if match := rejected.FindStringSubmatch(text); match != nil {
		return &Error{match[1], match[2], temporaryCodes[match[1]], err}
	}
	if strings.HasPrefix(text, "ERR Function not found") {
		message := "the function of the gateway is missing: no gateway has connected to this Redis" +
			" server yet, or KeyPrefix is not its redis.key_prefix"
		return &Error{"not-loaded", message, true, err}
	}
	if temporary.MatchString(text) {
		return &Error{"redis-away", text, true, err}
	}
	var reply redis.Error
	if errors.As(err, &reply) {
		return &Error{"redis-error", text, false, err}
	}
	isOver := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	return &Error{"redis-away", "Redis has not replied: " + text, isRepeatable && !isOver, err}
}
