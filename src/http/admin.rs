//! The admin listener: liveness, readiness, metrics, the description of the API, presence,
//! listing and ending connections, and the admin page with its API.

pub mod access;
mod api;
mod channel;
mod channel_param;
mod connections;
mod key;
mod latency;
mod limit;
mod log;
mod overview;
mod page;
mod payloads;
mod publish;
mod retained;
mod trace;
mod users;
mod workers;

use std::{net::IpAddr, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, Route, guard,
    http::{StatusCode, header::ContentType},
    web,
};
use serde::Serialize;
use serde_json::json;

use self::workers::ask;
use super::{params::Params, presence, responses};
use crate::{
    admission::readiness::Readiness,
    auth::Auth,
    core::channel::is_name,
    error_chain::ErrorChain,
    metrics::Metrics,
    redis::{commands::Commands, server_metrics, servers::Servers, sessions},
    settings::Settings,
    state::{
        clock::Clock,
        delivery::Delivery,
        limits::{Limits, rate::RateLimit},
        mailbox::{Command, ConnectionInfo},
    },
};

/// The handlers' shared state.
pub struct Admin {
    /// The name of the instance.
    pub name: Arc<str>,
    /// How long a revocation lasts: as long as any session or ticket from before it.
    pub revocation: Duration,
    /// `presence.enabled`
    pub has_presence: bool,
    /// The settings.
    pub settings: Arc<Settings>,
    /// Time since the start of the instance.
    pub clock: Arc<Clock>,
    /// The rate of unknown API keys by address.
    pub unknown_keys: RateLimit<IpAddr>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The limits that all workers share.
    pub limits: Arc<Limits>,
    /// Whether the instance is ready.
    pub readiness: Arc<Readiness>,
    /// API keys, and the age of the issuer's key set.
    pub auth: Arc<Auth>,
    /// The servers, and the states of their links.
    pub servers: Arc<Servers>,
    /// The workers' mailboxes.
    pub delivery: Arc<Delivery>,
    /// This thread's connection pool.
    pub commands: Commands,
}

/// The description of the endpoints of both listeners, written by `make reference`.
const OPENAPI: &str = include_str!("../../docs/reference/openapi.json");

/// The routes of the listener.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(responses::only("GET, HEAD", "/healthz", get().to(healthz)))
        .service(responses::only("GET, HEAD", "/readyz", get().to(readyz)))
        .service(responses::only("GET, HEAD", "/metrics", get().to(metrics)))
        .service(responses::only("GET, HEAD", "/openapi.json", get().to(openapi)))
        .service(responses::only("GET, HEAD", "/presence", get().to(presence::presence)))
        .service(
            web::resource("/connections")
                .route(get().to(connections))
                .route(web::delete().to(end_connections_of_query))
                .default_service(web::to(responses::other_method("GET, HEAD, DELETE"))),
        )
        .service(responses::only(
            "DELETE",
            "/users/{id}/connections",
            web::delete().to(end_connections_of_path),
        ))
        .configure(api::routes)
        .configure(page::routes)
        .default_service(web::to(|| async { responses::not_found() }));
}

/// GET, and HEAD for probes (actix omits the body).
fn get() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// Liveness: always 200, because a restart would not fix a problem with Redis.
async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "alive" }))
}

async fn readyz(admin: web::Data<Admin>) -> HttpResponse {
    match admin.readiness.unready() {
        None => HttpResponse::Ok().json(json!({ "status": "ready" })),
        Some(reason) => HttpResponse::ServiceUnavailable()
            .json(json!({ "status": "not ready", "reason": reason })),
    }
}

async fn metrics(admin: web::Data<Admin>) -> HttpResponse {
    let metrics = &admin.metrics;
    metrics.queued_bytes.set(admin.limits.queued_bytes.total());
    server_metrics::update(metrics, &admin.servers);
    if let Some(age) = admin.auth.key_set_age() {
        metrics.jwks_age.set(age.as_secs_f64());
    }
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(metrics.encode())
}

async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(OPENAPI)
}

/// One connection in the response to `GET /connections`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    connection_id: String,
    /// `null`: an anonymous client.
    user: Option<String>,
    topics: Vec<String>,
    transport: &'static str,
    age_seconds: u64,
    queued_bytes: usize,
    cursor: String,
}

impl Listed {
    fn of(info: ConnectionInfo) -> Self {
        Self {
            connection_id: info.id,
            user: info.user.map(|user| user.to_string()),
            topics: info.topics,
            transport: info.transport.name(),
            age_seconds: info.age_ms / 1000,
            queued_bytes: info.queued_bytes,
            cursor: info.cursor.to_string(),
        }
    }
}

async fn connections(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    if let Err(response) = access::admin(&request, &admin) {
        return *response;
    }
    let Ok(params) = Params::of(&request) else {
        return responses::error(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "the query cannot be decoded; percent-encode its values as UTF-8",
        );
    };
    let user = params.get("user").map(str::to_owned);
    // A busy worker's connections are left out: the list is only meant for operators.
    let list = |reply| Command::List(user.clone(), reply);
    let (answers, _) = ask(&admin.delivery, list).await;
    let all: Vec<_> = answers.into_iter().flatten().map(Listed::of).collect();
    HttpResponse::Ok().json(json!({ "instance": &*admin.name, "connections": all }))
}

/// `DELETE /users/<id>/connections`. Ordinary clients cannot send the ids `.` and `..` here: they
/// resolve such segments, percent-encoded or not, before they send the path.
async fn end_connections_of_path(
    request: HttpRequest,
    user: web::Path<String>,
    admin: web::Data<Admin>,
) -> HttpResponse {
    end_connections(&request, Some(&user), &admin).await
}

/// `DELETE /connections?user=<id>`, for any id.
async fn end_connections_of_query(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    let params = Params::of(&request).ok();
    end_connections(&request, params.as_ref().and_then(|params| params.get("user")), &admin).await
}

async fn end_connections(request: &HttpRequest, user: Option<&str>, admin: &Admin) -> HttpResponse {
    if let Err(response) = access::admin(request, admin) {
        return *response;
    }
    match user.filter(|user| is_name(user)) {
        Some(user) => end_sessions(user, admin).await,
        None => bad_user(),
    }
}

fn bad_user() -> HttpResponse {
    responses::error(
        StatusCode::BAD_REQUEST,
        "bad-request",
        "the user id is missing or invalid; pass the `sub` of the user's tickets",
    )
}

/// Ends the streams and sessions of a user on all instances.
async fn end_sessions(user: &str, admin: &Admin) -> HttpResponse {
    match sessions::revoke(&admin.commands, user, admin.revocation).await {
        Ok(()) => HttpResponse::Ok().json(json!({ "user": user, "revoked": true })),
        Err(error) => {
            let address = admin.commands.address();
            tracing::warn!(%address, error = %ErrorChain(&error), "sessions not revoked");
            responses::retry_later(
                StatusCode::SERVICE_UNAVAILABLE,
                "redis-away",
                "nothing was revoked; try again",
            )
        }
    }
}
