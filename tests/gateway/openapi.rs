//! The description of the API (`docs/reference/openapi.json`): the admin listener serves it, and it
//! has the methods of every path and the errors that the other tests provoke.

use crate::harness::keys::api_keys;
use crate::harness::{Gateway, Redis};
use crate::http::error;
use reqwest::Method;
use serde_json::Value;
use std::{collections::BTreeSet, sync::LazyLock};

const TEXT: &str = include_str!("../../docs/reference/openapi.json");
static DESCRIPTION: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(TEXT).expect("the description is JSON"));

/// What every path has in common, and is no part of an operation.
const OUTSIDE: [(u16, &str); 2] = [(404, "not-found"), (405, "method-not-allowed")];

/// Whether a path has the form of a described one, such as `/users/{id}/connections`.
fn has_form(path: &str, described: &str) -> bool {
    let (path, described): (Vec<&str>, Vec<&str>) =
        (path.split('/').collect(), described.split('/').collect());
    path.len() == described.len()
        && path.iter().zip(described).all(|(p, d)| *p == d || d.starts_with('{'))
}

/// The methods of a path.
fn methods_of(item: &Value) -> BTreeSet<&str> {
    let members = item.as_object().expect("a path").keys().map(String::as_str);
    members.filter(|name| *name != "servers").collect()
}

/// The operations of a path.
fn operations(path: &str) -> Vec<&'static Value> {
    let paths = DESCRIPTION["paths"].as_object().expect("paths");
    let of_path = paths.iter().filter(|(described, _)| has_form(path, described));
    let members = of_path.flat_map(|(_, item)| item.as_object().expect("a path").iter());
    members.filter(|(name, _)| *name != "servers").map(|(_, operation)| operation).collect()
}

/// Whether an operation has an error with this status and code.
fn has_error(operation: &Value, status: u16, code: &str) -> bool {
    let response = &operation["responses"][status.to_string()];
    let shared = response["$ref"].as_str().and_then(|name| name.strip_prefix('#'));
    let response = shared.map_or(Some(response), |pointer| DESCRIPTION.pointer(pointer));
    let schema = "/content/application~1json/schema/properties/error/enum";
    let codes = response.and_then(|response| response.pointer(schema)).and_then(Value::as_array);
    codes.is_some_and(|codes| codes.iter().any(|described| described == code))
}

/// Asserts that the description has an error for a path.
pub fn assert_described(path: &str, status: u16, code: &str) {
    let operations = operations(path);
    let is_described = OUTSIDE.contains(&(status, code))
        || operations.iter().any(|operation| has_error(operation, status, code));
    assert!(is_described, "openapi.json lacks {status} {code} of {path}");
}

#[tokio::test]
async fn admin_listener_serves_the_description() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    let (status, served) = gateway.admin_get("/openapi.json").await;
    assert_eq!((status, served.len()), (200, TEXT.len()));
    assert!(served == TEXT, "another description is served");
    let url = gateway.admin_url("/openapi.json");
    let head = gateway.admin_http().head(url).send().await.expect("a response");
    assert_eq!(head.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn paths_have_exactly_the_described_methods() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("key", "publish")]);
    let gateway = Gateway::builder(&redis).env("API_KEYS", &keys).start().await;
    for (path, item) in DESCRIPTION["paths"].as_object().expect("paths") {
        let sent = path.replace("{id}", "42");
        let url = match item.get("servers") {
            Some(_) => gateway.admin_url(&sent),
            None => gateway.url(&sent),
        };
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            // Without the key, so nothing is changed.
            let request = gateway.admin_http().request(method.parse::<Method>().unwrap(), &url);
            let answer = request.send().await.expect("a response");
            let status = answer.status().as_u16();
            let is_described = item.get(method.to_lowercase()).is_some();
            assert_eq!(status != 405, is_described, "{method} {path}: {status}");
            assert_ne!(status, 404, "{method} {path}");
            if let Some(allowed) = answer.headers().get("allow") {
                let allowed = allowed.to_str().unwrap().to_lowercase();
                let allowed = allowed.split(", ").collect::<BTreeSet<_>>();
                assert_eq!(allowed, methods_of(item), "Allow of {path}");
            }
        }
    }
}

#[tokio::test]
async fn admin_listener_says_when_to_retry_without_redis() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("key", "admin")]);
    let builder = Gateway::builder(&redis).env("API_KEYS", &keys).env("PRESENCE__ENABLED", "true");
    let gateway = builder.start().await;
    redis.stop();
    for (method, path) in [
        (Method::GET, "/presence?user=1"),
        (Method::DELETE, "/connections?user=1"),
        (Method::DELETE, "/users/1/connections"),
    ] {
        let request = gateway.admin_http().request(method, gateway.admin_url(path));
        let answer = request.bearer_auth("key").send().await.expect("a response");
        let retry_after = answer.headers().get("retry-after").cloned();
        assert_eq!(error(answer).await, (503, "redis-away".to_owned()), "{path}");
        assert_eq!(retry_after.as_ref().map(|value| value.as_bytes()), Some(&b"1"[..]), "{path}");
    }
}

#[test]
fn description_is_searched_by_path_status_and_code() {
    let has = |path: &str, status, code: &str| {
        operations(path).iter().any(|operation| has_error(operation, status, code))
    };
    assert!(has("/events", 401, "ticket-expired") && has("/events", 431, "head-too-long"));
    assert!(has("/users/a/connections", 503, "redis-away"));
    assert!(!has("/events", 401, "api-key-missing") && !has("/events", 403, "ticket-expired"));
    assert!(!has("/users/connections", 503, "redis-away") && !has("/", 400, "bad-request"));
}
