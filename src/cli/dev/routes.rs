//! What a gateway of `dev` serves in addition: the page, and what its buttons do.

use std::net::IpAddr;

use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    http::{StatusCode, header, uri::Authority},
    web,
};
use serde_json::json;

use super::{
    assets,
    gateway::Instance,
    page,
    published::{self, PublishedError},
};
use crate::{
    core::{
        channel::{Channel, is_name},
        id::StreamPosition,
    },
    error_chain::ErrorChain,
    http::{
        api_keys::{self, ApiDenial},
        params::{BadRequest, Params},
        responses,
        worker::Worker,
    },
    redis::{
        commands::CommandError,
        presence::{self, TopicUsers},
    },
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
            .route("/", web::get().to(move |request| page(request, text.clone())))
            .route("/dev/gateway", web::get().to(move || gateway(number)))
            .route("/dev/kill", web::post().to(kill))
            .route("/dev/trim", web::post().to(trim))
            .route("/dev/online", web::get().to(online))
            .route("/dev/published", web::get().to(published));
    }
}

async fn page(request: HttpRequest, text: String) -> HttpResponse {
    if is_opened_by_address(&request) {
        return page::response(text);
    }
    HttpResponse::Forbidden()
        .content_type("text/plain; charset=utf-8")
        .body("Open the demo page in a browser as http://localhost, or by its IP address.")
}

/// The page contains an API key. A script of another site would send `Origin`, or, if its name was
/// made to resolve to this address (DNS rebinding), that name as the host.
fn is_opened_by_address(request: &HttpRequest) -> bool {
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(Authority::as_str).or(header);
    let authority = authority.and_then(|text| text.parse::<Authority>().ok());
    let is_address = authority.is_some_and(|authority| {
        let host = authority.host().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok()
    });
    is_address && !request.headers().contains_key(header::ORIGIN)
}

/// Which gateway this is.
async fn gateway(number: u8) -> HttpResponse {
    responses::answer(&json!({ "gateway": number, "pid": std::process::id() }))
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("the API key is refused: {0:?}")]
    Key(ApiDenial),
    #[error("{}", .0.message)]
    Bad(BadRequest),
    #[error("the logs cannot be read")]
    Published(#[from] PublishedError),
    #[error("a command failed")]
    Command(#[from] CommandError),
}

impl ResponseError for RequestError {
    fn error_response(&self) -> HttpResponse {
        match self {
            Self::Key(denial) => denial.response(),
            Self::Bad(error) => error.response(),
            Self::Published(_) | Self::Command(_) => {
                let message = ErrorChain(self).to_string();
                responses::error(StatusCode::SERVICE_UNAVAILABLE, "redis-away", &message)
            }
        }
    }
}

type Response = Result<HttpResponse, RequestError>;

fn bad(message: &str) -> RequestError {
    RequestError::Bad(BadRequest { code: "bad-request", message: message.to_owned() })
}

/// The parameters of a request with the API key of the page.
fn authorised(request: &HttpRequest, worker: &Worker) -> Result<Params, RequestError> {
    api_keys::check(request, &worker.api.auth, Scope::Admin).map_err(RequestError::Key)?;
    Params::of(request).map_err(RequestError::Bad)
}

fn user(params: &Params) -> Result<&str, RequestError> {
    params.get("user").filter(|user| is_name(user)).ok_or_else(|| bad("user must be a user id"))
}

/// Kills this process with SIGKILL. The request names it: a browser repeats a request whose
/// connection breaks, and the other gateway gets it then.
async fn kill(request: HttpRequest, worker: web::Data<Worker>) -> Response {
    let params = authorised(&request, &worker)?;
    if params.get("pid") == Some(&std::process::id().to_string()) {
        // SAFETY: raise has no preconditions.
        unsafe { libc::raise(libc::SIGKILL) };
    }
    Ok(HttpResponse::NoContent().finish())
}

/// Deletes all events of a user's channel but the last one from the history.
async fn trim(request: HttpRequest, worker: web::Data<Worker>) -> Response {
    let params = authorised(&request, &worker)?;
    let log = worker.commands.keys.log(&Channel::User(user(&params)?.into()));
    let mut command = redis::cmd("XTRIM");
    command.arg(log).arg("MAXLEN").arg(1);
    let deleted: u64 = worker.commands.run(&command).await?;
    Ok(responses::answer(&json!({ "deleted": deleted })))
}

/// The users who are online.
async fn online(request: HttpRequest, worker: web::Data<Worker>) -> Response {
    authorised(&request, &worker)?;
    let TopicUsers { users, .. } = presence::of_topic(&worker.commands, ANY_TOPIC).await?;
    Ok(responses::answer(&json!({ "users": users })))
}

/// The events that were published after a position.
async fn published(request: HttpRequest, worker: web::Data<Worker>) -> Response {
    let params = authorised(&request, &worker)?;
    let parse = |text| {
        let position = StreamPosition::parse(text);
        position.ok_or_else(|| bad("after must be the next of another response"))
    };
    let after = params.get("after").map(parse).transpose()?;
    let reply = published::published(&worker, user(&params)?, after).await?;
    Ok(responses::answer(&reply))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn page_with_the_key_is_not_for_other_sites() {
        let opened = |host: &str| {
            is_opened_by_address(
                &TestRequest::get().insert_header(("host", host)).to_http_request(),
            )
        };
        for host in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "192.168.1.7"] {
            assert!(opened(host), "{host}");
        }
        for host in ["evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert!(!opened(host), "{host}");
        }
        let foreign = TestRequest::get().insert_header(("host", "localhost:8080"));
        let foreign = foreign.insert_header(("origin", "http://localhost:3000"));
        assert!(!is_opened_by_address(&foreign.to_http_request()));
    }
}
