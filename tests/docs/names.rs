//! Settings, metrics, codes and reasons that the documentation names exist, and the reverse.

use std::{collections::BTreeSet, fs};

use sse_gateway::{
    core::{
        envelope::Rejection,
        reasons::{BusyReason, CatchUpCause, CloseReason, GapReason, TicketRejection},
    },
    http::malformed::Malformed,
    metrics::Metrics,
    settings::table::KEYS,
};

use crate::{documents, file, files, root};

/// String literals of the HTTP layer that look like error codes but are headers, their values, or
/// a metric's label value.
const NOT_CODES: &[&str] = &[
    "last-event-id",
    "sec-fetch-site",
    "same-origin",
    "no-store",
    "no-cache",
    "no-referrer",
    "x-accel-buffering",
    "content-length",
    "transfer-encoding",
    "keep-alive",
    "proxy-connection",
    "no-descriptor",
    "x-request-id",
];

/// Words with a dot that begin like a setting but are file names.
const FILE_ENDINGS: &[&str] = &[".rs", ".toml", ".yaml", ".md", ".conf", ".js", ".lua", ".json"];

/// Documents that name values of the Helm chart, some of which begin like a setting.
const CHART_DOCUMENTS: &[&str] = &["deploy/helm/README.md", "docs/operations/helm.md"];

/// Code spans of all documents, with the document that has them.
fn code_spans() -> Vec<(String, String)> {
    let mut spans = Vec::new();
    for document in documents() {
        let text = file(&document);
        for (_, line) in crate::prose(&text) {
            let found = line.split('`').skip(1).step_by(2);
            spans.extend(found.map(|s| (document.display().to_string(), s.to_owned())));
        }
    }
    assert!(spans.len() > 1000, "only {} code spans were found", spans.len());
    spans
}

/// Asserts that the reference pages name each word in backticks.
fn assert_named<'a>(words: impl IntoIterator<Item = &'a str>) {
    let pages = files("docs/reference", &["md"]);
    let text: String = pages.iter().map(file).collect();
    let words = words.into_iter();
    let missing: Vec<&str> = words.filter(|w| !text.contains(&format!("`{w}`"))).collect();
    assert!(missing.is_empty(), "docs/reference does not name {missing:?}");
}

/// String literals of the form `some-word` in Rust code, outside of its unit tests.
pub fn codes_in(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let is_code = |w: &&str| {
        let is_word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
        w.contains('-') && w.split('-').all(is_word)
    };
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .filter(is_code)
        .filter(|w| !NOT_CODES.contains(w))
        .map(str::to_owned)
        .collect()
}

/// The codes of errors that the HTTP layer writes as literals. Covers all directories below
/// `src/http` (fronts, sockets), and `src/auth`.
pub fn http_codes() -> BTreeSet<String> {
    let sources =
        ["src/http", "src/auth"].into_iter().flat_map(|directory| files(directory, &["rs"]));
    // The reasons of malformed requests are labels of a metric, and no codes.
    let read = |path| fs::read_to_string(root().join(path)).expect("the source can be read");
    let found: BTreeSet<String> = sources
        .filter(|path| !path.ends_with("malformed.rs"))
        .map(read)
        .flat_map(|source| codes_in(&source))
        .collect();
    for known in ["bad-topics", "bad-wait", "api-key-unknown"] {
        assert!(found.contains(known), "{known} was not found: the scan does not work");
    }
    found
}

#[test]
fn every_reason_is_documented() {
    assert_named(GapReason::ALL.iter().map(|r| r.name()));
    assert_named(CloseReason::ALL.iter().map(|r| r.name()));
    assert_named(BusyReason::ALL.iter().map(|r| r.name()));
    assert_named(CatchUpCause::ALL.iter().map(|c| c.name()));
    assert_named(Malformed::ALL.iter().map(|m| m.name()));
    assert_named(["sse.connected", "sse.heartbeat", "sse.gap", "sse.closing", "sse.busy"]);
}

#[test]
fn every_error_code_is_documented() {
    assert_named(Rejection::ALL.iter().map(|r| r.code()));
    assert_named(TicketRejection::ALL.iter().map(|f| f.name()));
    assert_named(http_codes().iter().map(String::as_str));
}

#[test]
fn settings_named_in_documents_exist() {
    let sections: BTreeSet<&str> =
        KEYS.iter().filter_map(|k| Some(k.name.split_once('.')?.0)).collect();
    let values = file("deploy/helm/README.md");
    let mut unknown = BTreeSet::new();
    for (document, span) in code_spans() {
        let word = span.split([' ', '=']).next().unwrap_or_default();
        let has_values = CHART_DOCUMENTS.contains(&document.as_str());
        if has_values && values.contains(&format!("\n| `{word}` |")) {
            continue;
        }
        let is_path = FILE_ENDINGS.iter().any(|end| word.ends_with(end)) || word.contains('/');
        let Some((section, key)) = word.split_once('.') else { continue };
        let is_key = !key.is_empty()
            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'.');
        let is_table = KEYS.iter().any(|k| k.name.starts_with(&format!("{word}.")));
        if sections.contains(section)
            && is_key
            && !is_path
            && !is_table
            && KEYS.iter().all(|k| k.name != word)
        {
            unknown.insert(format!("{document}: {word}"));
        }
    }
    assert!(unknown.is_empty(), "settings that do not exist: {unknown:#?}");
}

/// The names of the library's functions with the default prefix.
fn functions() -> BTreeSet<String> {
    let source = file("src/redis/library/register.lua");
    let registered = source.split("\nregister('").skip(1);
    let registered = registered.filter_map(|rest| rest.split('\'').next());
    let functions: BTreeSet<String> = registered.map(|name| format!("sse_{name}")).collect();
    for known in ["sse_publish", "sse_watermark", "sse_record", "sse_open"] {
        assert!(functions.contains(known), "the scan does not work: {functions:?}");
    }
    functions
}

#[test]
fn metrics_and_functions_named_in_documents_exist() {
    let functions = functions();
    let mut unknown = BTreeSet::new();
    for (document, span) in code_spans() {
        let words = span.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|w| w.starts_with("sse_")) {
            // Functions of the library, and the names of its versions.
            let is_function = functions.contains(word) || word.starts_with("sse_gateway");
            // The default of `sources.postgres.outbox`.
            let is_function = is_function || word == "sse_outbox";
            let is_prefix =
                word.ends_with('_') && Metrics::ALL.iter().any(|m| m.0.starts_with(word));
            let part = ["_sum", "_count", "_bucket"].iter().find_map(|end| word.strip_suffix(end));
            let exists = Metrics::ALL.iter().any(|m| m.0 == word || Some(m.0) == part);
            if !is_function && !is_prefix && !exists {
                unknown.insert(format!("{document}: {word}"));
            }
        }
    }
    assert!(unknown.is_empty(), "metrics that do not exist: {unknown:#?}");
}

#[test]
fn scan_for_codes_finds_literals_only() {
    let found = codes_in("f(\"a-code\", \"No-Code\"); // \"x\"\n// \"b-code\"\n\"x\" \"a b-c\"");
    assert_eq!(found, ["a-code"].map(str::to_owned).into());
}
