//! The demo page.

use actix_web::{HttpResponse, http::header};
use serde_json::json;

use super::{USER, gateway::Instance};
use crate::http::page;

const PAGE: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
const POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; \
                      style-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page with what its scripts need.
pub fn text(instance: &Instance) -> String {
    let config = json!({
        "apiKey": instance.api_key,
        "redisCli": instance.redis_cli,
        "user": USER,
    });
    // In a <script> element `<` could end it.
    let config = config.to_string().replace('<', "\\u003c");
    PAGE.replace("{{STYLE}}", &[page::STYLE, STYLE].concat()).replace("{{CONFIG}}", &config)
}

/// The response with the page.
pub fn response(text: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .body(text)
}
