//! `POST /tickets`, for backends without a JWT library.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{request_body, responses, worker::Worker};
use crate::{
    auth::{MintError, NewTicket},
    core::{
        channel::is_name,
        filter::{Filter, INVALID_FILTER},
        topics::Topics,
    },
    settings::Scope,
    state::clock::unix_ms,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TicketRequest {
    user: String,
    topics: Option<Vec<String>>,
    #[serde(default)]
    presence: bool,
    filter: Option<Value>,
    /// Lifetime in seconds.
    ttl: Option<u64>,
}

/// Signs a ticket.
pub async fn tickets(
    request: HttpRequest,
    payload: web::Payload,
    worker: web::Data<Worker>,
) -> HttpResponse {
    let body = match request_body::receive(&request, payload, &worker.api, Scope::Tickets).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let requested: TicketRequest = match serde_json::from_slice(&body) {
        Ok(requested) => requested,
        Err(e) => {
            return bad(&format!(
                "the body is not a valid ticket request ({e}); send \
                 {{\"user\",\"topics\"?,\"presence\"?,\"filter\"?,\"ttl\"?}}"
            ));
        }
    };
    if !is_name(&requested.user) {
        return bad("user must have 1 to 256 printable ASCII characters without space, comma and \
             * ? [ ] { } \\");
    }
    let topics = requested.topics.as_deref().unwrap_or_default();
    if let Err(error) = Topics::parse(topics.iter().map(String::as_str)) {
        return bad(&format!("topics {error}"));
    }
    if requested.filter.as_ref().is_some_and(|filter| Filter::of_claim(filter).is_none()) {
        return bad(INVALID_FILTER);
    }
    let verifier = &worker.api.auth.verifier;
    let max_ttl_s = verifier.max_ttl_s();
    let ttl_s = requested.ttl.unwrap_or(verifier.default_ttl_s());
    if !(1..=max_ttl_s).contains(&ttl_s) {
        return bad(&format!(
            "ttl must be an integer number of seconds from 1 to {max_ttl_s} (tickets.max_ttl, for \
             a cookie tickets.cookie_max_ttl)"
        ));
    }
    let TicketRequest { user, topics, presence, filter, .. } = &requested;
    let (topics, filter) = (topics.as_deref(), filter.as_ref());
    let new = NewTicket { user, topics, presence: *presence, filter };
    match verifier.mint(&new, ttl_s, unix_ms() / 1000) {
        Ok(ticket) => HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .json(json!({ "ticket": ticket, "expiresIn": ttl_s })),
        Err(MintError::Library(_)) => responses::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "not-signed",
            "the ticket could not be signed; check the key in tickets.secret or tickets.keys",
        ),
        Err(MintError::NoSigningKey) => responses::error(
            StatusCode::NOT_IMPLEMENTED,
            "no-signing-key",
            "no signing key is configured, only public keys; set tickets.secret, or sign tickets \
             in the backend",
        ),
    }
}

fn bad(message: &str) -> HttpResponse {
    responses::error(StatusCode::BAD_REQUEST, "bad-request", message)
}
