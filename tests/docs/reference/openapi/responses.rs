//! The responses of the operations, from their error codes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::operations::Operation;
use crate::reference::errors::statuses;

/// Codes of requests that are malformed for every operation (`src/http/front`). Their responses are
/// shared, if an operation has no other codes of the same status.
pub const EVERYWHERE: [&str; 5] = [
    "bad-request",
    "expectation-failed",
    "head-too-long",
    "coding-not-supported",
    "version-not-supported",
];

/// Statuses of errors after which a client may repeat the request unchanged.
const TEMPORARY: [u16; 2] = [429, 503];

/// The codes of an operation by status.
fn by_status(codes: impl IntoIterator<Item = &'static str>) -> BTreeMap<u16, Vec<&'static str>> {
    let statuses = statuses();
    let mut found: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in codes {
        let status = statuses.get(code).unwrap_or_else(|| panic!("{code} has no status"));
        found.entry(*status).or_default().push(code);
    }
    for codes in found.values_mut() {
        codes.sort_unstable();
        codes.dedup();
    }
    found
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request is invalid.",
        401 => "The credential is missing or rejected.",
        403 => "The credential does not allow this.",
        404 => "There is no such path, or the setting `api_keys` is empty.",
        408 => "The body did not arrive in time.",
        409 => "The request is valid, but not possible in the present state.",
        413 => "The event or the body is too large.",
        417 => "The expectation is not supported.",
        429 => "Too many requests.",
        431 => "The request line and headers are too long.",
        500 => "The ticket could not be signed.",
        501 => "Not supported, or not configured.",
        503 => "Not possible now.",
        505 => "This version of HTTP is not supported.",
        _ => panic!("explain the status {status}"),
    }
}

fn error(status: u16, codes: &[&str], has_body: bool) -> Value {
    let mut response = json!({ "description": meaning(status), "headers": headers_of(TEMPORARY.contains(&status)) });
    if has_body {
        let schema = json!({
            "allOf": [{ "$ref": "#/components/schemas/Error" }],
            "properties": { "error": { "enum": codes } },
        });
        response["content"] = json!({ "application/json": { "schema": schema } });
    }
    response
}

fn headers_of(is_temporary: bool) -> Value {
    let mut headers = json!({ "x-request-id": { "$ref": "#/components/headers/RequestId" } });
    if is_temporary {
        headers["retry-after"] = json!({ "$ref": "#/components/headers/RetryAfter" });
    }
    headers
}

/// All responses of an operation.
pub fn of(operation: &Operation) -> Value {
    let mut responses = Map::new();
    let mut ok = json!({ "description": "Success.", "headers": headers_of(false) });
    if operation.method != "head" {
        ok["content"] = operation.content.clone();
    }
    responses.insert("200".to_owned(), ok);
    let has_body = operation.method != "head";
    for (status, codes) in by_status(operation.codes.iter().copied().chain(EVERYWHERE)) {
        let is_shared = has_body && codes.iter().all(|code| EVERYWHERE.contains(code));
        let response = match is_shared {
            true => json!({ "$ref": format!("#/components/responses/{status}") }),
            false => error(status, &codes, has_body),
        };
        responses.insert(status.to_string(), response);
    }
    if operation.path == "/readyz" {
        responses.insert("503".to_owned(), not_ready(has_body));
    }
    Value::Object(responses)
}

/// The one response of a status other than 200 that is not an error.
fn not_ready(has_body: bool) -> Value {
    let mut response = json!({ "description": "The instance cannot serve clients.", "headers": headers_of(false) });
    if has_body {
        let schema = json!({ "$ref": "#/components/schemas/NotReady" });
        response["content"] = json!({ "application/json": { "schema": schema } });
    }
    response
}

/// The responses that operations share.
pub fn shared() -> Value {
    let shared = by_status(EVERYWHERE);
    let shared =
        shared.iter().map(|(status, codes)| (status.to_string(), error(*status, codes, true)));
    Value::Object(shared.collect())
}

/// The headers of responses.
pub fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "The id of the request, also in the logs. Missing only if the head of \
                            the request was malformed.",
            "schema": { "type": "string" },
        },
        "RetryAfter": {
            "description": "Seconds to wait before the request is repeated.",
            "required": true,
            "schema": { "type": "integer", "minimum": 1 },
        },
    })
}
