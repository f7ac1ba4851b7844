//! The schemas of parameters, bodies and responses.

use serde_json::{Value, json};
use sse_gateway::core::{reasons::GapReason, transport::Transport};

use super::admin_page;

/// The characters of user ids and topics: printable ASCII without space, comma and
/// `* ? [ ] { } \`.
const NAME: &str = r"[!-)+\x2D->@-Z^-z|~]";
const ID_EXAMPLE: &str = "1763719000789-0.k3f9x2";

pub fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

pub fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

/// Object with these members, all of which are present.
pub(super) fn object(description: &str, members: Value) -> Value {
    let required: Vec<&String> = members.as_object().expect("an object").keys().collect();
    json!({
        "type": "object", "description": description, "required": required,
        "properties": members, "additionalProperties": false,
    })
}

fn parameter(place: &str, name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": place, "description": description, "schema": schema })
}

fn query(name: &str, description: &str, schema: Value) -> Value {
    parameter("query", name, description, schema)
}

fn required(mut parameter: Value) -> Value {
    parameter["required"] = json!(true);
    parameter
}

/// The parameters by the names that operations use.
pub fn parameters() -> Value {
    let topics = format!("(?:{NAME}{{1,256}}\\*?|\\*)");
    let topics = format!("^(?:{topics}?,)*{topics}?$");
    let topics = json!({ "type": "string", "pattern": topics });
    let string = json!({ "type": "string" });
    let user = "the `sub` of the user's tickets";
    json!({
        "topics": query("topics",
            "Up to 256 names, `prefix*` or `*`, separated by commas. What both this list and the \
             ticket allow is received. Without it: all that the ticket allows.", topics),
        "lastEventIdHeader": parameter("header", "Last-Event-ID",
            "The last event id that the client received: the stream continues after it. \
             `EventSource` sends it by itself.", string.clone()),
        "lastEventId": query("lastEventId", "The same; the header wins.", string.clone()),
        "last_event_id": query("last_event_id", "The same as `lastEventId`, which wins.", string),
        "since": query("since",
            "Begin at this time in the past: a duration, a time of RFC 3339 or ms since 1970. A \
             last event id wins.", since()),
        "traceparent": parameter("header", "traceparent",
            "W3C trace context, for all events without a `traceparent` of their own. An invalid \
             one is ignored.", json!({ "type": "string" })),
        "wait": query("wait",
            "Maximum number of seconds to wait for an event.",
            json!({ "type": "number", "minimum": 0, "maximum": 30, "default": 0 })),
        "channel": required(query("channel",
            "The channel: `user:<sub>:events` of the ticket's user, or `broadcast:<topic>` of a \
             topic that the ticket allows.", reference("Channel"))),
        "after": query("after",
            "Begin after this id: `next` of the page before, the id of an event, or a last event \
             id.", reference("EventId")),
        "until": query("until",
            "End at this id: `lastEventId` of another channel's history.", reference("EventId")),
        "limit": query("limit", "Maximum number of events.",
            json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 })),
        "user": query("user", user, reference("Name")),
        "userFilter": query("user",
            "Only the connections of this user. There are none of an invalid id.",
            json!({ "type": "string" })),
        "requiredUser": required(query("user", user, reference("Name"))),
        "topic": query("topic", "a topic", reference("Name")),
        "prefix": query("prefix", "The beginning of user ids.", json!({ "type": "string" })),
        "itemLimit": query("limit", "Maximum number of items.",
            json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 })),
        "anyChannel": required(query("channel", "A channel.", reference("Channel"))),
        "optionalChannel": query("channel",
            "The channel of the event. Without it, the logs are searched.", reference("Channel")),
        "traceId": required(query("id",
            "The id of an event, or a client's last event id.", reference("EventId"))),
        "before": query("before", "End before this id: `next` of the page before.",
            reference("EventId")),
        "payloads": query("payloads",
            "`true`: with payloads, of which at most 16 KiB each and 2 MiB in all are returned.",
            json!({ "type": "boolean", "default": false })),
        "id": required(parameter("path", "id", user, reference("Name"))),
    })
}

fn since() -> Value {
    let examples = json!(["15m", "2026-11-27T08:00:00Z", "1795766400000"]);
    json!({
        "type": "string", "examples": examples,
        "anyOf": [
            { "pattern": "^[0-9]{1,11}(?:ms|s|m|h|d)$" },
            { "format": "date-time" },
            { "pattern": "^(?:0|[1-9][0-9]{11,18})$" },
        ],
    })
}

/// All schemas.
pub fn schemas() -> Value {
    let mut schemas = json!({});
    for part in [names(), events(), publishing(), tickets(), admin(), admin_page::schemas()] {
        let Value::Object(part) = part else { panic!("an object") };
        schemas.as_object_mut().expect("an object").extend(part);
    }
    schemas
}

fn names() -> Value {
    json!({
        "Error": {
            "type": "object", "required": ["error", "message"],
            "properties": {
                "error": text("A code that does not change (docs/reference/errors.md)."),
                "message": text("The problem and the fix. The wording may change."),
            },
            "additionalProperties": false,
        },
        "Name": {
            "type": "string", "pattern": format!("^{NAME}{{1,256}}$"),
            "description": "A user id or topic: 1 to 256 printable ASCII characters without \
                            space, comma and * ? [ ] { } \\",
        },
        "Channel": {
            "type": "string",
            "pattern": format!("^(?:user:{NAME}{{1,256}}:events|broadcast:{NAME}{{1,256}})$"),
            "examples": ["user:42:events", "broadcast:news"],
        },
        "EventId": {
            "type": "string", "examples": [ID_EXAMPLE],
            "description": "Opaque: store it and send it back, but do not compare or parse it.",
        },
    })
}

fn events() -> Value {
    let id = json!({ "anyOf": [reference("EventId"), { "type": "null" }] });
    let reasons: Vec<&str> = GapReason::ALL.iter().map(|reason| reason.name()).collect();
    let strings = json!({ "type": "array", "items": { "type": "string" } });
    let keys = json!({ "type": "object", "additionalProperties": strings });
    let event = |id: Value| {
        json!({
            "id": id, "type": text("The type that the publisher chose."),
            "data": text("The payload as text, byte for byte."),
        })
    };
    let mut polled = object(
        "An event of a poll. The id of a retained value or of an ephemeral \
                             event is `null`.",
        event(id.clone()),
    );
    polled["properties"]["retained"] = json!({
        "const": true, "description": "It is a retained value.",
    });
    let mut poll = object(
        "Events, and the position after them.",
        json!({
            "events": { "type": "array", "items": reference("PolledEvent") },
            "lastEventId": text("Where the next poll continues."),
            "gap": { "anyOf": [reference("Gap"), { "type": "null" }] },
        }),
    );
    poll["properties"]["snapshot"] = reference("Snapshot");
    let mut streamed = object(
        "An event of a stream: one of yours, or one of the gateway, whose name begins with `sse.` \
         (docs/reference/events.md).",
        json!({ "event": text("The type."), "data": text("Its lines are joined with LF.") }),
    );
    streamed["properties"]["id"] = text("The last event id from now on.");
    streamed["properties"]["retry"] =
        json!({ "type": "integer", "minimum": 0, "description": "Reconnection delay in ms." });
    json!({
        "StreamedEvent": streamed,
        "PolledEvent": polled,
        "StoredEvent": object("An event of a history.", event(reference("EventId"))),
        "Gap": object("The data of `sse.gap`: events may be missing.", json!({
            "reason": { "enum": reasons }, "channels": strings,
            "from": text("The client's last event id."),
        })),
        "Snapshot": object("The data of `sse.snapshot`.", json!({
            "covers": strings, "channels": keys,
        })),
        "Poll": poll,
        "History": object("A page of stored events.", json!({
            "events": { "type": "array", "maxItems": 1000, "items": reference("StoredEvent") },
            "next": id.clone(),
            "lastEventId": id,
        })),
    })
}

/// An optional member; `null` counts as absent.
pub(super) fn or_null(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn publishing() -> Value {
    let controls = r"^[^\x00-\x1F\x7F-\x9F]+$";
    let key = || {
        or_null(json!({
            "type": "string", "minLength": 1, "maxLength": 256, "pattern": controls,
        }))
    };
    let tags = json!({
        "type": "object", "minProperties": 1, "maxProperties": 8,
        "propertyNames": { "pattern": "^[A-Za-z0-9_.\\x2D]{1,64}$" },
        "additionalProperties": {
            "type": "string", "minLength": 1, "maxLength": 256,
            "pattern": r"^[^\x00-\x20\x7F]+$",
        },
    });
    let unseen = "^(?:[1-9][0-9]{3,6}ms|[1-9][0-9]{0,4}s|[1-9][0-9]{0,3}m|[1-9][0-9]?h|[1-7]d)$";
    let traceparent = "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$";
    let is = |name: &str| json!({ "required": [name], "not": absent(name) });
    let event = json!({
        "type": "object", "required": ["channel", "payload"], "additionalProperties": false,
        "description": "Lengths are in bytes of UTF-8.",
        "properties": {
            "channel": reference("Channel"),
            "payload": { "description": "Any JSON. It is delivered byte for byte." },
            "type": or_null(json!({
                "type": "string", "minLength": 1, "maxLength": 128, "pattern": controls,
                "not": { "pattern": "^sse\\." },
                "description": "The event's name; `message` if absent.",
            })),
            "id": or_null(json!({
                "type": "string", "minLength": 1, "maxLength": 256,
                "description": "The idempotency key.",
            })),
            "retry": or_null(json!({
                "type": "integer", "minimum": 0, "maximum": 86_400_000,
                "description": "Reconnection delay in ms, written without a fraction.",
            })),
            "keep": key(),
            "forget": key(),
            "ephemeral": { "type": ["boolean", "null"] },
            "tags": or_null(tags),
            "unseen": or_null(json!({
                "type": "string", "pattern": unseen,
                "description": "A duration from 1s to 7d, only for `user:<id>:events`.",
            })),
            "traceparent": or_null(json!({
                "type": "string", "pattern": traceparent,
                "description": "W3C trace context. Without the flag `sampled`, or with an id of \
                                zeros, it has no effect.",
            })),
        },
        "allOf": [
            { "not": { "allOf": [is("keep"), is("forget")] } },
            {
                "description": "An ephemeral event is not stored.",
                "if": {
                    "required": ["ephemeral"], "properties": { "ephemeral": { "const": true } },
                },
                "then": { "properties": {
                    "id": { "type": "null" }, "keep": { "type": "null" },
                    "forget": { "type": "null" }, "unseen": { "type": "null" },
                } },
            },
            {
                "if": is("unseen"),
                "then": { "properties": { "channel": { "pattern": "^user:" } } },
            },
        ],
    });
    let published = object(
        "The id of the event; `null` for an ephemeral event.",
        json!({ "id": or_null(reference("EventId")) }),
    );
    let items = json!([reference("PublishedEvent"), reference("Error")]);
    json!({
        "Event": event,
        "Publish": { "anyOf": [
            reference("Event"),
            { "type": "array", "maxItems": 1000, "items": reference("Event") },
        ] },
        "PublishedEvent": published,
        "Published": { "anyOf": [
            reference("PublishedEvent"),
            { "type": "array", "maxItems": 1000, "items": { "anyOf": items } },
        ] },
    })
}

/// Matches an object that lacks a member, or has `null` for it.
fn absent(name: &str) -> Value {
    json!({ "anyOf": [
        { "not": { "required": [name] } },
        { "properties": { name: { "type": "null" } } },
    ] })
}

fn tickets() -> Value {
    let topics = json!({
        "type": "array", "maxItems": 256,
        "items": { "type": "string", "pattern": format!("^(?:{NAME}{{1,256}}\\*?|\\*)$") },
        "description": "Names, `prefix*` or `*`; `tickets.default_topics` if absent.",
    });
    let filter = json!({
        "type": "object", "minProperties": 1, "maxProperties": 8,
        "propertyNames": { "pattern": "^[A-Za-z0-9_.\\x2D]{1,64}$" },
        "additionalProperties": { "type": "array", "minItems": 1, "maxItems": 64, "items": {
            "type": "string", "minLength": 1, "maxLength": 256, "pattern": r"^[^\x00-\x20\x7F]+$",
        } },
        "description": "The values that each tag of an event may have.",
    });
    json!({
        "TicketRequest": {
            "type": "object", "required": ["user"], "additionalProperties": false,
            "properties": {
                "user": reference("Name"),
                "topics": or_null(topics),
                "presence": { "type": "boolean", "default": false },
                "filter": or_null(filter),
                "ttl": or_null(json!({
                    "type": "integer", "minimum": 1,
                    "description": "Lifetime in seconds, written without a fraction, at most \
                                    `tickets.max_ttl`.",
                })),
            },
        },
        "Ticket": object("A signed ticket.", json!({
            "ticket": text("The JWT."),
            "expiresIn": { "type": "integer", "description": "Lifetime in seconds." },
        })),
    })
}

fn admin() -> Value {
    let number = json!({ "type": "integer", "minimum": 0 });
    let transports: Vec<&str> = Transport::ALL.iter().map(|transport| transport.name()).collect();
    let names = json!({ "type": "array", "items": { "type": "string" } });
    let connection = json!({
        "connectionId": text("As in `sse.connected`."),
        "user": or_null(text("`null`: a client without a ticket.")),
        "topics": names, "transport": { "enum": transports },
        "ageSeconds": number, "queuedBytes": number,
        "cursor": text("The id up to which the client has received everything."),
    });
    let reasons = ["draining", "redis-away", "no-recorder", "keys-away", "full"];
    let online = object(
        "A user.",
        json!({
            "user": reference("Name"), "online": { "type": "boolean" }, "connections": number,
        }),
    );
    let topic = object(
        "The users who receive a topic.",
        json!({
            "topic": reference("Name"),
            "users": { "type": "array", "maxItems": 1000, "items": { "type": "string" } },
            "online": number,
            "complete": { "type": "boolean", "description": "`false`: `online` is a minimum." },
        }),
    );
    json!({
        "Health": object("Alive.", json!({ "status": { "const": "alive" } })),
        "Ready": object("Ready.", json!({ "status": { "const": "ready" } })),
        "NotReady": object("Not ready.", json!({
            "status": { "const": "not ready" }, "reason": { "enum": reasons },
        })),
        "Presence": { "anyOf": [online, topic] },
        "Connection": object("A stream or poll.", connection),
        "Connections": object("The connections to an instance.", json!({
            "instance": { "type": "string" },
            "connections": { "type": "array", "items": reference("Connection") },
        })),
        "Revoked": object("The sessions ended.", json!({
            "user": reference("Name"), "revoked": { "const": true },
        })),
    })
}
