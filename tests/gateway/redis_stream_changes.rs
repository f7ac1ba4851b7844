//! What happens to a Redis stream as a source from outside: its group or its entries are deleted,
//! others read it, its key holds something else.

use crate::harness::{Redis, eventually, topic};
use crate::redis_streams::{
    OF_ORDERS, ORDERS, all_confirmed, all_stored, start, stored, with, write,
};

#[tokio::test]
async fn group_that_was_deleted_continues_after_the_last_confirmed_entry() {
    let redis = Redis::start().await;
    let first = start(&redis).await;
    write(&redis, 0..5).await;
    all_stored(&redis, 5).await;
    all_confirmed(&redis).await;
    let destroy = ["XGROUP", "DESTROY", "orders", "sse-gateway"];
    redis.command::<u8>(&destroy).await;
    write(&redis, 5..10).await;
    first.wait_for_log("the consumer group was missing and was created again").await;
    all_stored(&redis, 10).await;
    all_confirmed(&redis).await;
    // Also while no gateway runs.
    first.term();
    first.wait_exit().await;
    write(&redis, 10..12).await;
    redis.command::<u8>(&destroy).await;
    let second = with(&redis, ORDERS).start().await;
    all_stored(&redis, 12).await;
    second.wait_for_log("the consumer group was missing and was created again").await;
}

#[tokio::test]
async fn wiped_redis_is_read_from_the_start() {
    let redis = Redis::start().await;
    let gateway = start(&redis).await;
    write(&redis, 0..3).await;
    all_stored(&redis, 3).await;
    redis.flushall().await;
    // Their ids are lower than the position of the source.
    for n in 0..4 {
        let (id, n) = (format!("{}-1", n + 1), n.to_string());
        redis.command::<String>(&["XADD", "orders", &id, "n", &n]).await;
    }
    all_stored(&redis, 4).await;
    gateway.wait_for_log("the consumer group was missing and was created again").await;
}

#[tokio::test]
async fn key_that_is_no_stream_is_named() {
    let redis = Redis::start().await;
    redis.command::<()>(&["SET", "orders", "x"]).await;
    let gateway = with(&redis, ORDERS).start().await;
    gateway.wait_for_log("is not a stream; delete it").await;
    redis.command::<u8>(&["DEL", "orders"]).await;
    gateway.wait_for_log("created the consumer group").await;
    write(&redis, 0..1).await;
    all_stored(&redis, 1).await;
}

#[tokio::test]
async fn trimmed_and_deleted_entries_are_counted_as_lost() {
    let redis = Redis::start().await;
    let first = start(&redis).await;
    write(&redis, 0..1).await;
    all_stored(&redis, 1).await;
    all_confirmed(&redis).await;
    first.kill9();
    first.wait_exit().await;
    write(&redis, 1..6).await;
    // Of these five, one was delivered and deleted, and two were trimmed.
    let group = ["GROUP", "sse-gateway", "another", "COUNT", "1", "STREAMS", "orders", ">"];
    redis.command::<redis::Value>(&[&["XREADGROUP"], &group[..]].concat()).await;
    redis.command::<u64>(&["XTRIM", "orders", "MAXLEN", "2"]).await;
    let second = with(&redis, ORDERS).start().await;
    second.metric_reaches("sse_source_lost_total", &[OF_ORDERS], 3.0).await;
    write(&redis, 6..7).await;
    eventually("the rest", || async {
        (stored(&redis, &topic("orders")).await == [0, 4, 5, 6]).then_some(())
    })
    .await;
    all_confirmed(&redis).await;
    assert_eq!(second.metric("sse_source_lost_total", &[OF_ORDERS]).await, 3.0);
    second.wait_for_log("entries were trimmed from the stream before they were read").await;
    second.wait_for_log("entries were deleted from the stream before they were published").await;
}

#[tokio::test]
async fn entries_that_another_reader_received_come_first() {
    let redis = Redis::start().await;
    let gateway = start(&redis).await;
    write(&redis, 0..1).await;
    all_stored(&redis, 1).await;
    all_confirmed(&redis).await;
    // As if a paused reader had waited for longer than its lease: the gateway waits for entries,
    // and gets only the last one.
    let mut transaction = redis::pipe();
    transaction.atomic();
    transaction.cmd("XADD").arg(&["orders", "*", "n", "1"]);
    transaction.cmd("XADD").arg(&["orders", "*", "n", "2"]);
    let group = ["GROUP", "sse-gateway", "another", "STREAMS", "orders", ">"];
    transaction.cmd("XREADGROUP").arg(&group);
    transaction.cmd("XADD").arg(&["orders", "*", "n", "3"]);
    transaction.exec_async(&mut redis.conn().await).await.expect("written");
    all_stored(&redis, 4).await;
    all_confirmed(&redis).await;
    gateway.wait_for_log("another reader has received entries").await;
}
