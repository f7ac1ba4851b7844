//! `GET /api/v1/users`: the users with a connection to this instance.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::{Admin, access, limit::limit, responses, workers::ask};
use crate::{http::params::Params, state::mailbox::Command};

/// The users whose ids begin with `prefix`, in order.
pub async fn users(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    if let Err(response) = access::admin(&request, &admin) {
        return *response;
    }
    let params = match Params::of(&request) {
        Ok(params) => params,
        Err(error) => return error.response(),
    };
    let limit = match limit(&params) {
        Ok(limit) => limit,
        Err(error) => return error.response(),
    };
    let prefix: Arc<str> = params.get("prefix").unwrap_or_default().into();
    let list = |reply| Command::ListUsers { prefix: prefix.clone(), limit, reply };
    let (answers, is_complete) = ask(&admin.delivery, list).await;
    // A user may have connections to several workers.
    let is_exact = answers.iter().all(|answer| answer.total == answer.users.len());
    let at_least = answers.iter().map(|answer| answer.total).max().unwrap_or(0);
    let mut users: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    for (user, count) in answers.into_iter().flat_map(|answer| answer.users) {
        *users.entry(user).or_default() += count;
    }
    let total = users.len().max(at_least);
    let listed: Vec<_> = users.iter().take(limit).collect();
    let listed: Vec<_> = listed
        .into_iter()
        .map(|(user, count)| json!({ "user": &**user, "connections": count }))
        .collect();
    responses::answer(&json!({
        "instance": &*admin.name,
        "users": listed,
        "total": total,
        "complete": is_complete && is_exact,
    }))
}
