//! What the demo page loads and links to: its own JavaScript modules, those of clients/js
//! unchanged, and pages of the book as plain text.

use actix_web::{HttpResponse, http::header, web};

use crate::http::page;

macro_rules! modules {
    ($folder:literal: $($name:literal)*) => {
        &[$(($name, include_str!(concat!($folder, $name)))),*]
    };
}

/// Name and text of each module of the client.
const CLIENT: &[(&str, &str)] = modules! {
    "../../../clients/js/src/":
    "address.js" "backoff.js" "engine.js" "handlers.js" "history.js" "index.js" "listeners.js"
    "machine.js" "poll.js" "presence.js" "schema.js" "source.js" "system.js" "ticket.js" "types.js"
    "share/hub.js" "share/ids.js" "share/lock.js" "share/member.js" "share/worker.js"
};

/// Name and text of each module of the page.
const PAGE: &[(&str, &str)] = modules! {
    "page/":
    "config.js" "faults.js" "list.js" "main.js" "presence.js" "publish.js" "published.js"
    "record.js" "retained.js" "stream.js" "terminal.js" "texts.js" "timeline.js"
};

/// Name and text of each page of the book that the page links to.
const DOCS: &[(&str, &str)] = &[
    ("getting-started.md", include_str!("../../../docs/getting-started.md")),
    ("guarantees.md", include_str!("../../../docs/concepts/guarantees.md")),
    ("resume-and-gaps.md", include_str!("../../../docs/concepts/resume-and-gaps.md")),
    ("publishing.md", include_str!("../../../docs/concepts/plain-and-durable-publishing.md")),
    ("browser.md", include_str!("../../../docs/guides/browser.md")),
    ("react.md", include_str!("../../../docs/guides/react.md")),
];

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// Serves the modules at `/client/` and `/page/`, and the pages of the book at `/docs/`.
pub fn routes(config: &mut web::ServiceConfig) {
    let folders =
        [("client", JAVASCRIPT, CLIENT), ("page", JAVASCRIPT, PAGE), ("docs", PLAIN_TEXT, DOCS)];
    let dom = || std::future::ready(response(JAVASCRIPT, page::DOM));
    config.route("/page/dom.js", web::get().to(dom));
    for (folder, kind, files) in folders {
        for &(name, text) in files {
            let file = move || std::future::ready(response(kind, text));
            config.route(&format!("/{folder}/{name}"), web::get().to(file));
        }
    }
}

fn response(kind: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .content_type(kind)
        .body(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_imported_module_of_the_client_is_served() {
        for (name, text) in CLIENT {
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            for path in text.split("from '.").skip(1).filter_map(|rest| rest.split('\'').next()) {
                let path = match path.strip_prefix("./") {
                    Some(outside) => outside.to_owned(),
                    None => format!("{folder}{path}").trim_start_matches('/').to_owned(),
                };
                assert!(CLIENT.iter().any(|(served, _)| *served == path), "{name} imports {path}");
            }
        }
    }
}
