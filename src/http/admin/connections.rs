//! `/api/v1/connections`: the connections of a user, and the end of them.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::{Admin, Listed, access, bad_user, end_sessions, responses, workers::ask};
use crate::{
    core::channel::is_name,
    http::params::Params,
    redis::presence::{self, UserPresence},
    settings::Scope,
    state::mailbox::Command,
};

/// Maximum number of connections in a response.
const MAX_LISTED: usize = 100;

/// The connections of a user to this instance, and how many there are to all instances.
pub async fn connections(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    if let Err(response) = access::admin(&request, &admin) {
        return *response;
    }
    let params = Params::of(&request).ok();
    let Some(user) = user(params.as_ref()) else { return bad_user() };
    let list = |reply| Command::List(Some(user.to_owned()), reply);
    let (answers, is_complete) = ask(&admin.delivery, list).await;
    let all: Vec<_> = answers.into_iter().flatten().collect();
    let total = all.len();
    let listed: Vec<_> = all.into_iter().take(MAX_LISTED).map(Listed::of).collect();
    responses::answer(&json!({
        "instance": &*admin.name,
        "user": user,
        "connections": listed,
        "total": total,
        "complete": is_complete,
        "presence": presence_of(&admin, user).await,
    }))
}

/// The presence of a user over all instances; `null` if it is off, or Redis does not reply.
async fn presence_of(admin: &Admin, user: &str) -> Value {
    if !admin.has_presence {
        return Value::Null;
    }
    match presence::of_user(&admin.commands, user).await {
        Ok(UserPresence { online, connections }) => {
            json!({ "online": online, "connections": connections })
        }
        Err(_) => Value::Null,
    }
}

/// Ends the streams and sessions of a user on all instances.
pub async fn end(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    if let Err(response) = access::operator(&request, &admin, &[Scope::Operate]) {
        return *response;
    }
    let params = Params::of(&request).ok();
    match user(params.as_ref()) {
        Some(user) => end_sessions(user, &admin).await,
        None => bad_user(),
    }
}

fn user(params: Option<&Params>) -> Option<&str> {
    params.and_then(|params| params.get("user")).filter(|user| is_name(user))
}
