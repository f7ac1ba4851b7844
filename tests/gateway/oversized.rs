//! Oversized messages, and the limits in Redis that keep them from disconnecting every subscriber;
//! and the permissions that the documentation lists for gateways and publishers.

use std::path::Path;

use crate::harness::{Gateway, Redis, topic, user};

const WARNING: &str = "proto-max-bulk-len is";
const DEFAULT_BYTES: &str = "536870912";

/// The line that begins with this text, in README.md or a page of docs/.
fn documented(begin: &str) -> String {
    fn pages(folder: &Path, all: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
        {
            match entry {
                path if path.is_dir() => pages(&path, all),
                path if path.extension().is_some_and(|e| e == "md") => {
                    all.push(std::fs::read_to_string(path).expect("a page"));
                }
                _ => {}
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![std::fs::read_to_string(root.join("README.md")).expect("README.md")];
    pages(&root.join("docs"), &mut all);
    let line = all.iter().flat_map(|page| page.lines()).find(|line| line.starts_with(begin));
    line.unwrap_or_else(|| panic!("no page has a line {begin}")).to_owned()
}

/// Creates the documented user; its password is the word after `>`.
async fn add_user(redis: &Redis, name: &str) {
    let line = documented(&format!("user {name} on "));
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    redis.command::<()>(&[&["ACL", "SETUSER"], &words[..]].concat()).await;
}

fn url_of(redis: &Redis, user: &str, password: &str) -> String {
    format!("redis://{user}:{password}@{}", redis.address())
}

#[tokio::test]
async fn huge_plain_publish_disconnects_no_gateway() {
    let redis = Redis::start().await;
    let shipped = include_str!("../../deploy/redis/redis.conf");
    for setting in ["proto-max-bulk-len", "client-output-buffer-limit"] {
        let line =
            shipped.lines().find(|line| line.starts_with(setting)).expect("a shipped setting");
        let (name, value) = line.split_once(' ').unwrap();
        redis.command::<()>(&["CONFIG", "SET", name, value]).await;
    }
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_recorder().await;
    let mut stream = gateway.connect("1").await;
    // Without the setting, each such message disconnects every subscriber.
    let huge = vec![b'x'; 30 << 20];
    for _ in 0..3 {
        let mut conn = redis.conn().await;
        let sent: redis::RedisResult<i64> =
            redis::cmd("PUBLISH").arg(user("1")).arg(&huge).query_async(&mut conn).await;
        assert!(sent.is_err(), "Redis accepted the message");
    }
    redis.plain(user("1"), "good").await;
    let event = stream.app_event().await;
    assert_eq!(
        (event.event.as_str(), event.data.as_str()),
        ("message", "good"),
        "{}",
        stream.dump()
    );
    assert_eq!(gateway.metric("sse_redis_reconnects_total", &[]).await, 0.0);
    assert!(!gateway.log_contains(WARNING), "{}", gateway.log_text());
}

#[tokio::test]
async fn default_argument_limit_causes_a_warning() {
    let redis = Redis::start().await;
    redis.command::<()>(&["CONFIG", "SET", "proto-max-bulk-len", DEFAULT_BYTES]).await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_log(WARNING).await;
    gateway.wait_for_log("CONFIG SET proto-max-bulk-len 1048576").await;
}

#[tokio::test]
async fn limit_of_eight_megabytes_gets_a_warning() {
    let redis = Redis::start().await;
    redis.command::<()>(&["CONFIG", "SET", "proto-max-bulk-len", "8388608"]).await;
    let gateway = Gateway::start(&redis).await;
    gateway.wait_for_log(WARNING).await;
}

#[tokio::test]
async fn huge_rejected_message_is_cut_in_relay_mode() {
    let redis = Redis::start().await;
    let gateway = Gateway::builder(&redis).env("PUBLISHERS__PLAIN", "relay").start().await;
    let channel = format!("broadcast:{}", "x".repeat(1000));
    redis.plain(&channel, vec![b'x'; 500_000]).await;
    gateway.metric_reaches("sse_rejected_total", &[("reason", "bad-channel")], 1.0).await;
    let kept = crate::harness::eventually("an entry", || async { redis.rejected().await.pop() });
    let kept = kept.await;
    assert_eq!((kept.channel.len(), kept.message.len()), (512, 4096));
}

#[tokio::test]
async fn unreadable_argument_limit_causes_no_warning() {
    let redis = Redis::start().await;
    redis.command::<()>(&["CONFIG", "SET", "proto-max-bulk-len", DEFAULT_BYTES]).await;
    add_user(&redis, "gateway").await;
    let gateway =
        Gateway::builder(&redis).redis_url(&url_of(&redis, "gateway", "gw-password")).start().await;
    assert!(
        !gateway.log_contains(WARNING) && !gateway.log_contains("NOPERM"),
        "{}",
        gateway.log_text()
    );
}

#[tokio::test]
async fn documented_permissions_are_sufficient() {
    let redis = Redis::start().await;
    for name in ["gateway", "shop", "legacy"] {
        add_user(&redis, name).await;
    }
    let gateway =
        Gateway::builder(&redis).redis_url(&url_of(&redis, "gateway", "gw-password")).start().await;
    gateway.wait_for_recorder().await;
    let mut stream = gateway.connect("1").await;
    let start = stream.last_id().to_owned();
    let as_user = async |name: &str, password: &str, words: &[&str]| {
        let client = redis::Client::open(url_of(&redis, name, password)).unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let mut conn = client.get_multiplexed_async_connection().await.unwrap();
        command
            .query_async::<redis::Value>(&mut conn)
            .await
            .unwrap_or_else(|e| panic!("{name}: {words:?}: {e}"));
    };
    let (mine, news) = (user("1"), topic("t"));
    for channel in [&mine, &news] {
        as_user(
            "shop",
            "shop-password",
            &["FCALL", "sse_publish", "1", channel, "a", "1", "KEY", "k"],
        )
        .await;
        as_user("legacy", "legacy-password", &["PUBLISH", channel, "2"]).await;
        assert_eq!(
            (stream.app_event().await.event, stream.app_event().await.data),
            ("a".into(), "2".into())
        );
    }
    // A log that must be started again, and an empty one.
    redis
        .command::<String>(&["XADD", "sse:log:{user:1:events}", "18446744073709551615-1", "f", "x"])
        .await;
    redis.command::<i64>(&["XTRIM", "sse:log:{broadcast}:t", "MAXLEN", "0"]).await;
    for channel in [&mine, &news] {
        as_user("shop", "shop-password", &["FCALL", "sse_publish", "1", channel, "b", "1"]).await;
    }
    let mut resumed = gateway.resume("1", &start).await;
    resumed.next_of("b").await;
    assert!(!gateway.log_contains("NOPERM"), "{}", gateway.log_text());
}
