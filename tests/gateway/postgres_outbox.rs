//! Rows of an outbox table in Postgres become events: in order, once, and none is lost silently.

use crate::harness::gateway::Builder;
use crate::harness::{Gateway, Postgres, Redis, Sse, eventually, user};

/// A gateway that reads the outbox.
pub fn with_outbox(redis: &Redis, postgres: &Postgres) -> Builder {
    Gateway::durable_only(redis)
        .env("SOURCES__POSTGRES__URL", &postgres.url())
        // On a busy machine.
        .env("SOURCES__POSTGRES__TIMEOUT", "30s")
}

/// An insert of one event.
pub fn insert(channel: &str, kind: &str, payload: &str) -> String {
    format!(
        "INSERT INTO sse_outbox (channel, type, payload)
         VALUES ('{channel}', '{kind}', '{payload}');"
    )
}

/// The types of the next events.
async fn types(stream: &mut Sse, count: usize) -> Vec<String> {
    let mut types = Vec::new();
    for _ in 0..count {
        types.push(stream.app_event().await.event);
    }
    types
}

#[tokio::test]
async fn committed_rows_arrive_in_order_byte_for_byte() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let gateway = with_outbox(&redis, &postgres).start().await;
    let mut stream = gateway.connect("1").await;
    let (one, end) = (user("1"), insert(&user("1"), "end", "1"));
    let payload = "{ \"b\" : 1.0,  \"a\":[ ] }";
    postgres.sql(&format!("BEGIN; {} ROLLBACK;", insert(&one, "rolled-back", "1"))).await;
    let (a, b) = (insert(&one, "a", payload), insert("broadcast:news", "b", "\"x\""));
    postgres.sql(&format!("BEGIN; {a} {b} COMMIT; {end}")).await;
    let a = stream.app_event().await;
    assert_eq!((a.event.as_str(), a.data.as_str()), ("a", payload));
    assert_eq!(types(&mut stream, 2).await, ["b", "end"]);
    postgres.outbox_is_empty().await;
    assert_eq!(gateway.metric("sse_source_published_total", &[("source", "postgres")]).await, 3.0);
    assert_eq!(gateway.metric("sse_source_duplicates_total", &[]).await, 0.0);
}

/// The alert SseGatewaySourceFailing.
#[tokio::test]
async fn locks_of_others_count_as_errors_and_delay_rows() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let builder = with_outbox(&redis, &postgres).env("SOURCES__POSTGRES__TIMEOUT", "1s");
    let gateway = builder.start().await;
    let mut stream = gateway.connect("1").await;
    let other = postgres.client().await;
    other.batch_execute("BEGIN; LOCK TABLE sse_outbox IN EXCLUSIVE MODE").await.expect("a lock");
    gateway.metric_reaches("sse_source_errors_total", &[("source", "postgres")], 2.0).await;
    let commit = format!("{} COMMIT", insert(&user("1"), "a", "1"));
    other.batch_execute(&commit).await.expect("a commit");
    assert_eq!(types(&mut stream, 1).await, ["a"]);
    postgres.outbox_is_empty().await;
}

#[tokio::test]
async fn columns_of_a_row_are_options_of_the_event() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let gateway = with_outbox(&redis, &postgres).start().await;
    let insert = "INSERT INTO sse_outbox (channel, type, payload, keep, tags, retry, unseen, key)
        VALUES ('user:1:events', 'state', '7', 'order', '{\"region\":\"eu\"}', 5000, '1h', 'k')";
    let mut stream = gateway.connect("1").await;
    postgres.sql(&format!("{insert}; {insert}")).await;
    let event = stream.app_event().await;
    assert_eq!((event.data.as_str(), event.retry), ("7", Some(5000)));
    postgres.outbox_is_empty().await;
    // The backend's own key made the second one a duplicate.
    assert_eq!(redis.log_ids("user:1:events").await.len(), 1);
    assert_eq!(gateway.metric("sse_source_duplicates_total", &[]).await, 1.0);
    // A new stream gets the value that was kept.
    let mut other = gateway.connect("1").await;
    other.next_of("sse.snapshot").await;
    assert_eq!(other.app_event().await.data, "7");
    eventually("the sighting of the event", async || {
        let unseen: i64 = redis.command(&["EXISTS", "sse:unseen:{user:1:events}"]).await;
        (unseen == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn rejected_rows_block_no_others_and_remain() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let builder = with_outbox(&redis, &postgres).env("HISTORY__MAX_EVENT_BYTES", "1000");
    let gateway = builder.start().await;
    let mut stream = gateway.connect("1").await;
    let large = format!("\"{}\"", "x".repeat(2000));
    let one = user("1");
    for (channel, kind, payload) in
        [("user:1", "a", "1"), (&one, "b", &large), (&one, "sse.c", "1"), (&one, "d", "1")]
    {
        postgres.sql(&insert(channel, kind, payload)).await;
    }
    assert_eq!(types(&mut stream, 1).await, ["d"]);
    postgres.number_becomes("SELECT count(*) FROM sse_outbox WHERE error IS NOT NULL", 3).await;
    for (kind, code) in [("a", "bad-channel"), ("b", "too-large"), ("sse.c", "reserved-type")] {
        let query = format!(
            "SELECT count(*) FROM sse_outbox WHERE type = '{kind}' AND error LIKE '{code}: %'"
        );
        assert_eq!(postgres.number(&query).await, 1, "{kind}");
    }
    let rejected = redis.rejected().await.into_iter();
    let mut reasons: Vec<_> = rejected.map(|entry| entry.reason).collect();
    // Their order depends on which rows were read together.
    reasons.sort();
    assert_eq!(reasons, ["bad-channel", "reserved-type", "too-large"]);
    assert_eq!(gateway.metric("sse_source_rejected_total", &[]).await, 3.0);
    // A row that is corrected is published.
    postgres.sql("UPDATE sse_outbox SET error = NULL, type = 'c' WHERE type = 'sse.c'").await;
    assert_eq!(types(&mut stream, 1).await, ["c"]);
}

#[tokio::test]
async fn lost_notification_only_delays_a_row() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let gateway = with_outbox(&redis, &postgres)
        .env("SOURCES__POSTGRES__POLL_INTERVAL", "300ms")
        .start()
        .await;
    let mut stream = gateway.connect("1").await;
    postgres.sql("DROP TRIGGER sse_outbox_notify ON sse_outbox").await;
    for kind in ["a", "b"] {
        postgres.sql(&insert(&user("1"), kind, "1")).await;
        assert_eq!(types(&mut stream, 1).await, [kind]);
    }
}

#[tokio::test]
async fn notification_publishes_before_the_next_poll() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    // Longer than the test may take.
    let gateway =
        with_outbox(&redis, &postgres).env("SOURCES__POSTGRES__POLL_INTERVAL", "1h").start().await;
    let mut stream = gateway.connect("1").await;
    for kind in ["a", "b", "c"] {
        postgres.sql(&insert(&user("1"), kind, "1")).await;
        assert_eq!(types(&mut stream, 1).await, [kind]);
    }
}

#[tokio::test]
async fn marked_rows_remain_and_are_published_once() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let builder = with_outbox(&redis, &postgres).env("SOURCES__POSTGRES__PUBLISHED", "mark");
    let gateway = builder.start().await;
    let mut stream = gateway.connect("1").await;
    postgres.sql(&insert(&user("1"), "a", "1")).await;
    assert_eq!(types(&mut stream, 1).await, ["a"]);
    postgres
        .number_becomes("SELECT count(*) FROM sse_outbox WHERE published_at > '2000-1-1'", 1)
        .await;
    gateway.kill9();
    gateway.wait_exit().await;
    // Even when no idempotency key protects the row any more.
    redis.command::<()>(&["FLUSHALL"]).await;
    let gateway = builder.start().await;
    let mut stream = gateway.connect("1").await;
    postgres.sql(&insert(&user("1"), "b", "1")).await;
    assert_eq!(types(&mut stream, 1).await, ["b"]);
}

#[tokio::test]
async fn reused_ids_are_no_duplicates() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let gateway = with_outbox(&redis, &postgres).start().await;
    let mut stream = gateway.connect("1").await;
    for kind in ["a", "b"] {
        postgres.sql(&insert(&user("1"), kind, "1")).await;
        assert_eq!(types(&mut stream, 1).await, [kind]);
        postgres.outbox_is_empty().await;
        postgres.sql("TRUNCATE sse_outbox RESTART IDENTITY").await;
    }
}

#[tokio::test]
async fn late_commit_with_a_lower_id_is_published() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let gateway = with_outbox(&redis, &postgres).start().await;
    let mut stream = gateway.connect("1").await;
    let late = postgres.client().await;
    late.batch_execute(&format!("BEGIN; {}", insert(&user("1"), "late", "1"))).await.unwrap();
    postgres.sql(&insert(&user("1"), "early", "1")).await;
    assert_eq!(types(&mut stream, 1).await, ["early"]);
    late.batch_execute("COMMIT").await.unwrap();
    assert_eq!(types(&mut stream, 1).await, ["late"]);
}

#[tokio::test]
async fn many_large_rows_are_read_in_bounded_batches() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let rows = "INSERT INTO sse_outbox (channel, payload)
        SELECT 'broadcast:news', to_json(repeat('x', 60000)) FROM generate_series(1, 300)";
    postgres.sql(rows).await;
    let gateway = with_outbox(&redis, &postgres).start().await;
    postgres.outbox_is_empty().await;
    let published = [("source", "postgres")];
    assert_eq!(gateway.metric("sse_source_published_total", &published).await, 300.0);
    assert_eq!(redis.log_ids("broadcast:news").await.len(), 300);
}

/// Postgres fails after events were published and before their rows are deleted, for longer than
/// idempotency keys last.
#[tokio::test]
async fn long_outage_before_the_delete_publishes_nothing_twice() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    postgres
        .sql(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN PERFORM pg_sleep(2); RETURN OLD; END';
             CREATE TRIGGER wait BEFORE DELETE ON sse_outbox FOR EACH ROW EXECUTE FUNCTION wait()",
        )
        .await;
    let builder = with_outbox(&redis, &postgres).env("HISTORY__DEDUPE_WINDOW", "100ms");
    let gateway = builder.start().await;
    let mut stream = gateway.connect("1").await;
    postgres.sql(&insert(&user("1"), "a", "1")).await;
    assert_eq!(types(&mut stream, 1).await, ["a"]);
    // The delete sleeps.
    postgres.kill9();
    let key = "sse:source:postgres:{broadcast}";
    let kept = eventually("the published row in Redis", || async {
        let rows: i64 = redis.command(&["HLEN", key]).await;
        (rows > 0).then_some(rows)
    });
    assert_eq!(kept.await, 1);
    eventually("the end of the idempotency key", || async {
        let keys: Vec<String> = redis.command(&["KEYS", "sse:dedupe:*"]).await;
        keys.is_empty().then_some(())
    })
    .await;
    // Another instance continues.
    gateway.kill9();
    gateway.wait_exit().await;
    postgres.start_again().await;
    let gateway = builder.start().await;
    let mut stream = gateway.resume("1", stream.last_id()).await;
    postgres.outbox_is_empty().await;
    postgres.sql(&insert(&user("1"), "b", "1")).await;
    assert_eq!(types(&mut stream, 1).await, ["b"]);
    assert_eq!(redis.log_ids(&user("1")).await.len(), 2);
}
