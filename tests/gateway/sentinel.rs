//! Sentinel: a gateway follows the primary. Streams stay open, and events that the new primary
//! accepts arrive.

use crate::config::{GOOD, run};
use crate::harness::process::free_port;
use crate::harness::sentinel::Sentinels;
use crate::harness::{Gateway, Redis, topic, user};

/// Down-after in tests without a failover, ms: a busy machine must not cause one.
const PATIENT_MS: u32 = 30_000;
/// Down-after in tests with a failover, ms.
const DOWN_AFTER_MS: u32 = 3000;

/// Publishes with the command line, and returns the id.
fn publish(url: &str, channel: &str, name: &str) -> String {
    let ran = run(&["publish", channel, name, "1"], &[GOOD, ("REDIS__URL", url)]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ran.out.trim().to_owned()
}

#[tokio::test]
async fn streams_survive_a_killed_primary() {
    let sentinels = Sentinels::start(DOWN_AFTER_MS, None).await;
    let first = &sentinels.servers[0];
    // The third sentinel is learned from the others.
    let url = sentinels.url(&sentinels.ports[..2], "");
    let gateway = Gateway::durable_only(first).redis_url(&url).start().await;
    let mut own = gateway.connect("1").await;
    let mut other = gateway.connect("2").await;
    first.durable(&user("1"), "before", "1").await.unwrap();
    assert_eq!(own.app_event().await.event, "before");
    first.stop();
    let second = sentinels.new_primary(first).await;
    second.durable_retried(&user("1"), "after", "2").await;
    second.durable(&topic("t"), "all", "3").await.unwrap();
    own.until(|event| event.event == "after").await;
    other.until(|event| event.event == "all").await;
    gateway.ready().await;
    // Live, not only from the log.
    second.durable(&user("2"), "live", "4").await.unwrap();
    assert_eq!(other.next_of("live").await.data, "4");
    // Sessions are opened at the new primary.
    let mut new = gateway.connect("3").await;
    let id = publish(&url, &user("3"), "published");
    assert_eq!(new.app_event().await.id, Some(id));
    // The previous primary comes back. The sentinels make it a replica, and nothing changes.
    first.start_again().await;
    second.durable(&user("3"), "later", "5").await.unwrap();
    assert_eq!(new.app_event().await.event, "later");
    gateway.wait_for_log(&second.address()).await;
}

#[tokio::test]
async fn link_leaves_an_old_primary_that_still_replies() {
    let sentinels = Sentinels::start(PATIENT_MS, None).await;
    let first = &sentinels.servers[0];
    let url = sentinels.url(&sentinels.ports[1..], "");
    let gateway = Gateway::durable_only(first).redis_url(&url).start().await;
    let mut stream = gateway.connect("1").await;
    let port = sentinels.ports[0];
    sentinels.ask::<()>(port, &["SENTINEL", "FAILOVER", "mymaster"]).await.unwrap();
    let second = sentinels.new_primary(first).await;
    second.durable_retried(&user("1"), "after", "1").await;
    stream.until(|event| event.event == "after").await;
    gateway.wait_for_log("the primary changed, connecting to it").await;
}

#[tokio::test]
async fn sentinels_and_redis_have_their_own_credentials() {
    let sentinels = Sentinels::start(PATIENT_MS, Some("of-sentinel")).await;
    let redis = &sentinels.servers[0];
    let user_rules = ["ACL", "SETUSER", "gate", "on", ">of-redis", "~*", "&*", "+@all"];
    redis.command::<()>(&user_rules).await;
    redis.command::<()>(&["ACL", "SETUSER", "default", "-@all", "+info", "+fcall"]).await;
    let url = sentinels.url(&sentinels.ports, "gate:of-redis@");
    let builder = Gateway::durable_only(redis).redis_url(&url);
    let gateway = builder.clone().env("REDIS__SENTINEL_PASSWORD", "of-sentinel").start().await;
    drop(gateway.connect("1").await);
    // The permissions in the documentation are sufficient.
    let page = include_str!("../../docs/operations/redis.md");
    let rule =
        page.lines().find_map(|line| line.strip_prefix("user watcher on >sentinel-password"));
    let rules: Vec<_> = rule.expect("a rule").split_whitespace().collect();
    for port in &sentinels.ports {
        let words = ["ACL", "SETUSER", "watcher", "on", ">sentinel-password"];
        sentinels.ask::<()>(*port, &[&words[..], &rules].concat()).await.unwrap();
    }
    let named = builder.clone().env("REDIS__SENTINEL_USERNAME", "watcher");
    let named = named.env("REDIS__SENTINEL_PASSWORD", "sentinel-password").start().await;
    drop(named.connect("1").await);
    let refused = builder.env("REDIS__SENTINEL_PASSWORD", "of-redis").start_unready().await;
    refused.wait_for_log("login refused, check redis.sentinel_username").await;
    assert_ne!(refused.admin_get("/readyz").await.0, 200);
    for gateway in [&gateway, &refused] {
        let log = gateway.log_text();
        assert!(!log.contains("of-redis") && !log.contains("of-sentinel"), "{log}");
    }
}

#[tokio::test]
async fn sentinel_that_is_down_at_start_delays_nothing() {
    let sentinels = Sentinels::start(PATIENT_MS, None).await;
    let redis = &sentinels.servers[0];
    sentinels.stop_sentinel(0);
    let url = sentinels.url(&sentinels.ports, "");
    let gateway = Gateway::durable_only(redis).redis_url(&url).start().await;
    let mut stream = gateway.connect("1").await;
    publish(&url, &user("1"), "published");
    assert_eq!(stream.app_event().await.event, "published");
    gateway.wait_for_log("no answer from a sentinel").await;
    gateway.wait_for_log(&format!("127.0.0.1:{}", sentinels.ports[0])).await;
}

#[tokio::test]
async fn unknown_name_of_the_primary_is_reported() {
    let sentinels = Sentinels::start(PATIENT_MS, None).await;
    let url = sentinels.url(&sentinels.ports, "").replace("mymaster", "other");
    let gateway = Gateway::durable_only(&sentinels.servers[0]).redis_url(&url);
    let gateway = gateway.start_unready().await;
    gateway.wait_for_log("monitors no primary with this name").await;
    gateway.wait_for_log("no link to Redis, retrying").await;
    let (status, body) = gateway.admin_get("/readyz").await;
    assert!(status == 503 && body.contains("redis-away"), "{status} {body}");
    let ran = run(&["publish", &user("1"), "a", "1"], &[GOOD, ("REDIS__URL", &url)]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("monitors no primary with this name"), "{}", ran.err);
}

#[tokio::test]
async fn unreachable_and_wrong_servers_are_named() {
    let redis = Redis::start().await;
    let (closed, address) = (free_port(), redis.address());
    let url = format!("redis+sentinel://127.0.0.1:{closed},{address}/mymaster");
    let gateway = Gateway::durable_only(&redis).redis_url(&url).start_unready().await;
    gateway.wait_for_log("not a sentinel, check redis.url").await;
    gateway.wait_for_log(&format!("127.0.0.1:{closed}")).await;
    assert_ne!(gateway.admin_get("/readyz").await.0, 200);
}
