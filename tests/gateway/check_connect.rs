//! `check-config --connect` against a real Redis.

use crate::config::{GOOD, Ran, run};
use crate::harness::{Gateway, Redis, eventually, user};

/// The limits of `deploy/redis/redis.conf`, and what else is needed for a report without warnings.
const SUITABLE: [(&str, &str); 5] = [
    ("maxmemory", "1gb"),
    ("maxmemory-policy", "noeviction"),
    ("proto-max-bulk-len", "1mb"),
    ("client-output-buffer-limit", "pubsub 256mb 64mb 60"),
    ("appendonly", "yes"),
];

async fn suitable() -> Redis {
    let redis = Redis::start().await;
    for (name, value) in SUITABLE {
        redis.command::<()>(&["CONFIG", "SET", name, value]).await;
    }
    redis
}

fn connect(url: &str) -> Ran {
    run(&["check-config", "--connect"], &[GOOD, ("REDIS__URL", url)])
}

/// The lines about limits and permissions that are not `ok`.
fn complaints(ran: &Ran) -> Vec<&str> {
    let is_complaint = |line: &&str| line.starts_with("warning: ") || line.starts_with("error: ");
    ran.out.lines().filter(is_complaint).collect()
}

/// The ACL of the gateway that the book documents.
fn documented_gateway() -> Vec<&'static str> {
    let page = include_str!("../../docs/operations/redis.md");
    let line = page.lines().find(|line| line.starts_with("user gateway on "));
    line.expect("the page has `user gateway`").split(' ').skip(1).collect()
}

#[tokio::test]
async fn suitable_redis_is_described_without_warnings() {
    let redis = suitable().await;
    let before = connect(&redis.url());
    assert_eq!((before.code, before.err.as_str()), (Some(0), ""));
    assert_eq!(complaints(&before), [""; 0], "{}", before.out);
    assert!(before.out.contains("not loaded (a gateway loads it"), "{}", before.out);
    assert!(before.out.ends_with("the gateway can use this Redis\n"), "{}", before.out);
    // Nothing was loaded or written.
    assert_eq!(redis.command::<u64>(&["DBSIZE"]).await, 0);
    assert_eq!(redis.command::<Vec<redis::Value>>(&["FUNCTION", "LIST"]).await, []);

    let _gateway = Gateway::durable_only(&redis).start().await;
    redis.durable(&user("1"), "a", "1").await.expect("published");
    let replica = Redis::replica_of(&redis.address()).await;
    redis.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    // The first replica changes the replication id: the gateway adopts the server again.
    let after = eventually("an adopted server", || async {
        Some(connect(&redis.url())).filter(|ran| ran.out.contains(", adopted in epoch "))
    })
    .await;
    for line in [
        format!("  address  {}", redis.address()),
        "  mode     standalone".to_owned(),
        "  role     primary, 1 connected replicas".to_owned(),
        "ok: min-replicas-to-write 1".to_owned(),
    ] {
        assert!(after.out.lines().any(|found| found == line), "{line:?} in:\n{}", after.out);
    }
    assert_eq!((after.code, complaints(&after)), (Some(0), vec![]), "{}", after.out);

    let other = connect(&replica.url());
    assert_eq!(other.code, Some(78), "{}", other.out);
    assert!(other.out.contains("error: the server is a replica"), "{}", other.out);
    assert!(other.out.contains("replica of 127.0.0.1:"), "{}", other.out);
    assert!(other.out.ends_with("the gateway cannot use this Redis\n"), "{}", other.out);
}

#[tokio::test]
async fn unreachable_redis_and_wrong_password_differ() {
    let redis = Redis::start().await;
    redis.command::<()>(&["CONFIG", "SET", "requirepass", "right"]).await;
    let address = redis.address();
    for (login, words) in [(":hush@", "refuses this user"), ("", "refuses this user")] {
        let ran = connect(&format!("redis://{login}{address}"));
        assert_eq!(ran.code, Some(78), "{login}: {}", ran.err);
        assert!(ran.err.starts_with(&format!("Redis at {address} {words}")), "{}", ran.err);
        assert!(!ran.err.contains("hush"), "{}", ran.err);
    }
    assert_eq!(connect(&format!("redis://:right@{address}")).code, Some(0));
    redis.stop();
    let away = connect(&format!("redis://:right@{address}"));
    assert_eq!(away.code, Some(69), "{}", away.err);
    let expected = format!("Redis at {address} was not checked: Redis is unavailable: ");
    assert!(away.err.starts_with(&expected), "{}", away.err);
    assert_eq!(away.out, "the configuration is valid\n");
}

#[tokio::test]
async fn each_unsuitable_limit_gets_a_warning() {
    let redis = suitable().await;
    for (name, value, fix) in [
        ("maxmemory-policy", "allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
        ("maxmemory", "0", "CONFIG SET maxmemory"),
        ("proto-max-bulk-len", "512mb", "CONFIG SET proto-max-bulk-len 1048576"),
        ("client-output-buffer-limit", "pubsub 32mb 8mb 60", "pubsub 268435456 67108864 60"),
        ("appendonly", "no", "CONFIG SET appendonly yes"),
    ] {
        redis.command::<()>(&["CONFIG", "SET", name, value]).await;
        let ran = connect(&redis.url());
        let [complaint] = complaints(&ran)[..] else { panic!("{name}: {}", ran.out) };
        assert!(complaint.starts_with("warning: ") && complaint.contains(fix), "{complaint}");
        assert_eq!(ran.code, Some(0), "{}", ran.out);
        let (_, good) = SUITABLE.iter().find(|(suitable, _)| *suitable == name).unwrap();
        redis.command::<()>(&["CONFIG", "SET", name, good]).await;
    }
}

#[tokio::test]
async fn missing_permissions_are_named() {
    let redis = suitable().await;
    let rules = documented_gateway();
    redis.command::<()>(&[&["ACL", "SETUSER"], &rules[..]].concat()).await;
    let url = redis.url().replace("://", "://gateway:gw-password@");
    let documented = connect(&url);
    assert_eq!((documented.code, complaints(&documented).len()), (Some(0), 1));
    assert!(documented.out.contains("CONFIG is not permitted"), "{}", documented.out);
    redis.command::<()>(&["ACL", "SETUSER", "gateway", "+config|get"]).await;
    assert_eq!(complaints(&connect(&url)), [""; 0]);

    redis.command::<()>(&["ACL", "SETUSER", "gateway", "-xadd", "-function|load"]).await;
    let ran = connect(&url);
    assert_eq!(ran.code, Some(78), "{}", ran.out);
    let refused = "error: permissions: Redis refuses FUNCTION LOAD, XADD (";
    assert!(ran.out.contains(refused), "{}", ran.out);
    redis.command::<()>(&["ACL", "SETUSER", "gateway", "resetkeys", "-info"]).await;
    let ran = connect(&url);
    assert!(ran.out.contains("HMGET, HSET, INFO, PEXPIRE"), "{}", ran.out);
    // What could not be probed was not executed either.
    assert_eq!(redis.command::<u64>(&["DBSIZE"]).await, 0);
}
