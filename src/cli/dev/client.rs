//! The JavaScript client as the page loads it: the modules of clients/js, as they are.

use actix_web::{HttpResponse, http::header, web};

macro_rules! modules {
    ($($name:literal)*) => {
        /// Name and text of each module; `share/` is not among them, the page has no use for it.
        const MODULES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../../clients/js/src/", $name)))),*];
    };
}

modules! {
    "address.js" "backoff.js" "engine.js" "handlers.js" "index.js" "listeners.js" "machine.js" "poll.js" "presence.js" "source.js"
    "ticket.js" "types.js"
}

/// Serves the modules below `/client/`.
pub fn routes(config: &mut web::ServiceConfig) {
    for &(name, text) in MODULES {
        let module = move || {
            let no_store = (header::CACHE_CONTROL, "no-store");
            let mut answer = HttpResponse::Ok();
            std::future::ready(answer.insert_header(no_store).content_type("text/javascript; charset=utf-8").body(text))
        };
        config.route(&format!("/client/{name}"), web::get().to(module));
    }
}
