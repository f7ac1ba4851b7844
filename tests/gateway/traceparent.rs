//! The trace of an event (`TRACE`, `traceparent`): what is stored and announced, ignored, rejected.

use std::collections::HashMap;

use redis::{AsyncConnectionConfig, PushInfo, PushKind};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::json;
use tokio::sync::mpsc;

use crate::api::json_of;
use crate::config::{GOOD, run};
use crate::harness::keys::api_keys;
use crate::harness::{GUARD, Gateway, Redis, eventually, log_key, topic, user};

const IDS: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
const OTHER_IDS: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
const LIVE: &str = "sse:live:{broadcast}";

fn sampled(ids: &str) -> String {
    format!("00-{ids}-01")
}

/// A `traceparent` of each kind that is accepted without an effect.
fn ignored() -> Vec<String> {
    let zero_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
    let zero_span = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
    vec![format!("00-{IDS}-00"), format!("00-{IDS}-02"), zero_trace, zero_span]
}

/// One of each kind that is malformed.
fn malformed() -> Vec<String> {
    vec![
        String::new(),
        IDS.to_owned(),
        format!("00-{IDS}-1"),
        format!("00-{IDS}-01-more"),
        format!("01-{IDS}-01more"),
        format!("ff-{IDS}-01"),
        format!("00-{}-01", IDS.to_uppercase()),
        format!("01-{IDS}-01-{}", "x".repeat(300)),
    ]
}

async fn publish(redis: &Redis, channel: &str, traceparent: &str) -> Result<String, String> {
    let words = ["FCALL", "sse_publish", "1", channel, "t", "1", "TRACE", traceparent];
    redis.try_command::<String>(&words).await.map_err(|e| e.to_string())
}

/// The field `c` of every entry in a channel's log, oldest first.
async fn stored(redis: &Redis, channel: &str) -> Vec<Option<String>> {
    let entries: Vec<(String, HashMap<String, String>)> =
        redis.command(&["XRANGE", &log_key(channel), "-", "+"]).await;
    entries.into_iter().map(|(_, mut fields)| fields.remove("c")).collect()
}

/// The messages of the live channel of all broadcasts.
struct Live {
    pushed: mpsc::UnboundedReceiver<PushInfo>,
    _connection: redis::aio::MultiplexedConnection,
}

impl Live {
    async fn subscribe(redis: &Redis) -> Live {
        let (sender, pushed) = mpsc::unbounded_channel();
        let client = redis::Client::open(format!("{}?protocol=resp3", redis.url())).unwrap();
        let config = AsyncConnectionConfig::new().set_push_sender(sender);
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = connection.unwrap();
        redis::cmd("SSUBSCRIBE").arg(LIVE).exec_async(&mut connection).await.unwrap();
        Live { pushed, _connection: connection }
    }

    async fn next(&mut self) -> String {
        loop {
            let push = tokio::time::timeout(GUARD, self.pushed.recv()).await;
            let push = push.expect("a message").expect("a connection");
            if push.kind == PushKind::SMessage {
                let data = redis::Value::Array(push.data);
                break redis::from_redis_value::<(String, String)>(data).unwrap().1;
            }
        }
    }

    /// The next messages that announce a trace, and the events after them, up to the event `end`.
    async fn until_end(&mut self) -> Vec<String> {
        let mut messages = Vec::new();
        loop {
            let message = self.next().await;
            if message.contains(" end\n") {
                return messages;
            }
            if message.starts_with("trace ") || message.contains('\n') {
                messages.push(message);
            }
        }
    }
}

#[tokio::test]
async fn recorded_trace_is_stored_and_announced() {
    let redis = Redis::start().await;
    let gateway = Gateway::durable_only(&redis).start().await;
    let mut sse = gateway.connect("1").await;
    let mut live = Live::subscribe(&redis).await;
    let channel = topic("a");
    let id = publish(&redis, &channel, &sampled(IDS)).await.unwrap();
    assert_eq!(sse.app_event().await.id, Some(id.clone()));
    // A later version may have more fields.
    publish(&redis, &channel, &format!("cc-{IDS}-01-more")).await.unwrap();
    let none = redis.durable(&channel, "t", "1").await.unwrap();
    let words = ["FCALL", "sse_publish", "1", &channel, "t", "2", "EPHEMERAL", "TRACE"];
    let words = words.map(str::to_owned).into_iter().chain([sampled(IDS)]).collect::<Vec<_>>();
    assert_eq!(redis.command::<String>(&words).await, "");
    redis.durable(&channel, "end", "").await.unwrap();
    let trace = Some(sampled(IDS));
    assert_eq!(stored(&redis, &channel).await, [trace.clone(), trace, None, None]);
    let messages = live.until_end().await;
    assert_eq!(messages[0], format!("trace {id} {}", sampled(IDS)));
    assert!(messages[1].starts_with(&format!("{id} ")), "{messages:?}");
    assert!(messages[2].starts_with("trace ") && messages[4].starts_with(&none), "{messages:?}");
    assert_eq!(messages[5], format!("trace - {}", sampled(IDS)));
    assert_eq!(messages[6], "ephemeral - a t\n2");
    assert_eq!(messages.len(), 7, "{messages:?}");
    // The gateway delivers all of them.
    for data in ["1", "1", "2"] {
        assert_eq!(sse.app_event().await.data, data);
    }
    assert_eq!(sse.app_event().await.event, "end");
    assert_eq!(gateway.metric("sse_live_malformed_total", &[]).await, 0.0);
}

#[tokio::test]
async fn unrecorded_trace_is_not_stored() {
    let redis = Redis::start().await;
    let _gateway = Gateway::durable_only(&redis).start().await;
    let mut live = Live::subscribe(&redis).await;
    let channel = topic("a");
    for traceparent in ignored() {
        publish(&redis, &channel, &traceparent).await.unwrap();
    }
    redis.durable(&channel, "end", "").await.unwrap();
    assert_eq!(stored(&redis, &channel).await, vec![None; ignored().len() + 1]);
    let messages = live.until_end().await;
    assert!(messages.iter().all(|message| !message.starts_with("trace ")), "{messages:?}");
}

#[tokio::test]
async fn malformed_trace_is_rejected_everywhere_but_in_the_header() {
    let redis = Redis::start().await;
    let gateway =
        Gateway::builder(&redis).env("API_KEYS", &api_keys(&[("k", "publish")])).start().await;
    gateway.wait_for_recorder().await;
    let channel = user("1");
    for (n, bad) in malformed().into_iter().enumerate() {
        let error = publish(&redis, &channel, &bad).await.unwrap_err();
        assert!(error.contains("bad-traceparent"), "{bad}: {error}");
        let event = json!({"channel": &channel, "payload": 1, "traceparent": bad});
        let post = gateway.http().post(gateway.url("/publish")).bearer_auth("k");
        let response = post.body(event.to_string()).send().await.unwrap();
        assert_eq!(response.status(), 400, "{bad}");
        assert!(response.text().await.unwrap().contains("bad-traceparent"), "{bad}");
        redis.plain(&channel, json!({"payload": 1, "traceparent": bad}).to_string()).await;
        eventually("the rejected message", async || {
            let rejected = redis.rejected().await;
            (rejected.len() > n && rejected[n].reason == "bad-traceparent").then_some(())
        })
        .await;
        // W3C trace context: an invalid header is ignored.
        let event = json!({"channel": topic("header"), "payload": 1});
        let post = gateway.http().post(gateway.url("/publish")).bearer_auth("k");
        let response = post.header("traceparent", bad).body(event.to_string()).send().await;
        json_of(response.unwrap()).await;
    }
    let entries = stored(&redis, &topic("header")).await;
    assert_eq!(entries, vec![None; malformed().len()]);
    let arguments = ["publish", &channel, "t", "1", "--traceparent", "00-1-2-01"];
    let ran = run(&arguments, &[GOOD, ("REDIS__URL", &*redis.url())]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("--traceparent must be"), "{}", ran.err);
}

#[tokio::test]
async fn trace_of_a_request_applies_to_events_without_one() {
    let redis = Redis::start().await;
    let gateway =
        Gateway::durable_only(&redis).env("API_KEYS", &api_keys(&[("k", "publish")])).start().await;
    let channel = user("1");
    let events = json!([
        {"channel": &channel, "payload": 1},
        {"channel": &channel, "payload": 2, "traceparent": sampled(OTHER_IDS)},
        {"channel": &channel, "payload": 3, "traceparent": null},
        {"channel": &channel, "payload": 4, "traceparent": format!("00-{OTHER_IDS}-00")},
    ]);
    let post = |headers: HeaderMap| {
        let post = gateway.http().post(gateway.url("/publish")).bearer_auth("k");
        post.headers(headers).body(events.to_string()).send()
    };
    let header = |text: &str| HeaderValue::from_str(text).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", header(&sampled(IDS)));
    json_of(post(headers.clone()).await.unwrap()).await;
    let (of_request, own) = (Some(sampled(IDS)), Some(sampled(OTHER_IDS)));
    let expected = [of_request.clone(), own.clone(), of_request, None];
    assert_eq!(stored(&redis, &channel).await, expected);
    // Two headers are as good as none.
    headers.append("traceparent", header(&sampled(IDS)));
    json_of(post(headers).await.unwrap()).await;
    assert_eq!(stored(&redis, &channel).await[4..], [None, own, None, None]);
}

#[tokio::test]
async fn trace_of_a_plain_publish_and_of_the_command_is_stored() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let mut sse = gateway.connect("1").await;
    let envelope = json!({"payload": 1, "traceparent": sampled(IDS)});
    redis.plain(user("1"), envelope.to_string()).await;
    assert_eq!(sse.app_event().await.data, "1");
    let arguments = ["publish", &user("1"), "t", "2", "--traceparent", &sampled(OTHER_IDS)];
    let ran = run(&arguments, &[("REDIS__URL", &*redis.url())]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert_eq!(sse.app_event().await.data, "2");
    let all = stored(&redis, &user("1")).await;
    assert_eq!(all, [Some(sampled(IDS)), Some(sampled(OTHER_IDS))]);
}
