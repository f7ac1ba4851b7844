//! The description names what the sources of the handlers contain, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sse_gateway::core::{
    envelope::Rejection,
    reasons::{BusyReason, TicketRejection},
};

use super::{
    description,
    operations::{self, Operation, Security},
    responses::EVERYWHERE,
};
use crate::{
    file, files,
    names::{codes_in, http_codes},
    reference::errors::statuses,
};

/// Codes of responses that are no part of an operation: other paths and methods.
const OUTSIDE: [&str; 2] = ["method-not-allowed", "not-found"];

/// A Rust source without its tests and white space.
fn compact(path: &str) -> String {
    let source = file(path);
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect()
}

/// The path in the source of a service.
fn path_of(service: &str) -> Option<&str> {
    service.split('"').find(|text| text.starts_with('/'))
}

/// The methods and paths that a listener routes.
fn routes(path: &str) -> BTreeSet<(String, String)> {
    let source = compact(path);
    let mut found = BTreeSet::new();
    for service in source.split(".service(").skip(1) {
        let path = path_of(service).expect("a service has a path").to_owned();
        let mut add = |method: &str| found.insert((method.to_owned(), path.clone()));
        for method in ["get", "post", "put", "patch", "delete"] {
            let routes = [format!("web::{method}()"), format!("{method}_only()")];
            if routes.iter().any(|route| service.contains(route)) {
                add(method);
            }
        }
        // `fn get()` of the admin listener: GET and HEAD.
        if service.replace("web::get()", "").contains("get().to(") {
            add("get");
            add("head");
        }
    }
    found
}

#[test]
fn paths_and_methods_match_the_routes() {
    let mut routed = routes("src/http/routes.rs");
    assert!(routed.contains(&("post".to_owned(), "/publish".to_owned())), "{routed:?}");
    routed.extend(routes("src/http/admin.rs"));
    routed.extend(routes("src/http/admin/api.rs"));
    let all = operations::all();
    let described: BTreeSet<(String, String)> =
        all.iter().map(|o| (o.method.to_owned(), o.path.to_owned())).collect();
    assert_eq!(described.len(), all.len(), "an operation is described twice");
    assert_eq!(described, routed);
}

/// The parameters that the handlers of an operation read from the query.
fn read_parameters(operation: &Operation) -> BTreeSet<String> {
    let sources = operation.sources.iter().map(|name| compact(&format!("src/http/{name}")));
    let mut found = BTreeSet::new();
    for source in sources {
        for call in ["params.get(\"", "params.non_empty(\""] {
            let names = source.split(call).skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(names.map(str::to_owned));
        }
    }
    found
}

/// The parameters of the query that the description names.
fn described_parameters(operation: &Operation, description: &Value) -> BTreeSet<String> {
    let all = &description["components"]["parameters"];
    let own = operation.parameters.iter().map(|name| &all[name]);
    let own = own.filter(|parameter| parameter["in"] == "query");
    let mut names: BTreeSet<String> =
        own.map(|parameter| parameter["name"].as_str().expect("a name").to_owned()).collect();
    if operation.security == Security::Ticket {
        names.insert("ticket".to_owned());
    }
    names
}

#[test]
fn parameters_match_the_handlers() {
    let description = description();
    for operation in operations::all() {
        let mut read = read_parameters(&operation);
        if operation.path == "/users/{id}/connections" {
            // Its file also has the handlers with `?user=`.
            read.remove("user");
        }
        if operation.security == Security::None {
            read.clear();
        }
        let described = described_parameters(&operation, &description);
        assert_eq!(described, read, "{} {}", operation.method, operation.path);
    }
}

/// Codes that an enum contains, not the sources of the HTTP layer.
fn enum_codes() -> BTreeSet<&'static str> {
    let tickets = TicketRejection::ALL.iter().map(|rejection| rejection.name());
    let busy = BusyReason::ALL.iter().map(|reason| reason.name());
    tickets.chain(busy).chain(Rejection::ALL.iter().map(|rejection| rejection.code())).collect()
}

/// The codes in a file of `src/http`.
fn codes_of(name: &str) -> BTreeSet<String> {
    codes_in(&file(format!("src/http/{name}")))
}

#[test]
fn codes_of_operations_match_the_handlers() {
    let enums = enum_codes();
    let mut by_source: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for operation in operations::all() {
        let codes = operation.codes.iter().copied();
        let known: BTreeSet<String> = operation.sources.iter().flat_map(|s| codes_of(s)).collect();
        let unknown: Vec<&str> =
            codes.clone().filter(|c| !enums.contains(c) && !known.contains(*c)).collect();
        assert!(unknown.is_empty(), "{}: no handler has {unknown:?}", operation.id);
        for source in operation.sources {
            by_source.entry(source).or_default().extend(codes.clone().chain(EVERYWHERE));
        }
    }
    for (source, described) in by_source {
        let codes = codes_of(source);
        let codes = codes.iter().map(String::as_str).filter(|code| !OUTSIDE.contains(code));
        let missing: Vec<&str> = codes.filter(|code| !described.contains(code)).collect();
        assert!(missing.is_empty(), "no operation of {source} has {missing:?}");
    }
}

#[test]
fn all_codes_are_described() {
    let all = operations::all();
    let described = all.iter().flat_map(|operation| operation.codes.iter().copied());
    let described: BTreeSet<&str> = described.chain(EVERYWHERE).chain(OUTSIDE).collect();
    let in_code = http_codes();
    let in_code = in_code.iter().map(String::as_str).chain(enum_codes());
    // Only plain publishes and entries of external sources are rejected with these.
    let others = ["not-utf8", "not-stored", "bad-entry"];
    let in_code: BTreeSet<&str> = in_code.filter(|code| !others.contains(code)).collect();
    assert_eq!(described, in_code);
}

/// The number of a status that the code names, such as `NOT_FOUND`.
fn number(name: &str) -> u16 {
    match name {
        "BAD_REQUEST" => 400,
        "UNAUTHORIZED" => 401,
        "FORBIDDEN" => 403,
        "NOT_FOUND" => 404,
        "METHOD_NOT_ALLOWED" => 405,
        "REQUEST_TIMEOUT" => 408,
        "CONFLICT" => 409,
        "PAYLOAD_TOO_LARGE" => 413,
        "EXPECTATION_FAILED" => 417,
        "TOO_MANY_REQUESTS" => 429,
        "REQUEST_HEADER_FIELDS_TOO_LARGE" => 431,
        "INTERNAL_SERVER_ERROR" => 500,
        "NOT_IMPLEMENTED" => 501,
        "SERVICE_UNAVAILABLE" => 503,
        "HTTP_VERSION_NOT_SUPPORTED" => 505,
        _ => panic!("the status {name} is not known here"),
    }
}

/// The statuses beside which a source has a literal code: `StatusCode::X, "code"`, or
/// `BadRequest { code: "code"`.
fn statuses_in(source: &str) -> Vec<(String, u16)> {
    let with_status = source.split("StatusCode::").skip(1).filter_map(|rest| {
        let (name, code) = rest.split_once(",\"")?;
        let is_name = name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        is_name.then(|| (code.split('"').next().unwrap_or_default().to_owned(), number(name)))
    });
    let bad = source.split("BadRequest{code:\"").skip(1);
    let bad = bad.map(|rest| (rest.split('"').next().unwrap_or_default().to_owned(), 400));
    with_status.chain(bad).collect()
}

#[test]
fn statuses_of_codes_match_the_code() {
    let documented = statuses();
    let mut found = BTreeSet::new();
    for path in files("src/http", &["rs"]) {
        for (code, status) in statuses_in(&compact(path.to_str().expect("UTF-8"))) {
            if !http_codes().contains(&code) {
                continue;
            }
            assert_eq!(documented.get(code.as_str()), Some(&status), "{code}: {}", path.display());
            found.insert(code);
        }
    }
    let enums = enum_codes();
    let mut missing = http_codes();
    missing.retain(|code| !found.contains(code) && !enums.contains(code.as_str()));
    // Its status is chosen in another function than its name.
    assert_eq!(missing, ["not-adopted"].map(str::to_owned).into());
}

#[test]
fn scans_find_routes_and_statuses() {
    let source = "(StatusCode::NOT_FOUND,\"a-b\",1);BadRequest{code:\"c-d\",m};StatusCode::OK";
    let expected = [("a-b", 404), ("c-d", 400)].map(|(code, status)| (code.to_owned(), status));
    assert_eq!(statuses_in(source), expected);
    let admin = routes("src/http/admin.rs");
    for route in [("head", "/readyz"), ("delete", "/connections"), ("get", "/connections")] {
        assert!(admin.contains(&(route.0.to_owned(), route.1.to_owned())), "{route:?}: {admin:?}");
    }
}
