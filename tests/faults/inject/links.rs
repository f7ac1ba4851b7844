//! Faults of the connections between gateways and Redis. Publishers are not affected.

use crate::client::Client;
use crate::fleet::Role;
use crate::harness::Proxy;
use crate::world::World;
use std::time::{Duration, Instant};

const SLOW: Duration = Duration::from_millis(200);
/// Longer than the 3 s after which a gateway gives up a silent link.
const HALF_OPEN: Duration = Duration::from_secs(6);

fn all(world: &World) -> impl Iterator<Item = &Proxy> {
    world.fleet.members.iter().map(|member| &member.link)
}

/// Delays every byte.
pub async fn slow(world: &mut World) -> Instant {
    world.touched.extend(0..world.fleet.members.len());
    all(world).for_each(|link| link.slow(SLOW));
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.acknowledged(40).await;
    all(world).for_each(Proxy::up);
    Instant::now()
}

/// Cuts the connections of one gateway. They can be opened again at once.
pub async fn cut_one(world: &mut World) -> Instant {
    let n = world.gateway_with(Role::Writer).await;
    world.fleet.members[n].link.cut();
    Instant::now()
}

/// Cuts the connections of all gateways.
pub async fn cut_all(world: &mut World) -> Instant {
    all(world).for_each(Proxy::cut);
    Instant::now()
}

/// Cuts the connections of all gateways and clients while new clients get their retained values,
/// which no gateway remembers then. The clients stay until the end of the round.
pub async fn cut_in_snapshots(world: &mut World) -> Instant {
    world.touched.extend(0..world.fleet.members.len());
    let address = world.fleet.balancer.address();
    let old = world.clients.len();
    for turn in 0..4 {
        all(world).for_each(Proxy::cut);
        all(world).for_each(|link| link.slow(SLOW));
        let new = (0..3).map(|n| Client::start(address, &format!("u{}", turn + n), &["*"]));
        world.clients.extend(new);
        tokio::time::sleep(Duration::from_millis(world.rng.u64(100..2000))).await;
        all(world).for_each(Proxy::cut);
        world.fleet.balancer.cut();
        all(world).for_each(Proxy::up);
    }
    for client in &world.clients[old..] {
        client.connected().await;
    }
    Instant::now()
}

/// Bytes of one gateway disappear, and no connection is closed.
pub async fn half_open_one(world: &mut World) -> Instant {
    let n = world.gateway_with(Role::Writer).await;
    world.touched.insert(n);
    world.fleet.members[n].link.discard();
    tokio::time::sleep(HALF_OPEN).await;
    world.fleet.members[n].link.up();
    Instant::now()
}

/// The same for all gateways.
pub async fn half_open_all(world: &mut World) -> Instant {
    world.touched.extend(0..world.fleet.members.len());
    all(world).for_each(Proxy::discard);
    tokio::time::sleep(HALF_OPEN).await;
    all(world).for_each(Proxy::up);
    Instant::now()
}

/// No gateway reaches Redis.
pub async fn down(world: &mut World) -> Instant {
    world.touched.extend(0..world.fleet.members.len());
    all(world).for_each(Proxy::down);
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.acknowledged(40).await;
    all(world).for_each(Proxy::up);
    Instant::now()
}
