//! The Redis users that the book documents: what they may do suffices, and all of it is needed.

use crate::config::{GOOD, run};
use crate::harness::keys::api_keys;
use crate::harness::redis::Publisher;
use crate::harness::{Gateway, Redis, eventually, user};
use crate::revocations::revoke;

/// Permissions for clients of every kind: authentication, the protocol, PING.
pub const BASICS: &str = "+@connection";

/// The rules of a documented user.
pub fn documented(name: &str) -> Vec<String> {
    let page = include_str!("../../docs/operations/redis.md");
    let line = page.lines().find(|line| line.starts_with(&format!("user {name} on ")));
    let line = line.unwrap_or_else(|| panic!("the page has no `user {name}`"));
    line.split(' ').skip(2).map(str::to_owned).collect()
}

/// Sets a user to these rules.
pub async fn set_user(redis: &Redis, name: &str, rules: &[String]) {
    let mut words = ["ACL", "SETUSER", name, "reset"].map(str::to_owned).to_vec();
    words.extend_from_slice(rules);
    redis.command::<()>(&words).await;
}

pub fn url_of(redis: &Redis, name: &str, password: &str) -> String {
    redis.url().replace("://", &format!("://{name}:{password}@"))
}

pub async fn publisher(redis: &Redis, name: &str, password: &str) -> Publisher {
    let client = redis::Client::open(url_of(redis, name, password)).expect("a URL");
    Publisher::on(client.get_multiplexed_async_connection().await.expect("a connection"))
}

/// What Redis has refused, as `<user> <command, key or channel>`.
pub async fn denials(redis: &Redis) -> Vec<String> {
    type Entry = std::collections::HashMap<String, redis::Value>;
    let entries: Vec<Entry> = redis.command(&["ACL", "LOG"]).await;
    let field = |entry: &Entry, name: &str| -> String {
        redis::from_redis_value(entry[name].clone()).expect("text")
    };
    entries.iter().map(|e| format!("{} {}", field(e, "username"), field(e, "object"))).collect()
}

#[tokio::test]
async fn documented_users_suffice_for_their_roles() {
    let redis = Redis::start().await;
    for name in ["gateway", "shop", "legacy"] {
        set_user(&redis, name, &documented(name)).await;
    }
    let url = url_of(&redis, "gateway", "gw-password");
    let builder = Gateway::builder(&redis).redis_url(&url);
    let builder = builder.env("API_KEYS", &api_keys(&[("an admin's key", "admin")]));
    // Calls every function of presence, and removes users.
    let short =
        [("PRESENCE__ENABLED", "true"), ("PRESENCE__LEASE", "1s"), ("PRESENCE__LINGER", "0s")];
    let builder = short.into_iter().fold(builder, |builder, (key, value)| builder.env(key, value));
    let (one, two) = tokio::join!(builder.start(), builder.start());
    let relay = Gateway::builder(&redis).redis_url(&url).env("PUBLISHERS__PLAIN", "relay");
    let relay = relay.start().await;
    let mut stream = one.connect("1").await;
    let mut relayed = relay.connect("1").await;
    let mut shop = publisher(&redis, "shop", "shop-password").await;
    let first = shop.durable(&user("1"), "a", "1", &["KEY", "k"]).await.expect("published");
    assert_eq!(stream.app_event().await.id, Some(first.clone()));
    assert_eq!(relayed.app_event().await.id, Some(first.clone()));
    for option in [["KEEP", "k"], ["FORGET", "k"], ["UNSEEN", "1s"]] {
        shop.durable(&user("1"), "option", "2", &option).await.expect("published");
        assert_eq!(stream.app_event().await.event, "option");
        assert_eq!(relayed.app_event().await.event, "option");
    }
    let undelivered = shop.durable(&user("2"), "a", "3", &["UNSEEN", "1s"]).await;
    undelivered.expect("published");
    let mut legacy = publisher(&redis, "legacy", "legacy-password").await;
    eventually("a recorder", || async {
        (one.is_recorder().await || two.is_recorder().await).then_some(())
    })
    .await;
    // A channel with an invalid name, of which the recorder passes on the beginning.
    legacy.plain(user(&"x".repeat(1000)), "rejected").await;
    legacy.plain(user("1"), "plain").await;
    assert_eq!(stream.app_event().await.data, "plain");
    let mut resumed = two.resume("1", &first).await;
    resumed.until(|event| event.data == "plain").await;
    assert_eq!(revoke(&one, "1", "an admin's key").await, 200);
    for query in ["user=1", "topic=news"] {
        let (status, _) = crate::presence::ask_with(&one, query, "an admin's key").await;
        assert_eq!(status, 200, "{query}");
    }
    two.kill9();
    eventually("the end of a lease", || async {
        let leases: usize = redis.command(&["ZCARD", "sse:presence-leases:{broadcast}"]).await;
        (leases == 1).then_some(())
    })
    .await;
    eventually("an undelivered event", || async {
        let length: i64 = redis.command(&["XLEN", "sse:undelivered:{broadcast}"]).await;
        (length == 1).then_some(())
    })
    .await;
    // The limit of arguments is the only thing that the gateway asks for in vain.
    let refused = denials(&redis).await;
    assert!(refused.iter().all(|denial| denial == "gateway config|get"), "{refused:?}");
}

/// Publishes in all ways, of which Redis refuses some.
async fn publish_in_all_ways(redis: &Redis, round: usize) {
    let mut shop = publisher(redis, "shop", "shop-password").await;
    for channel in [&user(&format!("{round}")), "broadcast:news", &format!("{{broadcast}}:{round}")]
    {
        let _ = shop.durable(channel, "a", "1", &[]).await;
        for _ in 0..2 {
            let _ = shop.durable(channel, "a", "1", &["KEY", "k"]).await;
        }
    }
    let _ = shop.durable(&user("empty"), "a", "1", &[]).await;
    // The second one is beyond HISTORY__MAX_KEPT.
    for option in [["KEEP", "k"], ["KEEP", "l"], ["FORGET", "k"]] {
        let _ = shop.durable("broadcast:kept", "a", "1", &option).await;
    }
    let _ = shop.durable(&user(&format!("{round}")), "a", "1", &["UNSEEN", "1h"]).await;
}

#[tokio::test]
async fn durable_publisher_needs_every_documented_permission() {
    let redis = Redis::start_persistent("always").await;
    drop(Gateway::durable_only(&redis).env("HISTORY__MAX_KEPT", "1").start().await);
    // A log that is empty because it was trimmed.
    let log = crate::harness::redis::log_key(&user("empty"));
    redis.command::<()>(&["XADD", &log, "1-1", "a", "b"]).await;
    redis.command::<()>(&["XTRIM", &log, "MAXLEN", "0"]).await;
    let all = documented("shop");
    let is_permission = |word: &String| word.starts_with(['+', '~', '&']) && word != BASICS;
    let mut permissions: Vec<String> =
        all.iter().filter(|word| is_permission(word)).cloned().collect();
    permissions.push("nothing".to_owned());
    for (round, permission) in permissions.iter().enumerate() {
        let rules: Vec<String> = all.iter().filter(|word| *word != permission).cloned().collect();
        redis.stop();
        redis.start_again().await;
        set_user(&redis, "shop", &rules).await;
        publish_in_all_ways(&redis, round).await;
        let refused = denials(&redis).await;
        assert_eq!(
            refused.is_empty(),
            permission == "nothing",
            "without {permission}: {refused:?}"
        );
        redis.command::<()>(&["XTRIM", &log, "MAXLEN", "0"]).await;
    }
}

#[tokio::test]
async fn gateway_needs_every_documented_permission() {
    let redis = Redis::start().await;
    let all = documented("gateway");
    let url = url_of(&redis, "gateway", "gw-password");
    let is_permission = |word: &&String| word.starts_with('+') && *word != BASICS;
    for permission in all.iter().filter(is_permission) {
        let rules: Vec<String> = all.iter().filter(|word| *word != permission).cloned().collect();
        set_user(&redis, "gateway", &rules).await;
        let refused = ["record", "relay"].map(|plain| {
            let presence = ("PRESENCE__ENABLED", "true");
            let env = [GOOD, ("REDIS__URL", &url), ("PUBLISHERS__PLAIN", plain), presence];
            run(&["check-config", "--connect"], &env).out
        });
        let name = permission[1..].replace('|', " ").to_uppercase();
        let name = name.strip_suffix(" STREAM").unwrap_or(&name).to_owned();
        // In one of the two modes; the other does not need some of them.
        let names_it = |out: &String| out.contains("error: permissions: ") && out.contains(&name);
        assert!(refused.iter().any(names_it), "without {permission}: {}", refused[0]);
    }
}
