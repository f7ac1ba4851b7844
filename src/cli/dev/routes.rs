//! What a gateway of `dev` serves in addition: the page, and what its buttons do.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde_json::json;

use super::{gateway::Instance, assets, page, published};
use crate::{
    core::{
        channel::{Channel, is_name},
        id::StreamPosition,
    },
    error_chain::ErrorChain,
    http::{api_keys, params::Params, responses, worker::Worker},
    redis::presence::{self, TopicUsers},
    settings::Scope,
};

/// Any topic: the users who receive it are those whose ticket has all topics.
const ANY_TOPIC: &str = "news";

/// The routes of a gateway.
pub fn of(instance: Instance) -> impl Fn(&mut web::ServiceConfig) + Send + Sync {
    let (text, number) = (page::text(&instance), instance.number);
    move |config| {
        let text = text.clone();
        assets::routes(config);
        config
            .route("/", web::get().to(move || std::future::ready(page::response(text.clone()))))
            .route("/dev/gateway", web::get().to(move || gateway(number)))
            .route("/dev/kill", web::post().to(kill))
            .route("/dev/trim", web::post().to(trim))
            .route("/dev/online", web::get().to(online))
            .route("/dev/published", web::get().to(published));
    }
}

/// Which gateway this is.
async fn gateway(number: u8) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "gateway": number, "pid": std::process::id() }))
}

type Denied = HttpResponse;

/// The parameters of a request with the API key of the page.
fn authorised<'a>(request: &'a HttpRequest, worker: &Worker) -> Result<Params<'a>, Denied> {
    api_keys::check(request, &worker.api.auth, Scope::Admin).map_err(|denial| denial.response())?;
    Params::of(request).map_err(|error| error.response())
}

fn user(params: &Params<'_>) -> Result<String, Denied> {
    let user = params.get("user").filter(|user| is_name(user));
    user.map(str::to_owned).ok_or_else(|| bad("user must be a user id"))
}

fn bad(message: &str) -> HttpResponse {
    responses::error(StatusCode::BAD_REQUEST, "bad-request", message)
}

fn unavailable(error: &dyn std::error::Error) -> HttpResponse {
    let message = ErrorChain(error).to_string();
    responses::error(StatusCode::SERVICE_UNAVAILABLE, "redis-away", &message)
}

/// Kills this process with SIGKILL. The request names it: a browser repeats a request whose
/// connection breaks, and the other gateway gets it then.
async fn kill(request: HttpRequest, worker: web::Data<Worker>) -> HttpResponse {
    let params = match authorised(&request, &worker) {
        Ok(params) => params,
        Err(denied) => return denied,
    };
    if params.get("pid") == Some(&std::process::id().to_string()) {
        // SAFETY: raise has no preconditions.
        unsafe { libc::raise(libc::SIGKILL) };
    }
    HttpResponse::NoContent().finish()
}

/// Deletes all events of a user's channel but the last one from the history.
async fn trim(request: HttpRequest, worker: web::Data<Worker>) -> HttpResponse {
    let user = match authorised(&request, &worker).and_then(|params| user(&params)) {
        Ok(user) => user,
        Err(denied) => return denied,
    };
    let log = worker.commands.keys.log(&Channel::User(user.as_str().into()));
    let mut command = redis::cmd("XTRIM");
    command.arg(log).arg("MAXLEN").arg(1);
    match worker.commands.run::<u64>(&command).await {
        Ok(deleted) => HttpResponse::Ok().json(json!({ "deleted": deleted })),
        Err(error) => unavailable(&error),
    }
}

/// The users who are online.
async fn online(request: HttpRequest, worker: web::Data<Worker>) -> HttpResponse {
    if let Err(denied) = authorised(&request, &worker) {
        return denied;
    }
    match presence::of_topic(&worker.commands, ANY_TOPIC).await {
        Ok(TopicUsers { users, .. }) => HttpResponse::Ok().json(json!({ "users": users })),
        Err(error) => unavailable(&error),
    }
}

/// The events that were published after a position.
async fn published(request: HttpRequest, worker: web::Data<Worker>) -> HttpResponse {
    let (user, after) = match authorised(&request, &worker)
        .and_then(|params| Ok((user(&params)?, position(&params)?)))
    {
        Ok(wanted) => wanted,
        Err(denied) => return denied,
    };
    match published::published(&worker, &user, after).await {
        Ok(reply) => HttpResponse::Ok().json(reply),
        Err(error) => unavailable(&error),
    }
}

fn position(params: &Params<'_>) -> Result<Option<StreamPosition>, Denied> {
    let Some(text) = params.get("after") else { return Ok(None) };
    let position = StreamPosition::parse(text);
    position.map(Some).ok_or_else(|| bad("after must be the next of another response"))
}
