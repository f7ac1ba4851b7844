//! The schemas of the API of the admin page.

use serde_json::{Value, json};
use sse_gateway::{
    core::reasons::{BusyReason, CloseReason, GapReason},
    settings::Scope,
};

use super::schemas::{object, or_null, reference, text};

fn number() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = json!(description);
    schema
}

fn list(max: usize, items: Value) -> Value {
    json!({ "type": "array", "maxItems": max, "items": items })
}

/// An object with a number for each of these names.
fn counts<'a>(names: impl Iterator<Item = &'a str>) -> Value {
    let members: serde_json::Map<String, Value> =
        names.map(|name| (name.to_owned(), number())).collect();
    object("Numbers since the start of the instance.", Value::Object(members))
}

/// All schemas.
pub fn schemas() -> Value {
    let mut all = json!({});
    for part in [instance(), users(), channel()] {
        let Value::Object(part) = part else { panic!("an object") };
        all.as_object_mut().expect("an object").extend(part);
    }
    all
}

fn instance() -> Value {
    let scopes: Vec<&str> = Scope::ALL.into_iter().map(Scope::name).collect();
    let seconds = or_null(json!({ "type": "number", "minimum": 0, "description": "Seconds." }));
    let bucket = object(
        "Samples of at most `le` seconds.",
        json!({
            "le": { "type": "number" }, "count": number(),
        }),
    );
    let server = object(
        "A Redis server that the instance uses.",
        json!({
            "address": or_null(text("`host:port`, or a path; `null` before it is located.")),
            "up": described(json!({ "type": "boolean" }), "Whether the link is set up."),
            "watermarkAgeMs": or_null(described(number(), "Time since the last watermark.")),
            "epochChanges": number(),
            "subscriptions": described(number(), "Users' channels that the link is subscribed to."),
            "slots": or_null(described(number(), "Of a cluster.")),
        }),
    );
    let counters = [
        "userEvents",
        "broadcasts",
        "deliveries",
        "bytesSent",
        "requests",
        "replayed",
        "recorded",
        "published",
        "queueOverflows",
    ];
    json!({
        "Key": object("What an API key may do.", json!({
            "scopes": { "type": "array", "items": { "enum": scopes } },
            "instance": text("The name of the instance."),
        })),
        "Overview": object("The state of an instance.", json!({
            "instance": text("The name of the instance; another one after a restart."),
            "version": text("The version of the gateway."),
            "uptimeMs": described(number(), "Time since its start."),
            "timeMs": described(number(), "Its time, ms since 1970."),
            "ready": { "type": "boolean" },
            "unreadyReason": or_null(text("As of `/readyz`.")),
            "connections": object("What is open now.", json!({
                "streams": number(), "polls": number(),
                "anonymous": described(number(), "Streams and polls without a user."),
                "limit": described(number(), "`limits.max_connections`"),
                "queuedBytes": number(), "queuedBytesLimit": number(),
                "complete": described(
                    json!({ "type": "boolean" }), "Whether all workers have answered."),
            })),
            "counters": counts(counters.into_iter()),
            "latency": object(
                "Time from an event's id to its hand-over to a socket; one live event in 16.",
                json!({
                    "count": number(), "p50": seconds, "p90": seconds, "p99": seconds,
                    "buckets": { "type": "array", "items": bucket },
                }),
            ),
            "servers": { "type": "array", "items": server },
            "recorderRole": described(
                json!({ "enum": ["writer", "standby", "none", null] }),
                "`null`: the instance does not record plain publishes."),
            "gaps": counts(GapReason::ALL.iter().map(|reason| reason.name())),
            "closed": counts(CloseReason::ALL.iter().map(|reason| reason.name())),
            "busy": counts(BusyReason::ALL.iter().map(|reason| reason.name())),
            "topics": list(20, object("A topic, or a prefix with `*`.", json!({
                "topic": text("As in the tickets."),
                "connections": described(number(), "At least."),
            }))),
        })),
    })
}

fn users() -> Value {
    let flag = json!({ "type": "boolean" });
    json!({
        "Users": object("Users of an instance.", json!({
            "instance": text("The name of the instance."),
            "users": list(1000, object("A user.", json!({
                "user": text("The id."), "connections": number(),
            }))),
            "total": described(number(), "Number of users with this prefix."),
            "complete": described(flag.clone(), "`false`: the numbers are minimums."),
        })),
        "UserConnections": object("The connections of a user to an instance.", json!({
            "instance": text("The name of the instance."),
            "user": reference("Name"),
            "connections": list(100, reference("Connection")),
            "total": number(),
            "complete": described(flag.clone(), "Whether all workers have answered."),
            "presence": or_null(object("On all instances.", json!({
                "online": flag, "connections": number(),
            }))),
        })),
    })
}

fn with(mut schema: Value, optional: Value) -> Value {
    let Value::Object(optional) = optional else { panic!("an object") };
    schema["properties"].as_object_mut().expect("an object").extend(optional);
    schema
}

fn channel() -> Value {
    let payload = || {
        json!({
            "data": text("The payload, or its beginning; only with `payloads=true`."),
            "truncated": { "type": "boolean" },
        })
    };
    let bytes = described(number(), "Size of the payload.");
    let logged = object(
        "An entry of a log.",
        json!({
            "id": text("The id of the event, or of an entry that another client wrote."),
            "type": or_null(text("`null`: another client wrote the entry.")),
            "bytes": or_null(bytes.clone()),
        }),
    );
    let options = json!({
        "keep": text("The key of a retained value."), "forget": text("The same, deleted."),
        "tags": text("`<name>=<value>`, separated by spaces."),
        "unseenUntilMs": number(),
    });
    let value = object(
        "A retained value.",
        json!({
            "key": text("Its key."), "id": reference("EventId"), "type": text("Of its event."),
            "bytes": bytes,
        }),
    );
    let id = or_null(text("An id."));
    let flag = json!({ "type": "boolean" });
    json!({
        "ChannelState": object("A channel.", json!({
            "channel": reference("Channel"),
            "length": described(number(), "Number of events in the log."),
            "firstId": id, "lastId": id,
            "maxLength": described(number(), "Number of events to keep, approximately."),
            "retentionSeconds": { "type": "number" },
            "maxEventBytes": number(), "keepRequired": flag, "ephemeral": flag,
            "rate": or_null(described(number(), "Maximum number of events per second.")),
        })),
        "Log": object("A page of a log, newest event first.", json!({
            "channel": reference("Channel"),
            "events": list(1000, with(with(logged, options), payload())),
            "next": id,
        })),
        "RetainedValues": object("The retained values of a channel.", json!({
            "channel": reference("Channel"),
            "values": list(1000, with(value, payload())),
            "total": number(),
        })),
        "Trace": {
            "type": "object",
            "description": "As `sse-gateway trace --json`; `logTtlMs` is always `null`.",
            "required": ["id", "found", "channels", "breaks", "search", "restart", "note"],
            "properties": {
                "id": text("The id."),
                "found": described(flag.clone(), "Whether a log contains the event."),
                "channels": { "type": "array", "items": { "type": "object" } },
                "breaks": { "type": "array", "items": { "type": "object" } },
            },
        },
    })
}
