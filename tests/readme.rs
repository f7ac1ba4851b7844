//! The README and the sample configuration say what the code says.

use std::{collections::BTreeSet, fs, path::Path};

use sse_gateway::{
    core::{
        envelope::Refusal,
        system::{BusyReason, CloseReason, GapReason, JoinCause, TicketRejection},
    },
    metrics::Metrics,
    settings::sample,
};

/// Words of the code that look like codes and are none: headers and their values.
const NO_CODES: &[&str] = &[
    "last-event-id",
    "no-store",
    "no-cache",
    "no-referrer",
    "x-accel-buffering",
    "content-length",
    "transfer-encoding",
    "keep-alive",
];

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What stands in the README between `<!-- name -->` and `<!-- /name -->`.
fn between_markers(name: &str) -> String {
    let readme = file("README.md");
    let (_, rest) = readme.split_once(&format!("<!-- {name} -->\n")).expect("the marker is there");
    let (table, _) = rest.split_once(&format!("<!-- /{name} -->")).expect("the end marker is there");
    table.to_owned()
}

/// The README names each of them, in backticks.
fn named<'a>(words: impl IntoIterator<Item = &'a str>) {
    let readme = file("README.md");
    let missing: Vec<&str> = words.into_iter().filter(|w| !readme.contains(&format!("`{w}`"))).collect();
    assert!(missing.is_empty(), "README.md does not name {missing:?}");
}

/// String literals of the form `some-word` in a source file, outside of its tests.
fn codes(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let is_code = |w: &&str| {
        w.contains('-') && w.split('-').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase()))
    };
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .filter(is_code)
        .filter(|w| !NO_CODES.contains(w))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_settings_are_those_of_the_table() {
    assert_eq!(between_markers("settings"), sample::markdown());
}

#[test]
fn the_metrics_are_those_of_the_code() {
    let mut table = String::from("| metric | label | meaning |\n|---|---|---|\n");
    for (name, help, label) in Metrics::ALL {
        let label = label.map(|l| format!("`{l}`")).unwrap_or_default();
        table.push_str(&format!("| `{name}` | {label} | {help} |\n"));
    }
    assert_eq!(between_markers("metrics"), table);
}

#[test]
fn every_reason_is_explained() {
    named(GapReason::ALL.iter().map(|r| r.name()));
    named(CloseReason::ALL.iter().map(|r| r.name()));
    named(BusyReason::ALL.iter().map(|r| r.name()));
    named(JoinCause::ALL.iter().map(|c| c.name()));
    named(["sse.connected", "sse.heartbeat", "sse.gap", "sse.closing", "sse.busy"]);
}

#[test]
fn every_refusal_is_explained() {
    named(Refusal::ALL.iter().map(|r| r.code()));
    named(TicketRejection::ALL.iter().map(|f| f.name()));
    let mut found = BTreeSet::new();
    let http = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    for folder in [http.clone(), http.join("front"), http.join("front/http1")] {
        let entries = fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it can be listed").path());
        for path in entries.filter(|path| path.is_file()) {
            found.extend(codes(&fs::read_to_string(path).expect("it can be read")));
        }
    }
    // The scan finds what is known to be there, or it would prove nothing.
    for known in ["bad-topics", "bad-wait", "api-key-unknown"] {
        assert!(found.contains(known), "{known} was not found in the code");
    }
    named(found.iter().map(String::as_str));
}

#[test]
fn the_sample_file_is_that_of_the_table() {
    assert_eq!(file("config/gateway.toml"), sample::toml());
}

#[test]
fn the_production_file_is_good_and_holds_no_secret() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/production.toml");
    let faults = sse_gateway::settings::load(Some(&path), std::iter::empty()).expect_err("it holds no ticket key");
    let keys: Vec<&str> = faults.iter().map(|f| f.key.as_str()).collect();
    assert_eq!(keys, ["tickets.secret"]);
    let secret = ("SSE_GATEWAY__TICKETS__SECRET".to_owned(), "x".repeat(64));
    sse_gateway::settings::load(Some(&path), std::iter::once(secret)).expect("with a secret it is good");
}
