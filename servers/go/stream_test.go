package ssegateway

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
)

// stream reads the stream of a ticket from now on.
type stream struct {
	t         *testing.T
	response  *http.Response
	lines     *bufio.Reader
	connected struct {
		User   string
		Topics []string
	}
}

func open(t *testing.T, gateway, ticket string) *stream {
	t.Helper()
	response, err := http.Get(os.Getenv(gateway) + "/events?ticket=" + ticket)
	must(t, err)
	t.Cleanup(func() { response.Body.Close() })
	s := &stream{t: t, response: response, lines: bufio.NewReader(response.Body)}
	if response.StatusCode != http.StatusOK {
		text, _ := s.lines.ReadString('\n')
		t.Fatalf("%s: %s", response.Status, text)
	}
	must(t, json.Unmarshal([]byte(s.next()["data"]), &s.connected))
	return s
}

// next returns the lines of the next event.
func (s *stream) next() map[string]string {
	s.t.Helper()
	for {
		event := map[string]string{}
		for {
			line, err := s.lines.ReadString('\n')
			must(s.t, err)
			line = strings.TrimSuffix(line, "\n")
			if line == "" {
				break
			}
			name, value, _ := strings.Cut(line, ": ")
			event[name] = value
		}
		if event["event"] != "" && event["event"] != "sse.heartbeat" {
			return event
		}
	}
}

// expect checks the next event.
func (s *stream) expect(name, data, id string) {
	s.t.Helper()
	got := s.next()
	if got["event"] != name || got["data"] != data || got["id"] != id {
		s.t.Fatalf("got %v, not %s %s %s", got, name, data, id)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
