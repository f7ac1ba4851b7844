//! The admin page. It contains no data and no key: its scripts ask for an API key, and read
//! everything else from the API.

use std::future::ready;

use actix_web::{HttpResponse, http::header, web};

use super::{get, responses};
use crate::http::page;

const PAGE: &str = include_str!("page/index.html");
/// Everything comes from this listener, and scripts only from files of their own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

macro_rules! files {
    ($($name:literal)*) => { [$(($name, include_str!(concat!("page/", $name)))),*] };
}

/// The files of the page, besides those that it shares with the demo page.
const FILES: [(&str, &str); 11] = files! {
    "api.js" "channel.js" "chart.js" "format.js" "main.js" "overview.js" "publish.js" "session.js"
    "style.css" "trace.js" "users.js"
};

/// Serves the page at `/`, and its files at `/admin/`.
pub fn routes(config: &mut web::ServiceConfig) {
    let page = || ready(file("text/html; charset=utf-8", PAGE));
    config.service(responses::only("GET, HEAD", "/", get().to(page)));
    let shared = [("base.css", page::STYLE), ("dom.js", page::DOM)];
    for (name, text) in FILES.into_iter().chain(shared) {
        let kind = if name.ends_with(".css") { "text/css" } else { "text/javascript" };
        let kind = format!("{kind}; charset=utf-8");
        let response = move || ready(file(&kind, text));
        let path = format!("/admin/{name}");
        config.service(responses::only("GET, HEAD", &path, get().to(response)));
    }
}

fn file(kind: &str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::X_FRAME_OPTIONS, "DENY"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .body(text)
}
