//! The operations of the API of the admin page.

use super::operations::{
    ADMIN, ADMIN_KEY, Operation, Security, end_connections, json_of, presence, publish,
};

/// The operations that read.
pub fn reads() -> Vec<Operation> {
    let read = |path, id, summary, description, content| Operation {
        path,
        method: "get",
        id,
        tag: ADMIN,
        summary,
        description,
        security: Security::ApiKey,
        parameters: &[],
        body: None,
        content: json_of(content),
        codes: ADMIN_KEY.to_vec(),
        sources: &[],
    };
    let of_channel = ["bad-channel", "redis-away", "redis-refused"];
    let codes = |more: &[&'static str]| {
        ADMIN_KEY.into_iter().chain(of_channel).chain(more.iter().copied()).collect()
    };
    let key = "Needs the scope `admin`.";
    vec![
        Operation {
            sources: &["admin/key.rs", "admin/access.rs", "api_keys.rs", "responses.rs"],
            ..read("/api/v1/key", "key", "The scopes of the API key", key, "Key")
        },
        Operation {
            sources: &[
                "admin/overview.rs",
                "admin/latency.rs",
                "admin/access.rs",
                "api_keys.rs",
                "responses.rs",
            ],
            ..read(
                "/api/v1/overview",
                "overview",
                "The state of this instance",
                "Needs the scope `admin`. Counters rise from the start of the instance.",
                "Overview",
            )
        },
        Operation {
            parameters: &["prefix", "itemLimit"],
            codes: ADMIN_KEY.into_iter().chain(["bad-limit"]).collect(),
            sources: &[
                "admin/users.rs",
                "admin/limit.rs",
                "admin/access.rs",
                "params.rs",
                "api_keys.rs",
                "responses.rs",
            ],
            ..read(
                "/api/v1/users",
                "users",
                "The users with a connection to this instance",
                "Needs the scope `admin`.",
                "Users",
            )
        },
        Operation {
            parameters: &["requiredUser"],
            sources: &[
                "admin/connections.rs",
                "admin/access.rs",
                "params.rs",
                "api_keys.rs",
                "responses.rs",
            ],
            ..read(
                "/api/v1/connections",
                "connectionsOfUser",
                "The connections of a user to this instance, and their number on all",
                "Needs the scope `admin`.",
                "UserConnections",
            )
        },
        Operation { path: "/api/v1/presence", id: "presenceV1", ..presence() },
        Operation {
            parameters: &["anyChannel"],
            codes: codes(&[]),
            sources: &[
                "admin/channel.rs",
                "admin/channel_param.rs",
                "params.rs",
                "api_keys.rs",
                "responses.rs",
            ],
            ..read(
                "/api/v1/channel",
                "channel",
                "The state of a channel's log, and its policy",
                "Needs the scope `admin`.",
                "ChannelState",
            )
        },
        Operation {
            parameters: &["anyChannel", "before", "itemLimit", "payloads"],
            codes: codes(&["bad-limit"]),
            sources: &[
                "admin/log.rs",
                "admin/channel_param.rs",
                "admin/limit.rs",
                "admin/payloads.rs",
                "params.rs",
                "api_keys.rs",
                "responses.rs",
            ],
            ..read(
                "/api/v1/log",
                "log",
                "The stored events of a channel, newest first",
                "Needs the scope `admin`. A page ends early if its events are large; `next` is \
                 `null` at the end of the log.",
                "Log",
            )
        },
        Operation {
            parameters: &["anyChannel", "itemLimit", "payloads"],
            codes: codes(&["bad-limit"]),
            sources: &[
                "admin/retained.rs",
                "admin/channel_param.rs",
                "admin/limit.rs",
                "admin/payloads.rs",
                "params.rs",
                "api_keys.rs",
                "responses.rs",
            ],
            ..read(
                "/api/v1/retained",
                "retainedValues",
                "The retained values of a channel, by key",
                "Needs the scope `admin`.",
                "RetainedValues",
            )
        },
        Operation {
            parameters: &["traceId", "optionalChannel", "payloads"],
            codes: codes(&[]),
            sources: &[
                "admin/trace.rs",
                "admin/channel_param.rs",
                "admin/payloads.rs",
                "params.rs",
                "api_keys.rs",
                "responses.rs",
            ],
            ..read(
                "/api/v1/trace",
                "trace",
                "Where an event is or was",
                "Needs the scope `admin`. Without a channel, at most 10,000 logs are searched, \
                 for at most 5 s on each server. As `sse-gateway trace`.",
                "Trace",
            )
        },
    ]
}

/// `DELETE /api/v1/connections`
pub fn end_sessions() -> Operation {
    Operation {
        path: "/api/v1/connections",
        id: "endSessions",
        description: "Needs the scopes `admin` and `operate`. Tickets that were signed before are \
                      rejected.",
        parameters: &["requiredUser"],
        sources: &[
            "admin/connections.rs",
            "admin.rs",
            "admin/access.rs",
            "params.rs",
            "api_keys.rs",
            "responses.rs",
        ],
        ..end_connections()
    }
}

/// `POST /api/v1/events`
pub fn publish_test() -> Operation {
    Operation {
        path: "/api/v1/events",
        id: "publishTestEvent",
        tag: ADMIN,
        summary: "Publish an event",
        description: "Needs the scope `admin`, and `operate` or `publish`. Takes one event, as \
                      `POST /publish`.",
        body: Some("Event"),
        content: json_of("PublishedEvent"),
        sources: &[
            "admin/publish.rs",
            "admin/access.rs",
            "publish.rs",
            "request_body.rs",
            "api_keys.rs",
            "responses.rs",
        ],
        ..publish()
    }
}
