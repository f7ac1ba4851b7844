//! The operations: paths, parameters and error codes.

use serde_json::{Value, json};
use sse_gateway::core::{
    envelope::Rejection,
    reasons::{BusyReason, TicketRejection},
};

use super::{
    admin_page_operations,
    schemas::{reference, text},
};

pub const CLIENTS: &str = "clients";
pub const BACKENDS: &str = "backends";
pub const ADMIN: &str = "admin";

/// Who may call an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Clients with a ticket, or without one if the settings allow it.
    Ticket,
    /// Holders of an API key.
    ApiKey,
    /// All who can reach the listener.
    None,
}

/// One method of one path.
pub struct Operation {
    pub path: &'static str,
    pub method: &'static str,
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    pub description: &'static str,
    pub security: Security,
    /// Names of `components.parameters`.
    pub parameters: &'static [&'static str],
    /// Name of the schema of the body.
    pub body: Option<&'static str>,
    /// The content of the response with status 200.
    pub content: Value,
    /// The codes of its errors, without those that every operation has.
    pub codes: Vec<&'static str>,
    /// The files of `src/http` that read its parameters or write its errors.
    pub sources: &'static [&'static str],
}

/// The codes of the errors of a client without a valid ticket.
fn ticket_codes() -> impl Iterator<Item = &'static str> {
    TicketRejection::ALL.iter().map(|rejection| rejection.name())
}

/// The codes of a request with an API key.
const KEY: [&str; 4] = ["not-found", "api-key-missing", "api-key-unknown", "scope-missing"];
/// The codes of a request to the admin listener with an API key.
pub(super) const ADMIN_KEY: [&str; 5] =
    ["not-found", "api-key-missing", "api-key-unknown", "scope-missing", "too-often"];
/// The codes of a request with a body, in addition.
const BODY: [&str; 3] = ["too-large", "body-timeout", "too-often"];

/// The reasons for which a client gets no history now. It is no connection, so the limits of
/// connections do not apply.
fn is_of_histories(reason: BusyReason) -> bool {
    match reason {
        BusyReason::Full
        | BusyReason::TooOften
        | BusyReason::RedisAway
        | BusyReason::KeysAway
        | BusyReason::Draining => true,
        BusyReason::UserFull | BusyReason::AnonymousFull | BusyReason::AddressFull => false,
    }
}

pub(super) fn json_of(schema: &str) -> Value {
    json!({ "application/json": { "schema": reference(schema) } })
}

/// All operations.
pub fn all() -> Vec<Operation> {
    let mut all = vec![events(), poll(), history(), publish(), tickets()];
    // The admin listener responds to HEAD wherever it responds to GET.
    for get in probes()
        .into_iter()
        .chain([presence(), connections()])
        .chain(admin_page_operations::reads())
    {
        let head = head(&get);
        all.extend([get, head]);
    }
    all.extend([
        end_connections(),
        end_connections_of_user(),
        admin_page_operations::end_sessions(),
    ]);
    all.push(admin_page_operations::publish_test());
    all
}

const STREAM_SOURCES: [&str; 4] = ["admission.rs", "credentials.rs", "params.rs", "since.rs"];

fn events() -> Operation {
    // OpenAPI has no member for the events of a stream before 3.2 (`itemSchema`).
    let content = json!({ "text/event-stream": { "schema": reference("StreamedEvent") } });
    Operation {
        path: "/events",
        method: "get",
        id: "streamEvents",
        tag: CLIENTS,
        summary: "Open an event stream",
        description: "A sequence of events without end; the schema describes each of them. Begins \
                      with `sse.connected`. If the gateway cannot serve the stream now, the \
                      whole response is `sse.busy`, also with status 200.",
        security: Security::Ticket,
        parameters: &["topics", "lastEventIdHeader", "lastEventId", "last_event_id", "since"],
        body: None,
        content,
        codes: ticket_codes().chain(["bad-topics", "bad-since", "origin-not-allowed"]).collect(),
        sources: &STREAM_SOURCES,
    }
}

fn poll() -> Operation {
    let busy = BusyReason::ALL.iter().map(|reason| reason.name());
    Operation {
        path: "/events/poll",
        id: "pollEvents",
        summary: "Get the next events in one response",
        description: "Long polling, for networks that block streams. Continue with `lastEventId` \
                      of the response.",
        parameters: &[
            "topics",
            "lastEventIdHeader",
            "lastEventId",
            "last_event_id",
            "since",
            "wait",
        ],
        content: json_of("Poll"),
        codes: events().codes.into_iter().chain(["bad-wait"]).chain(busy).collect(),
        sources: &["poll.rs", "admission.rs", "credentials.rs", "params.rs", "since.rs"],
        ..events()
    }
}

fn history() -> Operation {
    let busy = BusyReason::ALL.iter().filter(|reason| is_of_histories(**reason));
    let own = [
        "bad-channel",
        "bad-since",
        "bad-after",
        "bad-until",
        "bad-limit",
        "not-allowed",
        "origin-not-allowed",
    ];
    Operation {
        path: "/events/history",
        id: "readHistory",
        summary: "Read stored events of a channel",
        description: "A page, oldest event first. `since` and `after` exclude each other.",
        parameters: &["channel", "since", "after", "until", "limit"],
        content: json_of("History"),
        codes: ticket_codes().chain(own).chain(busy.map(|reason| reason.name())).collect(),
        sources: &["history.rs", "credentials.rs", "params.rs", "since.rs"],
        ..events()
    }
}

pub(super) fn publish() -> Operation {
    // An event in a request is UTF-8, is always stored, unless it is ephemeral, and is no entry of an
    // external source.
    let others = [Rejection::NotUtf8, Rejection::NotStored, Rejection::BadEntry];
    let is_of_requests = |r: &&Rejection| !others.contains(r);
    let rejections = Rejection::ALL.iter().filter(is_of_requests).map(|r| r.code());
    Operation {
        path: "/publish",
        method: "post",
        id: "publish",
        tag: BACKENDS,
        summary: "Publish an event, or a list of events",
        description: "Needs the scope `publish`. The response to a list has status 200 and an \
                      item for each event, in the same order: its id, or its error.",
        security: Security::ApiKey,
        parameters: &["traceparent"],
        body: Some("Publish"),
        content: json_of("Published"),
        codes: KEY
            .into_iter()
            .chain(BODY)
            .chain(["redis-away", "not-adopted"])
            .chain(rejections)
            .collect(),
        sources: &["publish.rs", "request_body.rs", "api_keys.rs", "responses.rs"],
    }
}

fn tickets() -> Operation {
    Operation {
        path: "/tickets",
        id: "issueTicket",
        summary: "Sign a ticket",
        description: "Needs the scope `tickets`.",
        parameters: &[],
        body: Some("TicketRequest"),
        content: json_of("Ticket"),
        codes: KEY.into_iter().chain(BODY).chain(["not-signed", "no-signing-key"]).collect(),
        sources: &["tickets.rs", "request_body.rs", "api_keys.rs", "responses.rs"],
        ..publish()
    }
}

/// The endpoints for monitoring.
fn probes() -> [Operation; 4] {
    let probe = |path, id, summary, description, content| Operation {
        path,
        method: "get",
        id,
        tag: ADMIN,
        summary,
        description,
        security: Security::None,
        parameters: &[],
        body: None,
        content,
        codes: Vec::new(),
        sources: &["admin.rs"],
    };
    let plain = json!({ "text/plain": { "schema": text("The format of Prometheus, 0.0.4.") } });
    let document = json!({ "application/json": { "schema": { "type": "object" } } });
    [
        probe(
            "/healthz",
            "health",
            "Liveness",
            "Status 200 while the process runs.",
            json_of("Health"),
        ),
        probe(
            "/readyz",
            "readiness",
            "Readiness",
            "Status 200 if the instance can serve clients, otherwise 503.",
            json_of("Ready"),
        ),
        probe("/metrics", "metrics", "Metrics", "All metrics of the instance.", plain),
        probe("/openapi.json", "description", "This description", "OpenAPI 3.1.", document),
    ]
}

/// HEAD for an operation with GET.
fn head(get: &Operation) -> Operation {
    Operation {
        method: "head",
        summary: "As GET, without the body",
        description: "",
        content: Value::Null,
        codes: get.codes.clone(),
        ..*get
    }
}

pub(super) fn presence() -> Operation {
    Operation {
        path: "/presence",
        method: "get",
        id: "presence",
        tag: ADMIN,
        summary: "Who is online, on all instances",
        description: "Needs the scope `admin`, and `presence.enabled`. Pass either `user` or \
                      `topic`.",
        security: Security::ApiKey,
        parameters: &["user", "topic"],
        body: None,
        content: json_of("Presence"),
        codes: ADMIN_KEY.into_iter().chain(["presence-disabled", "redis-away"]).collect(),
        sources: &["presence.rs", "admin/access.rs", "api_keys.rs", "params.rs", "responses.rs"],
    }
}

fn connections() -> Operation {
    Operation {
        path: "/connections",
        id: "connections",
        summary: "List the connections to this instance",
        description: "Needs the scope `admin`. The connections of a worker that does not respond \
                      within 2 s are missing.",
        parameters: &["userFilter"],
        content: json_of("Connections"),
        codes: ADMIN_KEY.to_vec(),
        sources: &["admin.rs", "admin/access.rs", "api_keys.rs", "params.rs", "responses.rs"],
        ..presence()
    }
}

pub(super) fn end_connections() -> Operation {
    Operation {
        method: "delete",
        id: "endConnections",
        summary: "End the streams and sessions of a user, on all instances",
        description: "Needs the scope `admin`. Tickets that were signed before are rejected.",
        parameters: &["requiredUser"],
        content: json_of("Revoked"),
        codes: ADMIN_KEY.into_iter().chain(["redis-away"]).collect(),
        ..connections()
    }
}

fn end_connections_of_user() -> Operation {
    Operation {
        path: "/users/{id}/connections",
        id: "endConnectionsOfUser",
        description: "As `DELETE /connections`. It cannot name the users `.` and `..`, because \
                      HTTP clients resolve such path segments.",
        parameters: &["id"],
        ..end_connections()
    }
}
