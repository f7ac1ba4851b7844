//! `GET /api/v1/key`: what the API key of the request may do.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::{Admin, access, responses};
use crate::settings::Scope;

/// The scopes of the key.
pub async fn key(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    match access::admin(&request, &admin) {
        Ok(key) => {
            let scopes = Scope::ALL.into_iter().filter(|scope| access::has(&key, *scope));
            let scopes: Vec<&str> = scopes.map(Scope::name).collect();
            responses::answer(&json!({ "scopes": scopes, "instance": &*admin.name }))
        }
        Err(response) => *response,
    }
}
