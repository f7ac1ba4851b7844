//! OpenTelemetry spans of entries of external sources.

use crate::harness::{Collector, Postgres, Redis, eventually, user};
use crate::postgres_outbox::{insert, with_outbox};
use crate::redis_streams::{reader, with};
use crate::spans::{OTHER_TRACE, SPAN, TRACE, parent, traceparent};

/// An insert of one event with a `traceparent`.
fn traced_insert(channel: &str, kind: &str, traceparent: &str) -> String {
    format!(
        "INSERT INTO sse_outbox (channel, type, payload, traceparent)
         VALUES ('{channel}', '{kind}', '1', '{traceparent}');"
    )
}

#[tokio::test]
async fn row_of_an_outbox_continues_the_trace_of_its_backend() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let collector = Collector::start().await;
    let gateway =
        with_outbox(&redis, &postgres).env("TRACING__ENDPOINT", &collector.url()).start().await;
    let mut sse = gateway.connect("1").await;
    let channel = user("1");
    let rejected = traced_insert(&channel, "sse.reserved", &traceparent(OTHER_TRACE));
    let published = traced_insert(&channel, "paid", &traceparent(TRACE));
    let untraced = insert(&channel, "untraced", "2");
    postgres.sql(&format!("BEGIN; {rejected} {published} {untraced} COMMIT;")).await;
    let event = sse.app_event().await;
    assert_eq!(event.event, "paid");
    let append = collector.wait_for(TRACE, "append", 1).await.remove(0);
    assert_eq!(parent(&append), SPAN);
    let attribute = |name| append.attribute(name);
    assert_eq!(attribute("messaging.destination.name"), Some(channel));
    assert_eq!(attribute("sse.source").as_deref(), Some("postgres"));
    assert_eq!(attribute("sse.source.entry").as_deref(), Some("2"));
    assert_eq!(attribute("sse.outcome").as_deref(), Some("stored"));
    let relay = collector.wait_for(TRACE, "relay", 1).await.remove(0);
    assert!(relay.is_below(&append));
    assert_eq!(relay.attribute("messaging.message.id"), event.id);
    assert_eq!(sse.app_event().await.event, "untraced");
    assert!(collector.spans().iter().all(|received| received.trace() == TRACE));
    postgres.number_becomes("SELECT count(*) FROM sse_outbox WHERE error IS NULL", 0).await;
}

#[tokio::test]
async fn entry_of_a_stream_has_a_span_with_its_outcome_and_is_named_in_the_log() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let streams = r#"[{"stream": "orders", "start": "beginning"}]"#;
    let trace = traceparent(TRACE);
    let channel = user("1");
    let write = async |fields: &[&str]| {
        let words = ["XADD", "orders", "*", "channel", &channel, "traceparent", &trace];
        redis.command::<String>(&[&words, fields].concat()).await;
    };
    write(&["payload", "1", "id", "same"]).await;
    write(&["payload", "1", "id", "same"]).await;
    let long = "x".repeat(200);
    write(&["payload", &long]).await;
    let gateway = with(&redis, streams)
        .env("HISTORY__MAX_EVENT_BYTES", "100")
        .env("TRACING__ENDPOINT", &collector.url())
        .start()
        .await;
    reader(&[&gateway]).await;
    let appends = collector.wait_for(TRACE, "append", 2).await;
    let mut outcomes: Vec<_> = appends.iter().map(|span| span.attribute("sse.outcome")).collect();
    outcomes.sort();
    assert_eq!(outcomes, [Some("duplicate".into()), Some("stored".into())]);
    eventually("the trace of the rejected entry in the log", async || {
        let log = gateway.log_text();
        let line = log.lines().find(|line| line.contains("rejected an entry of a source"))?;
        line.contains(TRACE).then_some(())
    })
    .await;
}

/// Without a `traceparent`, the instance that reads the source decides.
#[tokio::test]
async fn gateway_begins_the_trace_of_an_entry_if_its_sampler_says_so() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let streams = r#"[{"stream": "orders", "channel": "broadcast:orders", "start": "beginning"}]"#;
    let gateway = with(&redis, streams)
        .env("TRACING__ENDPOINT", &collector.url())
        .env("TRACING__SAMPLE_RATIO", "1")
        .start()
        .await;
    reader(&[&gateway]).await;
    let _sse = gateway.connect("1").await;
    crate::redis_streams::write(&redis, [1]).await;
    let append = eventually("a span of the entry", async || {
        collector.spans().into_iter().find(|received| received.span.name == "append")
    })
    .await;
    assert!(append.span.parent_span_id.is_empty());
    let relay = collector.wait_for(&append.trace(), "relay", 1).await.remove(0);
    assert!(relay.is_below(&append));
}
