package ssegateway

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxNameBytes    = 256
	maxTopics       = 256
	maxTags         = 8
	maxFilterValues = 64
	maxTagBytes     = 256
	nameRule        = "1 to 256 printable ASCII characters without space, comma and * ? [ ] { } \\"
)

var (
	tagName  = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
	outer    = regexp.MustCompile(`^[^a-zA-Z0-9]+|[^a-zA-Z0-9]+$`)
	nonWords = regexp.MustCompile(`[^a-zA-Z0-9]`)
)

func isName(text string) bool {
	if len(text) < 1 || len(text) > maxNameBytes {
		return false
	}
	for _, c := range []byte(text) {
		if c <= ' ' || c > '~' || strings.IndexByte(`,*?[]{}\`, c) >= 0 {
			return false
		}
	}
	return true
}

func checkUser(user string) error {
	if !isName(user) {
		return invalid("bad-user", "user must have %s (got %.80q)", nameRule, user)
	}
	return nil
}

func checkTopics(topics []string) error {
	if len(topics) > maxTopics {
		return invalid("bad-topics", "topics must be at most %d (got %d)", maxTopics, len(topics))
	}
	for _, topic := range topics {
		if topic != "*" && !isName(strings.TrimSuffix(topic, "*")) {
			return invalid("bad-topics",
				"topics must be names, `prefix*` or `*`; a name has %s (got %.80q)", nameRule, topic)
		}
	}
	return nil
}

func isTagValue(value string) bool {
	isBad := func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) }
	return len(value) >= 1 && len(value) <= maxTagBytes && utf8.ValidString(value) &&
		strings.IndexFunc(value, isBad) < 0
}

func checkFilter(filter map[string][]string) error {
	isValid := len(filter) <= maxTags
	for name, values := range filter {
		isValid = isValid && tagName.MatchString(name) &&
			len(values) >= 1 && len(values) <= maxFilterValues
		for _, value := range values {
			isValid = isValid && isTagValue(value)
		}
	}
	if !isValid {
		return invalid("bad-filter", "filter must have at most 8 tags, each with 1 to 64 values"+
			" without spaces (got %.80q)", filter)
	}
	return nil
}

// channelKey is the key of a channel in Redis. A broadcast's key names the slot that all broadcasts
// share, which a cluster requires.
func channelKey(channel, prefix string) (string, error) {
	user := strings.TrimSuffix(strings.TrimPrefix(channel, "user:"), ":events")
	if isName(user) && channel == "user:"+user+":events" {
		return prefix + channel, nil
	}
	for _, start := range []string{"broadcast:", "{broadcast}:"} {
		topic := strings.TrimPrefix(channel, start)
		if isName(topic) && channel == start+topic {
			return "{" + prefix + "broadcast}:" + topic, nil
		}
	}
	return "", invalid("bad-channel",
		"the channel must be user:<id>:events or broadcast:<topic>, with %s (got %.80q)",
		nameRule, channel)
}

// functionName: the gateway names its functions after its key prefix, `shop-1:` becomes `shop_1`.
func functionName(keyPrefix string) string {
	name := nonWords.ReplaceAllString(outer.ReplaceAllString(keyPrefix, ""), "_")
	if name == "" {
		name = "sse"
	}
	return name + "_publish"
}
