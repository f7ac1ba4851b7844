package ssegateway

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"time"
)

const (
	minSecretBytes = 32
	maxTicketBytes = 8192
	defaultTTL     = 30 * time.Second
	defaultMaxTTL  = 60 * time.Second
)

// Ticket is what a ticket permits.
type Ticket struct {
	// User is the user, whose channel is "user:<User>:events".
	User string
	// Topics of broadcasts: names, "prefix*" or "*". If nil: tickets.default_topics of the gateway.
	Topics []string
	// Filter delivers only events whose tags have one of these values. Events without the tag pass.
	Filter map[string][]string
	// Presence says whether the ticket also gets the events of presence.
	Presence bool
	// TTL is the time within which the first connection must be made. Default: 30 s.
	TTL time.Duration
	// SessionExpires is when the stream ends. Zero: at tickets.max_session of the gateway.
	SessionExpires time.Time
}

type header struct {
	Algorithm string `json:"alg"`
	Type      string `json:"typ"`
	KeyID     string `json:"kid,omitempty"`
}

type claims struct {
	Subject    string              `json:"sub"`
	Audience   string              `json:"aud"`
	Issuer     string              `json:"iss,omitempty"`
	IssuedAt   int64               `json:"iat"`
	Expires    int64               `json:"exp"`
	ID         string              `json:"jti"`
	Topics     *[]string           `json:"topics,omitempty"`
	Filter     map[string][]string `json:"filter,omitempty"`
	Presence   bool                `json:"presence,omitempty"`
	SessionEnd int64               `json:"session_exp,omitempty"`
}

// Ticket signs a ticket (a JWT, HS256) for a user that you have authenticated. It is for one
// connection. The error is an [*Error].
func (g *Gateway) Ticket(ticket Ticket) (string, error) {
	if g.options.Secret == nil {
		return "", invalid("bad-secret", "the option Secret is missing")
	}
	ttl := ticket.TTL
	if ttl == 0 {
		ttl = defaultTTL
	}
	if ttl < time.Second || ttl > g.options.MaxTTL {
		return "", invalid("bad-ttl", "TTL must be from 1s to %s (got %s)", g.options.MaxTTL, ttl)
	}
	if err := checkUser(ticket.User); err != nil {
		return "", err
	}
	if err := checkTopics(ticket.Topics); err != nil {
		return "", err
	}
	if err := checkFilter(ticket.Filter); err != nil {
		return "", err
	}
	now := time.Now()
	made := claims{
		Subject:  ticket.User,
		Audience: g.options.Audience,
		Issuer:   g.options.Issuer,
		IssuedAt: now.Unix(),
		Expires:  now.Unix() + int64(ttl/time.Second),
		Filter:   ticket.Filter,
		Presence: ticket.Presence,
	}
	if ticket.Topics != nil {
		made.Topics = &ticket.Topics
	}
	if !ticket.SessionExpires.IsZero() {
		if !ticket.SessionExpires.After(now) {
			return "", invalid("bad-session-expires",
				"SessionExpires must be in the future (got %s)", ticket.SessionExpires)
		}
		made.SessionEnd = ticket.SessionExpires.Unix()
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return "", &Error{"no-random", "no random number for the ticket", true, err}
	}
	made.ID = hex.EncodeToString(id)
	return g.sign(made)
}

func (g *Gateway) sign(made claims) (string, error) {
	signed := encode(header{"HS256", "JWT", g.options.KeyID}) + "." + encode(made)
	mac := hmac.New(sha256.New, g.options.Secret)
	mac.Write([]byte(signed))
	token := signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	if len(token) > maxTicketBytes {
		return "", invalid("ticket-too-long",
			"the ticket is longer than 8 KiB; use fewer topics, or patterns such as team-*")
	}
	return token, nil
}

// encode cannot fail: the members are texts, numbers, and collections of texts.
func encode(part any) string {
	text, err := json.Marshal(part)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}
