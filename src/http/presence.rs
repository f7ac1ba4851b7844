//! `GET /presence` of the admin listener: who is online, over all instances.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde_json::json;

use super::{
    admin::{Admin, access},
    params::Params,
    responses,
};
use crate::{
    core::channel::is_name,
    error_chain::ErrorChain,
    redis::{
        commands::CommandError,
        presence::{self, TopicUsers, UserPresence},
    },
};

/// `GET /presence?user=<id>` and `GET /presence?topic=<topic>`.
pub async fn presence(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    if let Err(response) = access::admin(&request, &admin) {
        return *response;
    }
    if !admin.has_presence {
        return responses::error(
            StatusCode::CONFLICT,
            "presence-disabled",
            "presence is off; set presence.enabled on all instances",
        );
    }
    let params = match Params::of(&request) {
        Ok(params) => params,
        Err(error) => return error.response(),
    };
    match (params.get("user"), params.get("topic")) {
        (Some(user), None) if is_name(user) => of_user(&admin, user).await,
        (None, Some(topic)) if is_name(topic) => of_topic(&admin, topic).await,
        _ => responses::error(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "pass either user=<id> or topic=<topic>, with 1 to 256 printable ASCII characters \
             without space, comma and * ? [ ] { } \\",
        ),
    }
}

async fn of_user(admin: &Admin, user: &str) -> HttpResponse {
    match presence::of_user(&admin.commands, user).await {
        Ok(UserPresence { online, connections }) => {
            let found = json!({ "user": user, "online": online, "connections": connections });
            HttpResponse::Ok().json(found)
        }
        Err(error) => unavailable(admin, &error),
    }
}

async fn of_topic(admin: &Admin, topic: &str) -> HttpResponse {
    match presence::of_topic(&admin.commands, topic).await {
        Ok(TopicUsers { users, online, is_complete }) => HttpResponse::Ok().json(json!({
            "topic": topic, "users": users, "online": online, "complete": is_complete,
        })),
        Err(error) => unavailable(admin, &error),
    }
}

fn unavailable(admin: &Admin, error: &CommandError) -> HttpResponse {
    let address = admin.commands.address();
    tracing::debug!(%address, error = %ErrorChain(error), "presence not read");
    responses::retry_later(
        StatusCode::SERVICE_UNAVAILABLE,
        "redis-away",
        "Redis is unavailable; try again",
    )
}
