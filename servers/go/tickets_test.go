package ssegateway

// The gateway accepts what Ticket signs, and Ticket rejects what the gateway would.

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func part(t *testing.T, ticket string, n int) map[string]any {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(ticket, ".")[n])
	must(t, err)
	var members map[string]any
	must(t, json.Unmarshal(text, &members))
	return members
}

func issuer(t *testing.T, options Options) *Gateway {
	t.Helper()
	options.Secret = secret
	g, err := New(options)
	must(t, err)
	return g
}

func TestClaims(t *testing.T) {
	g := issuer(t, Options{})
	made := part(t, sign(t, g, Ticket{User: "42"}), 1)
	iat := made["iat"].(float64)
	want := map[string]any{
		"sub": "42", "aud": "sse-gateway", "iat": iat, "exp": iat + 30, "jti": made["jti"],
	}
	if !reflect.DeepEqual(made, want) || len(made["jti"].(string)) < 20 {
		t.Fatal(made)
	}

	end := time.Now().Add(time.Hour)
	options := Options{Audience: "a", Issuer: "i", KeyID: "k", MaxTTL: time.Hour}
	signed := sign(t, issuer(t, options), Ticket{
		User: "42", Topics: []string{}, Filter: map[string][]string{"a": {"b"}}, Presence: true,
		TTL: time.Hour, SessionExpires: end,
	})
	made = part(t, signed, 1)
	iat = made["iat"].(float64)
	want = map[string]any{
		"sub": "42", "aud": "a", "iss": "i", "iat": iat, "exp": iat + 3600, "jti": made["jti"],
		"topics": []any{}, "filter": map[string]any{"a": []any{"b"}}, "presence": true,
		"session_exp": float64(end.Unix()),
	}
	if !reflect.DeepEqual(made, want) {
		t.Fatal(made)
	}
	head := map[string]any{"alg": "HS256", "typ": "JWT", "kid": "k"}
	if got := part(t, signed, 0); !reflect.DeepEqual(got, head) {
		t.Fatal(got)
	}
}

func TestGatewayAcceptsEveryClaim(t *testing.T) {
	signed := sign(t, issuer(t, Options{}), Ticket{
		User: "a:b@c", Topics: []string{"news", "team-*", "*"}, Presence: true, TTL: time.Minute,
		Filter:         map[string][]string{"x-y_z.1": {"é", "b"}},
		SessionExpires: time.Now().Add(time.Minute),
	})
	if user := open(t, "SSE_TEST_GATEWAY", signed).connected.User; user != "a:b@c" {
		t.Fatal(user)
	}
}

func names(count int, end string) []string {
	made := make([]string, count)
	for n := range made {
		made[n] = fmt.Sprintf("n%d%s", n, end)
	}
	return made
}

func TestWrongTicketsAreReported(t *testing.T) {
	g := issuer(t, Options{})
	expect := func(code string, ticket Ticket) {
		t.Helper()
		if ticket.User == "" {
			ticket.User = "42"
		}
		if _, err := g.Ticket(ticket); ErrorCode(err) != code {
			t.Fatalf("got %v, not %s for %v", err, code, ticket)
		}
	}
	if _, err := g.Ticket(Ticket{}); ErrorCode(err) != "bad-user" {
		t.Fatal(err)
	}
	for _, user := range []string{"a b", "a,b", "a*", "a?", "[a", "a]", "{a", "a}", "a\\", "ä", "a\n",
		strings.Repeat("x", 257)} {
		expect("bad-user", Ticket{User: user})
	}
	for _, topics := range [][]string{{"a b"}, {"a*b"}, {""}, names(257, "")} {
		expect("bad-topics", Ticket{Topics: topics})
	}
	for _, filter := range []map[string][]string{
		{"a": {}}, {"a b": {"c"}}, {"a": {"b c"}}, {"a": names(65, "")}, {"a": {"\xff"}},
		{"a": {strings.Repeat("x", 257)}},
	} {
		expect("bad-filter", Ticket{Filter: filter})
	}
	many := map[string][]string{}
	for _, name := range names(9, "") {
		many[name] = []string{"a"}
	}
	expect("bad-filter", Ticket{Filter: many})
	for _, ttl := range []time.Duration{time.Second - 1, 61 * time.Second, -1} {
		expect("bad-ttl", Ticket{TTL: ttl})
	}
	expect("bad-session-expires", Ticket{SessionExpires: time.Now().Add(-time.Minute)})
	expect("ticket-too-long", Ticket{Topics: names(256, strings.Repeat("x", 60))})
}

func TestShortSecretIsReported(t *testing.T) {
	for _, secret := range [][]byte{{}, make([]byte, 31)} {
		if _, err := New(Options{Secret: secret}); ErrorCode(err) != "bad-secret" {
			t.Fatal(err)
		}
	}
	g, err := New(Options{})
	must(t, err)
	if _, err := g.Ticket(Ticket{User: "42"}); ErrorCode(err) != "bad-secret" {
		t.Fatal(err)
	}
}
