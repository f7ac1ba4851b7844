//! Faults of a cluster.

use crate::deployment::Route;
use crate::deployment::cluster;
use crate::deployment::route::slot;
use crate::publisher::Publisher;
use crate::world::World;
use std::time::{Duration, Instant};

/// Kills the master of a channel, and starts it again after the failover.
pub async fn kill_master(world: &mut World, channel: &str) -> Instant {
    let servers = &world.deployment.servers;
    let old = cluster::owner(servers, channel).await;
    servers[old].kill();
    let decided = cluster::failover_among(servers, old, slot(channel)).await;
    world.acknowledged(40).await;
    servers[old].run().await;
    world.deployment.healthy().await;
    decided
}

/// Kills a master that has no broadcasts. Users of other masters must not notice.
pub async fn kill_user_master(world: &mut World) -> Instant {
    let servers = &world.deployment.servers;
    let broadcasts = cluster::owner(servers, "broadcast:news").await;
    let mut owners = Vec::new();
    for channel in world.channels.iter().filter(|channel| channel.starts_with("user:")) {
        owners.push((cluster::owner(servers, channel).await, channel.clone()));
    }
    let victim = owners.iter().find(|(owner, _)| *owner != broadcasts);
    let (victim, channel) = victim.expect("a user on another master").clone();
    let user =
        |channel: &str| channel.trim_start_matches("user:").trim_end_matches(":events").to_owned();
    let hit = owners.iter().filter(|(owner, _)| *owner == victim);
    let affected = hit.map(|(_, channel)| user(channel)).collect();
    world.affected = Some(affected);
    kill_master(world, &channel).await
}

/// Stops a master until its replica has taken over.
pub async fn stop_master(world: &mut World) -> Instant {
    let servers = &world.deployment.servers;
    let channel = world.channels[world.rng.usize(..world.channels.len())].clone();
    let old = cluster::owner(servers, &channel).await;
    servers[old].freeze();
    let decided = cluster::failover_among(servers, old, slot(&channel)).await;
    servers[old].thaw();
    world.deployment.healthy().await;
    decided
}

/// Nobody reaches a master, except for one publisher, whose events it acknowledges until it notices
/// that it is alone.
pub async fn partition_master(world: &mut World) -> Instant {
    let servers = &world.deployment.servers;
    let users: Vec<&String> = world.channels.iter().filter(|c| c.starts_with("user:")).collect();
    let channel = users[world.rng.usize(..users.len())];
    let old = cluster::owner(servers, channel).await;
    cluster::cut_off(servers, old);
    let mut isolated = Publisher::new(Route::Fixed(servers[old].address()), world.journal.clone());
    let publishing = async {
        loop {
            isolated.durable(channel, 1).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let decided = tokio::select! {
        decided = cluster::failover_among(servers, old, slot(channel)) => decided,
        () = publishing => unreachable!("endless"),
    };
    cluster::join(servers);
    world.deployment.healthy().await;
    decided
}

/// Moves the slot of a channel to another master.
pub async fn move_slot(world: &mut World, channel: &str) -> Instant {
    let servers = &world.deployment.servers;
    let from = cluster::owner(servers, channel).await;
    let masters = cluster::masters(servers).await;
    let others: Vec<usize> = masters.into_iter().filter(|n| *n != from).collect();
    let to = others[world.rng.usize(..others.len())];
    cluster::move_slot(servers, slot(channel), to).await;
    Instant::now()
}

/// Adds a master, and moves the slots of two users to it.
pub async fn add_master(world: &mut World) -> Instant {
    let new = cluster::node(world.deployment.servers.len()).await;
    let address = new.announced();
    let (host, port) = address.split_once(':').expect("host:port");
    let bus: Vec<String> = new.command(&["CONFIG", "GET", "cluster-announce-bus-port"]).await;
    let meet = ["CLUSTER", "MEET", host, port, bus[1].as_str()];
    world.deployment.servers[0].command::<()>(&meet).await;
    world.deployment.servers.push(new);
    world.deployment.healthy().await;
    let servers = &world.deployment.servers;
    for channel in ["user:u1:events", "user:u2:events"] {
        cluster::move_slot(servers, slot(channel), servers.len() - 1).await;
        world.acknowledged(20).await;
    }
    Instant::now()
}
