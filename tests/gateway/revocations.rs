//! Operators list connections and end the sessions of a user.

use crate::harness::keys::api_keys;
use crate::harness::{Gateway, Redis, eventually, now_ms, ticket, user};
use crate::sessions::{close_reason, rejection};
use serde_json::{Value, json};

pub async fn revoke(gateway: &Gateway, user: &str, key: &str) -> u16 {
    let url = gateway.admin_url(&format!("/users/{user}/connections"));
    let answer =
        gateway.admin_http().delete(url).bearer_auth(key).send().await.expect("a response");
    answer.status().as_u16()
}

pub async fn connections(gateway: &Gateway, query: &str) -> Vec<Value> {
    let url = gateway.admin_url(&format!("/connections{query}"));
    let answer = gateway
        .admin_http()
        .get(url)
        .bearer_auth("an admin's key")
        .send()
        .await
        .expect("a response");
    assert_eq!(answer.status(), 200);
    let json: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    json["connections"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn revocation_ends_streams_and_sessions_on_all_instances() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("an admin's key", "admin"), ("a publisher's key", "publish")]);
    let builder = Gateway::builder(&redis).env("API_KEYS", &keys);
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let (a, b, gone) = (ticket("1"), ticket("1").topics(&["t.*", "u"]), ticket("1"));
    let mut first = one.connect_with(&a, "").await;
    let mut second = two.connect_with(&b, "").await;
    drop(two.connect_with(&gone, "").await);
    two.metric_reaches("sse_connections_closed_total", &[("reason", "client-gone")], 1.0).await;
    let mut others = two.connect("11").await;
    assert_eq!(connections(&one, "").await.len(), 1);
    assert_eq!(connections(&two, "").await.len(), 2);
    assert_eq!(connections(&two, "?user=nobody").await, Vec::<Value>::new());
    let list = connections(&two, "?user=1").await;
    assert_eq!(
        (list.len(), &list[0]["user"], &list[0]["topics"]),
        (1, &json!("1"), &json!(["u", "t.*"]))
    );
    assert_eq!(list[0]["transport"], "stream");
    assert_eq!(revoke(&one, "1", "an admin's key").await, 200);
    for sse in [&mut first, &mut second] {
        assert_eq!(close_reason(sse).await.0, "revoked");
    }
    for ticket in [&a, &b, &gone] {
        assert_eq!(rejection(&one, ticket).await, "session-revoked");
        assert_eq!(rejection(&two, ticket).await, "session-revoked");
    }
    // Other users are unaffected. New tickets of the revoked user work from the next second on.
    let id = redis.durable(&user("11"), "a", "1").await.unwrap();
    assert_eq!(others.app_event().await.id, Some(id));
    let second = now_ms() / 1000;
    eventually("the next second", || async { (now_ms() / 1000 > second).then_some(()) }).await;
    let fresh = ticket("1");
    one.connect_with(&fresh, "").await;
    two.connect_with(&fresh, "").await;
    assert_eq!(rejection(&two, &a).await, "session-revoked");
}

/// Sends DELETE with a raw target that no client library has normalised. Returns the response.
async fn revoke_raw(gateway: &Gateway, target: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(gateway.admin).await.unwrap();
    let head = "Host: x\r\nAuthorization: Bearer an admin's key\r\nConnection: close\r\n\r\n";
    socket.write_all(format!("DELETE {target} HTTP/1.1\r\n{head}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn users_named_like_path_segments_can_be_revoked() {
    let redis = Redis::start().await;
    let builder =
        Gateway::builder(&redis).env("API_KEYS", &api_keys(&[("an admin's key", "admin")]));
    let gateway = builder.start().await;
    let by_query = async |user: &str| {
        let url = gateway.admin_url(&format!("/connections?user={}", user.replace('.', "%2E")));
        gateway.admin_http().delete(url).bearer_auth("an admin's key").send().await.unwrap()
    };
    for user in [".", "..", "a.b"] {
        let mut stream = gateway.connect(user).await;
        let answer = by_query(user).await;
        assert_eq!(answer.status(), 200);
        let json: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(json, json!({ "user": user, "revoked": true }));
        assert_eq!(close_reason(&mut stream).await.0, "revoked");
    }
    // Percent-encoded in the path, by clients that do not normalise it.
    let second = now_ms() / 1000;
    eventually("the next second", || async { (now_ms() / 1000 > second).then_some(()) }).await;
    for (user, target) in [(".", "/users/%2E/connections"), ("..", "/users/%2e%2E/connections")] {
        let mut stream = gateway.connect(user).await;
        let answer = revoke_raw(&gateway, target).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(close_reason(&mut stream).await.0, "revoked");
    }
    // A missing user must not revoke everybody.
    let mut stream = gateway.connect("1").await;
    for target in
        ["/connections", "/connections?user=", "/connections?user=a%20b", "/connections?user=%ff"]
    {
        assert!(revoke_raw(&gateway, target).await.starts_with("HTTP/1.1 400 "), "{target}");
    }
    let id = redis.durable(&user("1"), "a", "1").await.unwrap();
    assert_eq!(stream.app_event().await.id, Some(id));
    let other = gateway.admin_http().put(gateway.admin_url("/connections")).send().await.unwrap();
    assert_eq!(
        (other.status().as_u16(), other.headers()["allow"].to_str().unwrap()),
        (405, "GET, HEAD, DELETE")
    );
}

#[tokio::test]
async fn revocation_reaches_other_instances_within_a_second() {
    const WITHIN_MS: u64 = 1000;
    let redis = Redis::start().await;
    let builder =
        Gateway::builder(&redis).env("API_KEYS", &api_keys(&[("an admin's key", "admin")]));
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let mut fastest_ms = u64::MAX;
    // A busy machine may delay one of them; a gateway that polled for revocations would delay all.
    for user in ["1", "2", "3", "4", "5"] {
        let mut stream = two.connect(user).await;
        let start_ms = now_ms();
        assert_eq!(revoke(&one, user, "an admin's key").await, 200);
        assert_eq!(close_reason(&mut stream).await.0, "revoked");
        fastest_ms = fastest_ms.min(now_ms() - start_ms);
    }
    assert!(fastest_ms < WITHIN_MS, "{fastest_ms} ms");
}

#[tokio::test]
async fn operator_endpoints_require_an_admin_key() {
    let redis = Redis::start().await;
    let keys = api_keys(&[("an admin's key", "admin"), ("a publisher's key", "publish")]);
    let builder = Gateway::builder(&redis);
    let (with, without) = (builder.clone().env("API_KEYS", &keys), builder);
    let (with, without) = tokio::join!(with.start(), without.start());
    let request_all = async |gateway: &Gateway, key: Option<&str>| {
        let requests = [
            gateway.admin_http().get(gateway.admin_url("/connections")),
            gateway.admin_http().delete(gateway.admin_url("/users/1/connections")),
            gateway.admin_http().delete(gateway.admin_url("/connections?user=1")),
        ];
        let mut received = Vec::new();
        for request in requests {
            let request = key.into_iter().fold(request, |r, key| r.bearer_auth(key));
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let json: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            received.push((status, json["error"].as_str().unwrap_or("").to_string()));
        }
        assert!(received.iter().all(|answer| *answer == received[0]), "{received:?}");
        received.remove(0)
    };
    let mut sse = with.connect("1").await;
    for (gateway, key, expected) in [
        (&without, None, (404, "not-found")),
        (&without, Some("an admin's key"), (404, "not-found")),
        (&with, None, (401, "api-key-missing")),
        (&with, Some("nobody's key"), (401, "api-key-unknown")),
        (&with, Some("a publisher's key"), (403, "scope-missing")),
    ] {
        let (status, code) = request_all(gateway, key).await;
        assert_eq!((status, code.as_str()), expected);
    }
    assert_eq!(revoke(&with, "a%20b", "an admin's key").await, 400);
    let id = redis.durable(&user("1"), "a", "still here").await.unwrap();
    assert_eq!(sse.app_event().await.id, Some(id));
}
