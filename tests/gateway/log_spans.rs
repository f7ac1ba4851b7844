//! Log lines about a connection, a request or a link say which one, in both formats.

use serde_json::{Value, json};

use crate::harness::gateway::Builder;
use crate::harness::keys::api_keys;
use crate::harness::process::free_port;
use crate::harness::{Event, Gateway, Proxy, Redis, Sse, eventually, ticket, topic};

const DEBUG: &str = "sse_gateway=debug,info";

fn debug(redis: &Redis) -> Builder {
    Gateway::durable_only(redis)
        .env("LOG__LEVEL", DEBUG)
        .env("SERVER__TRUSTED_PROXIES", "127.0.0.0/8")
        .env("API_KEYS", &api_keys(&[("k", "publish")]))
}

/// The lines of a JSON log.
fn lines(gateway: &Gateway) -> Vec<Value> {
    gateway.log_text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Waits for a line with this message for which `found` holds.
async fn line(gateway: &Gateway, message: &str, found: impl Fn(&Value) -> bool) -> Value {
    eventually(message, || {
        let all = lines(gateway).into_iter();
        let mut all = all.filter(|line| line["message"] == message && found(line));
        std::future::ready(all.next())
    })
    .await
}

fn connection_id(connected: &Event) -> String {
    connected.json()["connectionId"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn lines_of_a_connection_name_connection_user_and_request() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis.address()).await;
    let gateway = debug(&redis).redis_url(&proxy.redis_url()).start().await;
    let since = redis.durable(&topic("t"), "a", "1").await.unwrap();
    let jwt = ticket("the-user").jwt();
    let url = gateway.url(&format!("/events?ticket={jwt}&lastEventId={since}"));
    let mut sse = Sse::connect(&url, &[("x-request-id", "of-the-stream")]).await;
    let id = connection_id(&sse.connected().await);
    let poll = gateway.url(&format!("/events/poll?ticket={}", ticket("another-user").jwt()));
    gateway.http().get(&poll).header("x-request-id", "of-the-poll").send().await.unwrap();
    // The catch-up after a broken link is not part of the request.
    proxy.cut();
    line(&gateway, "catch-up started", |line| line["cause"] == "link").await;
    drop(sse);

    let of_stream = |line: &Value| line["span"]["request_id"] == "of-the-stream";
    line(&gateway, "connection closed", of_stream).await;
    let all: Vec<Value> = lines(&gateway).into_iter().filter(of_stream).collect();
    let text = |line: &Value| line["message"].as_str().unwrap_or_default().to_owned();
    for message in ["connection opened", "catch-up started", "connection closed"] {
        assert!(all.iter().any(|line| text(line) == message), "{message}");
    }
    // The access log is about the request, and also names the connection that it has opened.
    let access = all.iter().find(|line| line["target"] == "sse_gateway::access");
    let access = access.expect("a line of the access log");
    assert_eq!((&access["connection"], &access["user"]), (&id.as_str().into(), &"the-user".into()));
    for line in all.iter().filter(|line| line["target"] != "sse_gateway::access") {
        let span = &line["span"];
        assert_eq!((&span["connection"], &span["user"]), (&id.as_str().into(), &"the-user".into()));
    }
    let poll = line(&gateway, "connection closed", |line| line["reason"] == "poll-done").await;
    assert_eq!(poll["span"]["user"], "another-user");
    assert_eq!(poll["span"]["request_id"], "of-the-poll");
    assert!(!gateway.log_text().contains(&jwt), "the ticket is in the log");
}

#[tokio::test]
async fn access_log_and_request_lines_have_the_request_id() {
    let redis = Redis::start().await;
    let gateway = debug(&redis).start().await;
    let get = |path: &str, id| gateway.http().get(gateway.url(path)).header("x-request-id", id);
    get("/nothing", "one").send().await.unwrap();
    let generated = gateway.http().get(gateway.url("/nothing")).send().await.unwrap();
    let generated = generated.headers()["x-request-id"].to_str().unwrap().to_owned();
    for id in ["one", &generated] {
        let access = eventually("a line of the access log", || {
            let mut all = lines(&gateway).into_iter();
            std::future::ready(all.find(|line| line["request_id"] == id))
        })
        .await;
        assert_eq!(access["target"], "sse_gateway::access");
        assert!(access.get("connection").is_none() && access.get("user").is_none(), "{access}");
    }
    // A line that a handler writes.
    redis.stop();
    let publish = gateway.http().post(gateway.url("/publish")).bearer_auth("k");
    let event = json!({"channel": topic("t"), "type": "a", "payload": 1});
    let publish = publish.header("x-request-id", "two").body(event.to_string());
    assert_eq!(publish.send().await.unwrap().status(), 503);
    let message = "POST /publish failed: Redis is unavailable";
    let failed = line(&gateway, message, |_| true).await;
    assert_eq!(failed["span"], json!({"name": "request", "request_id": "two"}));
}

#[tokio::test]
async fn text_log_has_the_same_fields() {
    let redis = Redis::start().await;
    let gateway = debug(&redis).env("LOG__FORMAT", "text").start().await;
    let url = gateway.events_url(&ticket("the-user"), "");
    // A quotation mark in an id cannot pass for the end of the field.
    let mut sse = Sse::connect(&url, &[("x-request-id", "a\"}:")]).await;
    let id = connection_id(&sse.connected().await);
    let span = format!(
        "connection{{connection=\"{id}\" user=\"the-user\" request_id=\"a\\\"}}:\"}}: \
         sse_gateway::admission: connection opened"
    );
    gateway.wait_for_log(&span).await;
    // The access log has the field without a span.
    gateway.wait_for_log("client=\"127.0.0.1\" request_id=\"a\\\"}:\"").await;
}

#[tokio::test]
async fn lines_of_a_link_name_its_number_and_address() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis.address()).await;
    let gateway = debug(&redis).redis_url(&proxy.redis_url()).start().await;
    let address = proxy.address().to_string();
    let span = |link: u64| json!({"name": "redis_link", "link": link, "address": address});
    line(&gateway, "link to Redis is up", |line| line["span"] == span(1)).await;
    proxy.cut();
    line(&gateway, "no link to Redis, retrying", |line| line["span"] == span(1)).await;
    let up = |line: &Value| line["message"] == "link to Redis is up";
    let last = eventually("a second link", || {
        let all = lines(&gateway);
        let last = all.iter().rfind(|line| up(line)).map(|line| line["span"].clone());
        std::future::ready(last.filter(|last| *last != span(1)))
    })
    .await;
    assert!(last["link"].as_u64() >= Some(2) && last["address"] == address.as_str(), "{last}");
    // A line of the task that reads the link.
    redis.command::<i64>(&["SPUBLISH", "sse:live:{broadcast}", "epoch x"]).await;
    let malformed = "ignored a malformed message on a live channel: \
                     is another client publishing to it?";
    assert_eq!(line(&gateway, malformed, |_| true).await["span"], last);
}

#[tokio::test]
async fn log_names_the_address_of_an_unreachable_redis() {
    let redis = Redis::start().await;
    let address = format!("127.0.0.1:{}", free_port());
    let builder = Gateway::builder(&redis).redis_url(&format!("redis://:hush@{address}"));
    let gateway = builder.env("LOG__FORMAT", "text").start_unready().await;
    gateway.wait_for_log(&format!("redis_link{{link=1 address={address}}}")).await;
    gateway.wait_for_log("no link to Redis, retrying error=could not prepare").await;
    gateway.wait_for_log("Connection refused").await;
    assert!(!gateway.log_contains("hush"), "{}", gateway.log_text());
}
