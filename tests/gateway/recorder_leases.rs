//! The leases of the recorder: who gets them, and which numberings a standby continues. The tests
//! themselves are the other instances.

use crate::harness::{GUARD, Gateway, Redis, Sse, eventually, user};
use redis::{AsyncConnectionConfig, PushInfo, PushKind};
use std::collections::HashMap;
use tokio::sync::mpsc;

const RECORDER: &str = "sse:recorder:{broadcast}";
const LEASE: &str = "sse:lease:recorder:{broadcast}";
const STANDBY_LEASE: &str = "sse:lease:standby:{broadcast}";
const LIVE: &str = "sse:live:{broadcast}";
/// Longer than a test.
const LONG: &str = "600000";

type Fields = HashMap<String, String>;

async fn lease(redis: &Redis, role: &str, instance: &str, ttl_ms: &str) -> Fields {
    redis.command(&["FCALL", "sse_lease", "1", RECORDER, role, instance, ttl_ms]).await
}

async fn release(redis: &Redis, role: &str, instance: &str) {
    let words = ["FCALL", "sse_lease", "1", RECORDER, role, instance, LONG, "RELEASE"];
    redis.command::<Fields>(&words).await;
}

#[tokio::test]
async fn former_writer_and_standby_come_first() {
    let redis = Redis::start().await;
    let _gateway = Gateway::durable_only(&redis).start().await;
    // Long enough that the writer still has it when the standby asks.
    let first = lease(&redis, "recorder", "writer", "3000").await;
    assert_eq!(lease(&redis, "standby", "standby", "50").await["held"], "1");
    let both_expired = async || {
        eventually("expired leases", || async {
            (redis.command::<i64>(&["EXISTS", LEASE, STANDBY_LEASE]).await == 0).then_some(())
        })
        .await;
    };
    both_expired().await;
    // As after a time without Redis, or without the library.
    for role in ["recorder", "standby"] {
        let refused = lease(&redis, role, "other", LONG).await;
        assert_eq!((&*refused["held"], &*refused["vacant"]), ("0", "1"), "{role}");
    }
    let again = lease(&redis, "recorder", "writer", "50").await;
    assert_eq!((&*again["held"], &again["token"]), ("1", &first["token"]));
    both_expired().await;
    assert_eq!(lease(&redis, "recorder", "other", LONG).await["held"], "0");
    assert_eq!(lease(&redis, "standby", "standby", "50").await["held"], "1");
    let taken = lease(&redis, "recorder", "standby", "50").await;
    assert_eq!(taken["held"], "1");
    assert!(taken["token"] != first["token"]);
    // Nobody waits longer than a lease lasts.
    both_expired().await;
    eventually("a lease for another instance", || async {
        (lease(&redis, "recorder", "other", "100").await["held"] == "1").then_some(())
    })
    .await;
    // Nor for a writer that has given up, or has released its lease.
    lease(&redis, "recorder", "other", "50").await;
    both_expired().await;
    assert_eq!(lease(&redis, "recorder", "yet another", LONG).await["held"], "0");
    assert_eq!(lease(&redis, "recorder", "other/1", LONG).await["held"], "1");
    release(&redis, "recorder", "other/1").await;
    assert_eq!(lease(&redis, "recorder", "yet another", LONG).await["held"], "1");
}

/// A writer that is no gateway, a gateway as its standby, a stream of that, and the markers that
/// the standby publishes.
struct World {
    redis: Redis,
    standby: Gateway,
    sse: Sse,
    pushed: mpsc::UnboundedReceiver<PushInfo>,
    _subscriber: redis::aio::MultiplexedConnection,
}

impl World {
    async fn start() -> World {
        let redis = Redis::start().await;
        let (sender, pushed) = mpsc::unbounded_channel();
        let client = redis::Client::open(format!("{}?protocol=resp3", redis.url())).unwrap();
        let config = AsyncConnectionConfig::new().set_push_sender(sender);
        let mut subscriber =
            client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        redis::cmd("SSUBSCRIBE").arg(LIVE).exec_async(&mut subscriber).await.unwrap();
        redis.command::<()>(&["SET", LEASE, "test", "PX", LONG]).await;
        let standby = Gateway::start(&redis).await;
        let sse = standby.connect("1").await;
        World { redis, standby, sse, pushed, _subscriber: subscriber }
    }

    /// The next marker.
    async fn marker(&mut self) -> String {
        loop {
            let push = tokio::time::timeout(GUARD, self.pushed.recv()).await;
            let push = push.expect("a marker").expect("a connection");
            if push.kind == PushKind::SMessage
                && let Ok((_, text)) =
                    redis::from_redis_value::<(String, String)>(redis::Value::Array(push.data))
                && let Some(marker) = text.strip_prefix("marker ")
            {
                return marker.to_owned();
            }
        }
    }

    /// Waits until the standby has renewed its lease.
    async fn standby_renews(&self) {
        let left = async || self.redis.command::<i64>(&["PTTL", STANDBY_LEASE]).await;
        let before = std::cell::Cell::new(left().await);
        eventually("a renewed lease", || async {
            let now = left().await;
            (now > before.replace(now)).then_some(())
        })
        .await;
    }

    /// Begins a numbering. Returns the token.
    async fn begin(&self) -> String {
        let token = lease(&self.redis, "recorder", "test", LONG).await["token"].clone();
        let words = ["FCALL", "sse_mark", "1", RECORDER, &token, &token, "0"];
        assert_eq!(self.redis.command::<String>(&words).await, "marked");
        token
    }

    /// Continues it from a standby's marker, and records a first message after that.
    async fn record(&self, token: &str, marker: &str, payload: &str) {
        let words = ["FCALL", "sse_record", "1", RECORDER, token, marker, "0", "MARK", token, "0"];
        assert_eq!(self.redis.command::<String>(&words).await, "done");
        let channel = user("1");
        let words = ["FCALL", "sse_record", "1", &channel, token, marker, "1", "PLAIN", "n"];
        let words: Vec<&str> = words.into_iter().chain([payload]).collect();
        assert_eq!(self.redis.command::<String>(&words).await, "recorded");
    }

    async fn plain(&self, n: u32) {
        self.redis.plain(user("1"), format!("{{\"type\":\"n\",\"payload\":{n}}}")).await;
    }
}

#[tokio::test]
async fn standby_joins_a_new_numbering() {
    let mut world = World::start().await;
    let before = world.marker().await;
    // Another instance became the writer, and the standby kept its role.
    let token = world.begin().await;
    let marker = world.marker().await;
    assert_ne!(marker, before);
    world.plain(1).await;
    world.plain(2).await;
    world.record(&token, &marker, "1").await;
    release(&world.redis, "recorder", "test").await;
    let received = [world.sse.app_event().await, world.sse.app_event().await];
    assert_eq!(received.map(|event| event.data), ["1", "2"], "{}", world.sse.dump());
}

#[tokio::test]
async fn standby_does_not_continue_a_numbering_that_began_after_its_marker() {
    let mut world = World::start().await;
    let marker = world.marker().await;
    // The writer subscribes after this message, which only the standby counts.
    world.plain(1).await;
    world.standby.freeze();
    let token = world.begin().await;
    world.record(&token, &marker, "2").await;
    release(&world.redis, "recorder", "test").await;
    world.standby.thaw();
    assert_eq!(world.sse.app_event().await.data, "2");
    let gap = world.sse.app_event().await;
    assert_eq!(gap.json()["reason"], "unrecorded", "{}", world.sse.dump());
}

#[tokio::test]
async fn standby_reports_its_role_once_it_could_continue() {
    let mut world = World::start().await;
    let role = "sse_recorder_role";
    world.marker().await;
    assert_eq!(world.standby.metric(role, &[("role", "none")]).await, 1.0, "no numbering yet");
    let token = world.begin().await;
    let marker = world.marker().await;
    // It looks at what is recorded whenever it renews its lease.
    world.standby_renews().await;
    world.standby_renews().await;
    assert_eq!(world.standby.metric(role, &[("role", "none")]).await, 1.0, "not recorded yet");
    world.plain(1).await;
    world.record(&token, &marker, "1").await;
    world.standby.metric_reaches(role, &[("role", "standby")], 1.0).await;
}
