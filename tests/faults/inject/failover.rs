//! Faults of a primary with replicas and sentinels.

use crate::deployment::{Route, Server};
use crate::harness::eventually_within;
use crate::publisher::Publisher;
use crate::world::{LIMIT, World};
use std::time::{Duration, Instant};

/// Kills the primary. It returns after the failover.
pub async fn kill_primary(world: &mut World) -> Instant {
    let deployment = &world.deployment;
    let old = &deployment.servers[deployment.primary().await];
    old.kill();
    let decided = deployment.sentinels().decision(old.announced_port()).await;
    world.acknowledged(40).await;
    old.run().await;
    deployment.healthy().await;
    decided
}

/// Stops the primary until others have taken over.
pub async fn freeze_primary(world: &mut World) -> Instant {
    let deployment = &world.deployment;
    let old = &deployment.servers[deployment.primary().await];
    old.freeze();
    let decided = deployment.sentinels().decision(old.announced_port()).await;
    old.thaw();
    deployment.healthy().await;
    decided
}

/// Nobody reaches the primary, except for one publisher, whose events it acknowledges.
pub async fn partition_primary(world: &mut World) -> Instant {
    let deployment = &world.deployment;
    let old = &deployment.servers[deployment.primary().await];
    old.proxy.discard();
    let decision = deployment.sentinels().decision(old.announced_port());
    let mut isolated = Publisher::new(Route::Fixed(old.address()), world.journal.clone());
    let publishing = async {
        for channel in world.channels.iter().cycle() {
            isolated.durable(channel, 1).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let decided = tokio::select! {
        decided = decision => decided,
        () = publishing => unreachable!("endless"),
    };
    old.proxy.up();
    deployment.healthy().await;
    decided
}

/// A failover while the primary is well.
pub async fn planned(world: &mut World) -> Instant {
    let deployment = &world.deployment;
    let port = deployment.servers[deployment.primary().await].announced_port();
    let decided = deployment.sentinels().fail_over(port).await;
    deployment.healthy().await;
    decided
}

/// A primary fails over to a replica and back. Its process stays the same.
pub async fn fail_back(world: &mut World) -> Instant {
    let first = world.deployment.primary().await;
    let third = (first + 2) % 3;
    set_priority(world, third, "0").await;
    planned(world).await;
    world.acknowledged(20).await;
    let decided = planned(world).await;
    assert_eq!(world.deployment.primary().await, first, "it failed back");
    set_priority(world, third, "100").await;
    decided
}

async fn set_priority(world: &World, n: usize, priority: &str) {
    let server = &world.deployment.servers[n];
    server.command::<()>(&["CONFIG", "SET", "replica-priority", priority]).await;
    world.deployment.sentinels().sees_priority(server.announced_port(), priority).await;
}

/// The killed primary returns as a primary, and stays one until the sentinels notice. Those are
/// stopped for some seconds, so that they notice late. It must acknowledge nothing.
pub async fn old_primary_returns(world: &mut World) -> Instant {
    let deployment = &world.deployment;
    let old = &deployment.servers[deployment.primary().await];
    old.kill();
    deployment.sentinels().decision(old.announced_port()).await;
    world.acknowledged(40).await;
    // A gateway that knows nothing of the new primary would adopt the old one.
    world.fleet.all_linked().await;
    deployment.sentinels().freeze();
    old.run_as_primary().await;
    let role = old.info("replication", "role").await;
    assert_eq!(role.as_deref(), Some("master"), "it does not know of the failover");
    let decided = Instant::now();
    // After 5 s in which they reach nothing else, gateways adopt it.
    while decided.elapsed() < Duration::from_secs(4) {
        let words = ["FCALL", "sse_publish", "1", "user:nobody:events", "probe", "1"];
        let answer = old.try_command::<String>(&words).await;
        assert!(answer.is_err(), "a returning primary acknowledged an event: {answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    deployment.sentinels().thaw();
    deployment.healthy().await;
    decided
}

/// The primary accepts no writes, because its replicas are gone.
pub async fn lose_replicas(world: &mut World) -> Instant {
    let deployment = &world.deployment;
    let primary = deployment.primary().await;
    let (own, others): (Vec<_>, Vec<_>) =
        deployment.servers.iter().enumerate().partition(|(n, _)| *n == primary);
    let primary = own[0].1;
    let servers = || others.iter().map(|(_, server)| *server);
    servers().for_each(Server::kill);
    eventually_within(LIMIT, "a primary without replicas", || async {
        let words = ["SET", "sse:test:min-replicas", "1", "PX", "1"];
        primary.try_command::<()>(&words).await.is_err().then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for server in servers() {
        server.run().await;
    }
    deployment.healthy().await;
    Instant::now()
}
