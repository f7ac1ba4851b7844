//! Faults of gateways and of their clients.

use crate::client::Client;
use crate::fleet::Role;
use crate::world::World;
use std::time::{Duration, Instant};

/// Kills a gateway, and starts it again after a while.
pub async fn kill(world: &mut World, role: Role) -> Instant {
    let n = world.gateway_with(role).await;
    let started = Instant::now();
    world.fleet.kill(n).await;
    world.acknowledged(40).await;
    world.fleet.launch(n).await;
    started
}

/// Stops a gateway for longer than a lease, without the kernel closing anything.
pub async fn freeze(world: &mut World, role: Role) -> Instant {
    let n = world.gateway_with(role).await;
    world.touched.insert(n);
    world.fleet.gateway(n).freeze();
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.fleet.gateway(n).thaw();
    Instant::now()
}

/// Ends a gateway with SIGTERM, and starts it again.
pub async fn terminate(world: &mut World, role: Role) -> Instant {
    let n = world.gateway_with(role).await;
    let started = Instant::now();
    world.fleet.terminate(n).await;
    world.acknowledged(20).await;
    world.fleet.launch(n).await;
    started
}

/// Restarts all gateways, one after the other.
pub async fn roll(world: &mut World) -> Instant {
    let started = Instant::now();
    for n in 0..world.fleet.members.len() {
        world.fleet.terminate(n).await;
        world.fleet.launch(n).await;
        world.steady().await;
    }
    started
}

/// A rolling restart to a library of a higher generation.
pub async fn longer_retention(world: &mut World) -> Instant {
    world.generation += 1;
    let generation = world.generation.to_string();
    let hours = format!("{}h", 24 + world.generation);
    for n in 0..world.fleet.members.len() {
        world.fleet.change(n, "HISTORY__RETENTION", &hours);
        world.fleet.change(n, "HISTORY__GENERATION", &generation);
    }
    roll(world).await
}

/// One gateway gets other settings of the same generation: it must use those that it finds.
pub async fn other_settings(world: &mut World) -> Instant {
    let n = world.rng.usize(..world.fleet.members.len());
    let started = Instant::now();
    for length in ["10", "1000"] {
        world.fleet.change(n, "HISTORY__MAX_LEN", length);
        world.fleet.terminate(n).await;
        world.fleet.launch(n).await;
        world.acknowledged(40).await;
    }
    started
}

/// Clients connect and leave at random. Those that stay must not notice.
pub async fn churn(world: &mut World) -> Instant {
    let address = world.fleet.balancer.address();
    let mut guests: Vec<Client> = Vec::new();
    for n in 0..1000 {
        let user = format!("u{}", n % 16);
        guests.push(Client::start(address, &user, &["*"]));
        if guests.len() > 50 {
            guests.swap_remove(world.rng.usize(..guests.len()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let broken: Vec<String> =
        guests.iter().filter_map(|guest| guest.read(|log| log.broken.clone())).collect();
    assert!(broken.is_empty(), "clients that came and left: {broken:?}");
    Instant::now()
}
