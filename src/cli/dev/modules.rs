//! The JavaScript modules that the demo page loads: its own, and those of clients/js unchanged.

use actix_web::{HttpResponse, http::header, web};

macro_rules! modules {
    ($folder:literal: $($name:literal)*) => {
        &[$(($name, include_str!(concat!($folder, $name)))),*]
    };
}

/// Name and text of each module of the client.
const CLIENT: &[(&str, &str)] = modules! {
    "../../../clients/js/src/":
    "address.js" "backoff.js" "engine.js" "handlers.js" "history.js" "index.js" "listeners.js"
    "machine.js" "poll.js" "presence.js" "source.js" "system.js" "ticket.js" "types.js"
    "share/hub.js" "share/ids.js" "share/lock.js" "share/member.js" "share/worker.js"
};

/// Name and text of each module of the page.
const PAGE: &[(&str, &str)] = modules! {
    "page/": "chart.js" "dom.js" "list.js" "main.js" "retained.js" "texts.js"
};

/// Serves the modules at `/client/` and `/page/`.
pub fn routes(config: &mut web::ServiceConfig) {
    for (folder, modules) in [("client", CLIENT), ("page", PAGE)] {
        for &(name, text) in modules {
            let module = move || std::future::ready(javascript(text));
            config.route(&format!("/{folder}/{name}"), web::get().to(module));
        }
    }
}

fn javascript(text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .content_type("text/javascript; charset=utf-8")
        .body(text)
}
