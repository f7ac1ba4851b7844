//! Metrics, readiness and warnings of a gateway for each of its Redis servers.

use crate::harness::gateway::Builder;
use crate::harness::{Cluster, Gateway, Redis, eventually};

const LINK_UP: &str = "sse_redis_server_link_up";
const SLOTS: &str = "sse_redis_server_slots";

/// The settings of a gateway for this cluster.
fn on(cluster: &Cluster) -> Builder {
    Gateway::at(&format!("redis+cluster://{}", cluster.addresses().join(",")))
}

/// The value of a server's series; `None` if it has none.
async fn of_server(gateway: &Gateway, name: &str, server: &Redis) -> Option<f64> {
    let series = format!("{name}{{server=\"{}\"}}", server.address());
    gateway.metrics().await.0.get(&series).copied()
}

async fn becomes(gateway: &Gateway, name: &str, server: &Redis, expected: Option<f64>) {
    eventually(&format!("{name} of {} to be {expected:?}", server.address()), || async {
        (of_server(gateway, name, server).await == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn dead_master_shows_in_its_series_only() {
    let cluster = Cluster::start(3).await;
    let gateway = on(&cluster).env("PUBLISHERS__PLAIN", "off").start().await;
    for node in cluster.nodes() {
        becomes(&gateway, LINK_UP, node, Some(1.0)).await;
        assert!(of_server(&gateway, SLOTS, node).await > Some(5000.0));
    }
    let _streams = [gateway.connect("1").await, gateway.connect("2").await];
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.get("sse_redis_link_up", &[]), 1.0);
    gateway.metric_reaches("sse_subscriptions", &[], 2.0).await;

    cluster.node(2).stop();
    becomes(&gateway, LINK_UP, cluster.node(2), Some(0.0)).await;
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.get("sse_redis_link_up", &[]), 0.0);
    // The sum over the servers: the two that are alive.
    assert_eq!(metrics.get(LINK_UP, &[]), 2.0);
    eventually("the oldest watermark to be that of the dead master", || async {
        let metrics = gateway.metrics().await;
        let name = "sse_redis_server_watermark_age_seconds";
        let dead = metrics.get(name, &[("server", &cluster.node(2).address())]);
        (dead > 3.0 && metrics.get("sse_watermark_age_seconds", &[]) == dead).then_some(())
    })
    .await;
    let (status, body) = gateway.admin_get("/readyz").await;
    assert_eq!(status, 200, "{body}");

    cluster.node(2).start_again().await;
    becomes(&gateway, LINK_UP, cluster.node(2), Some(1.0)).await;
}

#[tokio::test]
async fn gateway_becomes_ready_without_the_master_of_broadcasts() {
    let cluster = Cluster::start(3).await;
    let dead = cluster.node(cluster.owner_of("{broadcast}").await);
    dead.stop();
    // It records plain publishes, and nobody can do that now.
    let gateway = on(&cluster).start().await;
    assert_eq!(of_server(&gateway, LINK_UP, dead).await, Some(0.0));
    cluster.nodes().iter().for_each(Redis::stop);
    gateway.not_ready().await;
    assert!(gateway.admin_get("/readyz").await.1.contains("redis-away"));
}

#[tokio::test]
async fn series_follow_the_masters_of_a_cluster() {
    let mut cluster = Cluster::start(2).await;
    let gateway = on(&cluster).env("PUBLISHERS__PLAIN", "off").start().await;
    let n = cluster.add_master().await;
    let (added, slot) = (cluster.node(n), 1);
    let owner = cluster.owner_of_slot(slot).await;
    let (owned, migrating) = (SLOTS, "sse_redis_server_slots_migrating");
    becomes(&gateway, owned, cluster.node(owner), Some(8192.0)).await;
    assert_eq!(of_server(&gateway, LINK_UP, added).await, None, "it owns no slot");

    cluster.begin_migration(slot, n).await;
    becomes(&gateway, migrating, cluster.node(owner), Some(1.0)).await;
    cluster.end_migration(slot, owner, n).await;
    cluster.is_ok().await;
    becomes(&gateway, LINK_UP, added, Some(1.0)).await;
    becomes(&gateway, owned, added, Some(1.0)).await;
    becomes(&gateway, owned, cluster.node(owner), Some(8191.0)).await;
    becomes(&gateway, migrating, cluster.node(owner), Some(0.0)).await;
    let moved = "sse_redis_slots_moved_total";
    gateway.metric_reaches(moved, &[], 1.0).await;
    assert_eq!(gateway.metric(moved, &[]).await, 1.0);

    cluster.migrate(slot, owner).await;
    for name in [LINK_UP, owned, "sse_redis_server_watermark_age_seconds"] {
        becomes(&gateway, name, added, None).await;
    }
    gateway.metric_reaches(moved, &[], 2.0).await;
    assert_eq!(gateway.metric(moved, &[]).await, 2.0);
}

#[tokio::test]
async fn warnings_are_logged_once_for_each_server_process() {
    let redis = Redis::start_with(&["--maxmemory-policy", "allkeys-lru"]).await;
    let gateway = Gateway::durable_only(&redis).start().await;
    // The number of warnings before the line of the n-th link.
    let before_link = async |n: usize| {
        let log = eventually("the line of the link", || {
            let log = gateway.log_text();
            std::future::ready((log.matches("link to Redis is up").count() >= n).then_some(log))
        });
        log.await.matches("maxmemory-policy is allkeys-lru").count()
    };
    assert_eq!(before_link(1).await, 1);
    for n in 2..=3 {
        redis.command::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        assert_eq!(before_link(n).await, 1, "link {n}");
    }
    redis.stop();
    redis.start_again().await;
    assert_eq!(before_link(4).await, 2, "this is another process");
}
