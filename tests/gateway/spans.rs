//! OpenTelemetry spans of sampled events, over publishers and instances, and what happens without
//! a collector.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::api::json_of;
use crate::harness::collector::Received;
use crate::harness::gateway::Builder;
use crate::harness::keys::api_keys;
use crate::harness::{Collector, Gateway, Redis, eventually, ticket, topic, user};

pub const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub const SPAN: &str = "00f067aa0ba902b7";
pub const OTHER_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

pub fn traceparent(trace: &str) -> String {
    format!("00-{trace}-{SPAN}-01")
}

fn traced(redis: &Redis, collector: &Collector) -> Builder {
    Gateway::builder(redis)
        .env("TRACING__ENDPOINT", &collector.url())
        .env("API_KEYS", &api_keys(&[("k", "publish")]))
}

async fn durable(redis: &Redis, channel: &str, trace: &str) {
    let trace = traceparent(trace);
    let words = ["FCALL", "sse_publish", "1", channel, "t", "1", "TRACE", &trace];
    redis.command::<String>(&words).await;
}

async fn post(gateway: &Gateway, body: Value, trace: Option<&str>) -> reqwest::Response {
    let post = gateway.http().post(gateway.url("/publish")).bearer_auth("k");
    let post = trace.iter().fold(post, |post, trace| post.header("traceparent", *trace));
    post.body(body.to_string()).send().await.expect("a response")
}

pub fn parent(received: &Received) -> String {
    hex::encode(&received.span.parent_span_id)
}

/// The relays of an event by two instances, with what each wrote to this many streams.
async fn relays(collector: &Collector, trace: &str, streams: [&str; 2]) -> Vec<Received> {
    let relays = collector.wait_for(trace, "relay", 2).await;
    let writes = collector.wait_for(trace, "write", 2).await;
    assert_eq!((relays.len(), writes.len()), (2, 2));
    assert_ne!(relays[0].instance, relays[1].instance);
    let mut counts: Vec<_> =
        relays.iter().map(|relay| relay.attribute("sse.streams").unwrap()).collect();
    counts.sort();
    assert_eq!(counts, streams);
    for write in &writes {
        let relay = relays.iter().find(|relay| write.is_below(relay)).expect("a relay");
        assert_eq!(relay.instance, write.instance);
        let (outer, inner) = (&relay.span, &write.span);
        assert!(outer.start_time_unix_nano <= inner.start_time_unix_nano);
        assert!(inner.start_time_unix_nano <= inner.end_time_unix_nano);
        assert_eq!(inner.end_time_unix_nano, outer.end_time_unix_nano);
    }
    relays
}

#[tokio::test]
async fn publish_over_http_is_one_trace_across_instances() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let build = traced(&redis, &collector).env("TRACING__SERVICE_NAME", "orders-sse");
    let gateways = [build.start().await, build.start().await];
    let tickets = [ticket("1"), ticket("2"), ticket("3")];
    let mut streams = [
        gateways[0].connect_with(&tickets[0], "").await,
        gateways[0].connect_with(&tickets[1], "").await,
        gateways[1].connect_with(&tickets[2], "").await,
    ];
    let event = json!({"channel": topic("news"), "payload": 1});
    let answer = json_of(post(&gateways[0], event, Some(&traceparent(TRACE))).await).await;
    for sse in &mut streams {
        assert_eq!(json!(sse.app_event().await.id), answer["id"]);
    }
    let relays = relays(&collector, TRACE, ["1", "2"]).await;
    let request = collector.wait_for(TRACE, "POST /publish", 1).await.remove(0);
    let append = collector.wait_for(TRACE, "append", 1).await.remove(0);
    assert_eq!(parent(&request), SPAN);
    assert_eq!(request.attribute("http.response.status_code").as_deref(), Some("200"));
    assert!(append.is_below(&request));
    for span in relays.iter().chain([&append]) {
        assert_eq!(json!(span.attribute("messaging.message.id")), answer["id"]);
    }
    for relay in &relays {
        assert!(relay.is_below(&append));
        assert_eq!(relay.attribute("messaging.destination.name"), Some(topic("news")));
    }
    assert!(collector.spans().iter().all(|received| received.service == "orders-sse"));
    assert_eq!(collector.spans().len(), 6);
    for (_, body) in collector.requests() {
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(tickets.iter().all(|ticket| !text.contains(&ticket.jwt())));
    }
    // The log of the request names the trace.
    eventually("the trace in the access log", async || {
        let line = format!("\"trace_id\":\"{TRACE}\"");
        let mut lines = gateways[0].log_text().lines().map(str::to_owned).collect::<Vec<_>>();
        lines.retain(|l| l.contains("sse_gateway::access") && l.contains("/publish"));
        lines.iter().any(|l| l.contains(&line)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn events_of_a_list_are_in_their_own_traces() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let gateway = traced(&redis, &collector).start().await;
    let own = "1".repeat(32);
    let events = json!([
        {"channel": user("1"), "payload": 1},
        {"channel": user("1"), "payload": 2, "traceparent": traceparent(&own)},
        {"channel": user("1"), "payload": 3},
        {"channel": "nowhere", "payload": 4, "traceparent": traceparent(OTHER_TRACE)},
    ]);
    json_of(post(&gateway, events, Some(&traceparent(TRACE))).await).await;
    let request = collector.wait_for(TRACE, "POST /publish", 1).await.remove(0);
    let append = collector.wait_for(TRACE, "append", 1).await;
    assert!(append.len() == 1 && append[0].is_below(&request));
    assert_eq!(append[0].attribute("messaging.batch.message_count").as_deref(), Some("2"));
    let append = collector.wait_for(&own, "append", 1).await.remove(0);
    assert_eq!(parent(&append), SPAN);
    let append = collector.wait_for(OTHER_TRACE, "append", 1).await.remove(0);
    assert_eq!(append.attribute("error.type").as_deref(), Some("bad-channel"));
    assert_eq!(append.span.status.expect("a status").code, 2);
}

#[tokio::test]
async fn durable_publish_continues_the_trace_of_its_backend() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let build = traced(&redis, &collector);
    let gateways = [build.start().await, build.start().await];
    let _streams = [gateways[0].connect("1").await, gateways[1].connect("1").await];
    durable(&redis, &user("1"), TRACE).await;
    for relay in relays(&collector, TRACE, ["1", "1"]).await {
        assert_eq!(parent(&relay), SPAN);
    }
    let trace = traceparent(OTHER_TRACE);
    let words = ["FCALL", "sse_publish", "1", &topic("a"), "t", "1", "EPHEMERAL", "TRACE", &trace];
    redis.command::<String>(&words).await;
    for relay in relays(&collector, OTHER_TRACE, ["1", "1"]).await {
        assert_eq!((parent(&relay), relay.attribute("messaging.message.id")), (SPAN.into(), None));
    }
}

#[tokio::test]
async fn plain_publish_continues_the_trace_of_its_envelope() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let build = traced(&redis, &collector);
    let gateways = [build.start().await, build.start().await];
    gateways[0].wait_for_recorder().await;
    let _streams = [gateways[0].connect("1").await, gateways[1].connect("1").await];
    let envelope = json!({"payload": 1, "traceparent": traceparent(TRACE)});
    redis.plain(user("1"), envelope.to_string()).await;
    let record = collector.wait_for(TRACE, "record", 1).await.remove(0);
    assert_eq!(parent(&record), SPAN);
    let relays = relays(&collector, TRACE, ["1", "1"]).await;
    assert!(relays.iter().all(|relay| relay.is_below(&record)));
}

#[tokio::test]
async fn relayed_plain_publish_continues_the_trace_of_its_envelope() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let gateway = traced(&redis, &collector).env("PUBLISHERS__PLAIN", "relay").start().await;
    let _sse = gateway.connect("1").await;
    let envelope = json!({"payload": 1, "traceparent": traceparent(TRACE)});
    redis.plain(user("1"), envelope.to_string()).await;
    let relay = collector.wait_for(TRACE, "relay", 1).await.remove(0);
    assert_eq!(parent(&relay), SPAN);
}

#[tokio::test]
async fn unsampled_events_have_no_spans() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let gateway = traced(&redis, &collector).start().await;
    let mut sse = gateway.connect("1").await;
    let unsampled = format!("00-{OTHER_TRACE}-{SPAN}-00");
    let event = || json!({"channel": user("1"), "payload": 1});
    json_of(post(&gateway, event(), Some(&unsampled)).await).await;
    json_of(post(&gateway, event(), None).await).await;
    redis.durable(&user("1"), "t", "1").await.unwrap();
    durable(&redis, &user("1"), TRACE).await;
    for _ in 0..4 {
        sse.app_event().await;
    }
    // Spans of the events before would have come first.
    collector.wait_for(TRACE, "relay", 1).await;
    assert!(collector.spans().iter().all(|received| received.trace() == TRACE));
}

#[tokio::test]
async fn instances_sample_the_same_events() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let build = traced(&redis, &collector).env("TRACING__SAMPLE_RATIO", "0.3");
    let gateways = [build.start().await, build.start().await];
    let mut streams = [gateways[0].connect("1").await, gateways[1].connect("1").await];
    for _ in 0..100 {
        redis.durable(&user("1"), "t", "1").await.unwrap();
    }
    // A publish with a trace ends the test.
    durable(&redis, &user("1"), TRACE).await;
    relays(&collector, TRACE, ["1", "1"]).await;
    for sse in &mut streams {
        for _ in 0..101 {
            sse.app_event().await;
        }
    }
    let all = collector.spans();
    let instances: HashSet<_> = all.iter().map(|received| &received.instance).collect();
    let [one, other] = instances.into_iter().collect::<Vec<_>>()[..] else { panic!() };
    let of = |instance: &String| {
        let relays = all.iter().filter(|received| received.span.name == "relay");
        let own = relays.filter(|received| received.instance == *instance);
        own.map(Received::trace).collect::<HashSet<_>>()
    };
    assert_eq!(of(one), of(other));
    assert!((10..60).contains(&of(one).len()), "{}", of(one).len());
}

#[tokio::test]
async fn gateway_begins_a_trace_if_its_sampler_says_so() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let gateway = traced(&redis, &collector).env("TRACING__SAMPLE_RATIO", "1").start().await;
    gateway.wait_for_recorder().await;
    let _sse = gateway.connect("1").await;
    json_of(post(&gateway, json!({"channel": user("1"), "payload": 1}), None).await).await;
    redis.plain(user("1"), "text").await;
    for root in ["POST /publish", "record"] {
        let root = eventually(root, async || {
            collector.spans().into_iter().find(|received| received.span.name == root)
        })
        .await;
        assert_eq!(parent(&root), "");
        collector.wait_for(&root.trace(), "relay", 1).await;
        collector.wait_for(&root.trace(), "write", 1).await;
    }
}

#[tokio::test]
async fn unreachable_collector_affects_no_delivery() {
    let (redis, collector) = (Redis::start().await, Collector::down());
    let gateway = traced(&redis, &collector).start().await;
    let mut sse = gateway.connect("1").await;
    durable(&redis, &user("1"), TRACE).await;
    sse.app_event().await;
    gateway.wait_for_log("spans not exported").await;
    collector.respond(400);
    collector.up().await;
    gateway.metric_reaches("sse_spans_total", &[("outcome", "failed")], 2.0).await;
    collector.respond(200);
    durable(&redis, &user("1"), OTHER_TRACE).await;
    sse.app_event().await;
    collector.wait_for(OTHER_TRACE, "relay", 1).await;
    gateway.metric_reaches("sse_spans_total", &[("outcome", "exported")], 2.0).await;
}

#[tokio::test]
async fn spans_that_do_not_fit_into_the_queue_are_counted() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    collector.pause();
    let gateway = traced(&redis, &collector).env("TRACING__TIMEOUT", "60s").start().await;
    let mut sse = gateway.connect("1").await;
    let mut publisher = redis.publisher().await;
    let trace = traceparent(TRACE);
    let outcome = [("outcome", "queue-full")];
    while gateway.metric("sse_spans_total", &outcome).await == 0.0 {
        for _ in 0..200 {
            publisher.durable(&user("1"), "t", "1", &["TRACE", &trace]).await.unwrap();
        }
        for _ in 0..200 {
            sse.app_event().await;
        }
    }
}

#[tokio::test]
async fn last_spans_are_exported_at_the_end_within_a_bound() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let build = traced(&redis, &collector);
    let gateway = build.start().await;
    let mut sse = gateway.connect("1").await;
    durable(&redis, &user("1"), TRACE).await;
    sse.app_event().await;
    gateway.term();
    assert_eq!(gateway.wait_exit().await.code(), Some(0));
    assert_eq!(collector.wait_for(TRACE, "relay", 1).await.len(), 1);
    // A collector that does not respond.
    collector.pause();
    let gateway = build.env("TRACING__TIMEOUT", "60s").start().await;
    let mut sse = gateway.connect("1").await;
    durable(&redis, &user("1"), OTHER_TRACE).await;
    sse.app_event().await;
    gateway.term();
    assert_eq!(gateway.wait_exit().await.code(), Some(0));
    gateway.wait_for_log("some spans were not exported before the end").await;
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_exported() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let gateway = Gateway::builder(&redis)
        .process_env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .process_env("OTEL_TRACES_SAMPLER", "always_on")
        .env("TRACING__SAMPLE_RATIO", "1")
        .start()
        .await;
    let mut sse = gateway.connect("1").await;
    durable(&redis, &user("1"), TRACE).await;
    sse.app_event().await;
    for outcome in ["exported", "failed", "rejected", "queue-full"] {
        assert_eq!(gateway.metric("sse_spans_total", &[("outcome", outcome)]).await, 0.0);
    }
    gateway.term();
    assert_eq!(gateway.wait_exit().await.code(), Some(0));
    assert_eq!(collector.connections(), 0);
}

#[tokio::test]
async fn headers_of_the_file_are_sent_and_not_logged() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let name = format!("sse-otlp-headers-{}-{}", std::process::id(), redis.address());
    let file = std::env::temp_dir().join(name.replace([':', '.'], "-"));
    std::fs::write(&file, "x-api-key: the-secret-key\n").unwrap();
    let gateway = traced(&redis, &collector)
        .env("TRACING__HEADERS_FILE", file.to_str().unwrap())
        .env("LOG__LEVEL", "debug")
        .start()
        .await;
    let _sse = gateway.connect("1").await;
    durable(&redis, &user("1"), TRACE).await;
    collector.wait_for(TRACE, "relay", 1).await;
    let (fields, _) = collector.requests().remove(0);
    assert_eq!(fields["x-api-key"], "the-secret-key");
    assert_eq!(fields["content-type"], "application/x-protobuf");
    assert!(!gateway.log_text().contains("the-secret-key"));
    std::fs::remove_file(file).unwrap();
}
