//! `docs/reference/openapi.json`: the description of all endpoints (OpenAPI 3.1).
//!
//! Operations list their error codes; the statuses of the codes are those of
//! `docs/reference/errors.md`. The tests in [`drift`] compare paths, methods, parameters, statuses
//! and codes with the sources of the handlers. `make test-api` compares the whole with a running
//! gateway.

mod admin_page;
mod admin_page_operations;
mod drift;
mod operations;
mod responses;
mod schemas;

use serde_json::{Map, Value, json};

use operations::{ADMIN, BACKENDS, CLIENTS, Operation, Security};

const DESCRIPTION: &str = "\
Relays events from Redis to browsers as Server-Sent Events. The paths with the tag `admin` belong \
to the admin listener (`admin.listen`), the others to the public one (`server.listen`).

Not described here: CORS preflights, the admin page (`GET /` of the admin listener), and what every path has in common. Another path gets 404 \
`not-found`, another method 405 `method-not-allowed` with an `Allow` header. If a parameter is \
repeated, the first one applies; unknown parameters are ignored. Error codes: \
docs/reference/errors.md. Events: docs/reference/events.md. How a client behaves: \
docs/reference/protocol.md.";

/// The description, as JSON text.
pub fn page() -> String {
    serde_json::to_string_pretty(&description()).expect("JSON") + "\n"
}

fn description() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "sse-gateway",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "From Redis to browsers: Server-Sent Events that resume",
            "description": DESCRIPTION,
            "license": { "name": "MIT or Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:8080", "description": "the public listener" }],
        "tags": [
            { "name": CLIENTS, "description": "browsers and other clients; they have a ticket" },
            { "name": BACKENDS, "description": "backends; they have an API key" },
            { "name": ADMIN, "description": "operators and monitoring, on the admin listener" },
        ],
        "paths": paths(),
        "components": {
            "parameters": schemas::parameters(),
            "schemas": schemas::schemas(),
            "responses": responses::shared(),
            "headers": responses::headers(),
            "securitySchemes": security_schemes(),
        },
    })
}

/// All operations, by path and method.
fn paths() -> Value {
    let mut paths = Map::new();
    for operation in operations::all() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if operation.tag == ADMIN {
            let admin = "the admin listener";
            path["servers"] = json!([{ "url": "http://127.0.0.1:9090", "description": admin }]);
        }
        path[operation.method] = described(&operation);
    }
    Value::Object(paths)
}

fn described(operation: &Operation) -> Value {
    let parameters = operation.parameters.iter();
    let parameters: Vec<Value> = parameters
        .map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }))
        .collect();
    let id = match operation.method {
        "head" => format!("{}Head", operation.id),
        _ => operation.id.to_owned(),
    };
    let mut described = json!({
        "operationId": id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "security": security(operation.security),
        "responses": responses::of(operation),
    });
    if !operation.description.is_empty() {
        described["description"] = json!(operation.description);
    }
    if !parameters.is_empty() {
        described["parameters"] = json!(parameters);
    }
    if let Some(schema) = operation.body {
        let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
        let content = json!({ "application/json": { "schema": schema } });
        described["requestBody"] = json!({ "required": true, "content": content });
    }
    described
}

fn security(security: Security) -> Value {
    match security {
        // Without a ticket, `tickets.anonymous_topics` apply.
        Security::Ticket => json!([{ "ticket": [] }, { "ticketInQuery": [] }, {}]),
        Security::ApiKey => json!([{ "apiKey": [] }]),
        Security::None => json!([]),
    }
}

fn security_schemes() -> Value {
    json!({
        "ticket": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "A ticket (docs/guides/issuing-tickets.md). It may also be in the \
                            cookie that `tickets.cookie` names. Without any, the topics in \
                            `tickets.anonymous_topics` are available.",
        },
        "ticketInQuery": {
            "type": "apiKey", "in": "query", "name": "ticket",
            "description": "The same ticket, for a native `EventSource`, which cannot send \
                            `Authorization`.",
        },
        "apiKey": {
            "type": "http", "scheme": "bearer",
            "description": "A key of the setting `api_keys`, whose scopes allow the operation.",
        },
    })
}
