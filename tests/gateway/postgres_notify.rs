//! Plain notifications of Postgres become events; possible losses are reported as gaps.

use crate::harness::gateway::Builder;
use crate::harness::{Gateway, Postgres, Redis, eventually, user};

/// A gateway that publishes notifications on the channel `sse`, and reads no table.
fn listening(redis: &Redis, postgres: &Postgres) -> Builder {
    Gateway::durable_only(redis)
        .env("SOURCES__POSTGRES__URL", &postgres.url())
        .env("SOURCES__POSTGRES__OUTBOX", "")
        .env("SOURCES__POSTGRES__CHANNELS", "sse")
}

async fn listens(gateway: &Gateway) {
    gateway.metric_reaches("sse_source_reader", &[("source", "postgres-notify")], 1.0).await;
}

/// Waits until the gateway executes LISTEN on the server.
async fn session(postgres: &Postgres) {
    let query = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'sse-gateway' AND query LIKE 'LISTEN%' AND state = 'idle'";
    postgres.number_becomes(query, 1).await;
}

#[tokio::test]
async fn envelope_of_a_notification_is_published() {
    let (redis, postgres) = (Redis::start().await, Postgres::start_with(&[]).await);
    let gateway = listening(&redis, &postgres).start().await;
    listens(&gateway).await;
    session(&postgres).await;
    let mut stream = gateway.connect("1").await;
    let envelope = r#"{"channel":"user:1:events","type":"a","payload":{ "n" : 1 },"id":"k"}"#;
    let notify = format!("SELECT pg_notify('sse', '{envelope}')");
    postgres.sql(&notify).await;
    let event = stream.app_event().await;
    assert_eq!((event.event.as_str(), event.data.as_str()), ("a", "{ \"n\" : 1 }"));
    assert!(event.id.is_some());
    // The same key, then notifications that cannot become events.
    postgres.sql(&notify).await;
    for bad in ["hello", r#"{"channel":"user:1:events"}"#, r#"{"channel":"x","payload":1}"#] {
        postgres.sql(&format!("SELECT pg_notify('sse', '{bad}')")).await;
    }
    postgres.sql(&notify.replace("\"a\"", "\"b\"").replace("\"k\"", "\"l\"")).await;
    assert_eq!(stream.app_event().await.event, "b");
    // A notification that Redis rejects is kept after the others of its batch were published.
    let rejected = eventually("three rejected notifications", async || {
        Some(redis.rejected().await).filter(|all| all.len() == 3)
    })
    .await;
    let reasons: Vec<_> = rejected.into_iter().map(|entry| entry.reason).collect();
    assert_eq!(reasons, ["bad-entry", "bad-entry", "bad-channel"]);
    assert_eq!(redis.log_ids(&user("1")).await.len(), 2);
}

#[tokio::test]
async fn interruption_is_reported_as_gap_only_if_in_use() {
    let (redis, postgres) = (Redis::start().await, Postgres::start_with(&[]).await);
    let gateway = listening(&redis, &postgres).start().await;
    session(&postgres).await;
    let mut stream = gateway.connect("1").await;
    // Nothing was ever published: no alarm.
    postgres.kill9();
    postgres.start_again().await;
    session(&postgres).await;
    let notify = "SELECT pg_notify('sse', '{\"channel\":\"user:1:events\",\"payload\":1}')";
    postgres.sql(notify).await;
    assert_eq!(stream.app_event().await.event, "message");
    // What was sent from here on may be lost.
    postgres.kill9();
    postgres.start_again().await;
    let gap = stream.app_event().await;
    assert_eq!(
        (gap.event.as_str(), gap.json()["reason"].as_str()),
        ("sse.gap", Some("unrecorded"))
    );
    session(&postgres).await;
    postgres.sql(notify).await;
    assert_eq!(stream.app_event().await.event, "message");
    let breaks = [("source", "postgres-notify")];
    assert_eq!(gateway.metric("sse_source_breaks_total", &breaks).await, 1.0);
}
