package ssegateway

// What the library publishes is what the gateway delivers.

import (
	"context"
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	ctx    = context.Background()
	secret = []byte(os.Getenv("TICKET_SECRET"))
	id     = regexp.MustCompile(`^\d+-\d+\.[0-9a-z]+$`)
	unique = strconv.FormatInt(time.Now().UnixNano(), 36)
	users  = 0
)

func newUser() string {
	users++
	return fmt.Sprintf("go-%s-%d", unique, users)
}

func client(t *testing.T, variable string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(os.Getenv(variable))
	must(t, err)
	rdb := redis.NewClient(options)
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// gateway uses the Redis server that a variable names.
func gateway(t *testing.T, variable string, options Options) *Gateway {
	t.Helper()
	options.Redis, options.Secret = client(t, variable), secret
	g, err := New(options)
	must(t, err)
	return g
}

func sign(t *testing.T, g *Gateway, ticket Ticket) string {
	t.Helper()
	signed, err := g.Ticket(ticket)
	must(t, err)
	return signed
}

// done returns the id of a publish that succeeds.
func done(t *testing.T) func(string, error) string {
	return func(published string, err error) string {
		t.Helper()
		must(t, err)
		return published
	}
}

// refused checks the error of a publish.
func refused(t *testing.T, code string, isRetriable bool) func(string, error) {
	return func(_ string, err error) {
		t.Helper()
		failed, is := err.(*Error)
		if !is || failed.Code != code || ErrorCode(err) != code || failed.Retriable != isRetriable {
			t.Fatalf("got %v, not %s (retriable: %t)", err, code, isRetriable)
		}
	}
}

func TestEventsArriveAsPublished(t *testing.T) {
	g, user := gateway(t, "SSE_TEST_REDIS", Options{}), newUser()
	filter := map[string][]string{"region": {"eu"}}
	ticket := sign(t, g, Ticket{User: user, Topics: []string{"news"}, Filter: filter})
	s := open(t, "SSE_TEST_GATEWAY", ticket)
	if s.connected.User != user || strings.Join(s.connected.Topics, " ") != "news" {
		t.Fatal(s.connected)
	}

	payload := map[string]any{"total": 1.5, "ü": "<&>"}
	first := done(t)(g.PublishToUser(ctx, user, "order-completed", payload, Key(user)))
	if !id.MatchString(first) {
		t.Fatal(first)
	}
	s.expect("order-completed", `{"total":1.5,"ü":"<&>"}`, first)
	again := done(t)(g.PublishToUser(ctx, user, "order-completed", 2, Key(user)))
	if again != first {
		t.Fatal(again)
	}

	raw, channel := Raw(`not "JSON"`), "user:"+user+":events"
	text := done(t)(g.Publish(ctx, channel, "text", raw, Retry(1234*time.Millisecond)))
	got := s.next()
	if got["id"] != text || got["retry"] != "1234" || got["data"] != string(raw) {
		t.Fatal(got)
	}

	done(t)(g.PublishToBroadcast(ctx, "news", "filtered", 1, Tag("region", "us")))
	done(t)(g.PublishToBroadcast(ctx, "other", "not-permitted", 1))
	news := done(t)(g.PublishToBroadcast(ctx, "news", "headline", []string{"a"},
		Tag("region", "eu"), Tag("team", "x=y")))
	s.expect("headline", `["a"]`, news)

	if typing := done(t)(g.PublishToUser(ctx, user, "typing", nil, Ephemeral())); typing != "" {
		t.Fatal(typing)
	}
	s.expect("typing", "null", "")

	trace := TraceParent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	s.expect("traced", "1", done(t)(g.PublishToUser(ctx, user, "traced", 1, trace)))
	done(t)(g.PublishToUser(ctx, user, "untraced", 1, TraceParent("")))
	refused(t, "bad-traceparent", false)(g.PublishToUser(ctx, user, "traced", 1, TraceParent("x")))
}

func TestKeptValuesReachNewStreams(t *testing.T) {
	g, user := gateway(t, "SSE_TEST_REDIS", Options{}), newUser()
	done(t)(g.PublishToUser(ctx, user, "price", 1, Keep("btc")))
	done(t)(g.PublishToUser(ctx, user, "price", 2, Keep("btc")))
	done(t)(g.PublishToUser(ctx, user, "price", 3, Keep("eth")))
	done(t)(g.PublishToUser(ctx, user, "price", nil, Forget("eth")))
	s := open(t, "SSE_TEST_GATEWAY", sign(t, g, Ticket{User: user, Topics: []string{}}))
	if snapshot := s.next(); snapshot["event"] != "sse.snapshot" {
		t.Fatal(snapshot)
	}
	s.expect("price", "2", "")
	s.expect("end", "1", done(t)(g.PublishToUser(ctx, user, "end", 1)))
}

func TestUndeliveredEventsAreReadAndAcknowledged(t *testing.T) {
	g, user := gateway(t, "SSE_TEST_REDIS", Options{}), newUser()
	payload := map[string]any{"orderId": 7}
	published := done(t)(g.PublishToUser(ctx, user, "shipped", payload, Unseen(time.Second)))
	find := func(events []Undelivered, err error) *Undelivered {
		must(t, err)
		for _, event := range events {
			if event.Channel == "user:"+user+":events" {
				return &event
			}
		}
		return nil
	}
	var found *Undelivered
	for found == nil {
		if found = find(g.Undelivered(ctx, user, "first")); found == nil {
			time.Sleep(50 * time.Millisecond)
		}
	}
	if found.ID != published || found.Type != "shipped" || found.Payload != `{"orderId":7}` {
		t.Fatal(found)
	}
	// Another consumer gets it after some time, and nobody after it was acknowledged.
	if find(g.Undelivered(ctx, user, "second", Idle(0))) == nil {
		t.Fatal("the second consumer did not get it")
	}
	must(t, g.Acknowledge(ctx, user, *found))
	if find(g.Undelivered(ctx, user, "second", Idle(0))) != nil {
		t.Fatal("it was delivered after it was acknowledged")
	}
}

func TestCountLimitsUndeliveredEvents(t *testing.T) {
	g, user := gateway(t, "SSE_TEST_REDIS", Options{}), newUser()
	for n := 0; n < 2; n++ {
		done(t)(g.PublishToUser(ctx, user, "shipped", n, Unseen(time.Second)))
	}
	all := 0
	for all < 2 {
		events, err := g.Undelivered(ctx, user, "first")
		must(t, err)
		all += len(events)
		time.Sleep(50 * time.Millisecond)
	}
	events, err := g.Undelivered(ctx, user, "second", Idle(0), Count(1))
	must(t, err)
	if len(events) != 1 {
		t.Fatal(events)
	}
}

func TestErrorsHaveCodes(t *testing.T) {
	g := gateway(t, "SSE_TEST_REDIS", Options{})
	large := strings.Repeat("x", 70_000)
	refused(t, "too-large", false)(g.PublishToUser(ctx, "42", "a", large))
	refused(t, "reserved-type", false)(g.PublishToUser(ctx, "42", "sse.a", 1))
	refused(t, "bad-ephemeral", false)(g.PublishToUser(ctx, "42", "a", 1, Ephemeral(), Key("k")))
	refused(t, "bad-user", false)(g.PublishToUser(ctx, "4 2", "a", 1))
	refused(t, "bad-channel", false)(g.PublishToBroadcast(ctx, "a*", "a", 1))
	refused(t, "bad-channel", false)(g.Publish(ctx, "news", "a", 1))
	refused(t, "bad-payload", false)(g.PublishToUser(ctx, "42", "a", math.NaN()))
	absent := gateway(t, "SSE_TEST_REDIS", Options{KeyPrefix: "absent:", RetryFor: -1})
	refused(t, "not-loaded", true)(absent.PublishToUser(ctx, "42", "a", 1))
	must(t, client(t, "SSE_TEST_REDIS").Set(ctx, "sse:log:{user:broken:events}", "1", 0).Err())
	refused(t, "wrong-type", false)(g.PublishToUser(ctx, "broken", "a", 1))
	none, err := New(Options{})
	must(t, err)
	refused(t, "no-redis", false)(none.PublishToUser(ctx, "42", "a", 1))
}

func TestLostConnectionsAreRetriableWithAKey(t *testing.T) {
	g := gateway(t, "SSE_TEST_CLOSED", Options{RetryFor: -1})
	refused(t, "redis-away", false)(g.PublishToUser(ctx, "42", "a", 1))
	refused(t, "redis-away", true)(g.PublishToUser(ctx, "42", "a", 1, Key("k")))
	patient := gateway(t, "SSE_TEST_CLOSED", Options{RetryFor: 300 * time.Millisecond})
	started := time.Now()
	_, err := patient.Undelivered(ctx, "emails", "c")
	refused(t, "redis-away", true)("", err)
	if time.Since(started) < 50*time.Millisecond {
		t.Fatal("it was not retried")
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	refused(t, "redis-away", false)(g.PublishToUser(cancelled, "42", "a", 1, Key("k")))
}

func TestPrefixes(t *testing.T) {
	options := Options{KeyPrefix: "shop-1:", ChannelPrefix: "shop:", RetryFor: -1}
	g, user := gateway(t, "SSE_TEST_REDIS", options), newUser()
	ticket := sign(t, g, Ticket{User: user, Topics: []string{"*"}})
	s := open(t, "SSE_TEST_PREFIXED_GATEWAY", ticket)
	s.expect("a", "1", done(t)(g.PublishToUser(ctx, user, "a", 1)))
	s.expect("a", "2", done(t)(g.Publish(ctx, "{broadcast}:news", "a", 2)))
	if _, err := g.Undelivered(ctx, user, "c"); err != nil {
		t.Fatal(err)
	}
}

func TestCluster(t *testing.T) {
	nodes := strings.Split(os.Getenv("SSE_TEST_CLUSTER"), ",")
	rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: nodes[:1]})
	defer rdb.Close()
	g, err := New(Options{Redis: rdb, Secret: secret})
	must(t, err)
	// Their slots are on all masters.
	for n := 0; n < 6; n++ {
		user := newUser()
		ticket := sign(t, g, Ticket{User: user, Topics: []string{"news"}})
		s := open(t, "SSE_TEST_CLUSTER_GATEWAY", ticket)
		done(t)(g.PublishToUser(ctx, user, "a", 1, Key("k"), Keep("x")))
		if got := s.next(); got["event"] != "a" {
			t.Fatal(got)
		}
		done(t)(g.PublishToBroadcast(ctx, "news", "b", 2))
		if got := s.next(); got["event"] != "b" {
			t.Fatal(got)
		}
	}
	refused(t, "reserved-type", false)(g.PublishToUser(ctx, "42", "sse.a", 1))
	_, err = g.Undelivered(ctx, "emails", "one")
	must(t, err)

	moved := 0
	for _, node := range nodes {
		rdb := redis.NewClient(&redis.Options{Addr: node})
		defer rdb.Close()
		g, err := New(Options{Redis: rdb, RetryFor: -1})
		must(t, err)
		if published, err := g.PublishToUser(ctx, "42", "a", 1); err != nil {
			refused(t, "redis-away", true)(published, err)
			moved++
		}
	}
	if moved != 2 {
		t.Fatal(moved)
	}
}

func TestUnadoptedServerIsATemporaryError(t *testing.T) {
	impatient := gateway(t, "SSE_TEST_UNADOPTED", Options{RetryFor: -1})
	refused(t, "not-adopted", true)(impatient.PublishToUser(ctx, "42", "a", 1))
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	patient := gateway(t, "SSE_TEST_UNADOPTED", Options{RetryFor: time.Minute})
	if _, err := patient.PublishToUser(short, "42", "a", 1); err == nil {
		t.Fatal("the event was published")
	}
	pid, err := strconv.Atoi(os.Getenv("SSE_TEST_STOPPED_GATEWAY"))
	must(t, err)
	must(t, syscall.Kill(pid, syscall.SIGCONT))
	if published := done(t)(patient.PublishToUser(ctx, "42", "a", 1)); !id.MatchString(published) {
		t.Fatal(published)
	}
}
