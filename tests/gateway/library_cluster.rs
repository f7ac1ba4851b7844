//! The function library on a Redis Cluster.

use crate::harness::Cluster;

#[tokio::test]
async fn cluster_moves_slots_and_promotes_replicas() {
    let mut cluster = Cluster::start(3).await;
    let slot = cluster.slot_of("{broadcast}").await;
    let from = cluster.owner_of_slot(slot).await;
    let to = (from + 1) % 3;
    cluster.command_at::<()>("{broadcast}", &["SET", "a:{broadcast}", "1"]).await;
    cluster.migrate(slot, to).await;
    assert_eq!(cluster.owner_of("{broadcast}").await, to);
    let moved: String = cluster.command_at("{broadcast}", &["GET", "a:{broadcast}"]).await;
    assert_eq!(moved, "1");
    let replica = cluster.add_replica(to).await;
    cluster.node(to).stop();
    cluster.is_promoted(replica).await;
    let kept: String = cluster.command_at("{broadcast}", &["GET", "a:{broadcast}"]).await;
    assert_eq!(kept, "1");
    cluster.node(to).start_again().await;
    cluster.is_ok().await;
}
